"""Recordings are found, named, shared out and listed."""

import json
import threading
from pathlib import Path

import pytest

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.inference.corpus import find_inputs
from speechbrain_kmdanet.utils.processes import (
    MANIFEST,
    Manifest,
    Share,
    find_share,
)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def record(*names):
    """Makes files; nobody looks into them here."""
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def names(*paths, output="separated", **options):
    """What recordings are called, by where they are from here."""
    here = Path.cwd()
    return {
        Path(each.label).relative_to(here).as_posix(): each.name.as_posix()
        for each in find_inputs(paths, output, **options)
    }


def test_folders_keep_their_structure():
    record("talks/a.wav", "talks/day/a.flac", "talks/.hidden/b.wav")
    record("talks/.c.wav", "separated/old_1.wav")
    Path("talks/notes.txt").touch()
    found = {"talks/a.wav": "a", "talks/day/a.flac": "day/a"}
    assert names("talks") == names("talks/", "talks/a.wav") == found
    # What was made is not found again, wherever it lies.
    assert names(".") == {path: path.rsplit(".", 1)[0] for path in found}
    made = {str(Path("talks/a.wav").resolve())}
    assert names("talks", output="talks", made=made) == {
        "talks/day/a.flac": "day/a"
    }
    with pytest.raises(UserError, match="only what was separated before"):
        made = {str(Path("separated/old_1.wav").resolve())}
        find_inputs(["separated"], "separated", made)
    with pytest.raises(UserError, match="night: no recordings there"):
        Path("night").mkdir()
        find_inputs(["night"], "separated", made)


def test_patterns_are_matched():
    record("day1/a.wav", "day2/a.wav", "day2/deep/b.flac", "night/a.wav")
    Path("day1/notes.txt").touch()
    assert names("day*/*") == {
        "day1/a.wav": "day1/a",
        "day2/a.wav": "day2/a",
        "day2/deep/b.flac": "day2/deep/b",
    }
    assert set(names("**/*.flac")) == {"day2/deep/b.flac"}
    assert names("day?") == names("day*/*")
    # Never out of the output folder.
    assert names("day1/*/../../night/a.wav", "night/a.wav")
    with pytest.raises(UserError, match=r"x\*.wav: no recordings there"):
        find_inputs(["x*.wav"], "separated")
    record("x[1].wav")  # a file of that name is meant
    assert names("x[1].wav") == {"x[1].wav": "x[1]"}


def test_a_name_never_leaves_the_output_folder():
    record("a/b/c.wav", "night/d.wav")
    found = find_inputs(
        ["a/*/../../night/d.wav", "../x/..wav", "...wav", "a/../a"],
        "separated",
    )
    for each in found:
        assert ".." not in each.name.parts and not each.name.is_absolute()
        assert each.name.name


def test_no_two_names_are_the_same():
    record("a/x.wav", "a/x.flac", "a/x_flac.ogg", "a/y.wav", "b/y.wav")
    assert names("a") == {
        "a/x.wav": "x_wav",
        "a/x.flac": "x_flac-2",
        "a/x_flac.ogg": "x_flac",
        "a/y.wav": "y",
    }
    found = names("a", "b")
    assert found["a/y.wav"] == "a/y" and found["b/y.wav"] == "b/y"
    assert len({*found.values()}) == 5
    # The order of what is given does not matter.
    assert found == names("b/y.wav", "a")


def test_where_a_process_stands():
    array = {
        "SLURM_ARRAY_TASK_COUNT": "3",
        "SLURM_ARRAY_TASK_MIN": "10",
        "SLURM_ARRAY_TASK_STEP": "5",
    }
    torchrun = {"RANK": "1", "WORLD_SIZE": "2"}
    assert find_share({}) == Share(0, 1)
    # Each job of an array may have several processes.
    shares = [
        find_share({**array, **torchrun, "SLURM_ARRAY_TASK_ID": job})
        for job in ("10", "15", "20")
    ]
    assert shares == [Share(1, 6), Share(3, 6), Share(5, 6)]
    # torchrun in a job counts its own processes.
    job = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"}
    assert find_share({**job, **torchrun}) == Share(1, 2)
    # A batch script is one process, whatever it asks for; srun starts more.
    assert find_share(job) == Share(0, 1)
    step = {**job, "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3"}
    assert find_share(step) == Share(3, 4)
    for wrong in (
        {"RANK": "2", "WORLD_SIZE": "2"},
        # Of --array=0,5,7 nobody would do a part.
        {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "3"},
    ):
        with pytest.raises(UserError, match="without gaps"):
            find_share(wrong)
    # A job that is sent again alone does all that is left.
    again = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "1"}
    assert find_share(again) == Share(0, 1)


def test_lines_of_many_writers_stay_whole(here):
    def write(writer):
        manifest = Manifest(here)
        for number in range(20):
            manifest.add({"path": f"{writer}-{number}", "status": "done"})
        manifest.tidy()

    writers = [threading.Thread(target=write, args=(x,)) for x in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    lines = (here / MANIFEST).read_text().splitlines()
    assert len(lines) == len({json.loads(x)["path"] for x in lines}) == 80


def test_a_manifest_that_was_cut_is_read_and_goes_on(here):
    manifest = Manifest(here)
    manifest.add({"path": "a", "status": "done"})
    with manifest.path.open("a") as file:
        file.write('{"path": "b", "sta')
    manifest.add({"path": "c\udcff", "status": "done"})
    assert set(manifest.read()) == {"a", "c\udcff"}
