"""How well separated tracks follow the talkers of a conversation.

A talker is *active* in a frame of 0.1 s whose energy is at most 30 dB below
that of the talker's loudest frame. What a track holds of a talker in a frame
is a coefficient of the least squares that explain the track, in the 0.3 s
around, by all sources together: the leak of a louder talker counts as that
talker's, not as chance likeness to a soft one. Coefficients refer to the level
of each source, so that soft talkers count as loud ones do; tracks have to be
at the level of the mixture, and one that holds less than a tenth of a talker's
amplitude does not carry that talker.

Time and memory grow linearly with the length: blocks of frames are at work.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import binary_closing
from scipy.optimize import linear_sum_assignment

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.nnet.loss.separation import si_sdr

FRAME = 0.1  # seconds
ACTIVE = 1e-3  # of the energy of a talker's loudest frame
HELD = 0.1  # of a talker's amplitude, at least, on a track that is theirs
AROUND = 1  # frames on both sides in which a track is explained
LEAST_OVERLAP = 0.5  # seconds
BRIDGED = 3  # frames of a pause that ends no overlap
PRESENT = 0.5  # of an overlap, in which a talker is active who is scored
LIMIT = 30.0  # dB; SI-SDR in an overlap is from −30 to 30
STEP = 0.01  # seconds; of diarisation
BLOCK = 256  # frames at a time
NONE = -1  # no track

Segment = tuple[float, float, str]


class Following(NamedTuple):
    """Which track is whose, and how long it is.

    Arguments
    ---------
    assignment : numpy.ndarray
        Number of each talker's track [K], −1 for none.
    right : numpy.ndarray
        Frames [K] in which a talker is active, and on that track most of all.
    active : numpy.ndarray
        Frames [K] in which a talker is active.
    """

    assignment: np.ndarray
    right: np.ndarray
    active: np.ndarray

    @property
    def share(self) -> float:
        """Share of the speech time of all talkers on its right track."""
        return float(self.right.sum() / max(self.active.sum(), 1))


class DiarisationError(NamedTuple):
    """Errors of who speaks when, in seconds.

    Arguments
    ---------
    missed : float
        Time of talkers while fewer are found.
    false_alarm : float
        Time of talkers found beyond those who speak.
    confusion : float
        Time of talkers that are given to others.
    total : float
        Time of all talkers.
    """

    missed: float
    false_alarm: float
    confusion: float
    total: float

    @property
    def rate(self) -> float:
        """All errors relative to the time of all talkers."""
        return (self.missed + self.false_alarm + self.confusion) / self.total


def find_activity(sources: np.ndarray, sample_rate: int) -> np.ndarray:
    """In which frames of 0.1 s each talker is active.

    Arguments
    ---------
    sources : numpy.ndarray
        True sources [L, K].
    sample_rate : int
        Their rate in Hz.

    Returns
    -------
    numpy.ndarray
        Whether a talker is [frames, K], bool; the last frame may be shorter.

    Example
    -------
    >>> sources = np.repeat([[1.0, 0.0], [0.01, 0.5]], 10, axis=0)
    >>> find_activity(sources, 100).tolist()
    [[True, False], [False, True]]
    """
    energies = np.concatenate(
        [
            np.square(x, dtype=float).sum(1)
            for x in _framed(sources, sample_rate)
        ]
    )  # [frames, K]
    return (energies >= ACTIVE * energies.max(0)) & (energies > 0)


def follow_talkers(
    sources: np.ndarray, tracks: np.ndarray, sample_rate: int
) -> Following:
    """Finds each talker's track, and how long the talker is on it.

    A talker is on the track that holds most of the talker's signal. Talkers
    have tracks of their own, those with which the share of speech time on its
    right track is largest.

    Arguments
    ---------
    sources : numpy.ndarray
        True sources [L, K].
    tracks : numpy.ndarray
        Separated tracks [L, J], of any number, at the mixture's level.
    sample_rate : int
        Their rate in Hz.

    Returns
    -------
    Following
        The assignment, and the frames that are right.

    Raises
    ------
    UserError
        If the lengths differ, or there are no tracks.

    Example
    -------
    >>> sources = np.random.default_rng(0).standard_normal((4000, 2))
    >>> tracks = sources[:, ::-1].copy()
    >>> tracks[3000:] = sources[3000:]  # the last quarter is swapped
    >>> following = follow_talkers(sources, tracks, 1000)
    >>> following.assignment.tolist(), following.share
    ([1, 0], 0.75)
    """
    _check(sources, tracks)
    active = find_activity(sources, sample_rate)
    held = _held(sources, tracks, sample_rate)  # [frames, K, J]
    carriers = np.where(held.max(2) >= HELD, held.argmax(2), NONE)
    numbers = np.arange(tracks.shape[1])
    on_track = carriers[:, :, None] == numbers  # [frames, K, J]
    counts = (on_track & active[:, :, None]).sum(0)  # [K, J]
    talkers, chosen = linear_sum_assignment(counts, maximize=True)
    assignment = np.full(len(counts), NONE)
    right = np.zeros(len(counts), int)
    assignment[talkers] = chosen
    right[talkers] = counts[talkers, chosen]
    return Following(assignment, right, active.sum(0))


def find_overlaps(
    active: np.ndarray, least_seconds: float = LEAST_OVERLAP
) -> list[tuple[int, int]]:
    """Regions in which two or more talkers are active.

    Arguments
    ---------
    active : numpy.ndarray
        Whether talkers are active [frames, K], see :func:`find_activity`.
    least_seconds : float
        Shorter regions are left out.

    Returns
    -------
    list of tuple of int
        The first frame of each region, and that after its last one.

    Example
    -------
    >>> active = np.ones((9, 2), bool)
    >>> active[[2, 8], 1] = False
    >>> find_overlaps(active)
    [(3, 8)]
    """
    several = (active.sum(1) >= 2).astype(int)
    edges = np.diff(several, prepend=0, append=0)
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    least = round(least_seconds / FRAME)
    return [
        (int(start), int(end))
        for start, end in zip(starts, ends)
        if end - start >= least
    ]


def overlap_si_sdri(
    sources: np.ndarray,
    tracks: np.ndarray,
    assignment: np.ndarray,
    sample_rate: int,
) -> tuple[float, float]:
    """SI-SDR improvement where two or more talkers are active.

    Pauses of up to 0.3 s, as within words, interrupt no talker here. In each
    region of at least 0.5 s, the talkers who are active in half of it are
    scored, on their tracks, against the sum of the sources. A talker without a
    track has the mixture: no improvement.

    Arguments
    ---------
    sources : numpy.ndarray
        True sources [L, K].
    tracks : numpy.ndarray
        Separated tracks [L, J].
    assignment : numpy.ndarray
        Number of each talker's track [K], see :func:`follow_talkers`.
    sample_rate : int
        Their rate in Hz.

    Returns
    -------
    improvement : float
        Mean over the regions in dB, weighted by their lengths; NaN without
        any.
    seconds : float
        Length of all regions.

    Raises
    ------
    UserError
        If the lengths differ, or there are no tracks.
    """
    _check(sources, tracks)
    active = _bridge(find_activity(sources, sample_rate))
    size = round(FRAME * sample_rate)
    means, lengths = [], []
    for start, end in find_overlaps(active):
        span = slice(start * size, end * size)
        talkers = np.flatnonzero(active[start:end].mean(0) >= PRESENT)
        if not len(talkers):
            continue
        mixture = np.asarray(sources[span], float).sum(1)
        estimates = [
            mixture if j == NONE else tracks[span, j]
            for j in assignment[talkers]
        ]
        true = sources[span][:, talkers]
        scores = _si_sdr(np.stack(estimates, axis=1), true)
        before = _si_sdr(np.tile(mixture[:, None], len(talkers)), true)
        means.append(np.mean(scores - before))
        lengths.append((end - start) * FRAME)
    if not means:
        return float("nan"), 0.0
    return float(np.average(means, weights=lengths)), float(sum(lengths))


def diarisation_error(
    reference: Sequence[Segment], hypothesis: Sequence[Segment]
) -> DiarisationError:
    """Compares who speaks when with the truth, in steps of 10 ms, no collar.

    Arguments
    ---------
    reference : sequence of tuple
        True start and end in seconds, and talker, of each turn.
    hypothesis : sequence of tuple
        What was found; the names are those of anything.

    Returns
    -------
    DiarisationError
        The errors, with the names matched so that fewest are confused.

    Raises
    ------
    UserError
        If there is no true turn.

    Example
    -------
    >>> truth = [(0.0, 2.0, "a"), (1.0, 3.0, "b")]
    >>> error = diarisation_error(truth, [(0.0, 2.0, "1"), (2.0, 4.0, "2")])
    >>> error.missed, error.false_alarm, error.confusion, error.rate
    (1.0, 1.0, 0.0, 0.5)
    """
    if not reference:
        raise UserError("reference: expected the turns of a talker, got none")
    end = max(end for _, end, _ in (*reference, *hypothesis))
    steps = round(end / STEP)
    true, found = (_grid(x, steps) for x in (reference, hypothesis))
    common = true.astype(float).T @ found  # [talkers, names]
    talkers, names = linear_sum_assignment(common, maximize=True)
    num_true, num_found = true.sum(1), found.sum(1)
    both = np.minimum(num_true, num_found).sum()
    return DiarisationError(
        missed=float((num_true - num_found).clip(0).sum() * STEP),
        false_alarm=float((num_found - num_true).clip(0).sum() * STEP),
        confusion=float((both - common[talkers, names].sum()) * STEP),
        total=float(num_true.sum() * STEP),
    )


def _check(sources: np.ndarray, tracks: np.ndarray) -> None:
    """Refuses tracks that do not fit the sources."""
    fit = sources.ndim == tracks.ndim == 2 and len(sources) == len(tracks)
    if not fit or not sources.size or not tracks.size:
        raise UserError(
            "tracks: expected [L, J], J >= 1, beside sources [L, K], got "
            f"{list(tracks.shape)} and {list(sources.shape)}"
        )


def _bridge(active: np.ndarray) -> np.ndarray:
    """Activity [frames, K] without short pauses."""
    padded = np.pad(active, ((BRIDGED, BRIDGED), (0, 0)))
    closed: np.ndarray = binary_closing(padded, np.ones((BRIDGED + 1, 1)))
    return closed[BRIDGED:-BRIDGED]


def _framed(signals: np.ndarray, sample_rate: int) -> list[np.ndarray]:
    """Frames [frames, samples, K] of signals [L, K], a block at a time."""
    size = round(FRAME * sample_rate)
    blocks = []
    for start in range(0, len(signals), BLOCK * size):
        block = signals[start : start + BLOCK * size]
        missing = -len(block) % size
        if missing:
            block = np.pad(block, ((0, missing), (0, 0)))
        blocks.append(block.reshape(-1, size, signals.shape[1]))
    return blocks


def _products(one: list[np.ndarray], other: list[np.ndarray]) -> np.ndarray:
    """Inner products [frames, K, J] of signals, each with its neighbours."""
    products = np.concatenate(
        [
            np.asarray(x, float).transpose(0, 2, 1) @ np.asarray(y, float)
            for x, y in zip(one, other)
        ]
    )
    width = 2 * AROUND + 1
    padded = np.pad(products, ((AROUND, AROUND), (0, 0), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, width, axis=0)
    summed: np.ndarray = windows.sum(3)
    return summed


def _held(
    sources: np.ndarray, tracks: np.ndarray, sample_rate: int
) -> np.ndarray:
    """What tracks hold of talkers [frames, K, J], relative to the sources."""
    framed = _framed(sources, sample_rate)
    gram = _products(framed, framed)  # [frames, K, K]
    cross = _products(framed, _framed(tracks, sample_rate))
    norms = np.sqrt(np.diagonal(gram, axis1=1, axis2=2))[:, :, None]
    norms = np.where(norms > 0, norms, 1.0)  # [frames, K, 1]
    gram = gram / (norms * norms.transpose(0, 2, 1))
    # A source that is silent, or another's copy, leaves the rest as it is.
    gram = gram + 1e-6 * np.eye(gram.shape[1])
    held: np.ndarray = np.linalg.solve(gram, cross / norms) / norms
    return held


def _si_sdr(estimates: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """SI-SDR in dB [K] of estimates [L, K], within the limits."""
    one, other = (
        torch.from_numpy(np.array(x, np.float64)).unsqueeze(0)
        for x in (estimates, sources)
    )
    scores: np.ndarray = si_sdr(one, other)[0].clamp(-LIMIT, LIMIT).numpy()
    return scores


def _grid(segments: Sequence[Segment], steps: int) -> np.ndarray:
    """Who speaks when [steps, names], bool."""
    names = {name: i for i, name in enumerate(sorted({x[2] for x in segments}))}
    grid = np.zeros((steps, len(names)), bool)
    for start, end, name in segments:
        grid[round(start / STEP) : round(end / STEP), names[name]] = True
    return grid
