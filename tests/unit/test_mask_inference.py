"""Tests of mask inference.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import pytest
import torch

from speechbrain_kmdanet.lobes.models.embedding import EmbeddingNet
from speechbrain_kmdanet.lobes.models.mask_inference import MaskInference

NUM_BINS = 9


def make_net(outputs):
    """Small network with so many outputs a bin."""
    return EmbeddingNet(NUM_BINS, outputs, hidden_size=8, num_layers=1)


def make_spectrum():
    """Random spectrum."""
    return torch.randn(2, NUM_BINS, 7, dtype=torch.complex64)


@pytest.mark.parametrize("num_spks", [1, 2, 3])
@pytest.mark.parametrize("activation", ["sigmoid", "softmax", "relu"])
def test_masks(num_spks, activation):
    masker = MaskInference(make_net(num_spks), num_spks, activation)
    for network in (masker, masker.eval()):
        masks = network(make_spectrum(), num_spks=num_spks)
        assert masks.shape == (num_spks, 2, NUM_BINS, 7)
        assert (masks >= 0).all() and masks.isfinite().all()
        if activation == "sigmoid":
            assert (masks < 1).all()
        if activation == "softmax":
            torch.testing.assert_close(masks.sum(0), torch.ones(2, NUM_BINS, 7))


def test_masks_belong_to_their_bins():
    masker = MaskInference(make_net(2), 2, "sigmoid").eval()
    outputs = []
    masker.embedding_net.register_forward_hook(
        lambda module, inputs, output: outputs.append(output)
    )
    masks, embeddings = masker(make_spectrum(), with_embeddings=True)
    assert embeddings is None
    frame, frequency = 5, 3
    expected = outputs[0][1, frame * NUM_BINS + frequency].sigmoid()
    torch.testing.assert_close(masks[:, 1, frequency, frame], expected)


def test_another_number_of_talkers():
    masker = MaskInference(make_net(2), 2)
    with pytest.raises(ValueError, match="num_spks=2 .*only, got num_spks=3"):
        masker(make_spectrum(), num_spks=3)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="num_spks=2 outputs .*dim=3"):
        MaskInference(make_net(3), 2)
    with pytest.raises(ValueError, match="activation must be .*'tanh'"):
        MaskInference(make_net(2), 2, "tanh")
