"""What is trained and tested on, in the layout of WSJ0-mix, and its scores."""

import csv
import math
import statistics
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from scipy.stats import t

from speechbrain_kmdanet.dataio.audio import (
    UnusableSource,
    list_recordings,
    read_header,
)
from speechbrain_kmdanet.dataio.wsj0mix import mixture_folder
from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.utils.evaluation import SeparationReport

Scores = dict[str, float]


def measure_hours(
    folder: Path, keys: Mapping[str, Any], segment: float
) -> float:
    """Measures an epoch of segments of tr.

    Arguments
    ---------
    folder : pathlib.Path
        Folder of mixtures in the layout of WSJ0-mix.
    keys : mapping
        Settings of the system, by name.
    segment : float
        Length of a segment in seconds, unless a mixture is shorter.

    Returns
    -------
    float
        Hours of mixtures.
    """
    durations = _durations(_mix_folder(folder, keys, "tr"))
    return sum(min(duration, segment) for duration in durations) / 3600


def count_mixtures(folder: Path, keys: Mapping[str, Any], split: str) -> int:
    """Counts the mixtures of a split.

    Arguments
    ---------
    folder : pathlib.Path
        Folder of mixtures in the layout of WSJ0-mix.
    keys : mapping
        Settings of the system, by name.
    split : str
        tr, cv or tt.

    Returns
    -------
    int
        How many there are.
    """
    return len(find_mixtures(_mix_folder(folder, keys, split)))


@cache
def find_mixtures(folder: Path) -> dict[str, Path]:
    """Finds the mixtures of a folder, of any format.

    Arguments
    ---------
    folder : pathlib.Path
        Folder of mixtures.

    Returns
    -------
    dict
        The files by name, sorted.

    Raises
    ------
    UserError
        If there is none.
    """
    paths = list_recordings(folder)
    if not paths:
        raise UserError(
            f"there are no recordings in {folder}: data_folder must hold "
            "2speakers/ and 3speakers/ in the layout of WSJ0-mix"
        )
    return paths


def _mix_folder(folder: Path, keys: Mapping[str, Any], split: str) -> Path:
    """Folder of the mixtures of a split."""
    rate, mode = int(keys["sample_rate"]), str(keys["mix_mode"])
    return mixture_folder(folder, rate, mode, split) / "mix"


@cache
def _durations(folder: Path) -> list[float]:
    """Durations in seconds of the files of a folder."""
    durations = []
    for path in find_mixtures(folder).values():
        try:
            samples, rate, _ = read_header(path)
        except UnusableSource as problem:
            raise UserError(f"{path}: {problem}") from problem
        durations.append(samples / rate)
    return durations


def read_scores(folders: Sequence[Path], num_spks: int) -> Scores:
    """Reads the SI-SDR improvements of tests that differ in the seed alone.

    Arguments
    ---------
    folders : sequence of pathlib.Path
        Folders with per_utterance.csv.
    num_spks : int
        Number of talkers of the mixtures that are wanted.

    Returns
    -------
    dict
        Mean over the folders by mixture, in dB; without silent mixtures.
    """
    scores: dict[str, list[float]] = {}
    for folder in folders:
        path = folder / "per_utterance.csv"
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if int(row["num_spks"]) == num_spks:
                    score = float(row["si_sdri"])
                    scores.setdefault(row["id"], []).append(score)
    means = {name: statistics.fmean(values) for name, values in scores.items()}
    return {name: mean for name, mean in means.items() if not math.isnan(mean)}


def summarise(scores: Scores) -> dict[str, Any]:
    """Mean over mixtures with its 95 % interval.

    Arguments
    ---------
    scores : dict
        Scores by mixture, in dB.

    Returns
    -------
    dict
        mean, ci95 (half the width of the interval) and scored, see
        SeparationReport; mean and ci95 are None without scores.
    """
    report = SeparationReport()
    for name, score in scores.items():
        row = {"num_spks": None, "silent_sources": 0, "si_sdri": score}
        report.add(name, row)
    empty = {"mean": None, "ci95": None, "scored": 0}
    return report.summary().get("si_sdri", empty)


def subtract(scores: Scores, others: Scores) -> Scores:
    """Differences mixture by mixture, of those in both: a narrow interval."""
    both = [name for name in scores if name in others]
    return {name: scores[name] - others[name] for name in both}


def over_seeds(
    folders: Sequence[Path], others: Sequence[Path], num_spks: int
) -> float | None:
    """How sure a difference is over seeds, by pairs of one seed.

    Arguments
    ---------
    folders, others : sequence of pathlib.Path
        Folders with per_utterance.csv, one a seed.
    num_spks : int
        Number of talkers of the mixtures that are wanted.

    Returns
    -------
    float
        Half the 95 % interval of the mean difference in dB (Student's t);
        None unless there are several seeds.
    """
    if len(folders) != len(others) or len(folders) < 2 or folders == others:
        return None
    differences = [
        statistics.fmean(
            subtract(*(read_scores([x], num_spks) for x in pair)).values()
        )
        for pair in zip(folders, others)
    ]
    count = len(differences)
    width = t.ppf(0.975, count - 1) * statistics.stdev(differences)
    return float(width / math.sqrt(count))
