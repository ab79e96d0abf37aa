"""Tests of the command kmdanet."""

import io
import json
import os
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from tiny_separator import write_separator

from speechbrain_kmdanet import __version__
from speechbrain_kmdanet.command_line import (
    Input,
    Manifest,
    find_inputs,
    main,
    own_share,
)
from speechbrain_kmdanet.errors import UserError


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_separator(tmp_path_factory.mktemp("separator"))


@pytest.fixture
def run(source, tmp_path, monkeypatch, capsys):
    """Runs the command in a folder of its own: status, output and errors."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments, separator=source):
        given = list(map(str, arguments))
        if given[0] == "separate":
            given += ["--separator", str(separator)]
            if "--talkers" not in given:
                given += ["--talkers", "2"]
        status = main(given)
        said = capsys.readouterr()
        return SimpleNamespace(status=status, out=said.out, err=said.err)

    return command


def record(*paths, seconds=0.3, rate=8000):
    """Writes recordings of noise."""
    for number, path in enumerate(paths):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(number)
        noise = 0.1 * rng.standard_normal(round(seconds * rate))
        soundfile.write(path, noise, rate)


def files_of(folder):
    """Audio below a folder."""
    return sorted(
        str(path.relative_to(folder))
        for path in Path(folder).rglob("*")
        if path.suffix in {".wav", ".flac", ".opus"}
    )


def test_one_file(run):
    record("talk.flac", rate=16000)
    made = run("separate", "talk.flac", "--rttm", "--json", "--background")
    assert (made.status, made.err) == (0, "")
    assert made.out == (
        "talk.flac: 2 talkers: separated/talk_1.wav, separated/talk_2.wav\n"
    )
    assert files_of("separated") == [
        "talk_1.wav",
        "talk_2.wav",
        "talk_background.wav",
    ]
    about = json.loads(Path("separated/talk.json").read_text())
    assert about["talkers"] == 2 and about["seconds"] == 0.3
    assert about["tracks"] == ["talk_1.wav", "talk_2.wav"]
    lines = Path("separated/talk.rttm").read_text().splitlines()
    assert len(lines) == len(about["turns"]) > 0
    for line, turn in zip(lines, about["turns"]):
        words = line.split()
        assert words[:2] == ["SPEAKER", "talk"]
        assert float(words[3]) == turn["start"]
        assert words[7] == f"talk_{turn['track']}"
    mixture, rate = soundfile.read("talk.flac")
    tracks = [soundfile.read(f"separated/{x}") for x in files_of("separated")]
    assert {rate for _, rate in tracks} == {16000}
    total = sum(track for track, _ in tracks)
    np.testing.assert_allclose(total, mixture, atol=1e-4)


def test_a_folder_goes_on_where_it_stopped(run):
    record("in/a.wav", "in/deep/b.flac", "in/.hidden/c.wav", "in/.d.wav")
    Path("in/notes.txt").write_text("no audio")
    first = run("separate", "in", "--out", "out")
    assert first.status == 0 and "2 separated" in first.err
    names = ["a_1.wav", "a_2.wav", "deep/b_1.wav", "deep/b_2.wav"]
    assert files_of("out") == names
    times = {name: os.stat(f"out/{name}").st_mtime_ns for name in names}
    record("in/new.wav")
    Path("out/deep/b_2.wav").unlink()
    again = run("separate", "in", "--out", "out")
    # What was done by halves is not taken for done, nor overwritten.
    assert again.status == 1 and "out/deep/b_1.wav is there" in again.err
    Path("out/deep/b_1.wav").unlink()
    last = run("separate", "in", "--out", "out")
    assert last.status == 0 and "1 separated, 2 were done" in last.err
    for name in names[:2]:
        assert os.stat(f"out/{name}").st_mtime_ns == times[name]
    done = Manifest(Path("out")).read()
    assert sorted(done) == ["a", "deep/b", "new"]
    assert done["deep/b"]["tracks"] == ["deep/b_1.wav", "deep/b_2.wav"]


@pytest.mark.parametrize("change", ["recording", "options"])
def test_other_output_is_not_overwritten(run, change):
    record("a.wav")
    assert run("separate", "a.wav").status == 0
    before = Path("separated/a_1.wav").read_bytes()
    options = ["--format", "wav"]
    if change == "recording":
        record("x.wav", "a.wav")
    else:
        options = ["--rate", "16000"]
    refused = run("separate", "a.wav", *options)
    assert refused.status == 1
    assert re.search("separated/a_1.wav is there, .*--overwrite", refused.err)
    assert Path("separated/a_1.wav").read_bytes() == before
    assert run("separate", "a.wav", *options, "--overwrite").status == 0
    assert Path("separated/a_1.wav").read_bytes() != before
    assert run("separate", "a.wav", *options).out == "a.wav: done already\n"


def test_a_bad_file_does_not_stop_the_others(run):
    record("a.wav", "z.wav")
    Path("bad.wav").write_bytes(b"no audio")
    made = run("separate", "a.wav", "bad.wav", "gone.wav", "z.wav")
    assert made.status == 1
    assert files_of("separated") == ["a_1.wav", "a_2.wav", "z_1.wav", "z_2.wav"]
    lines = made.err.splitlines()
    assert lines[0].startswith("kmdanet: cannot separate bad.wav: unreadable")
    assert lines[1].startswith("kmdanet: cannot separate gone.wav: missing")
    assert "2 separated, 0 were done already, 2 failed" in lines[2]
    text = Path("separated/manifest.jsonl").read_text()
    assert [json.loads(x)["status"] for x in text.splitlines()] == [
        "done",
        "failed",
        "failed",
        "done",
    ]


def test_standard_input(run, monkeypatch):
    record("a.wav")
    data = io.BytesIO(Path("a.wav").read_bytes())
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=data))
    assert run("separate", "-").status == 0
    assert files_of("separated") == ["stdin_1.wav", "stdin_2.wav"]


def test_patterns_and_names(run, tmp_path):
    record("d1/a.wav", "d1/a.flac", "d2/b.wav", "../outside.wav")
    found = find_inputs(["d*/*.wav", "../outside.wav"])
    assert [x.name for x in found] == ["a", "b", "outside"]
    # Of two with one stem, suffixes tell.
    assert [x.name for x in find_inputs(["d1"])] == ["a_flac", "a_wav"]
    assert find_inputs(["d2", "d2/b.wav"]) == [Input(Path("d2/b.wav"), "b")]
    record("d3/b.wav")
    with pytest.raises(UserError, match="d2/b.wav and d3/b.wav would be wri"):
        find_inputs(["d2", "d3"])
    Path("none").mkdir()
    for nothing in ("none", "x*.wav"):
        refused = run("separate", nothing)
        assert refused.status == 2 and refused.err.count("\n") == 1


def test_processes_share_a_list():
    inputs = list(range(11))
    torchrun = [
        own_share(inputs, {"RANK": str(i), "WORLD_SIZE": "3"}) for i in range(3)
    ]
    array = [
        own_share(
            inputs,
            {
                "SLURM_ARRAY_TASK_ID": str(i),
                "SLURM_ARRAY_TASK_MIN": "2",
                "SLURM_ARRAY_TASK_STEP": "2",
                "SLURM_ARRAY_TASK_COUNT": "2",
                "SLURM_PROCID": str(process),
                "SLURM_NTASKS": "2",
            },
        )
        for i in (2, 4)
        for process in range(2)
    ]
    for shares in (torchrun, array):
        assert sorted(sum(shares, [])) == inputs
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert own_share(inputs, {}) == inputs


def test_processes_write_one_manifest(run, monkeypatch):
    record(*[f"in/{x}.wav" for x in "abcde"])
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, count in ((0, 3), (1, 2)):
        monkeypatch.setenv("RANK", str(rank))
        assert f"{count} separated" in run("separate", "in").err
    assert sorted(Manifest(Path("separated")).read()) == list("abcde")


def test_a_cut_line_of_the_manifest(tmp_path):
    manifest = Manifest(tmp_path)
    for name in ("a", "b"):
        manifest.add({"name": name, "status": "done"})
    text = manifest.path.read_text()
    manifest.path.write_text(text[:-9])
    assert list(manifest.read()) == ["a"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["separate", "a.wav", "--talkers", "two"], 'or "auto", got .two'),
        (["separate", "a.wav", "--talkers", "0"], "integer >= 1, got 0"),
        (["separate", "a.wav", "--talkers", "auto"], "which this one cannot"),
        (
            ["separate", "a.wav", "--channel", "2"],
            "channel must be from 1 to 1",
        ),
        (
            ["separate", "a.wav", "--rate", "5"],
            "sample_rate must be an integer",
        ),
    ],
)
def test_arguments_that_do_not_fit(run, arguments, message):
    record("a.wav")
    refused = run(*arguments)
    assert refused.status in (1, 2) and re.search(message, refused.err)
    assert refused.err.count("\n") == 1 and not files_of(".")[1:]


def test_info(run, source):
    about = run("info", source)
    assert about.status == 0
    for line in ("DANet", "EmbeddingNet", "8000 Hz", "2 by default", "safe"):
        assert line in about.out
    refused = run("info", "nowhere")
    assert refused.status == 2 and "kmeans_wide" in refused.err
    # What would run something else is not loaded, and said to be.
    shutil.copytree(source, "evil")
    path = Path("evil/hyperparams.yaml")
    path.write_text(path.read_text() + "x: !apply:os.system [touch owned]\n")
    refused = run("info", "evil")
    assert refused.status == 2 and "trust" in refused.err
    assert not Path("owned").exists()


def test_example_version_and_help(run, capsys):
    assert run("example").status == 0
    signal, rate = soundfile.read("two_talkers.flac")
    assert rate == 8000 and len(signal) > 2 * rate
    for option, text in (("--version", __version__), ("--help", "separate")):
        with pytest.raises(SystemExit) as ended:
            main([option])
        assert ended.value.code == 0 and text in capsys.readouterr().out
