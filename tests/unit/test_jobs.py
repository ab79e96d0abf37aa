"""Tests of processes that share work, and of files that are whole."""

import os
import time
from concurrent.futures import BrokenExecutor

import pytest

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.utils.jobs import in_new_process, parallel, write_whole

STATE: list[int] = []


def square(number):
    time.sleep(0.01 / (1 + number))  # later tasks are done earlier
    return number**2, os.getpid()


def refuse(number):
    raise UserError(f"task {number}: expected another")


def die(number):
    os._exit(1)


def remember(number):
    STATE.append(number)
    return list(STATE)


@pytest.mark.parametrize("tasks", [0, 1, 2, 50])
@pytest.mark.parametrize("workers", [None, 1, 3])
def test_results_in_order(tasks, workers):
    found = parallel(square, range(tasks), "Squares", workers, progress=False)
    assert [result for result, _ in found] == [n**2 for n in range(tasks)]
    if workers:
        alone = workers == 1 or tasks == 1
        here = {process == os.getpid() for _, process in found}
        assert here <= {alone}


def test_bar(capsys):
    parallel(square, [1, 2], "Squares", 1)
    assert "Squares: 100%" in capsys.readouterr().err
    parallel(square, [1, 2], "Squares", 1, progress=False)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_arrive(workers):
    with pytest.raises(UserError, match="^task 1: expected another$"):
        parallel(refuse, [1, 2], "Refusals", workers, progress=False)


def test_killed_process_is_told():
    with pytest.raises(UserError, match="Deaths: a process was killed"):
        parallel(die, [1, 2], "Deaths", 2, progress=False)


def test_new_processes_know_nothing_of_others():
    STATE.append(0)
    try:
        found = parallel(
            remember_apart, [1, 2, 3], "Memories", 2, False, threads=True
        )
    finally:
        STATE.clear()
    assert found == [[1], [2], [3]]
    with pytest.raises(BrokenExecutor):
        in_new_process(die, 1)


def remember_apart(number):
    return in_new_process(
        remember, number, preload=["scipy.signal", "soundfile"]
    )


def test_whole_file(tmp_path):
    path = tmp_path / "new" / "x.wav"
    with write_whole(path) as unfinished:
        unfinished.write_text("first")
        assert unfinished.parent == path.parent and not path.exists()
        assert unfinished.name.startswith(".") and unfinished.suffix == ".tmp"
    assert path.read_text() == "first"
    with write_whole(str(path)) as unfinished:
        unfinished.write_text("second")
        assert path.read_text() == "first"
    assert path.read_text() == "second"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_nothing_is_left_of_an_unfinished_file(tmp_path, error):
    path = tmp_path / "x.wav"
    path.write_text("before")
    with pytest.raises(error):
        with write_whole(path) as unfinished:
            unfinished.write_text("half")
            raise error
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "before"
    with pytest.raises(error):
        with write_whole(path):
            raise error  # before there was anything
