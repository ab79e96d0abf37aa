"""Tests of reading recordings and of resampling them."""

import numpy as np
import pytest
import soundfile

from speechbrain_kmdanet.dataio.audio import (
    DOWNMIX,
    UnusableSource,
    read_piece,
    read_recording,
    read_source,
    resample,
)
from speechbrain_kmdanet.errors import UserError


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100])
def test_resample_keeps_a_tone(rate):
    time = np.arange(rate) / rate
    tone = np.sin(2 * np.pi * 440 * time)
    expected = np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)
    resampled = resample(tone, rate, 8000)
    assert resampled.shape == (8000,)
    error = np.abs(resampled - expected)[100:-100]  # away from the ends
    assert error.max() < 0.01


def test_pieces_are_those_of_the_whole(tmp_path):
    signal = np.arange(100) / 128
    soundfile.write(tmp_path / "x.wav", signal, 8000)
    whole, _ = read_source(tmp_path / "x.wav")
    piece, rate = read_piece(tmp_path / "x.wav", 20, 30)
    assert rate == 8000 and piece.dtype == np.float32
    assert (whole == signal).all() and (piece == signal[20:50]).all()
    with pytest.raises(UserError, match=r"x.wav': expected \[90\] .* got \[80"):
        read_piece(tmp_path / "x.wav", 20, 90)


def test_channels(tmp_path):
    path = tmp_path / "stereo.flac"
    soundfile.write(path, np.eye(50, 2), 16000)
    signal, rate = read_recording(path)
    assert signal.shape == (50, 2) and rate == 16000
    with pytest.raises(UnusableSource) as error:
        read_source(path)
    assert error.value.reason == "has 2 channels"
    assert str(error.value) == f"has 2 channels ({DOWNMIX})"
