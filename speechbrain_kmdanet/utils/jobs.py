"""Work shared out over processes, and files that are whole or not there."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from speechbrain_kmdanet.errors import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")
# Ctrl-C is for the main process: the others finish what they are at.
IGNORE_INTERRUPTS: dict[str, Any] = {
    "initializer": signal.signal,
    "initargs": (signal.SIGINT, signal.SIG_IGN),
}


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
        else ProcessPoolExecutor(workers, **IGNORE_INTERRUPTS)
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
    with ProcessPoolExecutor(1, context, **IGNORE_INTERRUPTS) as process:
        return process.submit(function, *arguments).result()


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
    finally:
        unfinished.unlink(missing_ok=True)
