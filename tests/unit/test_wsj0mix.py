"""Tests of building mixtures from lists."""

import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.signal import resample_poly

from recipes.WSJ0Mix import prepare_mixtures
from speechbrain_kmdanet.dataio.active_level import active_speech_level
from speechbrain_kmdanet.dataio.mixing import mix_sources
from speechbrain_kmdanet.dataio.wsj0mix import build_mixtures, mixture_folder
from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.utils import jobs

LISTS = {
    "mix_2_spk_tr.txt": "a/x.wav 1.25 b/y.wav -1.25\nb/y.wav 0 c/z.wav -0.0\n",
    "mix_2_spk_cv.txt": "a/x.wav 2 c/z.wav -2\n",
    "mix_3_spk_tr.txt": "a/x.wav 1 b/y.wav 0 c/z.wav -1\n",
}
NAMES = ["x_1.25_y_-1.25", "y_0_z_0"]


def burst(seconds, rate, seed):
    """Noise that comes and goes, a stand-in for speech, [time]."""
    time = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(seed).standard_normal(len(time))
    return 0.02 * (seed + 1) * noise * (np.sin(7 * time + seed) > -0.3)


@pytest.fixture
def corpus(tmp_path):
    """A corpus at 16 kHz and its lists; returns the folder of both."""
    sources = {"a/x": 0.8, "b/y": 0.6, "c/z": 0.7}
    for seed, (name, seconds) in enumerate(sources.items()):
        path = tmp_path / "corpus" / f"{name}.wav"
        path.parent.mkdir(parents=True)
        soundfile.write(path, burst(seconds, 16000, seed), 16000)
    for name, text in LISTS.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def build(corpus, num_spks=2, splits=("tr",), **options):
    options = {"workers": 1, "progress": False, **options}
    return build_mixtures(
        corpus / "corpus", corpus, corpus / "out", num_spks, splits, **options
    )


def read(folder, name, num_spks=2):
    """Returns the mixture [time] and the sources [num_spks, time]."""
    parts = ["mix"] + [f"s{i + 1}" for i in range(num_spks)]
    files = [soundfile.read(folder / p / f"{name}.wav")[0] for p in parts]
    return files[0], np.stack(files[1:])


def written_files(corpus):
    """The mixtures, without what is said about them."""
    return sorted((corpus / "out").rglob("*.wav"))


def all_files(folder):
    """Bytes by path of everything in a folder."""
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_follows_the_original_script(corpus):
    assert build(corpus) == (2, 0)
    folder = corpus / "out/2speakers/wav8k/min/tr"
    mixture, sources = read(folder, NAMES[0])

    # Hershey et al. 2016, create_wav_2speakers.m, step by step
    x, _ = soundfile.read(corpus / "corpus/a/x.wav")
    y, _ = soundfile.read(corpus / "corpus/b/y.wav")
    x, y = resample_poly(x, 1, 2), resample_poly(y, 1, 2)
    x = 10 ** (1.25 / 20) * x / math.sqrt(active_speech_level(x, 8000))
    y = 10 ** (-1.25 / 20) * y / math.sqrt(active_speech_level(y, 8000))
    x, y = x[:4800], y[:4800]
    scale = 0.9 / max(abs(np.concatenate([x, y, x + y])))
    step = 2**-15
    assert np.abs(sources[0] - scale * x).max() <= 0.5001 * step
    assert np.abs(sources[1] - scale * y).max() <= 0.5001 * step
    assert np.abs(mixture - scale * (x + y)).max() <= 0.5001 * step

    assert np.abs(mixture - sources.sum(axis=0)).max() <= 1.5001 * step
    peak = max(np.abs(mixture).max(), np.abs(sources).max())
    assert peak == pytest.approx(0.9, abs=step)


