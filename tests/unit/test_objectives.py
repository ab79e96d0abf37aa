"""Tests of the objectives.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import pytest
import torch
from torch.nn.functional import normalize, one_hot

from speechbrain_kmdanet.nnet.affinity import affinity_loss
from speechbrain_kmdanet.nnet.objectives import OBJECTIVES, Separation
from speechbrain_kmdanet.nnet.phase_sensitive import phase_sensitive_loss
from speechbrain_kmdanet.processing.stft import STFTDecoder, STFTEncoder

ENCODER, DECODER = STFTEncoder(64, 16), STFTDecoder(64, 16)
LENGTHS = torch.tensor([600, 333])


def make_separation(**options):
    """Separation of two mixtures of two talkers, the second one padded."""
    sources = torch.randn(2, 600, 2)
    sources[1, 333:] = 0.0
    spectrum = ENCODER(sources.sum(2))
    bins = spectrum.shape[1] * spectrum.shape[2]
    options = {
        "masks": torch.rand(2, *spectrum.shape),
        "embeddings": normalize(torch.randn(2, bins, 4), dim=2),
        "ordered": False,
        "encode": ENCODER,
        "decode": DECODER,
        **options,
    }
    frames = ENCODER.num_frames(LENGTHS)
    return Separation(spectrum, sources, LENGTHS, frames, **options)


@pytest.mark.parametrize(
    "loss, power", [("affinity", 1), ("affinity_energy", 2)]
)
def test_affinity_by_its_definition(loss, power):
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
            bins[None] ** power,
        )
        torch.testing.assert_close(losses[item], expected[0])


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("loss", list(OBJECTIVES))
def test_an_order_that_is_known_is_not_searched(loss, ordered):
    separation = make_separation(ordered=ordered)
    losses = OBJECTIVES[loss](separation)
    separation.masks = separation.masks.flip(0)
    for name in ("estimates", "masked_magnitudes"):
        separation.__dict__.pop(name, None)
    same = torch.isclose(OBJECTIVES[loss](separation), losses, rtol=1e-5)
    assert (same == ("affinity" in loss or not ordered)).all()


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
    scaled = make_separation(
        masks=separation.masks, embeddings=separation.embeddings
    )
    scaled.sources = factor * separation.sources
    scaled.spectrum = factor * separation.spectrum
    torch.testing.assert_close(OBJECTIVES[loss](scaled), losses)


@pytest.mark.parametrize("loss", ["affinity", "phase_sensitive", "chimera"])
def test_nothing_is_decoded_for_a_spectral_loss(loss):
    separation = make_separation(decode=None)
    assert OBJECTIVES[loss](separation).isfinite().all()


@pytest.mark.parametrize(
    "loss", ["magnitude", "si_sdr", "phase_sensitive", "chimera"]
)
def test_objectives_that_need_masks(loss):
    with pytest.raises(ValueError, match="loss needs masks, .* affinity"):
        OBJECTIVES[loss](make_separation(masks=None))


@pytest.mark.parametrize("loss", ["affinity", "affinity_energy", "chimera"])
def test_objectives_that_need_embeddings(loss):
    with pytest.raises(ValueError, match="loss needs embeddings, .* phase_sen"):
        OBJECTIVES[loss](make_separation(embeddings=None))
