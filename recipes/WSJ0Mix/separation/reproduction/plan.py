"""Which runs a table needs.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import json
from pathlib import Path
from typing import NamedTuple

from reproduction.budget import count_mixtures, make_schedule
from reproduction.methods import (
    BY_NAME,
    ORACLE,
    TEST_ON,
    TRAIN_ON,
    Method,
    parse_numbers,
)
from reproduction.runs import Run
from reproduction.systems import read_keys, select_overrides

# What the runs take from the table, and not from the end of the command line.
RESERVED = (
    "curriculum_epochs",
    "data_folder",
    "dynamic_mixing",
    "epoch_size",
    "infer_metric",
    "initial_weights",
    "mask",
    "number_of_epochs",
    "num_spks",
    "output_folder",
    "save_folder",
    "seed",
    "test_folder",
    "test_only",
    "train_iterations",
)


class Cell(NamedTuple):
    """One figure of a table.

    Arguments
    ---------
    method : Method
        What is trained.
    train_on : str
        Numbers of speakers that it is trained on: "2", "3" or "2+3".
    test_on : int
        Number of speakers that it is tested on.
    """

    method: Method
    train_on: str
    test_on: int


class Planner:
    """Turns figures of tables into runs.

    Arguments
    ---------
    data_folder : pathlib.Path
        Holds 2speakers/ and 3speakers/ in the layout of WSJ0-mix.
    runs_folder : pathlib.Path
        Where the runs are.
    budget : Budget
        Length of the trainings.
    seeds : sequence of int
        Seeds of the trainings.
    overrides : dict
        Settings of train.py for all runs; None for those without a value.
    """

    def __init__(
        self,
        data_folder,
        runs_folder,
        budget,
        seeds=(1234,),
        overrides=None,
    ):
        self.data_folder = Path(data_folder).absolute()
        self.runs_folder = Path(runs_folder).absolute()
        self.budget = budget
        self.seeds = tuple(seeds)
        self.overrides = overrides or {}
        for name in RESERVED:
            if name in self.overrides:
                raise ValueError(
                    f"--{name} is set by the table: options behind -- are for "
                    "what all of its runs have in common"
                )

    def choose_numbers(self, train_on=None):
        """Chooses what Table 3 has columns of, for the data that there are.

        Arguments
        ---------
        train_on : sequence of str
            What to train on; all that there are data for by default.

        Returns
        -------
        list of tuple
            Pairs of what to train on and the number of speakers to test on.

        Raises
        ------
        ValueError
            If there are no data.
        """
        there = [
            number
            for number in TEST_ON
            if (self.data_folder / f"{number}speakers").is_dir()
        ]
        for numbers in train_on or ["2"]:
            missing = set(parse_numbers(numbers)) - set(there)
            if missing:
                raise ValueError(
                    f"there is no folder {min(missing)}speakers in "
                    f"{self.data_folder}: data_folder must hold 2speakers/ "
                    "and 3speakers/ in the layout of WSJ0-mix"
                )
        return [
            (numbers, test_on)
            for numbers in train_on or TRAIN_ON
            if set(parse_numbers(numbers)) <= set(there)
            for test_on in there
        ]

    def runs(self, cells):
        """Runs that figures are made of.

        Arguments
        ---------
        cells : iterable of Cell
            The figures.

        Returns
        -------
        list of Run
            Each once, the trainings before their tests.
        """
        runs = {}
        for cell in cells:
            for seed in self.seeds:
                for run in self._runs(cell, seed):
                    runs.setdefault(run.folder, run)
        return list(runs.values())

    def results(self, cell):
        """Where the results of a figure are.

        Arguments
        ---------
        cell : Cell
            The figure.

        Returns
        -------
        list of pathlib.Path
            Folders, one a seed; none if not all of its runs are done.
        """
        try:
            runs = [self._runs(cell, seed) for seed in self.seeds]
        except ValueError:  # There cannot be such runs.
            return []
        if not all(run.is_done() for chain in runs for run in chain):
            return []
        return list(dict.fromkeys(chain[-1].results for chain in runs))

    def training(self, method, train_on, seed):
        """The training of a method.

        Arguments
        ---------
        method : Method
            The method.
        train_on : str
            Numbers of speakers.
        seed : int
            Seed.

        Returns
        -------
        Run
            Training and test.
        """
        method = BY_NAME[method.weights_of] if method.weights_of else method
        numbers = parse_numbers(train_on)
        folders = [self.data_folder / f"{number}speakers" for number in numbers]
        keys = self._keys(method)
        schedule = make_schedule(
            self.budget, keys, folders, method.factor, method.curriculum
        )
        folder = self.runs_folder / method.name / f"{train_on}speakers"
        folder /= f"seed{seed}"
        together = json.dumps([str(data) for data in folders])
        options = {
            "data_folder": together if len(folders) > 1 else folders[0],
            "num_spks": numbers[0],
            "output_folder": folder,
            "test_folder": folder / f"test_{train_on}speakers",
            "seed": seed,
            **schedule.options,
            **self._options(method),
        }
        return Run(
            f"{method.label}, {train_on} speakers, seed {seed}",
            folder,
            options["test_folder"],
            method.name,
            method.system,
            options,
            schedule.hours,
            sum(
                schedule.epochs * count_mixtures(data, keys, "cv")
                + count_mixtures(data, keys, "tt")
                for data in folders
            ),
        )

    def _runs(self, cell, seed):
        """Runs of a figure, the last of which makes its results."""
        method, train_on, test_on = cell
        data = self.data_folder / f"{test_on}speakers"
        test = {"data_folder": data, "num_spks": test_on}
        before, title = [], f"{method.label}, {test_on} speakers"
        if method.numbers == ORACLE:
            options = self._options(method)
            folder = self.runs_folder / method.name / f"{test_on}speakers"
            results = folder / f"test_{test_on}speakers"
            test["output_folder"] = folder
        else:
            training = self.training(method, train_on, seed)
            if test_on in parse_numbers(train_on) and not method.test_options:
                return [training]
            before = [training]
            options = training.options
            folder = training.folder
            results = folder / f"test_{test_on}speakers"
            if method.test_options:
                results = results.with_name(f"{results.name}_{method.name}")
            title += f", trained on {train_on}, seed {seed}"
        test = {**options, **test, **method.test_options}
        test["test_folder"] = results
        count = count_mixtures(data, self._keys(method), "tt")
        run = Run(
            title, results, results, method.name, method.system, test, 0.0,
            count,
        )  # fmt: skip
        return [*before, run]

    def _keys(self, method):
        """Settings of a method by name."""
        return {**read_keys(method.system), **self._options(method)}

    def _options(self, method):
        """Settings of train.py that the table does not vary."""
        return {
            "compute_sdr": False,
            "num_examples": 0,
            **method.options,
            **select_overrides(method.system, self.overrides),
        }
