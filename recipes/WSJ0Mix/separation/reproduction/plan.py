"""Which runs a table needs: settings of the systems, hours to epochs, runs."""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from reproduction.data import count_mixtures, measure_hours
from reproduction.methods import (
    BY_NAME,
    ORACLE,
    RECIPE,
    TEST_ON,
    TRAIN_ON,
    Cell,
    Method,
    parse_numbers,
    system_file,
)
from reproduction.runs import Run
from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.utils.schema import SCHEMA, check_settings
from speechbrain_kmdanet.utils.settings import as_yaml
from speechbrain_kmdanet.utils.yaml_layers import parse_overrides, read_layers

LOSS = "loss"
MODELS = RECIPE.parents[2] / "hparams"
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
# Mixtures that are made anew are dealt out to so many epochs: the schedule of
# the learning rate changes after 3/7, 9/14, 6/7 and 13/14 of them.
EPOCHS = 14
MAX_EPOCH_SIZE = 20000
# Share of the epochs on short segments in curriculum learning.
SHORT_EPOCHS = 0.5
# Hours may differ by so much from those asked for, as epochs are whole.
TOLERANCE = 0.25

Settings = Mapping[str, Any]


@cache
def read_keys(system: str, trunk: str | None = None) -> dict[str, Any]:
    """Top-level settings of a system, as its YAML files have them.

    Arguments
    ---------
    system : str
        Its name.
    trunk : str
        Network that is chosen instead of that of the files, if any.

    Returns
    -------
    dict
        Values by name.
    """
    return dict(read_layers(system_file(system), trunk and {"trunk": trunk}))


def has_trunk(system: str) -> bool:
    """Whether a system has the common trunk, the embedding network."""
    return "trunk_net" in read_keys(system)


def select_overrides(system: str, overrides: Settings) -> dict[str, Any]:
    """Chooses those overrides of all systems that one of them can take.

    A setting goes to the systems that have it. The loss, the sizes of the
    network and the clustering are left alone in systems that have their own.
    What no system knows is an option of SpeechBrain's, for all.

    Arguments
    ---------
    system : str
        Name of the system.
    overrides : mapping
        Values by name.

    Returns
    -------
    dict
        Those for this system.
    """
    takes, known = _find_keys(system, overrides.get("trunk"))
    return {
        key: value
        for key, value in overrides.items()
        if key in takes or key not in known
    }


@cache
def _find_keys(system: str, trunk: str | None) -> tuple[set[str], set[str]]:
    """Settings that a system lets others change, and those of any system."""
    keys = read_keys(system, trunk)
    systems = [path.stem for path in system_file(system).parent.glob("*.yaml")]
    known = {key for name in systems for key in read_keys(name, trunk)}
    network = read_layers(MODELS / f"{trunk or 'blstm'}.yaml")
    sizes = {name: network[name] for name in network["trunk_net"]}
    shared = {LOSS: read_keys("training")[LOSS], **sizes}
    shared.update(read_layers(MODELS / "clustering.yaml"))
    own = {key for key, value in shared.items() if keys.get(key) != value}
    if not has_trunk(system):
        own |= set(sizes)
    return set(keys) - own, known


class Budget(NamedTuple):
    """What all trainings of a table have in common.

    Arguments
    ---------
    hours : float
        Hours of mixtures; None for the number of epochs in the YAML files.
    dynamic_mixing : str
        Corpus to make new mixtures of in every epoch; None to train on tr.
    epoch_size : int
        Mixtures in such an epoch; None for a 14th of the hours.
    """

    hours: float | None
    dynamic_mixing: str | None
    epoch_size: int | None


class Schedule(NamedTuple):
    """Length of a training.

    Arguments
    ---------
    options : dict
        Settings of train.py.
    epochs : int
        Number of epochs.
    hours : float
        Hours of mixtures in all of them.
    """

    options: dict[str, Any]
    epochs: int
    hours: float


