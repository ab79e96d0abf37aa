"""Tests of separating recordings of any format."""

import copy
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from scipy.signal import resample_poly

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.inference.separation import AttractorSeparation
from speechbrain_kmdanet.lobes.models.danet import DANet
from speechbrain_kmdanet.lobes.models.embedding import EmbeddingNet
from speechbrain_kmdanet.nnet.attractors import KMeansAttractors
from speechbrain_kmdanet.processing.stft import STFTDecoder, STFTEncoder


@pytest.fixture(scope="module")
def separator():
    """A tiny random separator at 8 kHz with windows of 16 ms."""
    kmeans = KMeansAttractors("spherical", seed=0)
    net = EmbeddingNet(num_bins=65, embedding_dim=4, hidden_size=8)
    modules = {
        "encoder": STFTEncoder(n_fft=128, hop_length=32),
        "masknet": DANet(net, kmeans, kmeans),
        "decoder": STFTDecoder(n_fft=128, hop_length=32),
    }
    hparams = {"sample_rate": 8000, "num_spks": 2}
    return AttractorSeparation(modules, hparams, run_opts={"device": "cpu"})


def contents(folder):
    """What is in a folder, links not followed, with times of change."""
    return {
        (str(path), path.is_symlink(), path.lstat().st_mtime_ns)
        for path in [folder, *folder.rglob("*")]
    }


def stereo(num_samples):
    """Two channels [time, 2] that are not alike."""
    noise = np.random.default_rng(0).standard_normal((num_samples, 2))
    time = np.arange(num_samples)[:, None] / 8000
    return 0.05 * noise * (1 + np.sin(20 * time)) + 0.1 * np.sin(2500 * time)