def test_formats_and_names(corpus):
    build(corpus)
    root = corpus / "out/2speakers/wav8k/min/tr"
    assert mixture_folder(corpus / "out/2speakers", 8000, "min", "tr") == root
    expected = {
        root / part / f"{name}.wav"
        for part in ("mix", "s1", "s2")
        for name in NAMES
    }
    assert set(written_files(corpus)) == expected
    for path in expected:
        info = soundfile.info(path)
        assert (info.samplerate, info.subtype) == (8000, "PCM_16")
        assert (info.format, info.channels) == ("WAV", 1)


def test_levels_differ_by_the_snr(corpus):
    build(corpus, modes="max")  # "max" keeps the sources whole
    folder = corpus / "out/2speakers/wav8k/max/tr"
    _, sources = read(folder, NAMES[0])
    levels = [
        active_speech_level(source[: int(8000 * seconds)], 8000)
        for source, seconds in zip(sources, (0.8, 0.6))
    ]
    difference = 10 * math.log10(levels[0] / levels[1])
    assert difference == pytest.approx(2.5, abs=0.1)


def test_rates_modes_and_three_speakers(corpus):
    summary = build(
        corpus,
        num_spks=(2, 3),
        sample_rates=(8000, 16000),
        modes=("min", "max"),
    )
    assert summary == (12, 0)
    for rate in (8, 16):
        for mode, seconds in (("min", 0.6), ("max", 0.8)):
            folder = corpus / f"out/3speakers/wav{rate}k/{mode}/tr"
            mixture, sources = read(folder, "x_1_y_0_z_-1", num_spks=3)
            assert mixture.shape == (int(rate * 1000 * seconds),)
            peak = max(np.abs(mixture).max(), np.abs(sources).max())
            assert peak == pytest.approx(0.9, abs=2**-15)
            last = sources[1, int(600 * rate) :]
            assert not last.any()
    # the gains at 16 kHz come from the level at 8 kHz
    x, _ = soundfile.read(corpus / "corpus/a/x.wav")
    y, _ = soundfile.read(corpus / "corpus/b/y.wav")
    levels = [active_speech_level(resample_poly(s, 1, 2), 8000) for s in (x, y)]
    expected, _ = mix_sources([x, y], (1.25, -1.25), levels, "max")
    mixture, _ = read(corpus / "out/2speakers/wav16k/max/tr", NAMES[0])
    assert np.abs(mixture - expected).max() <= 0.5001 * 2**-15


def test_resumes(corpus):
    assert build(corpus) == (2, 0)
    times = {path: path.stat().st_mtime_ns for path in written_files(corpus)}
    contents = {path: path.read_bytes() for path in times}
    assert build(corpus) == (0, 2)
    assert times == {p: p.stat().st_mtime_ns for p in written_files(corpus)}

    (corpus / f"out/2speakers/wav8k/min/tr/s2/{NAMES[1]}.wav").unlink()
    assert build(corpus) == (1, 1)
    assert contents == {p: p.read_bytes() for p in written_files(corpus)}


def invert(path):
    """Changes a recording, but not its size nor the time of its change."""
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    signal, rate = soundfile.read(path)
    soundfile.write(path, -signal, rate)
    os.utime(path, ns=times)


def test_a_file_that_is_not_whole_is_no_mixture(corpus):
    build(corpus)
    whole = all_files(corpus / "out")
    for part, size in (("mix", 7), ("s1", 44), ("s2", 1001), ("s1", 0)):
        path = corpus / f"out/2speakers/wav8k/min/tr/{part}/{NAMES[0]}.wav"
        path.write_bytes(path.read_bytes()[:size])
        assert build(corpus) == (1, 1)
        assert all_files(corpus / "out") == whole
    # All parts alike
    for path in (corpus / "out").rglob(f"{NAMES[0]}.wav"):
        path.write_bytes(path.read_bytes()[:44])
    assert build(corpus) == (1, 1)
    assert all_files(corpus / "out") == whole


