"""Tests of Chimera++.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import pytest
import torch

from speechbrain_kmdanet.lobes.models.chimera import Chimera
from speechbrain_kmdanet.lobes.models.embedding import EmbeddingNet

NUM_BINS = 9


def make_chimera(embedding_dim=4, num_spks=2):
    """Small network."""
    net = EmbeddingNet(
        NUM_BINS, embedding_dim + num_spks, hidden_size=8, num_layers=1
    )
    return Chimera(net, num_spks)


def make_spectrum():
    """Random spectrum."""
    return torch.randn(2, NUM_BINS, 7, dtype=torch.complex64)


@pytest.mark.parametrize("num_spks", [2, 3])
def test_heads(num_spks):
    chimera = make_chimera(num_spks=num_spks)
    outputs = []
    chimera.embedding_net.register_forward_hook(
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


def test_the_masks_alone():
    chimera = make_chimera().eval()
    spectrum = make_spectrum()
    masks, _ = chimera(spectrum, with_embeddings=True)
    assert (chimera(spectrum) == masks).all()


def test_another_number_of_talkers():
    with pytest.raises(ValueError, match="num_spks=2 .*only, got num_spks=3"):
        make_chimera()(make_spectrum(), num_spks=3)


def test_no_outputs_for_embeddings():
    with pytest.raises(ValueError, match="D [+] num_spks .*embedding_dim=2"):
        make_chimera(embedding_dim=0)
