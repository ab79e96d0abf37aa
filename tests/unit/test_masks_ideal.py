"""Tests of the ideal masks."""

import pytest
import torch

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.processing.masks import (
    IDEAL_MASKS,
    ideal_binary_masks,
    ideal_ratio_masks,
    phase_sensitive_masks,
)

UNTRUNCATED = "phase_sensitive_untruncated"
untruncated = IDEAL_MASKS[UNTRUNCATED]
all_masks = pytest.mark.parametrize(
    "masks", IDEAL_MASKS.values(), ids=IDEAL_MASKS
)


def draw(num_spks=3, dtype=torch.complex128):
    """Spectra of sources and of their mixture."""
    sources = torch.randn(2, num_spks, 5, 7, dtype=dtype)
    return sources, sources.sum(1)


# Mask of a source s in a bin where all are a and the mixture is x
DEFINITIONS = {
    "binary": lambda s, a, x: float(abs(s) == max(map(abs, a))),
    "ratio": lambda s, a, x: abs(s) / sum(map(abs, a)),
    "wiener": lambda s, a, x: abs(s) ** 2 / sum(abs(y) ** 2 for y in a),
    "phase_sensitive": lambda s, a, x: min(max((s / x).real, 0.0), 1.0),
    UNTRUNCATED: lambda s, a, x: (s / x).real,
}


def naive(name, sources, mixture):
    """The definition, bin by bin, in Python's own numbers."""
    mask = DEFINITIONS[name]
    bins = zip(
        sources.movedim(1, -1).reshape(-1, sources.shape[1]).tolist(),
        mixture.flatten().tolist(),
    )
    masks = [[mask(s, a, x) for s in a] for a, x in bins]
    masks = torch.tensor(masks, dtype=torch.float64)
    return masks.T.reshape(sources.transpose(0, 1).shape)


@pytest.mark.parametrize("num_spks", [1, 2, 3])
@pytest.mark.parametrize("name", IDEAL_MASKS)
def test_definitions(name, num_spks):
    sources, mixture = draw(num_spks)
    masks = IDEAL_MASKS[name](sources, mixture)
    torch.testing.assert_close(masks, naive(name, sources, mixture))


@pytest.mark.parametrize("name", ["binary", "ratio", "wiener", UNTRUNCATED])
def test_masks_sum_to_one(name):
    masks = IDEAL_MASKS[name](*draw())
    torch.testing.assert_close(masks.sum(0), torch.ones_like(masks[0]))


@all_masks
def test_sources_that_do_not_overlap_are_recovered(masks):
    sources, _ = draw()
    owner = torch.randint(3, (2, 1, 5, 7))
    sources = sources * (torch.arange(3).view(3, 1, 1) == owner)
    mixture = sources.sum(1)
    recovered = masks(sources, mixture) * mixture
    torch.testing.assert_close(recovered, sources.transpose(0, 1))


def error(masks, sources, mixture):
    return (sources.transpose(0, 1) - masks * mixture).abs().square()


@all_masks
def test_no_real_masks_are_nearer_than_the_phase_sensitive(masks):
    sources, mixture = draw()
    best = error(untruncated(sources, mixture), sources, mixture)
    other = error(masks(sources, mixture), sources, mixture)
    assert (best <= other + 1e-12).all()
    limited = error(phase_sensitive_masks(sources, mixture), sources, mixture)
    other = masks(sources, mixture).clamp(0, 1)
    assert (limited <= error(other, sources, mixture) + 1e-12).all()


@pytest.mark.parametrize("scale", [1e-36, 1e36])
@all_masks
def test_the_level_has_no_influence(masks, scale):
    sources, mixture = draw(dtype=torch.complex64)
    expected = masks(sources, mixture)
    # Squares of such numbers are 0 or infinite in float32.
    assert (scale * sources).abs().square().amin() in (0, torch.inf)
    actual = masks(scale * sources, scale * mixture)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@all_masks
def test_silence(masks):
    sources, mixture = draw(dtype=torch.complex64)
    sources[0, :, 1], mixture[0, 1] = 0, 0  # of all
    sources[1, 0] = 0  # of one source
    mixture[1, 2] = 0  # of the mixture alone: the sources cancel
    values = masks(sources, mixture)
    assert values.isfinite().all()
    assert (values[:, 0, 1] == 0).all()
    assert (values[0, 1] == 0).all()
    assert (values * mixture).isfinite().all()


def test_sources_that_cancel_down_to_rounding():
    sources = torch.tensor([1.0, -1.0], dtype=torch.complex64).view(1, 2, 1, 1)
    mixture = torch.full((1, 1, 1), 1e-40, dtype=torch.complex64)
    masks = untruncated(sources, mixture)
    assert masks.isfinite().all() and (masks * mixture).abs().max() < 1e-6


def test_equally_loud_sources():
    sources = torch.ones(1, 2, 1, 1, dtype=torch.complex64)
    assert ideal_binary_masks(sources).flatten().tolist() == [1.0, 0.0]
    assert ideal_ratio_masks(sources).flatten().tolist() == [0.5, 0.5]


def test_arguments_stay_as_they_are():
    sources, mixture = draw()
    copies = sources.clone(), mixture.clone()
    for masks in IDEAL_MASKS.values():
        masks(sources, mixture)
    assert torch.equal(sources, copies[0]) and torch.equal(mixture, copies[1])


@all_masks
@pytest.mark.parametrize(
    "sources", [None, [1.0], torch.ones(3, 5, 7) * 1j, torch.ones(2, 0, 5, 7)]
)
def test_what_are_no_sources_is_refused(masks, sources):
    with pytest.raises(UserError, match="^sources must be a non-empty"):
        masks(sources, torch.ones(2, 5, 7) * 1j)


@pytest.mark.parametrize(
    "mixture", [None, torch.ones(2, 5, 7), torch.ones(2, 5, 8) * 1j]
)
def test_the_mixture_is_that_of_the_sources(mixture):
    with pytest.raises(UserError, match="^mixture must be a non-empty complex"):
        phase_sensitive_masks(draw()[0], mixture)


@pytest.mark.parametrize("power", [0.0, -1.0, torch.nan, torch.inf, "2", None])
def test_powers_are_positive(power):
    with pytest.raises(UserError, match="^power must be positive"):
        ideal_ratio_masks(draw()[0], power)
