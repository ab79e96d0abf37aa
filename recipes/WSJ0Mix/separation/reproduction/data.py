"""What there is to train and test on: mixtures in the layout of WSJ0-mix."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from speechbrain_kmdanet.dataio.audio import (
    UnusableSource,
    list_recordings,
    read_header,
)
from speechbrain_kmdanet.dataio.wsj0mix import mixture_folder
from speechbrain_kmdanet.errors import UserError


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
