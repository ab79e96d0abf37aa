"""Runs of train.py, each made once, and what they cost.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from reproduction.provenance import describe_environment
from reproduction.systems import RECIPE, system_file

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
    options: dict
    hours: float
    evaluations: int

    @property
    def test_only(self):
        """Whether it is a test alone."""
        return not self.hours

    @property
    def settings(self):
        """What the results depend on, as text by name."""
        relevant = {
            name: str(value)
            for name, value in self.options.items()
            if name not in IRRELEVANT
        }
        return {"system": self.system, **relevant}

    def record(self):
        """What was written about this run.

        Returns
        -------
        dict
            name, settings, hours, evaluations, seconds, finished and, when it
            is finished, about; None if there is nothing to go on from.

        Raises
        ------
        ValueError
            If the folder holds a run with other settings.
        """
        path = self.folder / RECORD
        if not path.is_file():
            return None
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["settings"] == self.settings:
            return record
        if not (record["finished"] or any(self.folder.glob("save/CKPT*"))):
            return None  # Nothing is lost, nor is there anything to mix up.
        theirs, ours = record["settings"], self.settings
        names = sorted({*theirs, *ours})
        name = next(x for x in names if theirs.get(x) != ours.get(x))
        raise ValueError(
            f"{self.folder} holds a run with other settings ({name} is "
            f"{theirs.get(name, 'not given')} there and "
            f"{ours.get(name, 'not given')} now): give another folder with "
            "--runs, or the settings of that run"
        )

    def state(self):
        """DONE, STARTED or MISSING, see :meth:`record` for errors."""
        record = self.record()
        if record is None:
            return MISSING
        there = (self.results / "summary.json").is_file()
        return DONE if record["finished"] and there else STARTED

    def is_done(self):
        """Whether it is done, with these settings."""
        try:
            return self.state() == DONE
        except ValueError:
            return False

    def execute(self, command):
        """Makes or continues the run, unless it is done.

        Arguments
        ---------
        command : str
            Command line that asks for it, for the record.

        Raises
        ------
        ValueError
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
            raise ValueError(
                f"train.py stopped with status {status} in the run of "
                f"{self.title}, see above; the same command goes on from here"
            )
        about = describe_environment(self.options.get("device"))
        about["command"] = command
        self._write({**record, "finished": True, "about": about})

    def arguments(self):
        """Command line of train.py.

        Returns
        -------
        list of str
            The arguments.
        """
        arguments = [str(system_file(self.system))]
        for name, value in self.options.items():
            arguments.append(f"--{name}")
            if value is not None:
                arguments.append(str(value))
        return arguments + ["--test_only"] * self.test_only

    def _write(self, record):
        """Writes the record, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.folder / f"{RECORD}.tmp"
        text = json.dumps(record, indent=2)
        unfinished.write_text(f"{text}\n", encoding="utf-8")
        os.replace(unfinished, self.folder / RECORD)


def call_train(arguments):
    """Calls train.py in a process of its own, which shows its progress.

    Arguments
    ---------
    arguments : list of str
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
