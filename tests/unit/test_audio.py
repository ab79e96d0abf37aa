"""Tests of reading recordings and of resampling them."""

import os
import re
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechbrain_kmdanet.dataio.audio import (
    DOWNMIX,
    UnusableSource,
    as_path,
    is_compressed,
    list_recordings,
    name_path,
    read_header,
    read_piece,
    read_recording,
    read_source,
)
from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.processing.bands import resample


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


# Container, what its size is behind of, and how it is written by a program
# that does not know it.
PIPES = {
    "wav": ("WAV", b"data", 4, 0xFFFFFFFF, "little"),
    "wav-sox": ("WAV", b"data", 4, 0x7FFFF000, "little"),
    "aiff-sox": ("AIFF", b"SSND", 4, 0x7F000008, "big"),
    "au": ("AU", b".snd", 8, 0xFFFFFFFF, "big"),
}


@pytest.mark.parametrize("pipe", PIPES)
def test_a_pipe_does_not_know_the_length(tmp_path, pipe):
    container, name, behind, size, order = PIPES[pipe]
    signal = np.arange(1, 1001) / 1024
    path = tmp_path / "x"
    soundfile.write(path, signal, 8000, "PCM_16", format=container)
    content = bytearray(path.read_bytes())
    place = content.index(name) + behind
    content[place : place + 4] = size.to_bytes(4, order)
    path.write_bytes(content)
    found, _ = read_source(path)
    assert (found == signal).all()


@pytest.mark.parametrize("container", ["WAV", "AIFF", "RF64"])
def test_what_follows_the_samples_may_lack(tmp_path, container):
    path = tmp_path / "x"
    signal = np.arange(100) / 128
    with soundfile.SoundFile(
        path, "w", 8000, 1, "PCM_16", format=container
    ) as file:
        file.write(signal)
        file.title = "a title" * 20
    content = path.read_bytes()
    path.write_bytes(content[:-7])
    found, _ = read_source(path)
    assert (found == signal).all()


def test_a_size_that_nobody_has_the_memory_for(tmp_path):
    path = tmp_path / "x.flac"
    soundfile.write(path, np.zeros(5000), 8000)
    content = bytearray(path.read_bytes())
    content[21] |= 0x0F  # the number of samples: 36 bits of STREAMINFO
    content[22:26] = b"\xff\xff\xff\xf0"
    path.write_bytes(content)
    with pytest.raises(UnusableSource, match="unreadable|truncated"):
        read_recording(path)


@pytest.mark.parametrize("rate", [1, 999, 2_000_000, 2**31 - 1])
def test_rates_that_are_none(tmp_path, rate):
    soundfile.write(tmp_path / "x.wav", np.zeros(100), rate)
    with pytest.raises(UnusableSource, match=f"has {rate} Hz, expected 1000"):
        read_recording(tmp_path / "x.wav")


