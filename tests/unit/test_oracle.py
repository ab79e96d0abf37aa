"""Tests of the oracle masker."""

import pytest
import torch

from speechbrain_kmdanet.lobes.models.oracle import OracleMasker
from speechbrain_kmdanet.processing import separation
from speechbrain_kmdanet.processing.masks import (
    IDEAL_MASKS,
    phase_sensitive_masks,
)
from speechbrain_kmdanet.processing.stft import STFTDecoder, STFTEncoder

ENCODER, DECODER = STFTEncoder(64, 16), STFTDecoder(64, 16)


def separate(mask, waveforms):
    """Sources [B, L, K] of the mixtures of some waveforms [B, K, L]."""
    return separation.separate(
        ENCODER,
        OracleMasker(mask),
        DECODER,
        waveforms.sum(1),
        sources=waveforms.transpose(1, 2),
    ).estimates


@pytest.mark.parametrize("mask", IDEAL_MASKS)
def test_tones_apart_are_separated(mask):
    time = torch.arange(800)
    tones = torch.stack([(0.4 * time).sin(), (1.9 * time).sin()])
    separated = separate(mask, tones[None])[0].T
    # Each has bins of its own; what is left is leakage of the window.
    assert (separated - tones).square().mean() < 1e-3 * tones.square().mean()


def test_each_mask_is_its_own():
    waveforms = torch.randn(1, 2, 400)
    results = [separate(mask, waveforms) for mask in IDEAL_MASKS]
    for index, result in enumerate(results):
        for other in results[:index]:
            assert (result - other).abs().max() > 1e-2


@pytest.mark.parametrize("mask", IDEAL_MASKS)
def test_a_batch_gives_each_item_what_it_alone_gives(mask):
    waveforms = torch.randn(2, 3, 500)
    waveforms[1, :, 300:] = 0
    both = separate(mask, waveforms)
    alone = separate(mask, waveforms[1:, :, :300])
    torch.testing.assert_close(both[1, :300], alone[0])


@pytest.mark.parametrize("mask", IDEAL_MASKS)
def test_scale_equivariance(mask):
    waveforms = torch.randn(1, 2, 400)
    expected = 1e-4 * separate(mask, waveforms)
    torch.testing.assert_close(
        separate(mask, 1e-4 * waveforms), expected, rtol=1e-4, atol=1e-8
    )


@pytest.mark.parametrize("mask", IDEAL_MASKS)
def test_silence(mask):
    assert (separate(mask, torch.zeros(1, 2, 300)) == 0).all()


def test_interface():
    masker = OracleMasker("phase_sensitive")
    assert not list(masker.parameters()) and not masker.state_dict()
    sources = torch.randn(2, 2, 9, 4, dtype=torch.complex64)
    mixture = sources.sum(1)
    expected = phase_sensitive_masks(sources, mixture)
    for training in (True, False):
        assert masker.train(training).ordered is True
        masks, embeddings = masker(
            mixture, torch.tensor([4, 3]), 2, sources, with_embeddings=True
        )
        assert embeddings is None and torch.equal(masks, expected)


def test_sources_have_to_be_given():
    spectrum = torch.randn(1, 9, 4, dtype=torch.complex64)
    with pytest.raises(ValueError, match="sources must be given.*got None"):
        OracleMasker()(spectrum)


@pytest.mark.parametrize("num_spks", [None, 3])
def test_sources_have_to_fit(num_spks):
    spectrum = torch.randn(1, 9, 4, dtype=torch.complex64)
    # 2 are the default
    sources = torch.randn(1, 5 - (num_spks or 2), 9, 4, dtype=torch.complex64)
    with pytest.raises(ValueError, match="sources must have shape .*num_spks="):
        OracleMasker()(spectrum, num_spks=num_spks, sources=sources)


def test_unknown_mask():
    with pytest.raises(ValueError, match="mask must be one of .*'ideal'"):
        OracleMasker("ideal")
