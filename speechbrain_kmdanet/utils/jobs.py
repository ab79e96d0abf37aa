"""Processes that share work, signals that end it, and files that are whole."""

import atexit
import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from tqdm import tqdm

from speechbrain_kmdanet.errors import UserError, one_line, stop

Task = TypeVar("Task")
Result = TypeVar("Result")
LOCK = ".lock"
# What a killed process leaves behind, as workers of its data loaders, may hold
# a lock for some seconds.
LOCK_SECONDS = 7.0


def _leave_interrupts() -> None:
    """Ctrl-C is for the main process: this one finishes what it is at."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def parallel(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    description: str,
    workers: int | None = None,
    progress: bool = True,
    threads: bool = False,
) -> list[Result]:
    """Calls a function for all tasks, in several processes.

    One worker, or one task, is done in this process.

    Arguments
    ---------
    function : callable
        A function of one task; processes need one that can be pickled.
    tasks : sequence
        The tasks.
    description : str
        The label of the progress bar.
    workers : int, optional
        Number of processes; that of the CPUs by default.
    progress : bool
        Whether to show the progress bar.
    threads : bool
        Whether threads do the work, for functions that start processes.

    Returns
    -------
    list
        One result for each task, in their order.

    Raises
    ------
    UserError
        If a process was killed.

    Example
    -------
    >>> parallel(abs, [1, -2], "Magnitudes", workers=1, progress=False)
    [1, 2]
    """
    workers = min(workers or os.cpu_count() or 1, len(tasks))
    bar = partial(
        tqdm,
        desc=description,
        total=len(tasks),
        disable=not progress,
        dynamic_ncols=True,
    )
    if workers <= 1:
        return list(bar(map(function, tasks)))
    chunk = max(1, min(16, len(tasks) // (4 * workers)))
    pool: Executor = (
        ThreadPoolExecutor(workers)
        if threads
        else ProcessPoolExecutor(workers, initializer=_leave_interrupts)
    )
    try:
        return list(bar(pool.map(function, tasks, chunksize=chunk)))
    except BrokenExecutor as error:
        raise UserError(
            f"{description}: a process was killed, perhaps for want of "
            "memory: ask for fewer workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def in_new_process(
    function: Callable[..., Result],
    *arguments: Any,
    preload: Sequence[str] = (),
) -> Result:
    """Calls a function in a process that ends with it.

    The process is not forked from this one: it has none of its state.

    Arguments
    ---------
    function : callable
        A function that can be pickled.
    preload : sequence of str
        Modules that all such processes need: imported once, if they can be.
    *arguments : Any
        Its arguments.

    Returns
    -------
    Any
        What the function returns.

    Raises
    ------
    concurrent.futures.BrokenExecutor
        If the process crashed.
    """
    methods = multiprocessing.get_all_start_methods()
    method = "forkserver" if "forkserver" in methods else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(list(preload))
    with ProcessPoolExecutor(1, context, _leave_interrupts) as process:
        return process.submit(function, *arguments).result()


def leave_signals() -> Callable[[int], None]:
    """What workers of a data loader have to do first, its worker_init_fn.

    A signal often goes to all processes of a group, and a loader that misses a
    worker fails. These go on until this process, their main one, has ended or
    does not need them any more.

    Returns
    -------
    callable
        A function of the number of the worker, that can be pickled.
    """
    ending = multiprocessing.RawValue("b", 0)
    # Before multiprocessing ends the workers, which is done by SIGTERM.
    atexit.register(setattr, ending, "value", 1)
    return partial(_wait_for_main, ending)


def _wait_for_main(ending: Any, worker: int) -> None:
    """Has a worker take a signal as its end if the main process is ending."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(
        signal.SIGTERM, lambda *_: os._exit(0) if ending.value else None
    )


@contextmanager
def deferred_signals() -> Iterator[list[int]]:
    """Has Ctrl-C and SIGTERM wait for a good moment; a second one does not.

    Yields
    ------
    list of int
        Numbers of the signals that came: whoever asks for these ends in an
        orderly way, see :func:`~speechbrain_kmdanet.errors.stop`.

    Example
    -------
    >>> with deferred_signals() as came:
    ...     signal.raise_signal(signal.SIGTERM)
    ...     print(came == [signal.SIGTERM])
    True
    """
    came: list[int] = []

    def note(number: int, frame: Any) -> None:
        if came:
            stop(number)
        came.append(number)

    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, note) or signal.SIG_DFL
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def only_process(folder: str | Path, remedy: str) -> Iterator[None]:
    """Has one process at a time write into a folder.

    Arguments
    ---------
    folder : str or pathlib.Path
        The folder; made if it is missing, and removed if nothing is written.
    remedy : str
        What else the user can do, for the error.

    Raises
    ------
    UserError
        If another process is in it.

    Example
    -------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as parent:
    ...     with only_process(Path(parent, "new"), "wait"):
    ...         print(os.listdir(parent))
    ...     os.listdir(parent)
    ['new']
    []
    """
    folder = Path(folder)
    missing = [x for x in (folder, *folder.parents) if not x.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=LOCK_SECONDS)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(
            f"another process is at work in {folder}: wait for its end, or "
            f"{remedy}"
        ) from error
    try:
        yield
    finally:
        with suppress(PermissionError):  # Windows removes no open file.
            (folder / LOCK).unlink(missing_ok=True)
        lock.release()
        for made in missing:
            if made.is_dir() and not any(made.iterdir()):
                made.rmdir()


@contextmanager
def write_whole(path: str | Path) -> Iterator[Path]:
    """Writes a file that is whole or not there, whatever happens.

    Arguments
    ---------
    path : str or pathlib.Path
        The file; its folder is made if it is missing.

    Yields
    ------
    pathlib.Path
        A path beside it to write to, hidden and ending in ".tmp": what a
        killed process leaves does not count as audio. Formats must be named.

    Example
    -------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     with write_whole(Path(folder, "notes.txt")) as unfinished:
    ...         size = unfinished.write_text("all of it")
    ...     Path(folder, "notes.txt").read_text()
    'all of it'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield unfinished
        os.replace(unfinished, path)
    except OSError as error:
        # A write that fails, as on a full disk, does not know its file.
        if error.errno is not None:
            error.filename = error.filename or str(path)
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def make_folder(folder: str | Path, option: str) -> None:
    """Makes a folder, before something takes time that could not be written.

    Arguments
    ---------
    folder : str or pathlib.Path
        The folder.
    option : str
        The option that names it.

    Raises
    ------
    UserError
        If that is impossible.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise UserError(
            f"{option}: cannot make the folder {folder} ({reason}): give another"
        ) from error


def digest(path: str | Path) -> str | None:
    """SHA-256 of a file, as ``sha256sum`` prints it.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.

    Returns
    -------
    str or None
        64 hexadecimal digits; None if there is no such file.
    """
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return None
