"""The command kmdanet: what it finds, writes, leaves alone and says."""

import importlib.util
import io
import json
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from tiny_separator import write_separator

from speechbrain_kmdanet import EXAMPLE, __version__, command_line
from speechbrain_kmdanet.command_line import FORMATS, main
from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.inference import corpus, recordings
from speechbrain_kmdanet.inference.loading import resolve_source
from speechbrain_kmdanet.inference.separation import AttractorSeparation
from speechbrain_kmdanet.lobes.models.counting import TalkerCounter
from speechbrain_kmdanet.utils.processes import MANIFEST, Manifest

VARIABLES = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "SLURM_LOCALID",
    "SLURM_PROCID",
    "SLURM_NTASKS",
    "SLURM_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_ARRAY_TASK_COUNT",
)


@pytest.fixture(scope="module")
def separator(tmp_path_factory):
    return write_separator(tmp_path_factory.mktemp("separator"))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty folder, and no other process."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def separate(separator, capsys):
    """Runs the command; returns its status and what it says."""

    def run(*arguments, talkers=2):
        arguments = ["separate", *map(str, arguments), "--device", "cpu"]
        arguments += ["--separator", str(separator)]
        status = main([*arguments, "--talkers", str(talkers)])
        return status, *capsys.readouterr()

    return run


def record(*names, seconds=0.4, rate=8000):
    """Writes recordings of modulated noise."""
    for number, name in enumerate(names):
        rng = np.random.default_rng(number)
        signal = 0.1 * rng.standard_normal(round(seconds * rate))
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        path = name.encode(errors="surrogateescape")
        soundfile.write(path, signal, rate)


