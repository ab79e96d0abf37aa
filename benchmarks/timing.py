"""Times measured side by side: ratios within one run, with their spread.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import statistics
import time
from typing import NamedTuple

import torch


class Ratio(NamedTuple):
    """How many times as long one thing takes as another.

    Arguments
    ---------
    median : float
        Median over the rounds.
    low : float
        Least of them.
    high : float
        Largest of them.
    seconds : dict
        Least time of each thing, in seconds.
    """

    median: float
    low: float
    high: float
    seconds: dict


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
            _wait()
            began = time.perf_counter()
            function()
            _wait()
            seconds[name].append(time.perf_counter() - began)
    return {name: times[1:] for name, times in seconds.items()}


def compare(functions, repeats, factor=1.0):
    """Compares two functions.

    Arguments
    ---------
    functions : dict
        The function of the numerator, then that of the denominator, by name.
    repeats : int
        Number of rounds.
    factor : float
        By which the ratio is multiplied.

    Returns
    -------
    Ratio
        Of the times of the two.
    """
    seconds = measure(functions, repeats)
    ours, theirs = seconds.values()
    ratios = [factor * a / b for a, b in zip(ours, theirs)]
    least = {name: min(times) for name, times in seconds.items()}
    return Ratio(statistics.median(ratios), min(ratios), max(ratios), least)


def _wait():
    """Waits for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
