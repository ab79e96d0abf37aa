"""Windows of a recording: how it is cut, what is known of each, and kept."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

WINDOW, OVERLAP = 5, 1  # seconds of a window, and what two of them share
WHOLE = 10  # seconds up to which a recording is one window


def window_edges(num_samples: int, sample_rate: int) -> list[tuple[int, int]]:
    """Where the windows of a recording begin and end.

    All begin at whole seconds; the last one is longer or shorter than others.

    Arguments
    ---------
    num_samples : int
        Length of the recording.
    sample_rate : int
        Its rate in Hz.

    Returns
    -------
    list of tuple of int
        First sample of each window, and the one after its last.

    Example
    -------
    >>> window_edges(21, 1)
    [(0, 5), (4, 9), (8, 13), (12, 17), (16, 21)]
    >>> window_edges(10, 1)
    [(0, 10)]
    """
    if num_samples <= WHOLE * sample_rate:
        return [(0, num_samples)]
    hop, length = (WINDOW - OVERLAP) * sample_rate, WINDOW * sample_rate
    # What is left at the end is at least half of a window, and its overlap.
    count = max(1, (num_samples - OVERLAP * sample_rate) // hop)
    if num_samples - (count * hop) >= length // 2 + OVERLAP * sample_rate:
        count += 1
    edges = [(index * hop, index * hop + length) for index in range(count)]
    return [*edges[:-1], (edges[-1][0], num_samples)]


def cut(
    blocks: Iterable[np.ndarray], edges: Iterable[tuple[int, int]]
) -> Iterator[np.ndarray]:
    """Cuts windows out of a signal that comes in blocks.

    Arguments
    ---------
    blocks : iterable of numpy.ndarray
        The signal [time], in parts of any length.
    edges : iterable of tuple of int
        The windows in the order of their beginnings.

    Yields
    ------
    numpy.ndarray
        The samples of each window.

    Example
    -------
    >>> blocks = np.array_split(np.arange(9.0), 4)
    >>> [window.tolist() for window in cut(blocks, [(0, 4), (3, 9)])]
    [[0.0, 1.0, 2.0, 3.0], [3.0, 4.0, 5.0, 6.0, 7.0, 8.0]]
    """
    blocks = iter(blocks)
    held, first = np.zeros(0), 0
    for begin, end in edges:
        held, first = held[begin - first :], begin
        parts, length = [held], len(held)
        while length < end - begin:
            parts.append(next(blocks))
            length += len(parts[-1])
        held = np.concatenate(parts)
        yield held[: end - begin]
    for _ in blocks:  # what checks the whole is done at its end
        pass


def at_rate(edge: tuple[int, int], rate: int, new_rate: int) -> tuple[int, int]:
    """Beginning and end at another rate, as resampling has them.

    Arguments
    ---------
    edge : tuple of int
        Beginning, at a whole second, and end, in samples.
    rate, new_rate : int
        The rates in Hz.

    Returns
    -------
    tuple of int
        Beginning and end in samples at the new rate.

    Example
    -------
    >>> at_rate((44100, 44101), 44100, 8000)
    (8000, 8001)
    """
    begin, end = edge
    return begin * new_rate // rate, -(-end * new_rate // rate)


def correlations(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """How alike signals are.

    Arguments
    ---------
    one : numpy.ndarray
        Signals [time, J].
    other : numpy.ndarray
        Signals [time, K].

    Returns
    -------
    numpy.ndarray
        Cosines [J, K]; 0 for silence.

    Example
    -------
    >>> correlations(np.eye(2), np.array([[2.0, 0.0], [2.0, 0.0]])).round(2)
    array([[0.71, 0.  ],
           [0.71, 0.  ]])
    """
    norms = np.outer(np.linalg.norm(one, axis=0), np.linalg.norm(other, axis=0))
    cosines: np.ndarray = one.T @ other / np.maximum(norms, 1e-30)
    return cosines


class Lane(NamedTuple):
    """On which tracks a talker of a window is, one after the other.

    Arguments
    ---------
    changes : list of float
        Samples, one less than tracks, at which the next track begins.
    tracks : list of int
        The tracks.
    """

    changes: list[float]
    tracks: list[int]

    def weights(self, at: np.ndarray, fade: float) -> dict[int, np.ndarray]:
        """What each track has of the talker at some samples; the sum is 1.

        Arguments
        ---------
        at : numpy.ndarray
            The samples [time].
        fade : float
            Samples that a change takes.

        Returns
        -------
        dict
            Weights [time] by track.
        """
        begun = [np.ones(len(at))]
        begun += [np.clip((at - x) / fade + 0.5, 0, 1) for x in self.changes]
        begun.append(np.zeros(len(at)))
        weights: dict[int, np.ndarray] = {}
        for track, first, after in zip(self.tracks, begun, begun[1:]):
            weights[track] = weights.get(track, 0.0) + first - after
        return weights


class WindowStore:
    """The talkers of all windows, in a file.

    Positions are in samples at the rate of the model.

    Arguments
    ---------
    file : file object
        A binary file, to write and to read.
    edges : list of tuple
        Beginning and end of each window, which only neighbours share samples
        of.
    """

    def __init__(self, file: Any, edges: list[tuple[int, int]]) -> None:
        self.file = file
        self.edges = edges
        self.counts: list[int] = []
        self.offsets = [0]  # in numbers

    def add(self, sources: np.ndarray) -> None:
        """Takes in the next window.

        Arguments
        ---------
        sources : numpy.ndarray
            Its talkers [time, K].
        """
        self.file.seek(4 * self.offsets[-1])
        self.file.write(np.ascontiguousarray(sources, np.float32).tobytes())
        self.counts.append(sources.shape[1])
        self.offsets.append(self.offsets[-1] + sources.size)

    def sources(self, index: int) -> np.ndarray:
        """Talkers of a window.

        Arguments
        ---------
        index : int
            Number of the window.

        Returns
        -------
        numpy.ndarray
            The talkers [time, K].
        """
        self.file.seek(4 * self.offsets[index])
        size = self.offsets[index + 1] - self.offsets[index]
        values = np.frombuffer(self.file.read(4 * size), np.float32)
        return values.reshape(-1, self.counts[index])

    def tracks(
        self,
        start: int,
        end: int,
        lanes: Sequence[Sequence[Lane]],
        count: int,
        fade: float = 1.0,
    ) -> np.ndarray:
        """Tracks from start to end, the windows faded into each other.

        Arguments
        ---------
        start, end : int
            Samples.
        lanes : sequence of sequence of Lane
            On which tracks each talker of each window is.
        count : int
            Number of tracks J.
        fade : float
            Samples that the change of a talker to another track takes.

        Returns
        -------
        numpy.ndarray
            The tracks [end - start, J].
        """
        made = np.zeros((end - start, count))
        first = bisect_right(self.edges, start, key=lambda edge: edge[1])
        for index in range(first, len(self.edges)):
            begin, stop = self.edges[index]
            if begin >= end:
                break
            low, high = max(start, begin), min(end, stop)
            part = self.sources(index)[low - begin : high - begin]
            part = part * self._fade(index, low, high)[:, None]
            at = np.arange(low, high)
            for talker, lane in enumerate(lanes[index]):
                for track, weights in lane.weights(at, fade).items():
                    made[low - start : high - start, track] += (
                        weights * part[:, talker]
                    )
        return made

    def _fade(self, index: int, low: int, high: int) -> np.ndarray:
        """How much of a window counts from low to high; all windows sum to 1."""
        at = np.arange(low, high) + 0.5
        begin, stop = self.edges[index]
        fade = np.ones(high - low)
        if index:
            shared = self.edges[index - 1][1] - begin
            fade = np.minimum(fade, (at - begin) / shared)
        if index + 1 < len(self.edges):
            shared = stop - self.edges[index + 1][0]
            fade = np.minimum(fade, (stop - at) / shared)
        return fade