def test_mixtures_of_changed_recordings_are_built_again(corpus):
    build(corpus, modes=("min", "max"))
    first = all_files(corpus / "out")
    invert(corpus / "corpus/a/x.wav")
    # One of two mixtures has this recording, in both modes.
    assert build(corpus, modes=("min", "max")) == (2, 2)
    changed = {
        p.stem for p, x in all_files(corpus / "out").items() if first[p] != x
    }
    assert changed == {NAMES[0], "built_from"}
    # A copy of them is no change.
    (corpus / "corpus").rename(corpus / "moved")
    shutil.copytree(
        corpus / "moved", corpus / "corpus", copy_function=shutil.copy
    )
    assert build(corpus, modes=("min", "max")) == (0, 4)


def test_another_noise_is_another_mixture(corpus):
    for name in ("one", "other"):
        (corpus / name).mkdir()
        hiss = np.random.default_rng(len(name)).normal(0, 0.1, 4000)
        soundfile.write(corpus / name / "hiss.wav", hiss, 16000)
    assert build(corpus, noise_folder=corpus / "one") == (2, 0)
    assert build(corpus, noise_folder=corpus / "one") == (0, 2)
    assert build(corpus, noise_folder=corpus / "one", noise_snr=5.0) == (2, 0)
    assert build(corpus, noise_folder=corpus / "other", noise_snr=5.0) == (2, 0)
    assert build(corpus) == (2, 0)


def test_levels_of_later_versions_of_voicebox(corpus):
    build(corpus)
    folder = corpus / "out/2speakers/wav8k/min/tr"
    before, _ = read(folder, NAMES[0])
    assert build(corpus, level_padding=0.35) == (2, 0)
    assert build(corpus, level_padding=0.35) == (0, 2)
    after, _ = read(folder, NAMES[0])
    assert (after != before).any()


def test_mixtures_of_an_earlier_list_are_removed(corpus):
    build(corpus)
    path = corpus / "mix_2_spk_tr.txt"
    path.write_text("b/y.wav 0 c/z.wav -0.0\na/x.wav 2 c/z.wav -2\n")
    assert build(corpus) == (1, 1)
    names = {path.stem for path in written_files(corpus)}
    assert names == {NAMES[1], "x_2_z_-2"}
    assert len(written_files(corpus)) == 6
    # Other splits have folders of their own.
    build(corpus, splits=("cv",))
    assert len(written_files(corpus)) == 9


@pytest.mark.parametrize("record", ["kept", "lost", "damaged"])
def test_mixtures_from_elsewhere_stay_and_are_refused(corpus, record):
    build(corpus)
    folder = corpus / "out/2speakers/wav8k/min/tr"
    if record == "lost":
        (folder / "built_from.json").unlink()
    elif record == "damaged":
        (folder / "built_from.json").write_text('{"x_1.25')
    shutil.copy(folder / f"mix/{NAMES[0]}.wav", folder / "mix/mine.wav")
    before = all_files(corpus / "out")
    with pytest.raises(UserError, match="1 mixtures that are in no .*mine.wav"):
        build(corpus)
    assert all_files(corpus / "out") == before
    # Of the others, nobody knows what they were built from.
    (folder / "mix/mine.wav").unlink()
    assert build(corpus) == ((0, 2) if record == "kept" else (2, 0))
    assert len(written_files(corpus)) == 6


def test_what_else_is_in_the_folder_stays(corpus):
    build(corpus)
    folder = corpus / "out/2speakers/wav8k/min/tr"
    (folder / "noise").mkdir()
    other = folder / "noise" / f"{NAMES[0]}.wav"
    other.write_text("not ours")
    invert(corpus / "corpus/a/x.wav")
    assert build(corpus) == (1, 1)
    assert other.read_text() == "not ours"


def test_two_runs_in_one_folder_are_refused(corpus, monkeypatch):
    monkeypatch.setattr(jobs, "LOCK_SECONDS", 0.0)
    with jobs.only_process(corpus / "out", "wait"):
        with pytest.raises(UserError, match="another process is at work in"):
            build(corpus)
    assert build(corpus) == (2, 0)


