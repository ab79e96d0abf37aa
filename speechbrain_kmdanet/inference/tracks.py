"""Who is who: the talkers of one window after the other on tracks of their own.

Talkers of neighbouring windows are the same where they say the same in what the
windows share: they are a chain. Chains are of one talker where their voices are
alike, and no talker is two in one window.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import linear_sum_assignment

AGREEMENT = 0.5  # correlation of what neighbouring windows share, at least
ALIKE = 0.5  # cosine of the voices of one talker, at least
TOGETHER = 2.0  # what it costs to be heard in the same windows
SHORT = 1.5  # seconds of speech; the voices of shorter chains are vague
AT_A_TIME = 300  # groups that are compared with each other
NEVER = -10.0  # below every likeness
NO_LIMIT = 10.0  # above every likeness: only the number counts


@dataclass(frozen=True)
class WindowTalkers:
    """What is known of the talkers of a window.

    Arguments
    ---------
    voices : numpy.ndarray
        Vectors of their voices [K, E], of unit length; zeros if unknown.
    seconds : numpy.ndarray
        How long each speaks [K].
    agreement : numpy.ndarray
        Correlations [K', K] of what talkers of the window before say with what
        these say, in the time that both windows share.
    peaks : numpy.ndarray
        Energies of their loudest frames [K].
    """

    voices: np.ndarray
    seconds: np.ndarray
    agreement: np.ndarray
    peaks: np.ndarray

    def without(self, energy: float) -> "WindowTalkers":
        """The same, where nobody is known who has no more energy than that.

        Arguments
        ---------
        energy : float
            The energy.

        Returns
        -------
        WindowTalkers
            What is known then.
        """
        heard = self.peaks > energy
        return replace(self, seconds=self.seconds * heard)


@dataclass(frozen=True)
class _Group:
    """Talkers of windows that are taken for one."""

    members: tuple[tuple[int, int], ...]  # (window, talker)
    voice: np.ndarray  # [E], the sum of those of its members by seconds
    seconds: float

    def __add__(self, other: "_Group") -> "_Group":
        """Both as one."""
        return _Group(
            self.members + other.members,
            self.voice + other.voice,
            self.seconds + other.seconds,
        )

    @property
    def windows(self) -> set[int]:
        """Where it is heard."""
        return {window for window, _ in self.members}


def assign_tracks(
    windows: Sequence[WindowTalkers],
    num_tracks: int | None = None,
    most: int = 4,
    alike: float = ALIKE,
) -> list[list[int]]:
    """Gives the talkers of all windows their tracks.

    Arguments
    ---------
    windows : sequence of WindowTalkers
        The windows in their order.
    num_tracks : int
        Number of tracks, if it is known.
    most : int
        Largest number of tracks, if it is not.
    alike : float
        Least cosine of the voices of one talker, if it is not.

    Returns
    -------
    list of list of int
        The track of each talker of each window; tracks are numbered in the
        order in which they are first heard.

    Example
    -------
    >>> one, other = np.eye(2)
    >>> def window(*voices):
    ...     count = len(voices)
    ...     return WindowTalkers(
    ...         np.stack(voices),
    ...         np.full(count, 5.0),
    ...         np.zeros((2, count)),
    ...         np.ones(count),
    ...     )
    >>> assign_tracks([window(one, other), window(other, one)])
    [[0, 1], [1, 0]]
    """
    if num_tracks is not None:
        most, alike = num_tracks, NO_LIMIT
    chains = _link(windows)
    # Short ones say little of voices: they are given to what is there then.
    vague = [chain for chain in chains if chain.seconds < SHORT]
    clear = [chain for chain in chains if chain.seconds >= SHORT]
    tracks: list[_Group] = []
    for start in range(0, len(clear), AT_A_TIME):
        tracks = _merge(tracks + clear[start : start + AT_A_TIME], most, alike)
    while vague:
        chain = vague.pop()
        if len(tracks) < (num_tracks or 1):
            tracks.append(chain)
            continue
        likeness = [_likeness(chain, track) for track in tracks]
        best = int(np.argmax(likeness))
        tracks[best] = tracks[best] + chain
    order = sorted(tracks, key=lambda track: min(track.members))
    track_of = {
        member: number
        for number, track in enumerate(order)
        for member in track.members
    }
    return [
        [track_of[index, talker] for talker in range(len(window.seconds))]
        for index, window in enumerate(windows)
    ]


def _link(windows: Sequence[WindowTalkers]) -> list[_Group]:
    """Talkers as far as neighbouring windows agree on them."""
    chains: list[_Group] = []
    before: list[int] = []  # the chain of each talker of the window before
    for index, window in enumerate(windows):
        current = [-1] * len(window.seconds)
        if before:
            pairs = linear_sum_assignment(window.agreement, maximize=True)
            for earlier, talker in zip(*pairs):
                if window.agreement[earlier, talker] >= AGREEMENT:
                    current[talker] = before[earlier]
        for talker, seconds in enumerate(window.seconds):
            voice = window.voices[talker] * seconds
            single = _Group(((index, talker),), voice, float(seconds))
            if current[talker] < 0:
                current[talker] = len(chains)
                chains.append(single)
            else:
                chains[current[talker]] += single
        before = current
    return chains


def _likeness(one: _Group, other: _Group) -> float:
    """Cosine of two voices, less what they are heard together."""
    norms = np.linalg.norm(one.voice) * np.linalg.norm(other.voice)
    cosine = float(one.voice @ other.voice / max(norms, 1e-12))
    together = len(one.windows & other.windows)
    return cosine - TOGETHER * together / min(
        len(one.windows), len(other.windows)
    )


def _merge(groups: list[_Group], most: int, alike: float) -> list[_Group]:
    """Merges the groups that are most alike, until none are, or few are left."""
    groups = list(groups)
    likeness = np.full((len(groups), len(groups)), NEVER)
    for i, one in enumerate(groups):
        for j in range(i):
            likeness[i, j] = _likeness(one, groups[j])
    while len(groups) > 1:
        i, j = np.unravel_index(likeness.argmax(), likeness.shape)
        if likeness[i, j] < alike and len(groups) <= most:
            break
        groups[j] = groups[j] + groups.pop(i)
        likeness = np.delete(np.delete(likeness, i, 0), i, 1)
        for k, other in enumerate(groups):
            if k != j:
                likeness[max(j, k), min(j, k)] = _likeness(groups[j], other)
    return groups
