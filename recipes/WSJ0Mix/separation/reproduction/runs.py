"""Runs of train.py, each made once, and what they cost."""

import json
import re
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from reproduction.methods import RECIPE, system_file
from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.utils.jobs import write_whole
from speechbrain_kmdanet.utils.report import (
    describe_environment,
    format_hours,
    format_source,
    format_time,
)

RECORD = "run.json"
# These change no result. Whether they differ does not matter.
IRRELEVANT = (
    "ckpt_interval_minutes",
    "ckpt_interval_steps",
    "compute_sdr",
    "device",
    "noprogressbar",
    "num_examples",
    "output_folder",
    "test_folder",
    "test_loader_options",
    "valid_loader_options",
)
DONE, STARTED, MISSING = "done", "started", "to do"
# A guess, for the paper's trunk on two cores of a CPU: seconds for an hour of
# mixtures in training, and for a mixture in validation or test.
HOUR_SECONDS = 200.0
EVALUATION_SECONDS = 0.12


class Run(NamedTuple):
    """One call of train.py: a training with its test, or a test alone.

    Arguments
    ---------
    title : str
        What the user reads.
    folder : pathlib.Path
        Where the record is.
    results : pathlib.Path
        Where the results of the test are.
    name : str
        What is trained or tested: the same name, the same speed.
    system : str
        Name of the YAML file.
    options : dict
        Settings of train.py; None for those without a value.
    hours : float
        Hours of mixtures in training; 0 for a test alone.
    evaluations : int
        Mixtures in validations and test.
    """

    title: str
    folder: Path
    results: Path
    name: str
    system: str
    options: dict[str, Any]
    hours: float
    evaluations: int

    @property
    def test_only(self) -> bool:
        """Whether it is a test alone."""
        return not self.hours

    @property
    def settings(self) -> dict[str, str]:
        """What the results depend on, as text by name."""
        relevant = {
            name: str(value)
            for name, value in self.options.items()
            if name not in IRRELEVANT
        }
        return {"system": self.system, **relevant}

    def record(self) -> dict[str, Any] | None:
        """What was written about this run.

        Returns
        -------
        dict
            name, settings, hours, evaluations, seconds, finished and, when it
            is finished, about; None if there is nothing to go on from.

        Raises
        ------
        UserError
            If the folder holds a run with other settings.
        """
        path = self.folder / RECORD
        if not path.is_file():
            return None
        record = json.loads(path.read_text(encoding="utf-8"))
        theirs, ours = record["settings"], self.settings
        if theirs == ours:
            return record
        if not (record["finished"] or any(self.folder.glob("save/CKPT*"))):
            return None  # Nothing is lost, nor is there anything to mix up.
        names = sorted({*theirs, *ours})
        name = next(x for x in names if theirs.get(x) != ours.get(x))
        raise UserError(
            f"{self.folder} holds a run with other settings ({name} is "
            f"{theirs.get(name, 'not given')} there and "
            f"{ours.get(name, 'not given')} now): give another folder with "
            "--runs, or the settings of that run"
        )

    def state(self) -> str:
        """DONE, STARTED or MISSING, see :meth:`record` for errors."""
        record = self.record()
        if record is None:
            return MISSING
        there = (self.results / "summary.json").is_file()
        return DONE if record["finished"] and there else STARTED

    def is_done(self) -> bool:
        """Whether it is done, with these settings."""
        try:
            return self.state() == DONE
        except UserError:
            return False

    def execute(self, command: str) -> None:
        """Makes or continues the run, unless it is done.

        Arguments
        ---------
        command : str
            Command line that asks for it, for the record.

        Raises
        ------
        UserError
            If train.py fails.
        """
        if self.state() == DONE:
            return
        record = self.record() or {
            "name": self.name,
            "settings": self.settings,
            "hours": self.hours,
            "evaluations": self.evaluations,
            "seconds": 0.0,
            "finished": False,
        }
        self._write(record)
        begin = time.monotonic()
        try:
            status = call_train(self.arguments())
        finally:
            record["seconds"] += time.monotonic() - begin
            self._write(record)
        if status:
            raise UserError(
                f"train.py stopped with status {status} in the run of "
                f"{self.title}, see above; the same command goes on from here"
            )
        about = describe_environment(self.options.get("device"))
        about["command"] = command
        self._write({**record, "finished": True, "about": about})

    def arguments(self) -> list[str]:
        """Command line of train.py."""
        arguments = [str(system_file(self.system))]
        for name, value in self.options.items():
            arguments.append(f"--{name}")
            if value is not None:
                arguments.append(str(value))
        return arguments + ["--test_only"] * self.test_only

    def _write(self, record: dict[str, Any]) -> None:
        """Writes the record, whole or not at all."""
        text = json.dumps(record, indent=2)
        with write_whole(self.folder / RECORD) as unfinished:
            unfinished.write_text(f"{text}\n", encoding="utf-8")


