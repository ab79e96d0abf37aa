"""Who speaks when: turns on the tracks of talkers, as RTTM files list them."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

FRAME = 0.1  # seconds
QUIET = 1e-3  # of the energy of the loud frames of a talker: silence
LOUD = 0.95  # quantile of the energies of a talker
AUDIBLE = 0.03  # of the energy of all: a leak of others
PAUSE = 0.5  # seconds of silence within a turn, at most
SHORTEST = 0.2  # seconds of a turn


class Turn(NamedTuple):
    """When a talker speaks.

    Arguments
    ---------
    start, end : float
        Seconds.
    track : int
        Number of the talker's track, from 0 on.
    """

    start: float
    end: float
    track: int


def frame_energies(signals: np.ndarray, sample_rate: int) -> np.ndarray:
    """Energies of frames of 0.1 s; the last one may be shorter.

    Arguments
    ---------
    signals : numpy.ndarray
        Signals [time, K].
    sample_rate : int
        Their rate in Hz.

    Returns
    -------
    numpy.ndarray
        Energies [frames, K].

    Example
    -------
    >>> frame_energies(np.ones((25, 1)), 100).T
    array([[10., 10.,  5.]])
    """
    length = max(1, round(FRAME * sample_rate))
    starts = np.arange(0, len(signals), length)
    energies: np.ndarray = np.add.reduceat(np.square(signals), starts, axis=0)
    return energies


def dominates(energies: np.ndarray) -> np.ndarray:
    """Frames in which a talker speaks and is louder than all others together.

    Arguments
    ---------
    energies : numpy.ndarray
        Energies of the talkers [frames, K].

    Returns
    -------
    numpy.ndarray
        Whether each does in each frame [frames, K], bool.

    Example
    -------
    >>> dominates(np.array([[4.0, 1.0], [0.0, 0.0]])).tolist()
    [[True, False], [False, False]]
    """
    loud = np.quantile(energies, LOUD, axis=0)
    most: np.ndarray = energies > 0.5 * energies.sum(1, keepdims=True)
    return most & (energies > QUIET * loud)


def find_turns(energies: np.ndarray) -> list[Turn]:
    """Turns of the talkers.

    Arguments
    ---------
    energies : numpy.ndarray
        Energies of the tracks [frames, J], see :func:`frame_energies`.

    Returns
    -------
    list of Turn
        The turns in the order of their beginnings.

    Example
    -------
    >>> energies = np.zeros((30, 2))
    >>> energies[:10, 0] = energies[12:20, 0] = energies[15:, 1] = 1.0
    >>> find_turns(energies)
    [Turn(start=0.0, end=2.0, track=0), Turn(start=1.5, end=3.0, track=1)]
    """
    turns = []
    total = energies.sum(1)
    for track, energy in enumerate(energies.T):
        spoken = energy[energy > AUDIBLE * total]
        loud = np.quantile(spoken, LOUD) if len(spoken) else np.inf
        speaks = (energy > QUIET * loud) & (energy > AUDIBLE * total)
        edges = np.diff(speaks.astype(int), prepend=0, append=0)
        starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
        if not len(starts):
            continue
        apart = (starts[1:] - ends[:-1]) * FRAME > PAUSE
        starts = starts[np.r_[True, apart]]
        ends = ends[np.r_[apart, True]]
        for start, end in zip(starts, ends):
            if (end - start) * FRAME >= SHORTEST - 1e-9:
                turns.append(
                    Turn(
                        *(round(float(x) * FRAME, 1) for x in (start, end)),
                        track,
                    )
                )
    return sorted(turns)


def format_rttm(name: str, turns: Iterable[Turn], labels: list[str]) -> str:
    """Turns as RTTM files have them, one a line.

    Arguments
    ---------
    name : str
        Name of the recording; RTTM knows no spaces.
    turns : iterable of Turn
        The turns.
    labels : list of str
        Names of the tracks.

    Returns
    -------
    str
        The lines.

    Example
    -------
    >>> format_rttm("a b", [Turn(0.5, 2.0, 0)], ["1"])
    'SPEAKER a_b 1 0.500 1.500 <NA> <NA> 1 <NA> <NA>\\n'
    """
    name = "_".join(name.split())
    return "".join(
        f"SPEAKER {name} 1 {turn.start:.3f} {turn.end - turn.start:.3f} <NA> "
        f"<NA> {labels[turn.track]} <NA> <NA>\n"
        for turn in turns
    )