def make_schedule(
    budget: Budget,
    keys: Settings,
    folders: Sequence[Path],
    factor: int = 1,
    curriculum: bool = False,
) -> Schedule:
    """Finds the epochs that amount to the hours of a budget.

    Arguments
    ---------
    budget : Budget
        The budget.
    keys : mapping
        Settings of the system, by name.
    folders : sequence of pathlib.Path
        Folders of mixtures in the layout of WSJ0-mix.
    factor : int
        How many times the hours, or the epochs of the settings, it takes.
    curriculum : bool
        Whether to train on short segments first.

    Returns
    -------
    Schedule
        The length of the training.

    Raises
    ------
    UserError
        If there are fewer hours than in an epoch.
    """
    names = "segment_seconds", "curriculum_seconds"
    long, short = (float(keys[name]) for name in names)
    share = SHORT_EPOCHS if curriculum else 0.0
    options: dict[str, Any] = {}
    if budget.dynamic_mixing:
        size = budget.epoch_size or int(keys["epoch_size"])
        if budget.hours is not None and budget.epoch_size is None:
            segment = share * short + (1 - share) * long
            size = round(3600 * budget.hours / EPOCHS / segment)
            # Whole batches, also of each of two numbers of talkers
            step = 2 * int(keys["batch_size"])
            size = step * max(1, round(min(size, MAX_EPOCH_SIZE) / step))
        options = {"dynamic_mixing": budget.dynamic_mixing, "epoch_size": size}

    def hours_of(segment: float) -> float:
        """Hours of an epoch of segments."""
        if budget.dynamic_mixing:
            return size * segment / 3600
        return sum(measure_hours(folder, keys, segment) for folder in folders)

    epochs, asked = factor * int(keys["number_of_epochs"]), None
    if factor > 1:
        options["number_of_epochs"] = epochs
    if budget.hours is not None:
        asked = factor * budget.hours
        an_epoch = share * hours_of(short) + (1 - share) * hours_of(long)
        epochs = max(1, round(asked / an_epoch))
        options["number_of_epochs"] = epochs
    short_epochs = round(share * epochs)
    if curriculum:
        options["curriculum_epochs"] = short_epochs
    hours = short_epochs * hours_of(short)
    hours += (epochs - short_epochs) * hours_of(long)
    if asked is not None and abs(hours / asked - 1) > TOLERANCE:
        remedy = "--dynamic_mixing CORPUS, which makes epochs of any size"
        if budget.dynamic_mixing:
            remedy = "a smaller --epoch_size"
        raise UserError(
            f"--hours {budget.hours:g} is too short for whole epochs, of "
            f"{hours / epochs:.3g} hours each: give more, or {remedy}"
        )
    return Schedule(options, epochs, hours)


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
    overrides : mapping
        Settings of train.py for all runs; None for those without a value.

    Raises
    ------
    UserError
        If an override is a setting that the tables vary, or cannot be.
    """

    def __init__(
        self,
        data_folder: Path,
        runs_folder: Path,
        budget: Budget,
        seeds: Sequence[int] = (1234,),
        overrides: Settings | None = None,
    ) -> None:
        self.data_folder = data_folder.absolute()
        self.runs_folder = runs_folder.absolute()
        self.budget = budget
        self.seeds = tuple(seeds)
        self.overrides = overrides or {}
        for name in RESERVED:
            if name in self.overrides:
                raise UserError(
                    f"--{name} is set by the table: options behind -- are for "
                    "what all of its runs have in common"
                )
        given = [as_yaml(*x) for x in self.overrides.items() if None not in x]
        check_settings(parse_overrides("\n".join(given)), MODELS / SCHEMA)

    def choose_columns(
        self, train_on: Sequence[str] | None = None
    ) -> list[tuple[str, int]]:
        """Chooses what Table 3 has columns of, for the data that there are.

        Arguments
        ---------
        train_on : sequence of str
            What to train on; all that there are data for by default.

        Returns
        -------
        list of tuple
            Pairs of what to train on and the number of talkers to test on.

        Raises
        ------
        UserError
            If there are no data.
        """
        there = [x for x in TEST_ON if self._data(x).is_dir()]
        for numbers in train_on or ["2"]:
            missing = set(parse_numbers(numbers)) - set(there)
            if missing:
                raise UserError(
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

    def runs(self, cells: Iterable[Cell]) -> list[Run]:
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
        runs: dict[Path, Run] = {}
        for cell in cells:
            for seed in self.seeds:
                for run in self._runs(cell, seed):
                    runs.setdefault(run.folder, run)
        return list(runs.values())

    def results(self, cell: Cell) -> list[Path]:
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
        except UserError:  # There cannot be such runs.
            return []
        if not all(run.is_done() for chain in runs for run in chain):
            return []
        return list(dict.fromkeys(chain[-1].results for chain in runs))

    def training(self, method: Method, train_on: str, seed: int) -> Run:
        """The training of a method.

        Arguments
        ---------
        method : Method
            The method.
        train_on : str
            Numbers of talkers.
        seed : int
            Seed.

        Returns
        -------
        Run
            Training and test.
        """
        method = BY_NAME[method.weights_of] if method.weights_of else method
        numbers = parse_numbers(train_on)
        folders = [self._data(number) for number in numbers]
        keys = self._keys(method)
        own = keys["number_of_epochs"]
        if method.factor > 1:
            # Times that of the others, whatever its own file says.
            keys["number_of_epochs"] = read_keys("training")["number_of_epochs"]
        schedule = make_schedule(
            self.budget, keys, folders, method.factor, method.curriculum
        )
        if self.budget.hours is None and schedule.epochs == own:
            schedule.options.pop("number_of_epochs", None)
        folder = self.runs_folder / method.name / f"{train_on}speakers"
        folder /= f"seed{seed}"
        results = folder / f"test_{train_on}speakers"
        together = json.dumps([str(data) for data in folders])
        options = {
            "data_folder": together if len(folders) > 1 else folders[0],
            "num_spks": numbers[0],
            "output_folder": folder,
            "test_folder": results,
            "seed": seed,
            **schedule.options,
            **self._options(method),
        }
        evaluations = sum(
            schedule.epochs * count_mixtures(data, keys, "cv")
            + count_mixtures(data, keys, "tt")
            for data in folders
        )
        return Run(
            f"{method.label}, {train_on} speakers, seed {seed}",
            folder,
            results,
            method.name,
            method.system,
            options,
            schedule.hours,
            evaluations,
        )

    def _runs(self, cell: Cell, seed: int) -> list[Run]:
        """Runs of a figure, the last of which makes its results."""
        method, train_on, test_on = cell
        data = self._data(test_on)
        test: dict[str, Any] = {"data_folder": data, "num_spks": test_on}
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
            before, options = [training], training.options
            results = training.folder / f"test_{test_on}speakers"
            if method.test_options:
                results = results.with_name(f"{results.name}_{method.name}")
            title += f", trained on {train_on}, seed {seed}"
        test = {**options, **test, **method.test_options}
        test["test_folder"] = results
        count = count_mixtures(data, self._keys(method), "tt")
        name, system = method.name, method.system
        run = Run(title, results, results, name, system, test, 0.0, count)
        return [*before, run]

    def _data(self, num_spks: int) -> Path:
        """Folder of the mixtures of a number of talkers."""
        return self.data_folder / f"{num_spks}speakers"

    def _keys(self, method: Method) -> dict[str, Any]:
        """Settings of a method by name."""
        return {**read_keys(method.system), **self._options(method)}

    def _options(self, method: Method) -> dict[str, Any]:
        """Settings of train.py that the table does not vary."""
        return {
            "compute_sdr": False,
            "num_examples": 0,
            **method.options,
            **select_overrides(method.system, self.overrides),
        }