def call_train(arguments: Sequence[str]) -> int:
    """Calls train.py in a process of its own, which shows its progress.

    Arguments
    ---------
    arguments : sequence of str
        Command line.

    Returns
    -------
    int
        Exit status.
    """
    command = [sys.executable, str(RECIPE / "train.py"), *arguments]
    process = subprocess.Popen(command)
    try:
        return process.wait()
    except KeyboardInterrupt:
        # The process got the same signal, and ends in an orderly way.
        process.wait()
        raise
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def read_epoch_minutes(train_log: Path) -> float | None:
    """Reads the time of training in an epoch, without validation.

    Arguments
    ---------
    train_log : pathlib.Path
        train_log.txt of a training.

    Returns
    -------
    float
        Median over the epochs in minutes, as an interrupted epoch counts in
        part; None if the log does not say.
    """
    text = train_log.read_text(encoding="utf-8")
    seconds = re.findall(r"train seconds: ([\d.]+(?:e[-+]?\d+)?)", text)
    return statistics.median(map(float, seconds)) / 60 if seconds else None


def describe_sources(runs: Sequence[Run]) -> str:
    """When, with what and from which commit finished runs were made.

    Arguments
    ---------
    runs : sequence of Run
        The runs.

    Returns
    -------
    str
        Markdown.
    """
    records = [record["about"] for run in runs if (record := run.record())]
    found = {key: sorted({x[key] for x in records}) for key in records[0]}
    dates = found.pop("date")
    about = {key: " and ".join(texts) for key, texts in found.items()}
    about["command"] = "\n".join(found["command"])
    about["date"] = " to ".join(dict.fromkeys([dates[0], dates[-1]]))
    verb = "Measured on" if len(dates) == 1 else "Measured from"
    return format_source(about, verb).rstrip()


def describe_costs(runs: Sequence[Run], folder: Path) -> str:
    """Lists runs, and says how long those that are not done will take.

    Arguments
    ---------
    runs : sequence of Run
        The runs.
    folder : pathlib.Path
        Folder of all runs, in which speeds are looked up.

    Returns
    -------
    str
        Several lines.

    Raises
    ------
    UserError
        If a run was made with other settings.
    """
    paces = _read_paces(folder)
    lines, todo, seconds, guesses = [], [], 0.0, 0
    for run in runs:
        state = run.state()
        what = f"test of {run.evaluations} mixtures"
        if not run.test_only:
            what = f"training, {format_hours(run.hours)} of mixtures"
        lines.append(f"  {state:8}{run.title}: {what}")
        if state != DONE:
            todo.append(run)
            pace = paces.get((run.test_only, run.name))
            pace = pace or paces.get((run.test_only, None))
            guesses += pace is None
            seconds += _guess(run.hours, run.evaluations) * (pace or 1.0)
    if not todo:
        return "\n".join([*lines, "All of these runs are done."])
    hours = format_hours(sum(run.hours for run in todo))
    basis = "by the speed of those that are done"
    if guesses:
        basis = "a guess for two CPU cores and the paper's trunk"
    lines.append(
        f"To make: {len(todo)} of {len(runs)} runs, {hours} of mixtures in "
        f"training, about {format_time(seconds)} ({basis})"
    )
    return "\n".join(lines)


def _guess(hours: float, evaluations: int) -> float:
    """Seconds that a run takes on two cores."""
    return HOUR_SECONDS * hours + EVALUATION_SECONDS * evaluations


def _read_paces(folder: Path) -> dict[tuple[bool, str | None], float]:
    """How many times the guess finished runs took: tests or not, by name."""
    took: dict[tuple[bool, str | None], float] = defaultdict(float)
    guessed = took.copy()
    for path in folder.rglob(RECORD):
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["finished"]:
            hours = record["hours"]
            guess = _guess(hours, record["evaluations"])
            for name in (record["name"], None):  # None: all together
                took[not hours, name] += record["seconds"]
                guessed[not hours, name] += guess
    return {key: took[key] / guessed[key] for key in took}
