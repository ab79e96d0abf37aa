"""Who speaks when: turns on the tracks of talkers, as RTTM files list them."""

import math
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


def find_runs(
    active: np.ndarray, pause: float = PAUSE, longest: float = np.inf
) -> list[tuple[int, int]]:
    """Runs of active frames.

    Arguments
    ---------
    active : numpy.ndarray
        Whether a frame is active [frames], bool.
    pause : float
        Seconds that a run goes on without.
    longest : float
        Seconds of a run; longer ones are cut into equal parts.

    Returns
    -------
    list of tuple of int
        First frame of each run, and the one after its last.

    Example
    -------
    >>> active = np.array([1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0], bool)
    >>> find_runs(active)
    [(0, 4), (10, 11)]
    >>> find_runs(active, longest=0.2)
    [(0, 2), (2, 4), (10, 11)]
    """
    edges = np.diff(active.astype(int), prepend=0, append=0)
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    if not len(starts):
        return []
    apart = (starts[1:] - ends[:-1]) * FRAME > pause
    starts, ends = starts[np.r_[True, apart]], ends[np.r_[apart, True]]
    runs = []
    for start, end in zip(starts, ends):
        parts = math.ceil((end - start) * FRAME / longest - 1e-9) or 1
        cuts = np.linspace(start, end, parts + 1).round().astype(int).tolist()
        runs += list(zip(cuts, cuts[1:]))
    return runs


def who_speaks(energies: np.ndarray, loud: np.ndarray) -> np.ndarray:
    """Frames in which each talker is heard.

    Arguments
    ---------
    energies : numpy.ndarray
        Energies of the talkers [frames, K], see :func:`frame_energies`.
    loud : numpy.ndarray
        Energy of a loud frame of each [K].

    Returns
    -------
    numpy.ndarray
        Whether each is heard in each frame [frames, K], bool.

    Example
    -------
    >>> energies = np.array([[4.0, 0.0], [4.0, 0.1], [1e-9, 0.0]])
    >>> who_speaks(energies, np.ones(2)).tolist()
    [[True, False], [True, False], [False, False]]
    """
    total = energies.sum(1, keepdims=True)
    heard: np.ndarray = (energies > QUIET * loud) & (energies > AUDIBLE * total)
    return heard


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
    total = energies.sum(1)
    loud = np.array(
        [
            np.quantile(energy[energy > AUDIBLE * total], LOUD)
            if (energy > AUDIBLE * total).any()
            else np.inf
            for energy in energies.T
        ]
    )
    turns = [
        Turn(round(start * FRAME, 1), round(end * FRAME, 1), track)
        for track, active in enumerate(who_speaks(energies, loud).T)
        for start, end in find_runs(active)
        if (end - start) * FRAME >= SHORTEST - 1e-9
    ]
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