def written(folder="separated"):
    """All files in the output folder but hidden ones and the manifest."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in Path(folder).rglob("*")
        if path.is_file() and path.name != MANIFEST and path.name[0] != "."
    )


def statuses(folder="separated"):
    """Status of each recording by its name."""
    lines = Manifest(folder).read().values()
    return {Path(line["path"]).name: line["status"] for line in lines}


def test_a_recording_becomes_tracks_that_sum_to_it(separate):
    record("talk.wav", rate=16000)
    status, out, err = separate("talk.wav", "--background")
    assert (status, err) == (0, "")
    assert out == (
        "talk.wav: 2 talkers: separated/talk_1.wav, separated/talk_2.wav\n"
    )
    assert written() == ["talk_1.wav", "talk_2.wav", "talk_background.wav"]
    talk, rate = soundfile.read("talk.wav")
    tracks = [soundfile.read(Path("separated", x))[0] for x in written()]
    assert np.allclose(sum(tracks), talk, atol=2e-4) and rate == 16000


def test_options_reach_the_tracks(separate):
    record("talk.wav", rate=16000)
    options = "--format", "flac", "--rate", 8000, "--channel", 1, "--out", "a/b"
    assert separate("talk.wav", *options, talkers=3)[0] == 0
    assert written("a/b") == [f"talk_{k}.flac" for k in (1, 2, 3)]
    assert soundfile.info("a/b/talk_1.flac").samplerate == 8000
    status, _, err = separate("talk.wav", "--out", "c", "--channel", 2)
    assert status == 1 and "channel must be from 1 to 1" in err


def test_same_stems_do_not_overwrite_each_other(separate):
    record("x.wav", "x.flac")
    status, _, err = separate("x.wav", "x.flac")
    assert status == 0 and "2 separated, 0 finished before, 0 failed" in err
    assert written() == [
        f"x_{suffix}_{k}.wav" for suffix in ("flac", "wav") for k in (1, 2)
    ]


def test_standard_input(separate, monkeypatch):
    record("talk.flac", "other.flac")

    def give(name):
        data = io.BytesIO(Path(name).read_bytes())
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=data))

    give("talk.flac")
    status, out, _ = separate("-")
    assert status == 0 and out.startswith("stdin: 2 talkers: separated/stdin_1")
    assert written() == ["stdin_1.wav", "stdin_2.wav"]
    give("talk.flac")
    assert separate("-")[1].startswith("stdin: finished before, 2 talkers")
    give("other.flac")
    status, _, err = separate("-")
    assert status == 1 and "stdin_1.wav is there" in err
    monkeypatch.setattr(
        "sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"no audio"))
    )
    status, _, err = separate("-", "--overwrite")
    assert status == 1 and "cannot separate standard input: unread" in err


def test_a_bad_file_does_not_stop_the_others(separate):
    record("talks/a.wav", "talks/c.wav")
    Path("talks/b.wav").write_bytes(b"no audio")
    status, out, err = separate("talks", "missing.wav")
    assert status == 1 and len(out.splitlines()) == 2
    lines = err.splitlines()
    assert [line.split(":")[0] for line in lines] == 3 * ["kmdanet"]
    assert "cannot separate missing.wav: missing" in err
    assert "cannot separate talks/b.wav: unreadable" in err
    assert lines[-1].startswith("kmdanet: 2 separated, 0 finished before, 2 fa")
    assert statuses() == {
        "a.wav": "done",
        "b.wav": "failed",
        "c.wav": "done",
        "missing.wav": "failed",
    }
    # What can be mended is done by the same command, and nothing else.
    before = {x: Path("separated", x).stat().st_mtime_ns for x in written()}
    record("talks/b.wav", "missing.wav")
    status, out, err = separate("talks", "missing.wav")
    assert status == 0 and "2 separated, 2 finished before, 0 failed" in err
    for name, time in before.items():
        assert Path("separated", name).stat().st_mtime_ns == time


def test_what_is_there_is_not_overwritten(separate):
    record("talk.wav")
    Path("separated").mkdir()
    mine = Path("separated/talk_2.wav")
    mine.write_text("mine")
    status, _, err = separate("talk.wav")
    assert status == 1 and "separated/talk_2.wav is there" in err
    assert "give --overwrite" in err and mine.read_text() == "mine"
    assert written() == ["talk_2.wav"] and statuses() == {}
    assert separate("talk.wav", "--overwrite")[0] == 0
    assert soundfile.info(mine).samplerate == 8000
    # Other options, or another recording, are not what is there.
    assert separate("talk.wav", "--rate", 4000)[0] == 1
    assert separate("talk.wav")[0] == 0
    record("talk.wav", seconds=0.5)
    assert separate("talk.wav")[0] == 1
    # Another format is in nobody's way.
    assert separate("talk.wav", "--format", "flac")[0] == 0


def test_recordings_are_never_written_over(separate):
    record("x.wav", "x_1.wav", "y.wav")
    before = Path("x.wav").read_bytes(), Path("x_1.wav").read_bytes()
    for options in ([], ["--overwrite"]):
        status, _, err = separate(".", "--out", ".", *options)
        problem = "x.wav: x_1.wav is there, a recording to separate: give ano"
        assert status == 1 and problem in err
    assert (Path("x.wav").read_bytes(), Path("x_1.wav").read_bytes()) == before
    assert Path("y_1.wav").is_file() and Path("x_1_1.wav").is_file()


def test_odd_names_stop_no_others(separate):
    record("w/a.wav", b"w/\xff.wav".decode(errors="surrogateescape"))
    record(f"w/{'n' * 250}.wav", "w/z.wav")
    status, _, err = separate("w", "--rttm", "--json")
    assert status == 1 and "3 separated" in err and "1 failed" in err
    assert "File name too long" in err and "Traceback" not in err
    assert {"\udcff_1.wav", "z_1.wav"} < {
        x.name for x in Path("separated").iterdir()
    }


def test_where_nothing_can_be_written_is_said_at_once(separate, capsys):
    record("talk.wav")
    assert separate("talk.wav", "--out", "talk.wav")[0] == 2
    for option, place in (("--onnx", "talk.wav/x"), ("--hub", "talk.wav")):
        assert main(["export", option, place]) == 2
        problem = f"{option}: cannot make the folder talk.wav ("
        assert problem in capsys.readouterr().err
    assert main(["export", "--onnx", "."]) == 2
    assert "--onnx . is a folder: give a file" in capsys.readouterr().err


def test_a_file_that_is_gone_is_made_again(separate):
    record("talk.wav")
    assert separate("talk.wav")[0] == 0
    track = Path("separated/talk_1.wav")
    sound = track.read_bytes()
    track.unlink()
    assert "finished before" not in separate("talk.wav")[1]
    assert track.read_bytes() == sound
    # So is what was not asked for the first time.
    assert separate("talk.wav", "--rttm")[0] == 0
    assert "talk.rttm" in written()


def test_fewer_talkers_leave_no_track_of_more(separate):
    record("talk.wav")
    assert separate("talk.wav", talkers=3)[0] == 0
    assert separate("talk.wav", "--overwrite", talkers=2)[0] == 0
    assert written() == ["talk_1.wav", "talk_2.wav"]


@pytest.mark.parametrize(
    "stopped, status", [(KeyboardInterrupt, 130), (signal.SIGTERM, 143)]
)
def test_an_interrupted_folder_goes_on(separate, monkeypatch, stopped, status):
    record("talks/a.wav", "talks/b.wav", "talks/c.wav")
    write = recordings._write_tracks

    def interrupt(recording, *arguments):
        turns = write(recording, *arguments)
        if "b.wav" in recording.name:
            if stopped is KeyboardInterrupt:
                raise KeyboardInterrupt
            signal.raise_signal(stopped)
        return turns

    monkeypatch.setattr(recordings, "_write_tracks", interrupt)
    code, _, err = separate("talks")
    assert code == status
    assert err == "kmdanet: the same command goes on from here\n"
    assert statuses() == {"a.wav": "done", "b.wav": "begun"}
    # Of what was begun, files that were moved into place are its own.
    assert "a_1.wav" in written() and "c_1.wav" not in written()
    monkeypatch.setattr(recordings, "_write_tracks", write)
    code, _, err = separate("talks")
    assert code == 0 and "2 separated, 1 finished before, 0 failed" in err
    assert written() == [f"{x}_{k}.wav" for x in "abc" for k in (1, 2)]
    # One line a recording is left, sorted.
    lines = Path("separated", MANIFEST).read_text().splitlines()
    paths = [json.loads(line)["path"] for line in lines]
    assert paths == sorted(paths) and len(paths) == 3


def test_a_full_disk_stops_all(separate, monkeypatch):
    record("a.wav", "b.wav")

    def fail(*arguments):
        raise OSError(28, "No space left on device", "a_1.wav")

    monkeypatch.setattr(corpus, "separate_recording", fail)
    status, _, err = separate("a.wav", "b.wav")
    assert status == 2 and err.count("\n") == 1 and "No space left" in err


def test_times_and_more(separate):
    record("talks/one day.wav", seconds=1.0)
    assert separate("talks", "--rttm", "--json", "--background")[0] == 0
    about = json.loads(Path("separated/one day.json").read_text())
    assert about["tracks"] == ["one day_1.wav", "one day_2.wav"]
    assert about["background"] == "one day_background.wav"
    assert (about["talkers"], about["seconds"]) == (2, 1.0)
    assert about["confidence"] is None  # the number was given
    assert about["path"] == str(Path("talks/one day.wav").resolve())
    lines = Path("separated/one day.rttm").read_text().splitlines()
    assert len(lines) == len(about["turns"]) > 0
    for line, turn in zip(lines, about["turns"]):
        words = line.split()
        assert len(words) == 10 and words[:3] == ["SPEAKER", "one_day", "1"]
        assert float(words[3]) == pytest.approx(turn["start"])
        assert float(words[3]) + float(words[4]) == pytest.approx(turn["end"])
        assert words[7] == f"one_day_{turn['track']}"


@pytest.mark.parametrize(
    "launcher",
    [
        ("RANK", "WORLD_SIZE"),
        ("SLURM_PROCID", "SLURM_NTASKS"),
        ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"),
    ],
)
def test_processes_share_a_list_and_a_manifest(separate, monkeypatch, launcher):
    record(*[f"talks/{x}.wav" for x in "abcde"], seconds=0.2)
    done = []
    for rank in (1, 0):
        monkeypatch.setenv(launcher[0], str(rank))
        monkeypatch.setenv(launcher[1], "2")
        status, out, err = separate("talks")
        assert status == 0 and f"(process {rank} of 2)" in err
        done.append({line.split(":")[0] for line in out.splitlines()})
    assert [len(each) for each in done] == [2, 3]
    assert done[0] | done[1] == {f"talks/{x}.wav" for x in "abcde"}
    assert statuses() == {f"{x}.wav": "done" for x in "abcde"}


def test_info(separator, here, capsys):
    assert main(["info", str(separator)]) == 0
    lines = dict(
        line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()
    )
    assert lines["folder"] == str(separator)
    assert lines["system"].startswith("DANet, KMeansAttractors")
    assert lines["trunk"] == "EmbeddingNet"
    assert lines["talkers"] == "any number, 2 by default"
    assert lines["safe"].startswith("yes")
    shutil.copytree(separator, here / "theirs")
    path = here / "theirs" / "hyperparams.yaml"
    text = path.read_text()
    path.write_text(f"{text}x: !apply:os.mkdir [CANARY]\ny: (1, 2)\n")
    assert main(["info", "theirs"]) == 1
    told = capsys.readouterr().out.splitlines()[-1]
    first = len(text.splitlines()) + 1
    assert told.split(maxsplit=1)[1] == (
        f"no, it asks for --trust: line {first}: !apply:os.mkdir; line "
        f"{first + 1}: !tuple"
    )
    assert not Path("CANARY").exists()
    assert main(["info", "theirs", "--trust"]) == 1
    assert "parameters" in capsys.readouterr().out
    assert Path("CANARY").exists()
    Path("theirs/masknet.ckpt").unlink()
    path.write_text(text)
    assert main(["info", "theirs"]) == 2
    assert "theirs holds no masknet.ckpt" in capsys.readouterr().err


def test_the_packaged_separator(here, separator):
    packaged = resolve_source(None)
    assert packaged.name == "kmeans_wide"
    assert resolve_source("kmeans_wide") == packaged
    # A folder of that name is nearer.
    (here / "kmeans_wide").mkdir()
    assert resolve_source("kmeans_wide") == Path("kmeans_wide")
    for name in ("other", "pretrained/kmeans_wide", ""):
        with pytest.raises(UserError, match="packaged is .*kmeans_wide"):
            resolve_source(name)


def test_the_example(here, capsys):
    assert main(["example"]) == main(["example"]) == 0
    assert "kmdanet separate two_talkers.flac" in capsys.readouterr().out
    assert EXAMPLE.stat().st_size < 100_000
    copy = here / EXAMPLE.name
    assert copy.read_bytes() == EXAMPLE.read_bytes()
    copy.write_text("mine")
    assert main(["example"]) == 2 and copy.read_text() == "mine"


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "the following arguments are required: COMMAND"),
        (["seperate"], "invalid choice: 'seperate'"),
        (["separate"], "the following arguments are required: PATH"),
        (["separate", ""], "PATH is empty"),
        (["separate", "a", "--talkers", "two"], "from 1 to 100, got 'two'"),
        (["separate", "a", "--talkers", "0"], "from 1 to 100, got '0'"),
        (["separate", "a", "--format", "mp3"], "invalid choice: 'mp3'"),
        (["separate", "a", "--rate", "-1"], "argument --rate: expected"),
        (["separate", "a", "--rate", "500"], "from 1000 to 1000000, got '500'"),
        (["separate", "a", "--out", ""], "argument --out: expected a path"),
        (["separate", "a", "--device", "x"], "--device x cannot be used"),
        (["separate", "a", "--device", "meta"], "--device meta cannot be used"),
        (["page", "--port", "99999"], "from 1 to 65535, got '99999'"),
        (["separate", "a", "--separator", "b"], "source='b' is not a folder"),
        (["separate", "."], "no recordings there"),
        (["export"], "needs --onnx FILE, or --hub DIR"),
        (["export", "hf://a/b", "--hub", "c"], "hf://a/b is no local folder"),
        (["info", "a", "b"], "unrecognized arguments: b"),
    ],
)
def test_what_is_wrong_takes_one_line(capsys, arguments, message):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and message in err
    assert err.startswith("kmdanet: error: ")


def test_a_separator_that_cannot_count_says_so(separate):
    record("a.wav")
    status, _, err = separate("a.wav", talkers="auto")
    assert status == 2 and "give --talkers K" in err and not written()


def test_talkers_are_counted(separator, monkeypatch, capsys):
    counting = AttractorSeparation.from_hparams(separator)
    counting.mods["counter"] = TalkerCounter(65, 4, channels=(4, 4, 4)).eval()
    monkeypatch.setattr(command_line, "_load", lambda *_: counting)
    record("talk.wav")
    assert main(["separate", "talk.wav"]) == 0
    (line,) = Manifest("separated").read().values()
    assert line["tracks"] == written() and len(written()) == line["talkers"]
    assert f": {line['talkers']} talker" in capsys.readouterr().out
    assert main(["info"]) == 0
    assert "counts talkers  from 1 to 4\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "environment, device",
    [
        ({}, "cuda:0"),
        ({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, "cuda:1"),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "4"}, "cuda:2"),
    ],
)
def test_processes_of_a_machine_share_its_gpus(
    monkeypatch, environment, device
):
    chosen = []

    def load(source, trust, run_opts):
        chosen.append(run_opts["device"])
        raise UserError("no GPU here")

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch, "zeros", lambda *_, **__: torch.ones(1))
    monkeypatch.setattr(AttractorSeparation, "from_hparams", load)
    record("a.wav", "b.wav")
    assert main(["separate", "a.wav", "b.wav"]) == 2
    assert chosen == [device]


@pytest.mark.parametrize(
    "arguments, module",
    [(["page"], "page"), (["export", "--onnx", "x.onnx"], "onnx")],
)
def test_a_missing_extra_is_named(monkeypatch, capsys, arguments, module):
    def missing(name):
        assert name == f"speechbrain_kmdanet.inference.{module}"
        raise ModuleNotFoundError("no", name="gradio")

    monkeypatch.setattr(command_line.importlib, "import_module", missing)
    assert main(arguments) == 2
    assert "needs gradio: pip install 'speech" in capsys.readouterr().err


def test_page_and_export_pass_on_what_they_are_given(
    separator, monkeypatch, capsys
):
    asked = []
    module = SimpleNamespace(
        serve=lambda source, host, port: asked.append((source, host, port)),
        export_onnx=lambda *arguments: asked.append(arguments[1:]),
    )
    monkeypatch.setattr(command_line, "_optional", lambda *_: module)
    assert main(["page", "mine", "--port", "80"]) == 0
    options = "--onnx", "x.onnx", "--talkers", "3", "--hub", "hub"
    assert main(["export", str(separator), *options]) == 0
    assert "hub/custom.py\n" in capsys.readouterr().out
    assert asked == [("mine", "127.0.0.1", 80), ("x.onnx", 3)]


def test_help_and_version(capsys):
    for arguments, text in (
        (["--version"], f"kmdanet {__version__}\n"),
        (["--help"], "kmdanet separate meeting.wav"),
        (["separate", "--help"], "sbatch --array=0-99"),
    ):
        with pytest.raises(SystemExit, match="^0$"):
            main(arguments)
        assert text in capsys.readouterr().out
    assert {*FORMATS} == {*recordings.FORMATS}
    assert importlib.util.find_spec("speechbrain_kmdanet.__main__")
