"""Who is who: stretches of speech in windows of a recording get their tracks.

A stretch is what one talker of a window says between two pauses. Stretches of
neighbouring windows are one where both windows hear the same at the same time.
The voices of what is left are clustered as bins are, by spherical k-means; but
no talker is two at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import torch

from speechbrain_kmdanet.processing.kmeans import kmeans

ALIKE = 0.5  # likeness of two clusters that may be one talker's
APART = 1.5  # of a cosine: what it says for two talkers to be heard together
OFTEN = 0.14  # share of overlaps that is enough to miss them between two
TOGETHER = 0.5  # of a cosine: what it costs to be heard at the same time
SHORT = 1.0  # seconds; the voices of shorter groups are vague
RARE = 0.06  # of all speech: no talker of a recording says less
RESTARTS = 10  # of k-means
SWEEPS = 10  # through all groups, at most


@dataclass(frozen=True)
class Stretch:
    """What a talker of a window says between two pauses.

    Arguments
    ---------
    window : int
        Number of the window.
    talker : int
        Number of the talker in the window.
    start, end : float
        Seconds from the beginning of the recording.
    voice : numpy.ndarray
        Vector of the voice [E], of unit length; zeros if unknown.
    peak : float
        Energy of the loudest frame.
    same_as : int
        Number of an earlier stretch that is the same, in the window before;
        -1 if there is none.
    """

    window: int
    talker: int
    start: float
    end: float
    voice: np.ndarray
    peak: float
    same_as: int = -1


@dataclass(frozen=True)
class _Groups:
    """Stretches that are taken for one talker's, N groups.

    Arguments
    ---------
    of : numpy.ndarray
        The group of each stretch.
    voices : numpy.ndarray
        Sums of their voices by seconds [N, E].
    known : numpy.ndarray
        Seconds of known voice [N].
    seconds : numpy.ndarray
        Seconds [N].
    together : list of dict
        Of each group, the seconds that it is heard together with others.
    """

    of: np.ndarray
    voices: np.ndarray
    known: np.ndarray
    seconds: np.ndarray
    together: list[dict[int, float]]

    def shares(self, group: int, talkers: np.ndarray, count: int) -> np.ndarray:
        """Shares of a group that are heard together with each talker [K]."""
        shares = np.zeros(count)
        for other, seconds in self.together[group].items():
            if talkers[other] >= 0:
                shares[talkers[other]] += seconds / self.seconds[group]
        return shares


def assign_tracks(
    stretches: Sequence[Stretch],
    num_tracks: int | None = None,
    most: int = 4,
) -> list[int]:
    """Gives stretches of speech their tracks.

    Arguments
    ---------
    stretches : sequence of Stretch
        The stretches in the order of their windows.
    num_tracks : int
        Number of tracks, if it is known.
    most : int
        Largest number of tracks, if it is not.

    Returns
    -------
    list of int
        The track of each stretch; tracks are numbered in the order in which
        they are first heard.

    Example
    -------
    >>> one, other = np.eye(2)
    >>> said = [(0, 0, one), (0, 1, other), (1, 0, other), (2, 0, one)]
    >>> assign_tracks(
    ...     [Stretch(i, k, 9 * i, 9 * i + 5, v, 1.0) for i, k, v in said]
    ... )
    [0, 1, 1, 0]
    """
    if not stretches:
        return []
    groups = _link(stretches)
    clear = np.flatnonzero(groups.known >= SHORT)
    least = min(num_tracks or 1, len(groups.seconds))
    if len(clear) < least:
        clear = np.argsort(-groups.known, kind="stable")[:least]
    talkers = _cluster(groups, clear, least)
    if num_tracks is None:
        for number in range(2, 1 + min(most, len(clear))):
            more = _cluster(groups, clear, number)
            if not _differ(groups, clear, more, number):
                break
            talkers = more
    numbers: dict[int, int] = {}
    return [
        numbers.setdefault(int(talkers[group]), len(numbers))
        for group in groups.of
    ]


def _link(stretches: Sequence[Stretch]) -> _Groups:
    """Stretches as far as neighbouring windows hear the same."""
    of = np.zeros(len(stretches), int)
    count = 0
    windows: dict[int, list[int]] = {}
    for index, stretch in enumerate(stretches):
        if stretch.same_as < 0:
            of[index] = count
            count += 1
        else:
            of[index] = of[stretch.same_as]
        windows.setdefault(stretch.window, []).append(index)
    seconds = np.array([x.end - x.start for x in stretches])
    voices = np.stack([x.voice for x in stretches])
    sums = _sums(voices * seconds[:, None], of, count)
    together: list[dict[int, float]] = [{} for _ in range(count)]
    for here in windows.values():
        for i, j in permutations(here, 2):
            one, other = stretches[i], stretches[j]
            shared = min(one.end, other.end) - max(one.start, other.start)
            if shared > 0 and of[i] != of[j]:
                before = together[of[i]].get(of[j], 0.0)
                together[of[i]][of[j]] = before + shared
    return _Groups(
        of,
        sums,
        np.bincount(of, seconds * voices.any(1), count),
        np.bincount(of, seconds, count),
        together,
    )


def _sums(vectors: np.ndarray, of: np.ndarray, count: int) -> np.ndarray:
    """Sums [K, E] of the vectors [N, E] of each number [N]."""
    sums = np.zeros((count, vectors.shape[1]))
    np.add.at(sums, of, vectors)
    return sums


def _unit(vectors: np.ndarray) -> np.ndarray:
    """The directions of vectors [N, E]; zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    directions: np.ndarray = vectors / np.maximum(lengths, 1e-12)
    return directions


