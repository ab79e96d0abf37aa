"""How long the methods of a table are trained: hours of mixtures to epochs.

Authors
 * The speechbrain_kmdanet developers 2026
"""

from functools import cache
from typing import NamedTuple

import soundfile

# Mixtures that are made anew are dealt out to so many epochs: the schedule of
# the learning rate changes after 3/7, 9/14, 6/7 and 13/14 of them.
EPOCHS = 14
MAX_EPOCH_SIZE = 20000
# Share of the epochs on short segments in curriculum learning.
SHORT_EPOCHS = 0.5
# Hours may differ by so much from those asked for, as epochs are whole.
TOLERANCE = 0.25


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

    options: dict
    epochs: int
    hours: float


def make_schedule(budget, keys, folders, factor=1, curriculum=False):
    """Finds the epochs that amount to the hours of a budget.

    Arguments
    ---------
    budget : Budget
        The budget.
    keys : dict
        Settings of the system, by name.
    folders : list of pathlib.Path
        Folders of mixtures in the layout of WSJ0-mix.
    factor : int
        How many times the hours it may take.
    curriculum : bool
        Whether to train on short segments first.

    Returns
    -------
    Schedule
        The length of the training.

    Raises
    ------
    ValueError
        If there are fewer hours than in an epoch.
    """
    long, short = (
        float(keys[name]) for name in ("segment_seconds", "curriculum_seconds")
    )
    share = SHORT_EPOCHS if curriculum else 0.0
    options, size = {}, budget.epoch_size
    if budget.dynamic_mixing:
        if size is None and budget.hours is None:
            size = int(keys["epoch_size"])
        elif size is None:
            segment = share * short + (1 - share) * long
            size = round(3600 * budget.hours / EPOCHS / segment)
            # Whole batches, also of each of two numbers of speakers
            step = 2 * int(keys["batch_size"])
            size = step * max(1, round(min(size, MAX_EPOCH_SIZE) / step))
        options = {"dynamic_mixing": budget.dynamic_mixing, "epoch_size": size}

    def hours_of(segment):
        """Hours of an epoch of segments."""
        if budget.dynamic_mixing:
            return size * segment / 3600
        return sum(_hours_of_tr(folder, keys, segment) for folder in folders)

    epochs, asked = int(keys["number_of_epochs"]), None
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
        raise ValueError(
            f"--hours {budget.hours:g} is too short for whole epochs, of "
            f"{hours / epochs:.3g} hours each: give more, or {remedy}"
        )
    return Schedule(options, epochs, hours)


def count_mixtures(folder, keys, split):
    """Counts the mixtures of a split.

    Arguments
    ---------
    folder : pathlib.Path
        Folder in the layout of WSJ0-mix.
    keys : dict
        Settings of a system, by name.
    split : str
        tr, cv or tt.

    Returns
    -------
    int
        Number of mixtures.
    """
    return len(_list_files(_mix_folder(folder, keys, split)))


def _hours_of_tr(folder, keys, segment):
    """Hours of mixtures in an epoch of segments of tr."""
    durations = _durations(_mix_folder(folder, keys, "tr"))
    return sum(min(duration, segment) for duration in durations) / 3600


def _mix_folder(folder, keys, split):
    """Folder of the mixtures of a split."""
    rate = f"wav{int(keys['sample_rate']) // 1000}k"
    return folder / rate / str(keys["mix_mode"]) / split / "mix"


@cache
def _list_files(folder):
    """WAV files of a folder."""
    paths = sorted(folder.glob("*.wav"))
    if not paths:
        raise ValueError(
            f"there are no WAV files in {folder}: data_folder must hold "
            "2speakers/ and 3speakers/ in the layout of WSJ0-mix"
        )
    return paths


@cache
def _durations(folder):
    """Durations in seconds of the files of a folder."""
    return [soundfile.info(str(path)).duration for path in _list_files(folder)]
