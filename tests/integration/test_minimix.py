"""Tests of the recipe that synthesises MiniMix, on a tiny set."""

import csv
import logging
import random
import sys

import numpy as np
import pytest
import soundfile
from minimix_lists import PITCH_RATIO, draw_mixtures, draw_texts, read_sentences
from minimix_synthesis import trim
from minimix_voices import VARIANTS, draw_speakers
from recipe_runs import MINIMIX

from recipes.MiniMix.prepare import SPLITS, main, prepare_minimix


def read_list(folder, num_spks, split):
    path = folder / "lists" / f"mix_{num_spks}_spk_{split}.txt"
    return [line.split() for line in path.read_text().splitlines()]


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("split, recordings", [("tr", 8), ("cv", 6), ("tt", 6)])
def test_recordings_are_trimmed_speech(minimix, split, recordings):
    paths = sorted((minimix / "corpus" / split).glob("*/*.wav"))
    assert len(paths) == recordings
    for path in paths:
        info = soundfile.info(path)
        assert (info.samplerate, info.channels) == (8000, 1)
        assert info.subtype == "PCM_16"
        assert 1.5 < info.duration < 7
        signal = soundfile.read(path)[0]
        assert 0.1 < abs(signal).max() < 0.95
        # up to a frame of 10 ms
        assert len(signal) - len(trim(signal)) <= 2 * 80


def test_speakers_differ_in_their_sound(minimix):
    spectra = []
    for folder in sorted((minimix / "corpus" / "tr").iterdir()):
        signal = np.concatenate(
            [soundfile.read(path)[0] for path in sorted(folder.iterdir())]
        )
        frames = signal[: len(signal) // 256 * 256].reshape(-1, 256)
        power = (abs(np.fft.rfft(frames * np.hanning(256))) ** 2).mean(0)
        spectra.append(10 * np.log10(power[6:]))  # from 190 Hz on
    for i, first in enumerate(spectra):
        for second in spectra[:i]:
            assert np.std(first - second) > 1.5


@pytest.mark.parametrize("num_spks", [2, 3])
@pytest.mark.parametrize("split, mixtures", list(zip(SPLITS, (4, 2, 2))))
def test_lists(minimix, num_spks, split, mixtures):
    lines = read_list(minimix, num_spks, split)
    assert len(lines) == mixtures
    for line in lines:
        paths, snrs = line[0::2], [float(snr) for snr in line[1::2]]
        assert all((minimix / "corpus" / path).is_file() for path in paths)
        speakers = {path.split("/")[1] for path in paths}
        assert len(speakers) == num_spks
        assert 0 <= snrs[0] <= 2.5 and snrs[1] == -snrs[0]
        assert snrs[2:] == [0.0] * (num_spks - 2)


@pytest.mark.parametrize("num_spks", [2, 3])
def test_mixtures_are_sums_of_their_sources(minimix, num_spks):
    for split, mixtures in zip(SPLITS, (4, 2, 2)):
        folder = minimix / f"{num_spks}speakers/wav8k/min/{split}"
        paths = sorted((folder / "mix").glob("*.wav"))
        assert len(paths) == mixtures
        for path in paths:
            mixture, rate = soundfile.read(path, dtype="int16")
            sources = [
                soundfile.read(folder / f"s{i + 1}" / path.name, dtype="int16")
                for i in range(num_spks)
            ]
            assert rate == 8000
            total = sum(source.astype(int) for source, _ in sources)
            assert abs(mixture - total).max() <= num_spks  # rounding


def test_splits_share_no_voice_and_no_sentence(minimix):
    names = [
        {name for register in VARIANTS[split].values() for name in register}
        for split in SPLITS
    ]
    assert len(set.union(*names)) == sum(map(len, names))
    sentences = read_sentences()
    everything = [text for split in SPLITS for text in sentences[split]]
    assert len(set(everything)) == len(everything) == 120
    with open(minimix / "corpus" / "speakers.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    splits = [row["split"] for row in rows]
    assert splits == 4 * ["tr"] + 3 * ["cv"] + 3 * ["tt"]
    for row in rows:
        assert row["variant"] in names[SPLITS.index(row["split"])]


def test_default_speakers_are_distinct_and_half_are_high():
    for split, count in zip(SPLITS, (32, 8, 8)):
        speakers = draw_speakers(split, count, seed=1234)
        assert len({speaker[1:] for speaker in speakers}) == count
        assert sum(speaker.pitch > 150 for speaker in speakers) == count // 2
        assert all(0 <= speaker.pitch_parameter <= 99 for speaker in speakers)
    assert speakers != draw_speakers(split, count, seed=1235)


def test_mixtures_are_of_clearly_different_speakers():
    speakers = draw_speakers("tr", 32, seed=1)
    by_name = {speaker.name: speaker for speaker in speakers}
    readings = draw_texts(speakers, 3, seed=1)
    for num_spks, ratio in PITCH_RATIO.items():
        lines = draw_mixtures(readings, num_spks, 50, random.Random(0))
        for line in lines:
            group = [by_name[p.split("/")[1]] for p in line.split()[0::2]]
            pitches = sorted(speaker.pitch for speaker in group)
            assert len({speaker.variant for speaker in group}) == num_spks
            said = {p.split("_")[1] for p in line.split()[0::2]}
            assert len(said) == num_spks
            assert all(
                high / low >= ratio for low, high in zip(pitches, pitches[1:])
            )


def test_the_same_settings_make_the_same_set(minimix, tmp_path):
    """Whatever the number of workers, and after an interruption."""
    prepare_minimix(tmp_path, num_spks=[2], workers=1, **MINIMIX)
    speaker = tmp_path / "corpus/tr/tr01"
    next(speaker.iterdir()).unlink()  # as if it had been interrupted here
    prepare_minimix(tmp_path, num_spks=[2, 3], workers=1, **MINIMIX)
    assert contents(tmp_path) == contents(minimix)


def test_a_finished_set_is_left_alone(minimix, caplog):
    before = contents(minimix)
    with caplog.at_level(logging.INFO):
        folders = prepare_minimix(minimix, num_spks=[3], **MINIMIX)
    assert "is there already" in caplog.text
    assert folders == {3: minimix / "3speakers"}
    assert contents(minimix) == before


def run(capsys, *arguments):
    """Returns the only line that a refused command writes."""
    assert main([str(argument) for argument in arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_another_set_is_not_overwritten(minimix, capsys):
    line = run(capsys, minimix, "--speakers", 4, 3, 3, "--seed", 5)
    assert "seed 1234 (asked for: 5)" in line


def test_a_folder_of_other_data_is_refused(tmp_path, capsys):
    (tmp_path / "2speakers").mkdir()
    assert "not a MiniMix folder" in run(capsys, tmp_path)


def test_a_damaged_state_is_refused(tmp_path, capsys):
    (tmp_path / "minimix.json").write_text("{")
    assert "damaged" in run(capsys, tmp_path)


@pytest.mark.parametrize(
    "options, name",
    [
        (("--speakers", 2, 3, 3), "speakers"),
        (("--mixtures", 4, 0, 4), "mixtures"),
        (("--utterances", 0), "utterances"),
        (("--workers", 0), "workers"),
    ],
)
def test_arguments_out_of_range_are_named(tmp_path, capsys, options, name):
    assert f"error: {name}: expected" in run(capsys, tmp_path, *options)
    assert not any(tmp_path.iterdir())


def test_missing_espeak_says_how_to_install_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    line = run(capsys, tmp_path)
    assert 'pip install "speechbrain_kmdanet[demo]"' in line
    assert not any(tmp_path.iterdir())
