"""Any file, of any container and codec: the right audio, or one line."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import (
    given,
    settings,
    strategies as st,
)

from speechbrain_kmdanet.dataio.audio import (
    UnusableSource,
    name_path,
    read_header,
    read_piece,
    read_recording,
)
from speechbrain_kmdanet.errors import UserError

# A headerless file does not say what it holds.
PAIRS = [
    (container, codec)
    for container in soundfile.available_formats()
    for codec in soundfile.available_subtypes(container)
    if container != "RAW"
]
# Refused even if they are whole: SPHERE, and codecs of which libsndfile finds
# neither the end nor, having read, the way back.
REFUSED = {"NIST", "DWVW_12", "DWVW_16", "DWVW_24"}
# These do not say how long they are: nobody can tell that they were cut.
ENDLESS = {"PAF", "PVF", "IRCAM", "SD2", "XI"}
# Their rates are fixed, or kept as periods.
OWN_RATE = {"XI", "WVE", "HTK", "SDS", "VOC"}
PADDING = 4608  # samples; the largest block of a codec
BLOCK = 64  # samples; libsndfile refuses less in SD2, SDS and PAF
LOSSY = 0.2  # error relative to the signal of the coarsest codec, GSM 6.10

a_few = settings(max_examples=6, deadline=None, derandomize=True)
many = settings(max_examples=100, deadline=None, derandomize=True)
rates = st.sampled_from([8000, 16000, 44100, 48000, 11025])
channels = st.integers(1, 3)
a_pair = st.sampled_from(PAIRS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("any")


def tone(rate, length, count):
    """Sine waves of any codec's range [length, count]."""
    phases = 2 * np.pi * 300 * np.arange(length)[:, None] / rate
    return 0.3 * np.sin(phases + np.arange(count))


def write(folder, pair, signal, rate):
    """Writes a file of a container and a codec; None where they do not fit."""
    container, codec = pair
    path = folder / f"x.{container.lower()}"
    try:
        soundfile.write(path, signal, rate, codec, format=container)
    except (soundfile.SoundFileError, ValueError):
        return None
    return path


def read(path):
    """Samples of a file, or the reason why there are none; both are checked."""
    try:
        signal, rate = read_recording(path)
    except UnusableSource as problem:
        assert problem.reason and problem.remedy
        assert "\n" not in str(problem)
        return None, problem.reason
    assert np.isfinite(signal).all() and len(signal) > 0
    assert read_header(path) == (len(signal), rate, signal.shape[1])
    return signal, rate


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@a_few
@given(rates, channels, st.integers(1, 5000), st.data())
def test_whole_or_refused(folder, pair, rate, count, length, data):
    signal = tone(rate, length, count)
    path = write(folder, pair, signal, rate)
    if path is None:
        return
    whole, said = read(path)
    if REFUSED & {*pair} or whole is None and length < BLOCK:
        assert whole is None
    else:
        assert whole.shape[1] == count
        assert length <= len(whole) <= length + PADDING
        assert said == rate or pair[0] in OWN_RATE
        if length > 1000:
            error = np.abs(whole[:length] - signal).mean()
            assert error < LOSSY * np.abs(signal).mean()
    check_pieces(path, whole, data)
    content = path.read_bytes()
    cut = data.draw(st.integers(1, len(content)))
    path.write_bytes(content[:-cut])
    part, reason = read(path)
    if part is None:
        assert reason.startswith(("truncated", "unreadable", "empty", "a SPH"))
    elif pair[0] not in ENDLESS:
        # What was cut off is no audio: padding, or what follows it.
        np.testing.assert_array_equal(part[:length], whole[:length])


def check_pieces(path, whole, data):
    """Parts of a file of one channel are those of the whole."""
    if whole is None or whole.shape[1] > 1:
        return
    start = data.draw(st.integers(0, len(whole) - 1))
    length = data.draw(st.integers(1, len(whole) - start))
    # Those of compressed ones are cut out of what was decoded before.
    if path.suffix not in (".ogg", ".mp3"):
        piece, _ = read_piece(path, start, length)
        expected = whole[start : start + length, 0].astype(np.float32)
        np.testing.assert_array_equal(piece, expected)
    with pytest.raises(UserError, match="expected"):
        read_piece(path, start, len(whole) - start + 1)


@many
@given(a_pair, rates, channels, st.data())
def test_damage_anywhere(folder, pair, rate, count, data):
    path = write(folder, pair, tone(rate, 300, count), rate)
    if path is None:
        return
    content = bytearray(path.read_bytes())
    places = st.integers(0, min(len(content), 200) - 1)
    damage = st.dictionaries(places, st.integers(0, 255), min_size=1)
    for place, byte in data.draw(damage).items():
        content[place] = byte
    path.write_bytes(content)
    try:
        read_piece(path, 10, 20)
    except UserError as error:
        assert "\n" not in str(error)
    try:
        signal, _ = read_recording(path)
        assert np.isfinite(signal).all()
    except UnusableSource as problem:
        assert "\n" not in str(problem)


@many
@given(st.binary(max_size=300), st.sampled_from(["wav", "ogg", "au", "mp3"]))
def test_no_audio(folder, content, suffix):
    path = folder / f"x.{suffix}"
    for magic in (b"", b"RIFF", b"FORM", b"caff", b"riff", b".snd", b"OggS"):
        path.write_bytes(magic + content)
        try:
            read_recording(path)
        except UnusableSource as problem:
            assert "\n" not in str(problem)


@pytest.mark.skipif(sys.platform != "linux", reason="other names are text")
@many
@given(st.binary(max_size=250))
def test_any_name(folder, name):
    name = name.replace(b"/", b"_").replace(b"\0", b"_") + b".wav"
    path = os.path.join(os.fsencode(folder), name)
    signal = np.linspace(-0.5, 0.5, 9)
    soundfile.write(path, signal, 8000, "DOUBLE", format="WAV")
    text = os.fsdecode(path)
    for given_as in (path, text, Path(text)):
        whole, _ = read_recording(given_as)
        np.testing.assert_array_equal(whole[:, 0], signal)
    piece, _ = read_piece(text, 2, 3)
    np.testing.assert_allclose(piece, signal[2:5], rtol=1e-6)
    os.unlink(path)
    shown = name_path(text)
    assert shown.isprintable() and len(shown) < 300
    shown.encode()  # no part of it is undecodable
    with pytest.raises(UnusableSource, match="missing"):
        read_recording(path)