def _cluster(groups: _Groups, clear: np.ndarray, number: int) -> np.ndarray:
    """The talker of each group [N], by the voices of those that are clear."""
    voices = _unit(groups.voices)
    weights = groups.known if groups.known.any() else groups.seconds
    found = kmeans(
        torch.from_numpy(voices[clear]).unsqueeze(0),
        number,
        weights=torch.from_numpy(weights[clear]).unsqueeze(0),
        metric="spherical",
        num_init=RESTARTS,
        generator=0,
    )
    centroids = _unit(found.centroids[0].numpy())
    vague = np.setdiff1d(np.arange(len(voices)), clear)
    talkers = np.full(len(voices), -1)

    def place(chosen: np.ndarray) -> None:
        """Gives groups, the longest first, to those whom they are likest."""
        for group in chosen[np.argsort(-groups.seconds[chosen], kind="stable")]:
            likeness = centroids @ voices[group]
            likeness -= TOGETHER * groups.shares(group, talkers, number)
            talkers[group] = np.argmax(likeness)

    for _ in range(SWEEPS):
        before = talkers.copy()
        place(clear)
        if np.array_equal(talkers, before):
            break
        sums = _sums(groups.voices[clear], talkers[clear], number)
        centroids = np.where(sums.any(1, keepdims=True), _unit(sums), centroids)
    place(vague)
    return talkers


def _differ(
    groups: _Groups, clear: np.ndarray, talkers: np.ndarray, number: int
) -> bool:
    """Whether clusters are talkers: none is rare, and no two are alike.

    Two that are heard together differ; and where many are, two that never are
    may be one.
    """
    seconds = np.bincount(talkers[clear], groups.known[clear], number)
    if seconds.min() < RARE * seconds.sum():
        return False
    shared = np.zeros((number, number))  # seconds
    for group in clear:
        shares = groups.shares(group, talkers, number)
        shared[talkers[group]] += shares * groups.seconds[group]
    others = ~np.eye(number, dtype=bool)
    often = min(OFTEN, shared[others].sum() / seconds.sum())
    centroids = _unit(_sums(groups.voices[clear], talkers[clear], number))
    likeness = centroids @ centroids.T + often
    likeness -= APART * shared / np.minimum.outer(seconds, seconds)
    return bool(likeness[others].max() < ALIKE)