SPECIAL = {
    "pipe.wav": "a pipe (FIFO), no file (",
    "folder.wav": "a folder, no file (",
    "socket.wav": "a socket, no file (",
    "/dev/zero": "a device, no file (",
    ".": "a folder, no file (",
    "loop.wav": "no usable path: ",
    "nothing.wav": "missing (",
    "empty.wav": "unreadable: ",
    "gone/x.wav": "missing (",
    "empty.wav/x.wav": "missing (",
    "x" * 5000: "no usable path: ",
    "a\0b": "no usable path: ",
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs")
def test_what_is_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.wav")
    os.mkdir("folder.wav")
    os.symlink("loop.wav", "loop.wav")
    os.symlink("gone.wav", "nothing.wav")
    Path("empty.wav").touch()
    said = {path: [] for path in SPECIAL}

    def read_all():
        for path in SPECIAL:
            for read in (read_recording, read_header, is_compressed):
                try:
                    read(path)
                except UnusableSource as problem:
                    said[path].append(str(problem))
            try:
                read_piece(path, 0, 10)
            except UserError as error:
                said[path].append(str(error).split(": ", 1)[1] + " (")

    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket.wav")
        reader = threading.Thread(target=read_all, daemon=True)
        reader.start()
        reader.join(20)  # who opens a FIFO waits for another to write
    assert not reader.is_alive()
    for path, messages in said.items():
        assert len(messages) == 4
        for message in messages[:3]:
            assert message.startswith(SPECIAL[path]) and "\n" not in message
    assert "a pipe (FIFO), no file" in said["pipe.wav"][3]


@pytest.mark.parametrize(
    "path, got",
    [
        ("", "an empty one"),
        (b"", "an empty one"),
        (None, "NoneType"),
        (3, "int"),
        (np.zeros(3), "ndarray"),
        ([1.0], "list"),
    ],
)
def test_what_is_no_path(path, got):
    for read in (as_path, read_recording, read_header):
        with pytest.raises(UserError, match=f"str, bytes .* got {got}: "):
            read(path)


@pytest.mark.parametrize(
    "path, shown",
    [
        ("a/b.wav", "a/b.wav"),
        ("ä/ö.wav", "ä/ö.wav"),
        ("a\nb.wav", r"'a\nb.wav'"),
        ("a\udcff.wav", r"'a\udcff.wav'"),
        ("x" * 999, "x" * 100 + "..." + "x" * 100),
    ],
)
def test_names_in_one_line(path, shown):
    assert name_path(path) == shown


def test_recordings_of_a_folder(tmp_path):
    names = ["b_1.5.WAV", "a.flac", "c.Aiff", "._b_1.5.WAV", "notes.txt"]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "deeper").mkdir()
    found = list_recordings(tmp_path)
    assert found == {
        "a": tmp_path / "a.flac",
        "b_1.5": tmp_path / "b_1.5.WAV",
        "c": tmp_path / "c.Aiff",
    }
    assert list_recordings(tmp_path / "gone") == {}
    (tmp_path / "a.wav").touch()
    with pytest.raises(UserError, match="two recordings a, .flac and .wav"):
        list_recordings(tmp_path)


def test_what_is_compressed_is_not_told_by_the_name(tmp_path):
    path = tmp_path / "x.wav"
    for container, codec, expected in (
        ("WAV", "PCM_16", False),
        ("WAV", "GSM610", False),
        ("FLAC", "PCM_16", False),
        ("OGG", "VORBIS", True),
        ("OGG", "OPUS", True),
        ("MP3", "MPEG_LAYER_III", True),
    ):
        soundfile.write(path, np.zeros(4000), 8000, codec, format=container)
        assert is_compressed(path) == expected


@pytest.mark.parametrize("codec", ["VORBIS", "OPUS"])
def test_ogg_without_its_last_page(tmp_path, codec):
    signal = 0.1 * np.random.default_rng(0).standard_normal(200000)
    path = tmp_path / "x.ogg"
    soundfile.write(path, signal, 16000, codec, format="OGG")
    assert len(read_source(path)[0]) == len(signal)
    content = path.read_bytes()
    pages = [match.start() for match in re.finditer(b"OggS", content)]
    assert len(pages) > 6  # those that are whole are read without an error
    for end in (*pages[3:], pages[-1] + 20, len(content) - 1):
        path.write_bytes(content[:end])
        with pytest.raises(UnusableSource, match="truncated, its last page"):
            read_source(path)


@pytest.mark.parametrize("codec", ["PCM_S8", "PCM_16", "PCM_24"])
def test_sds_without_its_last_bytes(tmp_path, codec):
    path = tmp_path / "x.sds"
    soundfile.write(path, np.zeros(4000), 8000, codec, format="SDS")
    assert len(read_source(path)[0]) == 4000
    content = path.read_bytes()
    for cut in (1, 7, 127, 200, 4000):
        path.write_bytes(content[:-cut])
        with pytest.raises(UnusableSource, match=f"{cut} bytes missing"):
            read_source(path)
