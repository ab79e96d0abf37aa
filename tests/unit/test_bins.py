"""Tests of the bins of spectra."""

import pytest
import torch

from speechbrain_kmdanet.processing.bins import (
    flatten_bins,
    relative_magnitudes,
    unflatten_masks,
)

NUM_FRAMES = torch.tensor([7, 4])


def make_spectrum():
    """Random spectrum, with something in the padding."""
    return torch.randn(2, 5, 7, dtype=torch.complex64)


def test_the_level_is_the_root_mean_square():
    spectrum = make_spectrum()
    magnitudes = relative_magnitudes(spectrum, NUM_FRAMES)
    for item, frames in enumerate(NUM_FRAMES):
        valid = spectrum[item, :, :frames].abs()
        expected = valid / valid.square().mean().sqrt()
        torch.testing.assert_close(magnitudes[item, :frames], expected.T)
        assert (magnitudes[item, frames:] == 0).all()


@pytest.mark.parametrize("factor", [1e-6, 3.0, 1e6])
def test_levels_are_not_seen(factor):
    spectrum = make_spectrum()
    factors = torch.tensor([factor, 1.0]).view(-1, 1, 1)
    torch.testing.assert_close(
        relative_magnitudes(factors * spectrum), relative_magnitudes(spectrum)
    )


def test_silence():
    assert (relative_magnitudes(torch.zeros(1, 5, 7) + 0j) == 0).all()


def test_order_of_the_bins():
    spectra = torch.randn(2, 3, 5, 7)
    bins = flatten_bins(spectra)
    assert bins.shape == (2, 3, 35)
    assert (bins[:, :, 4 * 5 + 2] == spectra[:, :, 2, 4]).all()
    # [B, K, N] to [K, B, F, T]
    assert (unflatten_masks(bins, 5) == spectra.transpose(0, 1)).all()
