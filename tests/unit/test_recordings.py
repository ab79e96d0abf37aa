"""Tests of separating recordings of any length."""

import logging
import os
import signal
import threading

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_kmdanet.dataio.audio import read_piece, read_source
from speechbrain_kmdanet.dataio.recording import read_blocks
from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.inference import recordings
from speechbrain_kmdanet.inference.recordings import separate_recording
from speechbrain_kmdanet.inference.separation import AttractorSeparation
from speechbrain_kmdanet.inference.windows import (
    OVERLAP,
    WINDOW,
    Lane,
    WindowStore,
    at_rate,
    cut,
    window_edges,
)
from speechbrain_kmdanet.lobes.models.counting import TalkerCounter
from speechbrain_kmdanet.lobes.models.danet import DANet
from speechbrain_kmdanet.lobes.models.embedding import EmbeddingNet
from speechbrain_kmdanet.lobes.models.voice import VoiceNet
from speechbrain_kmdanet.nnet.attractors import KMeansAttractors
from speechbrain_kmdanet.processing.stft import STFTDecoder, STFTEncoder


def make_separator(counts=True, remainder=False):
    """A tiny random separator at 8 kHz with windows of 16 ms."""
    kmeans = KMeansAttractors("spherical", seed=0)
    net = EmbeddingNet(num_bins=65, embedding_dim=4, hidden_size=8)
    modules = {
        "encoder": STFTEncoder(n_fft=128, hop_length=32),
        "masknet": DANet(net, kmeans, kmeans, remainder=remainder),
        "decoder": STFTDecoder(n_fft=128, hop_length=32),
    }
    if counts:
        modules["counter"] = TalkerCounter(65, channels=(4, 4, 4))
        modules["voice"] = VoiceNet(channels=(8, 8, 8, 24), size=8)
    hparams = {"sample_rate": 8000, "num_spks": 2}
    return AttractorSeparation(modules, hparams, run_opts={"device": "cpu"})


@pytest.fixture(scope="module")
def separator():
    torch.manual_seed(0)
    return make_separator()


def sound(seconds, rate, channels=1, seed=0):
    """Modulated noise [time, channels]."""
    length = round(seconds * rate)
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((length, channels))
    time = np.arange(length)[:, None] / rate
    return 0.05 * noise * (1 + np.sin(4 * time))


@pytest.fixture
def run(separator, tmp_path, monkeypatch):
    """Separates sound of a file; returns what was made and the tracks."""
    monkeypatch.chdir(tmp_path)

    def separate(signal, rate, subtype="FLOAT", suffix="wav", **options):
        soundfile.write(f"talk.{suffix}", signal, rate, subtype)
        options = {"progress": False, "background": True, **options}
        made = separate_recording(separator, f"talk.{suffix}", "out", **options)
        files = [*made.tracks, *filter(None, [made.background])]
        return made, [soundfile.read(file) for file in files]

    return separate


@pytest.mark.parametrize("seconds", [0.33, 5.0, 31.7])
@pytest.mark.parametrize("rate", [8000, 44100])
def test_tracks_and_background_sum_to_the_recording(run, seconds, rate):
    signal = sound(seconds, rate, 2)
    made, tracks = run(signal, rate, num_spks=2)
    assert [file.name for file in made.tracks] == ["talk_1.wav", "talk_2.wav"]
    assert made.background.name == "talk_background.wav"
    assert made.seconds == pytest.approx(seconds)
    assert made.turns == sorted(made.turns)
    for turn in made.turns:
        assert 0 <= turn.start < turn.end <= round(made.seconds, 3)
    assert {sample_rate for _, sample_rate in tracks} == {rate}
    total = sum(track for track, _ in tracks)
    np.testing.assert_allclose(total, signal.mean(1), atol=1e-6)
    # Nothing is left over where all is shared out.
    assert np.abs(tracks[-1][0]).max() < 1e-4
    assert sorted(os.listdir("out")) == sorted(
        file.name for file in [*made.tracks, made.background]
    )


def test_short_recordings_are_separated_as_a_whole(separator, run):
    signal = sound(9.0, 8000)
    mixture = torch.from_numpy(signal.T).float()
    for num_spks in (3, "auto"):
        made, tracks = run(signal, 8000, num_spks=num_spks)
        sources = separator.separate_batch(mixture, num_spks)[0].T
        assert len(made.tracks) == len(sources)
        assert (made.confidence is None) == (num_spks == 3)
        for track, source in zip(tracks, sources):
            np.testing.assert_allclose(track[0], source, atol=1e-6)


