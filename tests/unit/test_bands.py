"""Tests of sources at the rate of a recording."""

import numpy as np
import pytest
from scipy.signal import resample_poly

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.processing.bands import restore_band, restore_sources

RATES = [44100, 16000, 11025, 6000]


def noise(length, channels=None, seed=0):
    shape = (length,) if channels is None else (length, channels)
    return np.random.default_rng(seed).standard_normal(shape)


def split(recording, rate, count=2):
    """Random sources of a recording at 8 kHz, which sum to it there."""
    mixture = resample_poly(recording, 8000, rate)
    shares = np.random.default_rng(1).dirichlet(np.ones(count), len(mixture))
    return mixture, mixture[:, None] * shares


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("length", [4410, 4411])
def test_sources_sum_to_the_recording(rate, length):
    recording = noise(length)
    _, sources = split(recording, rate, 3)
    restored = restore_band(sources, 8000, recording, rate)
    assert restored.shape == (length, 3)
    np.testing.assert_allclose(restored.sum(1), recording, atol=1e-10)


def test_one_source_is_the_recording():
    recording = noise(4410)
    mixture, _ = split(recording, 44100)
    restored = restore_band(mixture[:, None], 8000, recording, 44100)
    np.testing.assert_allclose(restored[:, 0], recording, atol=1e-10)


def test_what_is_above_goes_to_who_speaks():
    # One speaks first, the other after; both have sound at 6 kHz.
    rate, half = 16000, 8000
    time = np.arange(2 * half) / rate
    talkers = np.zeros((2 * half, 2))
    talkers[:half, 0] = noise(half)
    talkers[half:, 1] = noise(half, seed=2)
    low = resample_poly(talkers, 1, 2)
    high = 0.5 * np.sin(2 * np.pi * 6000 * time)
    recording = resample_poly(low, 2, 1)[: 2 * half].sum(1) + high
    restored = restore_band(low, 8000, recording, rate)
    for talker, own in ((0, slice(1000, 7000)), (1, slice(9000, 15000))):
        added = restored[own, talker] - resample_poly(low, 2, 1)[own, talker]
        np.testing.assert_allclose(added, high[own], atol=0.02)
        other = restored[own, 1 - talker]
        assert np.square(other).mean() < 1e-3


def test_what_is_nobodys_is_left_out():
    recording = noise(16000)
    mixture, every = split(recording, 16000, 3)
    # Two of three are talkers, the third is noise.
    restored = restore_sources(every[:, :2], mixture, 8000, recording, 16000)
    whole = restore_band(every, 8000, recording, 16000)
    np.testing.assert_allclose(restored, whole[:, :2], atol=1e-10)
    # Nothing is left: no part is lost to rounding.
    restored = restore_sources(every, mixture, 8000, recording, 16000)
    np.testing.assert_allclose(restored.sum(1), recording, atol=1e-10)


def test_silence():
    restored = restore_band(np.zeros((80, 2)), 8000, np.zeros(160), 16000)
    assert not restored.any()


def test_lengths_that_do_not_fit():
    with pytest.raises(UserError, match="sources must have 80 samples at 8000"):
        restore_band(np.zeros((81, 2)), 8000, np.zeros(160), 16000)
