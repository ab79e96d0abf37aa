"""Conversations of synthetic voices, made and measured by their commands."""

import csv
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import synthesis
from conversation_lists import read_conversation, read_rttm
from prepare_data import list_wsj0mix

from recipes.Conversations import evaluate, prepare

SIZE = ("--conversations", "2", "--minutes", "0.5", "--workers", "1")
SIZE += ("--least_seconds", "2")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A corpus of six voices in the layout of MiniMix's."""
    folder = tmp_path_factory.mktemp("corpus")
    synthesis.write_corpus(folder / "tt", utterances=4)
    return folder


@pytest.fixture(scope="module")
def made(corpus, tmp_path_factory):
    """Conversations of two and of three talkers."""
    folder = tmp_path_factory.mktemp("conversations")
    assert make(corpus, folder) == 0
    return folder


def make(corpus, output, *options):
    words = [corpus, output, "--num_spks", 2, 3, *SIZE, *options]
    return prepare.main([str(word) for word in words])


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def signals(folder, name, num_spks):
    parts = ["mix", *(f"s{i + 1}" for i in range(num_spks))]
    return [
        soundfile.read(folder / part / f"{name}.wav", dtype="int16")[0]
        for part in parts
    ]


@pytest.mark.parametrize("num_spks", [2, 3])
def test_audio_is_what_the_lists_say(made, num_spks):
    root = made / f"{num_spks}speakers"
    folder = root / "wav8k/min/tt"
    lists = sorted((made / f"lists/{num_spks}speakers/tt").glob("*.txt"))
    assert len(lists) == 2
    for path in lists:
        talk = read_conversation(path)
        info = soundfile.info(folder / "mix" / f"{talk.name}.wav")
        assert (info.samplerate, info.frames) == (8000, 240_000)
        assert info.subtype == "PCM_16"
        mixture, *sources = signals(folder, talk.name, num_spks)
        total = sum(source.astype(int) for source in sources)
        assert abs(mixture - total).max() <= num_spks  # rounding
        peaks = [abs(x.astype(int)).max() for x in (mixture, *sources)]
        assert max(peaks) == round(0.9 * 2**15)
        turns = read_rttm(root / "rttm/tt" / f"{talk.name}.rttm")
        for talker, source in zip(talk.gains, sources):
            heard = np.zeros(len(source), bool)
            for start, end, who in turns:
                if who == talker:
                    span = slice(round(8000 * start), round(8000 * end))
                    heard[span] = True
                    assert abs(source[span].astype(int)).max() > 300
            assert not source[~heard].any()


def test_train_reads_them(made):
    for num_spks in (2, 3):
        rows = list_wsj0mix(
            made / f"{num_spks}speakers", num_spks, splits=["tt"]
        )
        assert [x["duration"] for x in rows["tt"].values()] == [30.0, 30.0]


def test_the_same_command_leaves_all_alone(corpus, made, capsys):
    before = contents(made)
    times = {path: (made / path).stat().st_mtime_ns for path in before}
    assert make(corpus, made) == 0
    assert contents(made) == before
    changed = {
        p for p, x in times.items() if (made / p).stat().st_mtime_ns != x
    }
    assert {path.name for path in changed} <= {"built_from.json"}
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and "2 conversations, 1 min" in lines[0]


def test_an_interrupted_run_goes_on(corpus, made, tmp_path):
    shutil.copytree(made, tmp_path / "copy")
    folder = tmp_path / "copy/3speakers"
    next((folder / "wav8k/min/tt/s2").glob("*_001.wav")).unlink()
    next((folder / "rttm/tt").glob("*_002.rttm")).unlink()
    shutil.rmtree(tmp_path / "copy/2speakers")
    assert make(corpus, tmp_path / "copy") == 0
    assert contents(tmp_path / "copy") == contents(made)


def test_lists_alone_make_the_set_again(corpus, made, tmp_path, capsys):
    shutil.copytree(made / "lists", tmp_path / "lists")
    assert make(corpus, tmp_path, "--seed", 5, "--keep_lists") == 0
    assert contents(tmp_path) == contents(made)
    capsys.readouterr()


def refused(capsys, status):
    """The only line that a refused command writes."""
    assert status == 2
    *bars, line = capsys.readouterr().err.splitlines()
    assert not any("Traceback" in text for text in bars)
    return line


@pytest.mark.parametrize(
    "options, part",
    [
        (("--seed", 5), "is the list of another set"),
        (("--overlap", 0.3, 0.1), "overlap: expected two shares"),
        (("--minutes", 0), "minutes: expected more than 0, got 0"),
        (("--workers", 0), "workers: expected 1 or more, got 0"),
        (("--splits", "cv"), "there is no folder"),
        (("--least_seconds", 60), "tt has 0 talkers with enough"),
    ],
)
def test_what_cannot_be_made(corpus, made, capsys, options, part):
    before = contents(made)
    assert part in refused(capsys, make(corpus, made, *options))
    assert contents(made) == before