@pytest.fixture
def separate(separator, tmp_path, monkeypatch):
    """Separates a file of its own folder; checks that nothing is written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "audio").mkdir()

    def run(name, *arguments):
        before = contents(tmp_path)
        try:
            return separator.separate_file(f"audio/{name}", *arguments)
        finally:
            assert contents(tmp_path) == before

    return run


@pytest.mark.parametrize(
    "name, rate, subtype",
    [
        ("a.wav", 16000, "PCM_16"),
        ("a.wav", 44100, "PCM_24"),
        ("a.wav", 8000, "FLOAT"),
        ("a.wav", 6000, "PCM_U8"),
        ("a.flac", 8000, "PCM_16"),
    ],
)
def test_any_rate_and_format(separate, name, rate, subtype):
    signal = stereo(rate // 5)
    soundfile.write(f"audio/{name}", signal, rate, subtype)
    tolerance = 0.01 if subtype == "PCM_U8" else 1e-4
    # At the rate of the recording, of the model, and another one.
    for wanted in (None, 8000, 12000):
        sources = separate(name, 3, wanted)
        new_rate = wanted or rate
        assert sources.shape == (1, new_rate // 5, 3)
        mixture = resample_poly(signal.mean(1), new_rate, rate)
        torch.testing.assert_close(
            sources.sum(2)[0].double(),
            torch.from_numpy(mixture),
            rtol=0,
            atol=tolerance,
        )


@pytest.mark.parametrize("rate", [0, -8000, 8000.0, "8000", True, 10**7])
def test_rates_that_are_none(separate, rate):
    soundfile.write("audio/x.wav", stereo(800), 8000)
    with pytest.raises(UserError, match="x.wav: sample_rate must be an integ"):
        separate("x.wav", 2, rate)


def test_file_equals_batch(separator, separate):
    mix = torch.from_numpy(stereo(1200)[:, :1].T).float()
    soundfile.write("audio/mono.wav", mix[0].numpy(), 8000, "FLOAT")
    expected = separator.separate_batch(mix)
    assert torch.equal(separate("mono.wav"), expected)
    assert torch.equal(separate("mono.wav", 1), separator(mix, 1))
    path = Path("audio", "mono.wav")
    assert torch.equal(separator.separate_file(path), expected)


def test_silent_file(separate):
    soundfile.write("audio/silent.wav", np.zeros((500, 2)), 8000)
    assert not separate("silent.wav").any()


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "FLOAT"])
def test_clipped_file_warns(separate, caplog, subtype):
    loud = np.clip(30 * stereo(800), -1, 1)
    quiet = 0.98 * loud / np.abs(loud).max()
    peaks = np.zeros((800, 2))
    peaks[::2] = 1.0
    signals = {"loud": loud, "quiet": quiet, "peaks": peaks}
    with caplog.at_level(logging.WARNING):
        for name, signal in signals.items():
            soundfile.write(f"audio/{name}.wav", signal, 8000, subtype)
            separate(f"{name}.wav")
    warnings = [r.getMessage() for r in caplog.records if "audio/" in r.msg]
    assert len(warnings) == 1
    assert warnings[0].startswith("audio/loud.wav is clipped")


def independent(count):
    """That many channels [time, count] of their own."""
    return 0.1 * np.random.default_rng(1).standard_normal((800, count))


@pytest.mark.parametrize(
    "channels",
    [
        [1, -1],
        [1, -0.7],
        [0.2, 0.2, -0.4],
        [1, -1, 1, -1],
    ],
)
@pytest.mark.parametrize("offset", [0.0, 0.05])
def test_channels_that_cancel_are_refused(separate, channels, offset):
    signal = stereo(800)[:, :1] * channels + offset
    soundfile.write("audio/x.wav", signal, 8000, "FLOAT")
    count = len(channels)
    message = f"^cannot separate audio/x.wav: its {count} channels cancel each"
    with pytest.raises(UserError, match=message):
        separate("x.wav")


@pytest.mark.parametrize(
    "signal",
    [
        stereo(800),
        stereo(800)[:, :1] * [1, 1],
        stereo(800)[:, :1] * [1, 0],
        stereo(800)[:, :1] * [1, -0.3],
        independent(2),
        independent(16),
        np.ones((800, 2)) * [0.3, -0.1],
        np.zeros((800, 2)),
    ],
    ids=str,
)
def test_other_channels_are_averaged(separate, signal):
    soundfile.write("audio/x.wav", signal, 8000, "FLOAT")
    mixture = torch.from_numpy(signal.mean(1)).float()
    torch.testing.assert_close(
        separate("x.wav").sum(2)[0], mixture, rtol=0, atol=1e-5
    )


def test_more_talkers_than_memory_is_for(separate):
    soundfile.write("audio/long.wav", stereo(80000), 8000)
    with pytest.raises(UserError, match="num_spks=20000 .* at most 100 are"):
        separate("long.wav", 20000)
    assert separate("long.wav", 3).shape == (1, 80000, 3)


@pytest.mark.parametrize("given_as", [str, Path, os.fsencode])
def test_paths_of_any_type(separator, tmp_path, given_as):
    soundfile.write(tmp_path / "x.wav", stereo(800), 8000)
    path = given_as(tmp_path / "x.wav")
    assert separator.separate_file(path).shape == (1, 800, 2)


@pytest.mark.parametrize("path", ["", None, 3, np.zeros(800), torch.ones(9)])
def test_what_is_no_path(separator, path):
    with pytest.raises(UserError, match="path must be .* got .*to a file"):
        separator.separate_file(path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(separator, dtype):
    mix = torch.from_numpy(stereo(1600)[:, :1].T).float()
    half = copy.deepcopy(separator).to(dtype)
    for given in (mix, mix.to(dtype)):
        sources = half.separate_batch(given)
        assert sources.dtype == torch.float32
        torch.testing.assert_close(sources.sum(2), given.float())
    # As the same rounded weights in float32.
    rounded = copy.deepcopy(half).float()
    assert torch.equal(half.separate_batch(mix), rounded.separate_batch(mix))
    assert {weights.dtype for weights in half.parameters()} == {dtype}


def write_bad_files(folder):
    """Writes files that cannot be separated; returns what is said of each."""
    good = stereo(1000)
    soundfile.write(folder / "cut.wav", good, 8000)
    whole = (folder / "cut.wav").read_bytes()
    (folder / "cut.wav").write_bytes(whole[:-1000])
    holed = good.copy()
    holed[7, 1] = np.nan
    soundfile.write(folder / "nan.wav", holed, 8000, "FLOAT")
    soundfile.write(folder / "huge.wav", 1e60 * good, 8000, "DOUBLE")
    soundfile.write(folder / "none.wav", good[:0], 8000)
    soundfile.write(folder / "two.wav", good[:2], 8000)
    soundfile.write(folder / "short.wav", good, 80000)
    soundfile.write(folder / "many.wav", good[:300], 8000)
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("this is not audio\n" * 50)
    (folder / "head.raw").write_bytes(whole)
    (folder / "timit.wav").write_bytes(b"NIST_1A\n   1024\n" + whole)
    (folder / "wsj.wv1").write_bytes(whole)
    (folder / "folder.wav").mkdir()
    again = r"\(record, copy or convert the file again\)"
    no_audio = "again: it is damaged, cut short or no audio"
    return {
        "cut.wav": f"truncated, 1000 bytes missing {again}",
        "nan.wav": f"has NaN or infinite samples {again}",
        "huge.wav": "the mixture has NaN or infinite samples",
        "none.wav": f"empty {again}",
        "two.wav": r"has 2 samples \(0.25 ms at 8000 Hz\), at least 128",
        "short.wav": r"has 100 samples \(12.5 ms at 8000 Hz\), at least 128",
        "many.wav": "num_spks=5000 talkers .* ask for fewer talkers",
        "empty.wav": f"unreadable: .* {no_audio}",
        "text.wav": f"unreadable: .* {no_audio}",
        "head.raw": f"unreadable: .* {no_audio}",
        "timit.wav": r"a SPHERE file \(convert SPHERE files to WAV",
        "wsj.wav": r"missing, only wsj.wv1 is there \(convert SPHERE",
        "folder.wav": r"a folder, no file \(check the path",
        "missing.wav": r"missing \(check the path; only local files",
        "http://host/mix.wav": r"missing \(.* download others first\)",
    }


def test_bad_files(separate, tmp_path):
    for name, message in write_bad_files(tmp_path / "audio").items():
        pattern = f"^cannot separate audio/{name}: .*{message}"
        with pytest.raises(ValueError, match=pattern) as error:
            separate(name, 5000 if name == "many.wav" else None)
        assert "\n" not in str(error.value)