def test_double_precision(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    separator = make_separator(remainder=True)
    separator.mods.masknet.remainder.data.normal_()
    soundfile.write("talk.wav", sound(9.0, 8000), 8000, "FLOAT")
    single = separate_recording(separator, "talk.wav", "single", progress=False)
    separator.double()
    double = separate_recording(separator, "talk.wav", "double", progress=False)
    assert len(single.tracks) == len(double.tracks)
    for one, two in zip(single.tracks, double.tracks):
        first, second = soundfile.read(one)[0], soundfile.read(two)[0]
        np.testing.assert_allclose(first, second, atol=1e-4)


def test_confidence_is_that_of_the_windows(separator, run):
    signal = sound(9.0, 8000)
    count = separator.count_batch(torch.from_numpy(signal.T).float())
    expected = float(count.confidence)
    assert run(signal, 8000)[0].confidence == pytest.approx(expected, abs=1e-3)
    assert 0.25 <= run(sound(30.0, 8000), 8000)[0].confidence <= 1.0


def test_a_known_number_of_tracks_without_counting(tmp_path):
    soundfile.write(tmp_path / "x.wav", sound(25.0, 8000), 8000)
    separator = make_separator(counts=False)
    made = separate_recording(
        separator, tmp_path / "x.wav", tmp_path, 3, progress=False
    )
    assert len(made.tracks) == 3 and made.background is None
    assert {turn.track for turn in made.turns} <= {0, 1, 2}
    with pytest.raises(UserError, match='x.wav: num_spks="auto" needs'):
        separate_recording(separator, tmp_path / "x.wav", tmp_path)


def test_what_is_kept_out_is_the_background(tmp_path):
    separator = make_separator(remainder=True)
    torch.nn.init.normal_(separator.mods.masknet.remainder)
    signal = sound(23.0, 16000)
    soundfile.write(tmp_path / "x.wav", signal, 16000, "FLOAT")
    made = separate_recording(
        separator, tmp_path / "x.wav", tmp_path, background=True, progress=False
    )
    files = [*made.tracks, made.background]
    tracks = [soundfile.read(file)[0] for file in files]
    np.testing.assert_allclose(sum(tracks), signal[:, 0], atol=1e-6)
    assert np.square(tracks[-1]).mean() > 0.01 * np.square(signal).mean()


@pytest.mark.parametrize("num_spks", ["auto", 2])
def test_memory_and_windows(run, monkeypatch, num_spks):
    """Many windows in few batches, with the same tracks as one at a time."""
    signal = sound(60.0, 8000)
    _, together = run(signal, 8000, num_spks=num_spks)
    monkeypatch.setattr(recordings, "BATCH", 1)
    _, alone = run(signal, 8000, num_spks=num_spks)
    for (one, _), (other, _) in zip(together, alone, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize(
    "suffix, subtype, file_format, made_subtype",
    [
        ("wav", "PCM_16", "wav", "PCM_16"),
        ("wav", "PCM_24", "wav", "FLOAT"),
        ("flac", "PCM_16", "flac", "PCM_16"),
        ("ogg", "VORBIS", "opus", "OPUS"),
    ],
)
def test_formats(run, suffix, subtype, file_format, made_subtype):
    signal = sound(1.0, 16000)
    made, tracks = run(signal, 16000, subtype, suffix, file_format=file_format)
    for file, (track, rate) in zip(made.tracks, tracks):
        assert file.suffix == f".{file_format}" and rate == 16000
        assert len(track) == len(signal)
        assert soundfile.info(file).subtype == made_subtype


@pytest.mark.parametrize("wanted", [8000, 12000, 48000])
def test_other_rates(run, wanted):
    signal = sound(22.5, 16000)
    _, tracks = run(signal, 16000, num_spks=2, sample_rate=wanted)
    for track, rate in tracks:
        assert rate == wanted and len(track) == 22.5 * wanted
    low = sum(track for track, _ in tracks)
    from scipy.signal import resample_poly

    expected = resample_poly(signal[:, 0], wanted, 16000)
    np.testing.assert_allclose(low[500:-500], expected[500:-500], atol=1e-3)


def test_one_channel(run):
    signal = sound(1.0, 8000, 2)
    _, tracks = run(signal, 8000, channel=2)
    total = sum(track for track, _ in tracks)
    np.testing.assert_allclose(total, signal[:, 1], atol=1e-6)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"channel": 3}, "channel must be from 1 to 2, .* got 3"),
        ({"channel": "1"}, "channel must be from 1 to 2, .* got '1'"),
        ({"num_spks": "three"}, 'num_spks must be .* or "auto", got'),
        ({"num_spks": 0}, "num_spks must be an integer >= 1, got 0"),
        ({"file_format": "mp3"}, "file_format must be one of wav, flac, opus"),
        ({"file_format": "opus", "sample_rate": 44100}, "Opus has no 44100 Hz"),
        ({"sample_rate": 1}, "sample_rate must be an integer from 1000"),
    ],
)
def test_arguments_that_do_not_fit(run, tmp_path, options, message):
    with pytest.raises(
        UserError, match=f"^cannot separate talk.wav: {message}"
    ):
        run(sound(1.0, 8000, 2), 8000, **options)
    assert not (tmp_path / "out").exists()


