"""Tests of the active speech level."""

import math

import numpy as np
import pytest

from speechbrain_kmdanet.dataio import active_level
from speechbrain_kmdanet.dataio.active_level import active_speech_level
from speechbrain_kmdanet.errors import UserError

RATE = 8000


def tone(frequency, seconds, rate=RATE, power=0.5):
    time = np.arange(int(seconds * rate)) / rate
    return math.sqrt(2 * power) * np.sin(2 * np.pi * frequency * time)


def noise(samples, seed=0):
    return np.random.default_rng(seed).standard_normal(samples)


def db(ratio):
    return 10 * math.log10(ratio)


def naive_level(signal, rate):
    """P.56 as VOICEBOX counts it, one sample and one bin at a time."""
    speech = active_level._band_limit(signal, rate)
    pole = math.exp(-1 / (0.03 * rate))
    first = second = 0.0
    bins = []
    for sample in speech:
        first = pole * first + (1 - pole) * abs(sample)
        second = pole * second + (1 - pole) * first
        power = second**2
        bins.append(math.floor(math.log2(power)) + 1 if power else -math.inf)
    hangover = math.ceil(0.2 * rate) + 1
    held = [
        max(bins[max(0, i + 1 - hangover) : i + 1]) for i in range(len(bins))
    ]
    top = max(held) + 1
    points = []  # level and its margin above the threshold, both in dB
    for j in range(1, 21):
        above = sum(top - e <= j for e in held) if j < 20 else len(held)
        level = db(sum(speech**2) / above)
        points.append((level, level - db(2) * (top - j - 1) - 15.9))
    for (level, margin), (next_level, next_margin) in zip(points, points[1:]):
        if margin < 0 <= next_margin:
            part = margin / (margin - next_margin)
            return 10 ** ((level + part * (next_level - level)) / 10)
    return 10 ** (points[-1 if points[-1][1] <= 0 else 0][0] / 10)


@pytest.mark.parametrize("rate", [8000, 11025, 16000])
@pytest.mark.parametrize("samples", [2, 50, 1700, 6000])
def test_equals_naive_reference(rate, samples):
    signal = noise(samples) * (np.sin(np.arange(samples) / 700) > -0.3)
    expected = naive_level(signal, rate)
    assert active_speech_level(signal, rate) == pytest.approx(expected, 1e-9)


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_stationary_signals_have_their_power(rate):
    level = active_speech_level(tone(1000, 10, rate), rate)
    assert abs(db(level / 0.5)) < 0.05
    level = active_speech_level(noise(10 * RATE), RATE)
    # what lies below 200 of 4000 Hz is filtered away: 0.2 dB
    assert db(level) == pytest.approx(db(3800 / 4000), abs=0.1)


def test_pauses_do_not_count():
    burst, pause = tone(500, 2), np.zeros(2 * RATE)
    speech = np.concatenate([burst, pause] * 4)
    level = active_speech_level(speech, RATE)
    long_term = np.mean(speech**2)
    assert db(long_term / 0.5) == pytest.approx(-3.01, abs=0.01)
    # the hangover and the decay of the envelope keep up to 0.4 s of each pause
    assert -10 * math.log10(2.4 / 2) < db(level / 0.5) < 0


def test_low_background_noise_does_not_count():
    speech = np.concatenate([tone(500, 2), np.zeros(6 * RATE)] * 2)
    noisy = speech + 1e-3 * noise(len(speech))
    expected = active_speech_level(speech, RATE)
    assert active_speech_level(noisy, RATE) == pytest.approx(expected, 0.01)


@pytest.mark.parametrize("gain", [0.01, 3.0, -1.0, 1e4])
def test_scales_with_the_squared_gain(gain):
    signal = noise(RATE) * np.repeat([1.0, 0.01, 0.5, 0.0], RATE // 4)
    level = active_speech_level(signal, RATE)
    scaled = active_speech_level(gain * signal, RATE)
    # not exactly: the 3 dB bins stay where they are
    assert scaled == pytest.approx(gain**2 * level, 0.03)
    octaves = active_speech_level(2.0**5 * signal, RATE)
    assert octaves == pytest.approx(2.0**10 * level, 1e-9)


def test_filters():
    rate = 16000

    def gain_db(frequency):
        filtered = active_level._band_limit(tone(frequency, 2, rate), rate)
        return db(2 * np.mean(filtered[rate:] ** 2))

    assert gain_db(200) == pytest.approx(-0.25, abs=0.01)
    assert gain_db(5500) == pytest.approx(-0.25, abs=0.01)
    assert gain_db(1000) == pytest.approx(0, abs=0.01)
    assert gain_db(50) < -49
    assert gain_db(7900) < -49


def test_high_pass_has_the_gain_one_at_nyquist():
    impulse = np.eye(1, 4096)[0]
    response = active_level._band_limit(impulse, RATE)
    alternating = (-1.0) ** np.arange(4096)
    assert response @ alternating == pytest.approx(1, 1e-6)


def test_hum_is_filtered_away():
    speech = tone(500, 4)
    level = active_speech_level(speech, RATE)
    with_hum = active_speech_level(speech + tone(50, 4), RATE)
    assert with_hum == pytest.approx(level, 0.01)
    only_hum = active_speech_level(tone(50, 4), RATE)
    assert db(only_hum / 0.5) < -30  # the onset remains


def test_silence():
    assert active_speech_level(np.zeros(RATE), RATE) == 0.0
    assert active_speech_level(np.zeros(0), RATE) == 0.0
    assert active_speech_level(np.zeros(2), RATE) == 0.0


def test_padding_is_silence_that_follows():
    speech = tone(500, 1)
    padded = active_speech_level(speech, RATE, padding=0.35)
    after = np.concatenate([speech, np.zeros(int(0.35 * RATE))])
    assert padded == active_speech_level(after, RATE)
    # The hangover of 0.2 s, and what the envelope takes to decay, now count.
    level = active_speech_level(speech, RATE)
    assert -10 * math.log10(1.35) < db(padded / level) < -0.7


def test_does_not_change_its_input_and_takes_float32():
    signal = noise(RATE).astype(np.float32)
    before = signal.copy()
    level = active_speech_level(signal, RATE)
    assert (signal == before).all()
    assert level == active_speech_level(signal.astype(np.float64), RATE)


def test_refuses_bad_arguments():
    with pytest.raises(UserError, match=r"signal: .*\[2, 100\]"):
        active_speech_level(np.ones((2, 100)), RATE)
    with pytest.raises(UserError, match="signal: .*NaN"):
        active_speech_level(np.array([1.0, np.nan]), RATE)
    with pytest.raises(UserError, match="sample_rate: .*400"):
        active_speech_level(np.ones(100), 400)
    with pytest.raises(UserError, match="padding: .*-1"):
        active_speech_level(np.ones(100), RATE, padding=-1)
