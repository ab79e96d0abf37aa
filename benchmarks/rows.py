"""Rows of the benchmark: what is measured, and what it should come to.

Authors
 * The speechbrain_kmdanet developers 2026
"""

from collections.abc import Callable
from typing import NamedTuple


class Row(NamedTuple):
    """One comparison.

    Arguments
    ---------
    what : str
        What is compared with what.
    goal : float
        The ratio that is wanted.
    at_most : bool
        Whether the ratio should be at most that; at least, otherwise.
    run : callable
        From the number of repeats to a Ratio.
    """

    what: str
    goal: float
    at_most: bool
    run: Callable

    def is_met(self, ratio):
        """Whether a median reaches the goal.

        Arguments
        ---------
        ratio : Ratio
            What was measured.

        Returns
        -------
        bool
            Whether it does.
        """
        if self.at_most:
            return ratio.median <= self.goal
        return ratio.median >= self.goal