def test_workers_write_the_same_files(corpus):
    build(corpus, splits=("tr", "cv"))
    one = {path: path.read_bytes() for path in written_files(corpus)}
    for path in one:
        path.unlink()
    assert build(corpus, splits=("tr", "cv"), workers=2) == (3, 0)
    assert one == {path: path.read_bytes() for path in written_files(corpus)}


def test_interrupted_write_leaves_no_mixture(corpus, monkeypatch):
    def fail(*args, **kwargs):
        Path(args[0]).write_bytes(b"half a file")
        raise OSError("No space left on device")

    monkeypatch.setattr(soundfile, "write", fail)
    with pytest.raises(UserError, match=rf"{NAMES[0]} .*line 1.*No space"):
        build(corpus)
    assert written_files(corpus) == []


def truncate(path, fraction=0.5):
    data = path.read_bytes()
    path.write_bytes(data[: int(fraction * len(data))])


def make_flac(path, fraction):
    soundfile.write(path.with_suffix(".flac"), burst(2, 16000, 0), 16000)
    path.write_bytes(path.with_suffix(".flac").read_bytes())
    truncate(path, fraction)


def make_flac_of_unknown_length(path):
    make_flac(path, 1.0)
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0  # the number of samples: 36 bits of STREAMINFO
    data[22:26] = bytes(4)
    path.write_bytes(data)


def write_samples(*samples, rate=16000):
    samples = np.array(samples)
    return lambda path: soundfile.write(path, samples, rate, subtype="FLOAT")


def move_to_sphere(path):
    path.rename(path.with_suffix(".wv1"))


BAD_INPUTS = {
    "missing": (Path.unlink, "missing.*corpus folder"),
    "sphere-beside": (move_to_sphere, "only x.wv1 .*sph2pipe -f wav"),
    "sphere-inside": (
        lambda path: path.write_bytes(b"NIST_1A\n   1024\n"),
        "a SPHERE file.*sph2pipe -f wav",
    ),
    "no-audio": (
        lambda path: path.write_text("hello"),
        "unreadable: .*copy these",
    ),
    "truncated-wav": (truncate, "truncated, .* bytes missing"),
    "truncated-header": (lambda path: truncate(path, 1e-3), "unreadable"),
    "truncated-flac": (
        lambda path: make_flac(path, 0.5),
        "truncated, .* samples missing|unreadable",
    ),
    "endless-flac": (make_flac_of_unknown_length, "of unknown length"),
    "nan": (write_samples(*([0.1, math.nan] * 2000)), "NaN"),
    "inf": (write_samples(*([0.1, math.inf] * 2000)), "infinite"),
    "empty": (write_samples(), "empty"),
    "silent": (write_samples(*([0.0] * 4000)), "silent"),
    "constant": (write_samples(*([0.5] * 4000)), "silent"),
    "two-samples": (write_samples(0.1, 0.2), "too short, 2 samples"),
    "stereo": (write_samples(*([[0.1, 0.2]] * 4000)), "has 2 channels"),
    "low-rate": (
        write_samples(*([0.1, -0.1] * 2000), rate=6000),
        "6000 Hz, expected at least 8000 Hz",
    ),
}


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_refuses_unusable_recordings(corpus, case):
    spoil, message = BAD_INPUTS[case]
    spoil(corpus / "corpus/a/x.wav")
    with pytest.raises(UserError, match=message) as error:
        build(corpus, splits=("tr", "cv"))
    text = str(error.value)
    assert text.startswith("1 of 3 recordings")
    assert "a/x.wav (mix_2_spk_tr.txt line 1)" in text
    assert "Remedy: " in text and "\n" not in text
    assert not (corpus / "out").exists()