def test_tracks_stay_in_their_folder(separator, run):
    for name in ("../up", "a/b", "."):
        with pytest.raises(UserError, match="name must be that of a file"):
            run(sound(0.5, 8000), 8000, name=name)
    soundfile.write("talk.wav", sound(0.5, 8000), 8000)
    made = separate_recording(separator, b"talk.wav", b"out\xff", name="me")
    assert os.fsencode(made.tracks[0]) == b"out\xff/me_1.wav"
    assert made.tracks[0].is_file()


@pytest.mark.parametrize("rate", [8000, 16000])
def test_tracks_beyond_full_scale(run, caplog, rate):
    # Opposite signs: each is louder than the recording.
    signal = np.clip(30 * sound(12.0, rate), -1, 1 - 2**-15)
    made, tracks = run(signal, rate, "PCM_16", num_spks=2)
    signal, _ = soundfile.read("talk.wav")
    loudest = max(np.abs(track).max() for track, _ in tracks)
    assert loudest > 1.0
    total = sum(track for track, _ in tracks)
    np.testing.assert_allclose(total, signal, atol=1e-5)
    assert soundfile.info(str(made.tracks[0])).subtype == "FLOAT"
    assert "beyond full scale" not in caplog.text
    with caplog.at_level(logging.WARNING):
        run(signal, rate, "PCM_16", num_spks=2, file_format="flac")
    assert caplog.text.count("where flac cuts them off") == 1


