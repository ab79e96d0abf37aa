"""Processes that torchrun or SLURM have started, and what they have done."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock
from speechbrain.utils.distributed import ddp_init_group
from torch import distributed

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.utils.jobs import write_whole

MANIFEST = "manifest.jsonl"


@contextmanager
def process_group(run_opts: Mapping[str, Any]) -> Iterator[None]:
    """A block in which the processes are a group; a single one is none.

    The group ends with the block, however that ends: the threads of one that
    is left to the end of Python may abort the process.

    Arguments
    ---------
    run_opts : dict
        SpeechBrain's run options.

    Raises
    ------
    UserError
        If there can be no such group.

    Example
    -------
    >>> with process_group({"distributed_backend": "gloo"}):
    ...     distributed.is_initialized()
    False
    """
    try:
        ddp_init_group(run_opts)
    except ValueError as error:
        raise UserError(
            f"--distributed_backend {run_opts['distributed_backend']}: {error}; "
            "give gloo for processes on the CPU, or start as many as there are "
            "GPUs"
        ) from error
    try:
        yield
    finally:
        if distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()


class Share(NamedTuple):
    """Which part of a list this process does.

    Arguments
    ---------
    rank : int
        Number of this process, from 0 on.
    processes : int
        Number of processes.

    Example
    -------
    >>> Share(1, 2).of("abcde")
    ['b', 'd']
    """

    rank: int = 0
    processes: int = 1

    def of(self, tasks: Sequence[Any]) -> list[Any]:
        """The tasks of this process.

        Arguments
        ---------
        tasks : sequence
            Those of all, in the same order everywhere.

        Returns
        -------
        list
            Every n-th of them.
        """
        return list(tasks[self.rank :: self.processes])


def find_share(environment: Mapping[str, str] = os.environ) -> Share:
    """Where this process stands among those that torchrun or SLURM started.

    Arguments
    ---------
    environment : mapping
        Environment variables: of torchrun, otherwise of srun; those of an
        array of jobs, each of which may have several processes, beside them.

    Returns
    -------
    Share
        The part of this process: all, where it is alone.

    Raises
    ------
    UserError
        If the variables contradict each other.

    Example
    -------
    >>> find_share({"RANK": "2", "WORLD_SIZE": "4"})
    Share(rank=2, processes=4)
    >>> find_share({"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8"})
    Share(rank=3, processes=8)
    """

    def number(name: str, default: int) -> int:
        text = environment.get(name, "")
        return int(text) if text.isdecimal() else default

    rank, processes = number("RANK", 0), number("WORLD_SIZE", 1)
    if processes == 1:
        # A batch script knows how many tasks its job may have, but only srun
        # starts them.
        batch = "SLURM_JOB_ID" in environment
        tasks = "SLURM_STEP_NUM_TASKS" if batch else "SLURM_NTASKS"
        rank, processes = number("SLURM_PROCID", 0), number(tasks, 1)
        rank = rank if processes > 1 else 0
    jobs = number("SLURM_ARRAY_TASK_COUNT", 1)
    first = number("SLURM_ARRAY_TASK_MIN", 0)
    step = max(1, number("SLURM_ARRAY_TASK_STEP", 1))
    job = (number("SLURM_ARRAY_TASK_ID", first) - first) // step
    if jobs == 1:
        job = 0
    if not (0 <= rank < processes and 0 <= job < jobs):
        raise UserError(
            f"process {rank} of {processes}, job {job} of {jobs}: numbers must "
            "go from 0 on without gaps: start all tasks of the array "
            "(--array=0-N), or unset RANK and WORLD_SIZE"
        )
    return Share(job * processes + rank, jobs * processes)


class Manifest:
    """What was done with each recording: one JSON object a line.

    Any number of processes add lines, on any number of machines that see the
    folder. The last line of a recording counts.

    Arguments
    ---------
    folder : str or pathlib.Path
        The output folder.

    Example
    -------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     manifest = Manifest(folder)
    ...     manifest.add({"path": "a.wav", "status": "begun"})
    ...     manifest.add({"path": "a.wav", "status": "done"})
    ...     manifest.read()
    {'a.wav': {'path': 'a.wav', 'status': 'done'}}
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.path = self.folder / MANIFEST

    def _lock(self) -> FileLock:
        """What one process at a time holds, for the time of a line."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / f".{MANIFEST}.lock")

    def add(self, line: Mapping[str, Any]) -> None:
        """Adds a line.

        Arguments
        ---------
        line : mapping
            A recording's path, its status, and so on.
        """
        text = json.dumps(line) + "\n"
        with self._lock(), self.path.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                # A full disk, or a crash, may have cut the line before.
                text = text if file.read(1) == b"\n" else "\n" + text
            file.write(text.encode("ascii"))

    def read(self) -> dict[str, dict[str, Any]]:
        """What is known of each recording.

        Returns
        -------
        dict
            The last line of each, by its path.
        """
        lines: dict[str, dict[str, Any]] = {}
        if self.path.is_file():
            for text in self.path.read_bytes().splitlines():
                try:
                    line = json.loads(text)
                    lines[line["path"]] = line
                except (ValueError, LookupError, TypeError):
                    continue  # a line that was cut
        return lines

    def tidy(self) -> None:
        """Leaves one line a recording, sorted by path."""
        with self._lock():
            lines = self.read()
            with write_whole(self.path) as unfinished:
                texts = [
                    json.dumps(lines[path]) + "\n" for path in sorted(lines)
                ]
                unfinished.write_text("".join(texts), encoding="ascii")

    def tracks(self) -> set[str]:
        """Absolute paths of all audio that was made.

        Returns
        -------
        set of str
            Of tracks and backgrounds.
        """
        return {
            os.path.abspath(self.folder / file)
            for line in self.read().values()
            for file in [*line.get("tracks", []), line.get("background")]
            if file
        }
