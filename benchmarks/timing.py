"""Times and memory measured side by side: ratios within one run.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import statistics
import time
from typing import NamedTuple

import torch


class Ratio(NamedTuple):
    """How many times as much one thing takes as another.

    Arguments
    ---------
    median : float
        Median over the rounds.
    low : float
        Least of them.
    high : float
        Largest of them.
    least : dict
        Least that was measured of each thing, by name.
    unit : str
        Unit of that.
    """

    median: float
    low: float
    high: float
    least: dict
    unit: str = "s"


def measure(functions, repeats):
    """Times functions in turns, so that a busy machine slows all of them.

    Arguments
    ---------
    functions : dict
        Functions without arguments, by name.
    repeats : int
        Number of rounds; one more comes first and does not count.

    Returns
    -------
    dict
        List of seconds, one a round, by name.
    """
    seconds = {name: [] for name in functions}
    for _ in range(repeats + 1):
        for name, function in functions.items():
            wait()
            began = time.perf_counter()
            function()
            wait()
            seconds[name].append(time.perf_counter() - began)
    return {name: times[1:] for name, times in seconds.items()}


def compare(functions, repeats):
    """Compares the times of two functions.

    Arguments
    ---------
    functions : dict
        The function of the numerator, then that of the denominator, by name.
    repeats : int
        Number of rounds.

    Returns
    -------
    Ratio
        Of the times of the two.
    """
    return summarise(measure(functions, repeats))


def summarise(rounds, unit="s", factor=1.0):
    """The ratio of two things that were measured in turns.

    Arguments
    ---------
    rounds : dict
        Measurements of the numerator, then those of the denominator, one a
        round, by name.
    unit : str
        Their unit.
    factor : float
        By which the ratio is multiplied.

    Returns
    -------
    Ratio
        Of the first to the second.
    """
    one, other = rounds.values()
    ratios = [factor * a / b for a, b in zip(one, other)]
    least = {name: min(values) for name, values in rounds.items()}
    return Ratio(
        statistics.median(ratios), min(ratios), max(ratios), least, unit
    )


def wait():
    """Waits for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
