"""Tests of the objectives."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import normalize, one_hot

from speechbrain_kmdanet.nnet.loss.separation import (
    affinity_loss,
    phase_sensitive_loss,
)
from speechbrain_kmdanet.nnet.objectives import OBJECTIVES
from speechbrain_kmdanet.processing.separation import Separation
from speechbrain_kmdanet.processing.stft import STFTDecoder, STFTEncoder

ENCODER, DECODER = STFTEncoder(64, 16), STFTDecoder(64, 16)
LENGTHS = torch.tensor([600, 333])


def make_separation(ordered=False):
    """Separation of two mixtures of two talkers, the second one padded."""
    sources = torch.randn(2, 600, 2)
    sources[1, 333:] = 0.0
    spectrum = ENCODER(sources.sum(2))
    bins = spectrum.shape[1] * spectrum.shape[2]
    return Separation(
        sources.sum(2),
        spectrum,
        ENCODER,
        DECODER,
        LENGTHS,
        ENCODER.num_frames(LENGTHS),
        ordered,
        sources,
        masks=torch.rand(2, *spectrum.shape),
        embeddings=normalize(torch.randn(2, bins, 4), dim=2),
    )


@pytest.mark.parametrize(
    "loss, weigh",
    [
        ("affinity", lambda x: x),
        ("affinity_energy", lambda x: x**2),
        ("affinity_binary", lambda x: (x > 0.01 * x.max()).float()),
    ],
)
def test_affinity_by_its_definition(loss, weigh):
    separation = make_separation()
    losses = OBJECTIVES[loss](separation)
    frames = separation.num_frames
    for item in range(2):
        spectrum = separation.spectrum[item, :, : frames[item]].abs()
        spectra = separation.source_spectra[item, ..., : frames[item]].abs()
        bins = spectrum.T.flatten()
        expected = affinity_loss(
            separation.embeddings[item, None, : len(bins)],
            one_hot(spectra.argmax(0).T.flatten(), 2)[None],
            weigh(bins)[None],
        )
        torch.testing.assert_close(losses[item], expected[0])


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("loss", list(OBJECTIVES))
def test_an_order_that_is_known_is_not_searched(loss, ordered):
    separation = make_separation(ordered=ordered)
    losses = OBJECTIVES[loss](separation)
    flipped = replace(separation, masks=separation.masks.flip(0))
    same = torch.isclose(OBJECTIVES[loss](flipped), losses, rtol=1e-5)
    any_order = "affinity" in loss or loss == "one_and_rest"
    assert (same == (any_order or not ordered)).all()


def test_chimera_is_the_weighted_sum():
    separation = make_separation()
    absolute = phase_sensitive_loss(
        separation.masks,
        separation.spectrum,
        separation.source_spectra,
        separation.num_frames,
        power=1,
    )
    torch.testing.assert_close(
        OBJECTIVES["chimera"](separation),
        0.975 * OBJECTIVES["affinity"](separation) + 0.025 * absolute,
    )


@pytest.mark.parametrize("factor", [1e-3, 1e3])
@pytest.mark.parametrize("loss", ["affinity", "phase_sensitive", "chimera"])
def test_levels_do_not_matter(loss, factor):
    separation = make_separation()
    losses = OBJECTIVES[loss](separation)
    scaled = replace(
        separation,
        sources=factor * separation.sources,
        spectrum=factor * separation.spectrum,
    )
    torch.testing.assert_close(OBJECTIVES[loss](scaled), losses)


@pytest.mark.parametrize("loss", OBJECTIVES)
def test_what_an_objective_does_not_need_may_lack(loss):
    objective, full = OBJECTIVES[loss], make_separation()
    # Nothing is decoded for a spectral loss, no source encoded for another.
    spectral = "magnitudes" in objective.needs
    lacking = {"masks", "embeddings"} - objective.needs
    changes = dict.fromkeys(lacking)
    if spectral:
        changes["decode"] = None
    else:  # it cannot be called
        changes["encode"] = SimpleNamespace(highpass=ENCODER.highpass)
    losses = objective(replace(full, **changes))
    assert losses.shape == (2,) and losses.isfinite().all()
    assert torch.equal(losses, objective(full))


@pytest.mark.parametrize("loss", OBJECTIVES)
def test_what_an_objective_needs_is_what_it_trains(loss):
    separation = make_separation()
    made = {"masks": separation.masks, "embeddings": separation.embeddings}
    for value in made.values():
        value.requires_grad_()
    OBJECTIVES[loss](separation).sum().backward()
    trained = {name for name, value in made.items() if value.grad is not None}
    assert trained == OBJECTIVES[loss].needs - {"magnitudes"}