def test_accepts_sizes_that_a_pipe_left_open(corpus):
    path = corpus / "corpus/a/x.wav"
    data = bytearray(path.read_bytes())
    position = data.index(b"data") + 4
    data[position : position + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert build(corpus) == (2, 0)


def test_reads_a_complete_flac(corpus):
    make_flac(corpus / "corpus/a/x.wav", 1.0)
    assert build(corpus) == (2, 0)


def test_refuses_16k_from_an_8k_corpus(corpus):
    for path in (corpus / "corpus").rglob("*.wav"):
        soundfile.write(path, burst(0.5, 8000, 1), 8000)
    message = "has 8000 Hz, expected at least 16000 Hz.*lower output rate"
    with pytest.raises(UserError, match=message):
        build(corpus, sample_rates=16000)


def test_counts_the_rest_of_many_problems(corpus):
    lines = [f"n{i}.wav {i} a/x.wav 1" for i in range(9)]
    (corpus / "mix_2_spk_tr.txt").write_text("\n".join(lines))
    with pytest.raises(UserError, match="9 of 10 .*n4.wav.*and 4 more"):
        build(corpus)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"sample_rates": 44100}, "sample_rates: .*44100"),
        ({"modes": ("min", "mid")}, "modes: .*mid"),
        ({"modes": ()}, "modes: "),
        ({"workers": 0}, "workers: .*0"),
        ({"level_padding": -0.1}, "level_padding: .*-0.1"),
    ],
)
def test_refuses_bad_arguments(corpus, options, message):
    with pytest.raises(UserError, match=message):
        build(corpus, **options)


def test_refuses_a_wrong_folder(corpus):
    with pytest.raises(UserError, match="corpus_folder: .*nowhere"):
        build_mixtures(corpus / "nowhere", corpus, corpus / "out", 2)
    with pytest.raises(UserError, match="mix_2_spk_tr.txt"):
        build_mixtures(corpus / "corpus", corpus / "out", corpus / "out", 2)


def test_command_line(corpus, capsys):
    folders = [str(corpus / "corpus"), str(corpus), str(corpus / "out")]
    options = ["--splits", "tr", "--workers", "1", "--modes", "min", "max"]
    assert prepare_mixtures.main(folders + options) == 0
    assert "4 mixtures written, 0 already there" in capsys.readouterr().out

    (corpus / "corpus/c/z.wav").unlink()
    assert prepare_mixtures.main([*folders, "--splits", "cv"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("prepare_mixtures.py: error: 1 of 2 recordings")
    assert "c/z.wav (mix_2_spk_cv.txt line 1): missing" in error


def test_command_line_help(capsys):
    with pytest.raises(SystemExit) as end:
        prepare_mixtures.main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "sph2pipe -f wav" in text and "--num_spks" in text


@pytest.mark.parametrize("mode", ["min", "max"])
def test_noise_is_added_at_its_level(corpus, mode):
    noise = corpus / "noise"
    (noise / "hiss").mkdir(parents=True)
    hiss = np.random.default_rng(0).normal(0, 0.1, 4000)
    soundfile.write(noise / "hiss" / "0.wav", hiss, 16000)
    build(corpus, modes=mode, noise_folder=noise, noise_snr=5.0)
    folder = corpus / "out/2speakers/wav8k" / mode / "tr"
    for path in (folder / "mix").glob("*.wav"):
        mixture, *sources = (
            soundfile.read(folder / part / path.name)[0]
            for part in ("mix", "s1", "s2")
        )
        talkers = np.sum(sources, axis=0)
        power = np.square(talkers).mean() / np.square(mixture - talkers).mean()
        assert 10 * np.log10(power) == pytest.approx(5.0, abs=0.02)
        assert np.abs(mixture).max() <= 0.9 + 2**-15


def test_refuses_a_folder_without_noise(corpus):
    (corpus / "empty").mkdir()
    with pytest.raises(UserError, match="noise_folder: .*empty"):
        build(corpus, noise_folder=corpus / "empty")
