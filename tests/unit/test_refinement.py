"""Tests of masks that are refined."""

import pytest
import torch

from speechbrain_kmdanet.lobes.models.danet import DANet
from speechbrain_kmdanet.lobes.models.dual_path_trunk import DualPathNet
from speechbrain_kmdanet.lobes.models.embedding import EmbeddingNet
from speechbrain_kmdanet.lobes.models.refinement import RefinedMasker
from speechbrain_kmdanet.nnet.attractors import KMeansAttractors

BINS, FRAMES = 33, 12
NUM_FRAMES = torch.tensor([12, 5, 7])


def make_danet(remainder=False):
    kmeans = KMeansAttractors("spherical", seed=0)
    trunk = EmbeddingNet(BINS, 4, hidden_size=8, num_layers=1)
    return DANet(trunk, kmeans, kmeans, remainder=remainder).eval()


def make_masker(learned=True, remainder=False):
    """A small one that has learned something, or not."""
    refiner = DualPathNet(BINS, 2, 8, 6, 1, num_hints=4)
    masker = RefinedMasker(make_danet(remainder), refiner)
    if learned:
        torch.nn.init.normal_(refiner.decoder.weight)
    return masker.eval()


def make_spectrum(batch=3):
    return torch.randn(batch, BINS, FRAMES, dtype=torch.complex64)


def test_batch_equals_single():
    masker, spectrum = make_masker(), make_spectrum()
    garbled = spectrum.clone()
    for item, frames in enumerate(NUM_FRAMES):
        garbled[item, :, frames:] = 50 * torch.rand(BINS, 1)
    batch = masker(garbled, NUM_FRAMES)
    for item, frames in enumerate(NUM_FRAMES):
        alone = masker(spectrum[item, None, :, :frames])[:, 0]
        torch.testing.assert_close(
            batch[:, item, :, :frames], alone, rtol=0, atol=1e-4
        )


@pytest.mark.parametrize("num_spks", [1, 2, 3])
def test_masks_sum_to_what_they_summed_to(num_spks):
    masks = make_masker()(make_spectrum(), num_spks=num_spks)
    ones = torch.ones(3, BINS, FRAMES, dtype=torch.complex64)
    torch.testing.assert_close(masks.sum(0), ones, rtol=0, atol=1e-4)
    # With a remainder, talkers may draw from that.
    masker = make_masker(remainder=True)
    spectrum = make_spectrum()
    before = masker.masker(spectrum, num_spks=num_spks).sum(0)
    assert (before < 1).all()
    change = masker(spectrum, num_spks=num_spks).sum(0) - before
    assert (change.abs() > 0.01).any()


def test_the_level_is_not_seen_and_silence_is_finite():
    masker, spectrum = make_masker(), make_spectrum()
    spectrum[1] = 0.0
    masks = masker(spectrum)
    assert masks.isfinite().all()
    torch.testing.assert_close(masker(1e3 * spectrum), masks, rtol=0, atol=1e-4)


def test_starts_from_a_separator_and_leaves_it():
    danet, masker = make_danet(), make_masker(learned=False)
    masker.load_state_dict(danet.state_dict())
    spectrum = make_spectrum()
    torch.testing.assert_close(
        masker(spectrum).real, danet(spectrum), rtol=0, atol=1e-5
    )
    masker.train()
    before = {k: v.clone() for k, v in masker.masker.state_dict().items()}
    masker(spectrum).abs().square().sum().backward()
    assert (masker.refiner.decoder.weight.grad != 0).any()
    assert all(p.grad is None for p in masker.masker.parameters())
    for name, value in masker.masker.state_dict().items():
        assert torch.equal(value, before[name])


def test_embeddings_and_attractors_are_those_of_the_masker():
    masker, spectrum = make_masker(), make_spectrum()
    masks, embeddings = masker(spectrum, with_embeddings=True)
    again = masker(spectrum, embeddings=embeddings)
    torch.testing.assert_close(again, masks, rtol=0, atol=1e-5)
    nothing, same = masker(spectrum, with_embeddings=True, with_masks=False)
    assert nothing is None and torch.equal(same, embeddings)
    attractors = torch.randn(3, 4, 4)
    assert masker(spectrum, attractors=attractors).shape[0] == 4
