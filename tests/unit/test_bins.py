"""Tests of the bins of spectra."""

import pytest
import torch

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.processing.bins import (
    at_least_float32,
    check_tensor,
    flatten_bins,
    power_to_unity,
    relative_magnitudes,
    unflatten_masks,
    valid_mask,
    widest,
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


@pytest.mark.parametrize("factor", [1e-30, 1e-18, 1e-6, 3.0, 1e6, 1e18, 1e36])
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


def test_items_without_frames():
    spectrum = make_spectrum()
    magnitudes = relative_magnitudes(spectrum, torch.tensor([0, 99]))
    assert (magnitudes[0] == 0).all()
    torch.testing.assert_close(magnitudes[1], relative_magnitudes(spectrum)[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_powers_to_unity(dtype):
    numbers = torch.finfo(dtype)
    peaks = [numbers.max, 3e20, 1e9, 0.3, 1e-9, 3e-20, numbers.tiny, 0.0]
    peaks = torch.tensor(peaks, dtype=dtype)
    powers = power_to_unity(peaks)
    mantissas, exponents = torch.frexp(powers)
    assert (mantissas == 0.5).all()  # of powers of two
    assert (exponents[[2, 3, 4, 7]] == 1).all()  # that is 1
    scaled = (peaks * powers)[[0, 1, 5, 6]]
    assert (scaled >= 1.0).all() and (scaled <= 4.0).all()
    none = torch.tensor([torch.inf, torch.nan], dtype=dtype)
    assert power_to_unity(none).isnan().all()


def test_types():
    x = torch.ones(3)
    for dtype in (torch.float16, torch.bfloat16, torch.float8_e4m3fn):
        assert at_least_float32(x.to(dtype)).dtype == torch.float32
    for dtype in (torch.float32, torch.float64):
        assert at_least_float32(x.to(dtype)).dtype == dtype
    assert widest(torch.device("cpu")) == widest(torch.device("cuda"))
    assert widest(torch.device("cuda")) == torch.float64
    assert widest(torch.device("mps")) == torch.float32


@pytest.mark.parametrize(
    "value, kind, got",
    [
        ([1.0], "real", "list"),
        (None, "real", "None"),
        (torch.ones(2, 3).numpy(), "real", "ndarray"),
        (torch.ones(2), "real", r"torch.float32 of shape \(2,\)"),
        (torch.ones(2, 4), "real", r"torch.float32 of shape \(2, 4\)"),
        (torch.ones(0, 3), "real", r"torch.float32 of shape \(0, 3\)"),
        (torch.ones(2, 3).long(), "floating-point", "torch.int64"),
        (torch.ones(2, 3).long(), "real or complex", "torch.int64"),
        (torch.ones(2, 3) * 1j, "real", "torch.complex64"),
        (torch.ones(2, 3), "complex", "torch.float32"),
        (torch.ones(2, 3, device="meta"), "real", ".* on meta instead of cpu"),
    ],
)
def test_what_is_no_such_tensor_is_refused(value, kind, got):
    message = (
        rf"^x must be a non-empty {kind} tensor \[items, bins=3\], got {got}"
    )
    with pytest.raises(UserError, match=message):
        check_tensor("x", value, kind, torch.device("cpu"), items=None, bins=3)


@pytest.mark.parametrize(
    "call, name",
    [
        (lambda: valid_mask([2, 1], 3), "lengths"),
        (lambda: valid_mask(torch.ones(2, 1), 3), "lengths"),
        (lambda: relative_magnitudes(torch.ones(5, 7) * 1j), "spectrum"),
        (lambda: relative_magnitudes(torch.ones(1, 5, 0)), "spectrum"),
        (lambda: relative_magnitudes(make_spectrum(), [7, 4]), "num_frames"),
        (
            lambda: relative_magnitudes(make_spectrum(), NUM_FRAMES[:1]),
            "num_frames",
        ),
        (lambda: flatten_bins(torch.ones(7)), "spectra"),
        (lambda: flatten_bins([[1.0]]), "spectra"),
        (lambda: unflatten_masks(torch.ones(2, 35), 5), "masks"),
        (lambda: unflatten_masks(torch.ones(2, 3, 35), 6), "num_bins"),
        (lambda: unflatten_masks(torch.ones(2, 3, 35), 0), "num_bins"),
        (lambda: unflatten_masks(torch.ones(2, 3, 35), 5.0), "num_bins"),
    ],
)
def test_errors_name_the_argument(call, name):
    with pytest.raises(UserError, match=f"^{name} must "):
        call()
