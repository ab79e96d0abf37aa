"""Tests of processes that share work, and of files that are whole."""

import errno
import multiprocessing
import os
import signal
import time
from concurrent.futures import BrokenExecutor

import pytest

from speechbrain_kmdanet.errors import Stopped, UserError, run_command
from speechbrain_kmdanet.utils import jobs
from speechbrain_kmdanet.utils.jobs import (
    deferred_signals,
    in_new_process,
    leave_signals,
    only_process,
    parallel,
    write_whole,
)

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


def test_a_link_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "theirs.txt").write_text("theirs")
    path = tmp_path / "ours.txt"
    path.symlink_to(tmp_path / "theirs.txt")
    with write_whole(path) as unfinished:
        unfinished.write_text("ours")
    assert (tmp_path / "theirs.txt").read_text() == "theirs"
    assert path.read_text() == "ours" and not path.is_symlink()


def test_one_process_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "LOCK_SECONDS", 0.0)
    (tmp_path / "there").mkdir()
    for folder in (tmp_path / "there", tmp_path / "a" / "new"):
        with only_process(folder, "take another"):
            expected = f"at work in {folder}: wait for its end, or take another"
            with pytest.raises(UserError, match=expected):
                with only_process(folder, "take another"):
                    pass
        # Nothing was written: nothing is left.
        assert list(tmp_path.rglob("*")) == [tmp_path / "there"]
    with pytest.raises(UserError, match="task 1"):
        with only_process(tmp_path / "a" / "new", "take another"):
            (tmp_path / "a" / "new" / "x.txt").write_text("kept")
            refuse(1)
    assert (tmp_path / "a" / "new" / "x.txt").read_text() == "kept"
    with only_process(tmp_path / "a" / "new", "take another"):
        pass


def test_a_killed_process_leaves_no_lock(tmp_path):
    def hold(ready):
        with only_process(tmp_path, "wait"):
            ready.set()
            time.sleep(60)

    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=hold, args=(ready,), daemon=True)
    process.start()
    assert ready.wait(30)
    process.kill()
    process.join()
    with only_process(tmp_path, "wait"):
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_wait(number):
    before = signal.getsignal(number)
    with deferred_signals() as came:
        signal.raise_signal(number)
        assert came == [number]
        with pytest.raises((KeyboardInterrupt, Stopped)):
            signal.raise_signal(number)
    assert signal.getsignal(number) == before


def test_signals_that_are_ignored_stay_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with deferred_signals() as came:
            signal.raise_signal(signal.SIGINT)
        assert not came
    finally:
        signal.signal(signal.SIGINT, before)


def test_workers_wait_for_their_main_process():
    context = multiprocessing.get_context("fork")
    first, ready = leave_signals(), context.Event()

    def work():
        first(0)
        ready.set()
        while True:
            time.sleep(0.01)

    process = context.Process(target=work, daemon=True)
    process.start()
    assert ready.wait(30)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(process.pid, number)
        process.join(0.2)
        assert process.is_alive()
    (ending,) = first.args
    ending.value = 1  # what happens at exit
    process.terminate()
    process.join(30)
    assert process.exitcode == 0


@pytest.mark.parametrize(
    "number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_commands_end_in_one_line(capsys, number, status):
    def run(arguments):
        signal.raise_signal(number)

    before = signal.getsignal(signal.SIGTERM)
    assert run_command("demo", run, []) == status
    line = "demo: the same command goes on from here\n"
    assert capsys.readouterr().err == line
    assert signal.getsignal(signal.SIGTERM) == before


def test_commands_leave_handlers_of_others(capsys):
    came = []
    before = signal.signal(signal.SIGTERM, lambda *_: came.append(1))
    try:
        status = run_command(
            "demo", lambda _: signal.raise_signal(signal.SIGTERM), []
        )
    finally:
        signal.signal(signal.SIGTERM, before)
    assert status == 0 and came == [1]


def test_pool_ends_with_the_command(capsys):
    def run(arguments):
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        signal.signal(
            signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGTERM)
        )
        parallel(time.sleep, [0.6] * 8, "Naps", 2, progress=False)

    before = signal.getsignal(signal.SIGALRM)
    began = time.monotonic()
    try:
        assert run_command("demo", run, []) == 143
    finally:
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - began < 2.3


def test_a_write_that_fails_names_its_file(tmp_path):
    path = tmp_path / "notes.txt"
    with pytest.raises(OSError, match="File too large: .*notes.txt"):
        with write_whole(path):
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    assert not [*tmp_path.iterdir()]