def test_files_that_are_none(separator, tmp_path):
    soundfile.write(tmp_path / "nothing.wav", np.zeros(0), 8000)
    with pytest.raises(UserError, match="nothing.wav: empty"):
        separate_recording(separator, tmp_path / "nothing.wav", tmp_path)
    soundfile.write(tmp_path / "cut.wav", sound(3.0, 8000), 8000)
    whole = (tmp_path / "cut.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[:-1000])
    (tmp_path / "empty.wav").write_bytes(b"")
    for name in ("cut.wav", "empty.wav", "missing.wav"):
        with pytest.raises(UserError, match=f"^cannot separate .*{name}: "):
            separate_recording(separator, tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_interruption_leaves_nothing(run, tmp_path, monkeypatch):
    restore = recordings.restore_sources

    def interrupted(*arguments):
        signal.raise_signal(signal.SIGINT)
        return restore(*arguments)

    monkeypatch.setattr(recordings, "restore_sources", interrupted)
    assert threading.current_thread() is threading.main_thread()
    with pytest.raises(KeyboardInterrupt):
        run(sound(22.0, 16000), 16000)
    assert os.listdir(tmp_path / "out") == []


def test_clipping_is_said_once(run, caplog):
    signal = np.clip(40 * sound(21.0, 8000), -1, 1)
    with caplog.at_level(logging.WARNING):
        run(signal, 8000, "PCM_16")
    said = [r.getMessage() for r in caplog.records if "clipped" in r.msg]
    assert len(said) == 1 and said[0].startswith("talk.wav is clipped")


@pytest.mark.parametrize("seconds", [1, 10, 11, 12, 13, 14, 15, 36, 37, 600])
def test_windows_cover_a_recording(seconds):
    edges = window_edges(seconds, 1)
    assert edges[0][0] == 0 and edges[-1][1] == seconds
    for (_, end), (begin, last) in zip(edges, edges[1:]):
        assert end - begin == OVERLAP
        assert WINDOW / 2 + OVERLAP - 1 <= last - begin < 2 * WINDOW
    assert all(b[0] >= a[1] for a, b in zip(edges, edges[2:]))


def test_windows_are_cut_from_blocks():
    signal = np.arange(1000.0)
    edges = [(0, 300), (250, 400), (390, 1000)]
    blocks = np.array_split(signal, 7)
    for window, (begin, end) in zip(cut(blocks, edges), edges, strict=True):
        np.testing.assert_array_equal(window, signal[begin:end])


def test_faded_windows_sum_to_the_signal(tmp_path):
    signal = np.random.default_rng(0).standard_normal(1000)
    edges = [(0, 300), (250, 600), (520, 1000)]
    with open(tmp_path / "store", "w+b") as file:
        store = WindowStore(file, edges)
        for begin, end in edges:
            part = signal[begin:end]
            store.add(np.stack([0.3 * part, 0.7 * part], 1))
        zero, one = Lane([], [0]), Lane([], [1])
        changing = Lane([700.0, 800.0], [0, 1, 0])
        lanes = [[zero, one], [one, zero], [changing, one]]
        for start, stop in [(0, 1000), (200, 560), (690, 1000), (990, 1000)]:
            tracks = store.tracks(start, stop, lanes, 2, 20)
            np.testing.assert_allclose(
                tracks.sum(1), signal[start:stop], atol=1e-6
            )
        for start, stop, share in [(310, 510, 0.7), (720, 780, 0.0)]:
            np.testing.assert_allclose(
                store.tracks(start, stop, lanes, 2, 20)[:, 0],
                share * signal[start:stop],
                atol=1e-6,
            )


def test_edges_at_other_rates():
    for rate in (44100, 11025, 48000):
        begin, end = at_rate((3 * rate, 3 * rate + 777), rate, 8000)
        assert begin == 24000 and end - begin == -(-777 * 8000 // rate)


def test_blocks_are_the_recording(tmp_path):
    signal = sound(1.0, 8000, 3)
    soundfile.write(tmp_path / "x.wav", signal, 8000, "DOUBLE")
    for channel in (None, 2):
        with read_blocks(tmp_path / "x.wav", channel) as recording:
            joined = np.concatenate(list(recording.blocks(999)))
        expected = signal.mean(1) if channel is None else signal[:, 1]
        np.testing.assert_array_equal(joined, expected)


@pytest.mark.parametrize("rate", [16000, 32000, 44100])
@pytest.mark.parametrize("suffix", ["mp3", "ogg", "opus", "flac"])
def test_blocks_of_compressed_files_are_what_is_read_at_once(
    tmp_path, suffix, rate
):
    if suffix == "opus" and rate not in recordings.OPUS_RATES:
        pytest.skip("Opus has no such rate")
    path = tmp_path / f"talk.{suffix}"
    subtype = "OPUS" if suffix == "opus" else None
    container = "OGG" if suffix == "opus" else None
    soundfile.write(path, 4 * sound(5.0, rate), rate, subtype, format=container)
    whole, _ = read_source(path)
    with read_blocks(path) as recording:
        blocks = np.concatenate([*recording.blocks(rate // 2)])
    np.testing.assert_allclose(blocks, whole, atol=1e-7)
    for start in (0, 12345, 3 * rate + 7):
        piece, _ = read_piece(path, start, rate)
        expected = whole[start : start + rate]
        np.testing.assert_allclose(piece, expected, atol=1e-6)


def test_channels_that_cancel_are_refused_unless_one_is_chosen(tmp_path):
    signal = sound(1.0, 8000) * [1, -1]
    soundfile.write(tmp_path / "x.wav", signal, 8000, "FLOAT")
    with read_blocks(tmp_path / "x.wav") as recording:
        with pytest.raises(UserError, match="its 2 channels cancel each other"):
            list(recording.blocks(999))
    with read_blocks(tmp_path / "x.wav", 1) as recording:
        list(recording.blocks(999))
