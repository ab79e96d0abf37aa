"""Tests of mask inference, and of Chimera++."""

import pytest
import torch

from speechbrain_kmdanet.lobes.models.embedding import EmbeddingNet
from speechbrain_kmdanet.lobes.models.mask_inference import (
    Chimera,
    MaskInference,
)

NUM_BINS = 9


def make_trunk(outputs):
    """Small network with so many outputs a bin."""
    return EmbeddingNet(NUM_BINS, outputs, hidden_size=8, num_layers=1)


def make_chimera(embedding_dim=4, num_spks=2):
    """Small network with both heads."""
    return Chimera(make_trunk(embedding_dim + num_spks), num_spks)


def make_spectrum():
    """Random spectrum."""
    return torch.randn(2, NUM_BINS, 7, dtype=torch.complex64)


@pytest.mark.parametrize("num_spks", [1, 2, 3])
@pytest.mark.parametrize("activation", ["sigmoid", "softmax", "relu"])
def test_masks(num_spks, activation):
    masker = MaskInference(make_trunk(num_spks), num_spks, activation)
    for network in (masker, masker.eval()):
        masks = network(make_spectrum(), num_spks=num_spks)
        assert masks.shape == (num_spks, 2, NUM_BINS, 7)
        assert (masks >= 0).all() and masks.isfinite().all()
        if activation == "sigmoid":
            assert (masks < 1).all()
        if activation == "softmax":
            torch.testing.assert_close(masks.sum(0), torch.ones(2, NUM_BINS, 7))


def test_masks_belong_to_their_bins():
    masker = MaskInference(make_trunk(2), 2, "sigmoid").eval()
    outputs = []
    masker.trunk.register_forward_hook(
        lambda module, inputs, output: outputs.append(output)
    )
    masks, embeddings = masker(make_spectrum(), with_embeddings=True)
    assert embeddings is None
    frame, frequency = 5, 3
    expected = outputs[0][1, frame * NUM_BINS + frequency].sigmoid()
    torch.testing.assert_close(masks[:, 1, frequency, frame], expected)


def test_another_number_of_talkers():
    for masker in (MaskInference(make_trunk(2), 2), make_chimera()):
        with pytest.raises(
            ValueError, match="num_spks=2 .*only, got num_spks=3"
        ):
            masker(make_spectrum(), num_spks=3)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="num_spks=2 outputs .*dim=3"):
        MaskInference(make_trunk(3), 2)
    with pytest.raises(ValueError, match="activation must be .*'tanh'"):
        MaskInference(make_trunk(2), 2, "tanh")


@pytest.mark.parametrize("num_spks", [2, 3])
def test_heads_of_chimera(num_spks):
    chimera = make_chimera(num_spks=num_spks)
    outputs = []
    chimera.trunk.register_forward_hook(
        lambda module, inputs, output: outputs.append(output)
    )
    masks, embeddings = chimera(make_spectrum(), with_embeddings=True)
    assert masks.shape == (num_spks, 2, NUM_BINS, 7)
    assert embeddings.shape == (2, 7 * NUM_BINS, 4)
    norms = torch.linalg.vector_norm(embeddings, dim=2)
    torch.testing.assert_close(norms, torch.ones(2, 7 * NUM_BINS))
    # Both come from the same outputs, none twice.
    cosines = torch.cosine_similarity(embeddings, outputs[0][:, :, :4], dim=2)
    torch.testing.assert_close(cosines, torch.ones(2, 7 * NUM_BINS))
    expected = outputs[0][:, :, 4:].sigmoid().view(2, 7, NUM_BINS, num_spks)
    torch.testing.assert_close(masks, expected.permute(3, 0, 2, 1))


def test_the_masks_of_chimera_alone():
    chimera = make_chimera().eval()
    spectrum = make_spectrum()
    masks, _ = chimera(spectrum, with_embeddings=True)
    assert (chimera(spectrum) == masks).all()


def test_chimera_without_outputs_for_embeddings():
    with pytest.raises(ValueError, match="D [+] num_spks .*embedding_dim=2"):
        make_chimera(embedding_dim=0)