def test_another_corpus_is_refused(corpus, made, tmp_path, capsys):
    other = tmp_path / "corpus"
    shutil.copytree(corpus, other)
    path = (
        other
        / read_conversation(next((made / "lists/2speakers/tt").glob("*.txt")))
        .utterances[0]
        .path
    )
    signal, rate = soundfile.read(path)
    soundfile.write(path, np.tile(signal, 2), rate)
    shutil.copytree(made / "lists", tmp_path / "out/lists")
    status = make(other, tmp_path / "out", "--keep_lists")
    assert "more than its list gives it" in refused(capsys, status)


def perfect(turned=1):
    """A separator that knows everything, but not the order of talkers."""

    def separate(path, folder, num_spks):
        separate.asked.append(num_spks)
        root, name = path.parents[1], path.stem
        sources = sorted(root.glob(f"s?/{path.name}"))
        sources = sources[turned:] + sources[:turned]
        folder.mkdir(parents=True, exist_ok=True)
        tracks = []
        for i, source in enumerate(sources):
            tracks.append(folder / f"{name}_{i + 1}.wav")
            shutil.copy(source, tracks[-1])
        rttm = root.parents[2] / "rttm" / root.name / f"{name}.rttm"
        return SimpleNamespace(tracks=tracks, turns=read_rttm(rttm))

    separate.asked = []
    return separate


def measure(separate, made, *options):
    words = [made, "--separator", "none", *options]
    return evaluate.main([str(word) for word in words], separate)


def test_a_perfect_separator_is_perfect(made, tmp_path, capsys):
    separate = perfect()
    output = tmp_path / "table"
    assert measure(separate, made, "--talkers", "true", "--output", output) == 0
    assert separate.asked == [2, 2, 3, 3]
    with open(f"{output}.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["set"] for row in rows] == 2 * ["2speakers"] + 2 * ["3speakers"]
    for row in rows:
        assert float(row["right_track"]) == 1.0
        assert float(row["overlap_si_sdri"]) > 15
        assert float(row["diarisation_error"]) == 0.0
        assert row["tracks"] == row["talkers"]
    text = Path(f"{output}.md").read_text()
    assert text.startswith("# Conversations of tt, number of talkers: given")
    assert text.count("100.00 ± 0.00") == 2 and text.count("2 of 2") == 2
    printed = capsys.readouterr().out
    assert "| 3speakers | 2 " in printed and str(tmp_path) not in text


def test_the_mixture_is_no_separation(made, tmp_path, capsys):
    def separate(path, folder, num_spks):
        folder.mkdir(parents=True, exist_ok=True)
        track = folder / "mixture_1.wav"
        shutil.copy(path, track)
        return SimpleNamespace(tracks=[track], turns=[])

    output = tmp_path / "table"
    tracks = tmp_path / "tracks"
    options = ("--output", output, "--tracks", tracks)
    assert measure(separate, made / "2speakers", *options) == 0
    with open(f"{output}.csv", newline="") as file:
        for row in csv.DictReader(file):
            # One talker at most has the track.
            assert 0.5 <= float(row["right_track"]) < 1.0
            assert float(row["overlap_si_sdri"]) == pytest.approx(0, abs=0.01)
            assert float(row["missed"]) == 1.0
    assert (tracks / "2speakers/mixture_1.wav").is_file()
    assert "| 0 of 2 " in capsys.readouterr().out


@pytest.mark.parametrize(
    "options, part",
    [
        (("--split", "cv"), "DATA: there are no conversations of cv"),
        (("--talkers", "0"), "talkers: expected auto, true or a number"),
        (("--talkers", "many"), "talkers: expected auto, true or a number"),
    ],
)
def test_what_cannot_be_measured(made, capsys, options, part):
    line = refused(capsys, measure(perfect(), made, *options))
    assert line.startswith("evaluate.py: error: ") and part in line


def test_true_turns_are_needed(made, tmp_path, capsys):
    shutil.copytree(made / "2speakers", tmp_path / "2speakers")
    shutil.rmtree(tmp_path / "2speakers/rttm")
    line = refused(capsys, measure(perfect(), tmp_path))
    assert "is no RTTM file that can be read" in line


def test_an_unknown_separator_is_refused_in_a_line(made, tmp_path, capsys):
    words = [str(made), "--separator", str(tmp_path / "nothing")]
    assert "nothing" in refused(capsys, evaluate.main(words))


def test_help(capsys):
    for main in (prepare.main, evaluate.main):
        with pytest.raises(SystemExit):
            main(["--help"])
        assert "example:" in capsys.readouterr().out
