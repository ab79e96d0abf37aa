"""Who is who: stretches of speech in windows of a recording get their tracks.

A stretch is what one talker of a window says between two pauses. Stretches of
neighbouring windows are one where both windows hear the same at the same time.
For the rest, those of one talker are known by their voices; and no talker is
two at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ALIKE = 0.5  # cosine of the voices of one talker, at least
TOGETHER = 1.0  # what it costs to be heard at the same time
SHORT = 1.0  # seconds; the voices of shorter groups are vague
RARE = 0.06  # of all speech: no talker of a recording says less
AT_A_TIME = 300  # groups that are compared with each other
NEVER = -10.0  # below every likeness
NO_LIMIT = 10.0  # above every likeness: only the number counts


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


Span = tuple[float, float]


@dataclass(frozen=True)
class _Group:
    """Stretches that are taken for one talker's."""

    members: tuple[int, ...]
    voice: np.ndarray  # [E], the sum of those of its members by seconds
    seconds: float  # of known voice
    spans: dict[int, list[Span]]  # when it is heard, by window

    def __add__(self, other: "_Group") -> "_Group":
        """Both as one."""
        spans = dict(self.spans)
        for window, more in other.spans.items():
            spans[window] = spans.get(window, []) + more
        return _Group(
            self.members + other.members,
            self.voice + other.voice,
            self.seconds + other.seconds,
            spans,
        )

    def together(self, other: "_Group") -> float:
        """Share of the time of one that both are heard in one window."""
        seconds = 0.0
        for window in self.spans.keys() & other.spans.keys():
            for start, end in self.spans[window]:
                for begin, last in other.spans[window]:
                    seconds += max(0.0, min(end, last) - max(start, begin))
        lengths = [
            sum(
                end - start
                for spans in x.spans.values()
                for start, end in spans
            )
            for x in (self, other)
        ]
        return seconds / min(lengths) if seconds else 0.0


def assign_tracks(
    stretches: Sequence[Stretch],
    num_tracks: int | None = None,
    most: int = 4,
    alike: float = ALIKE,
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
    alike : float
        Least cosine of the voices of one talker, if it is not.

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
    if num_tracks is not None:
        most, alike = num_tracks, NO_LIMIT
    groups = _link(stretches)
    # Short ones say little of voices: they are given to what is there then.
    vague = [group for group in groups if group.seconds < SHORT]
    clear = [group for group in groups if group.seconds >= SHORT]
    tracks: list[_Group] = []
    for start in range(0, len(clear), AT_A_TIME):
        tracks = _merge(tracks + clear[start : start + AT_A_TIME], most, alike)
    if num_tracks is None:
        spoken = sum(track.seconds for track in tracks)
        rare = [x for x in tracks if x.seconds < RARE * spoken]
        tracks = [x for x in tracks if x.seconds >= RARE * spoken]
        vague = rare + vague
    for group in sorted(vague, key=lambda x: -x.seconds):
        if len(tracks) < (num_tracks or 1):
            tracks.append(group)
            continue
        likeness = [_likeness(group, track) for track in tracks]
        best = int(np.argmax(likeness))
        tracks[best] = tracks[best] + group
    tracks.sort(key=lambda track: min(track.members))
    track_of = {
        member: number
        for number, track in enumerate(tracks)
        for member in track.members
    }
    return [track_of[index] for index in range(len(stretches))]


def _link(stretches: Sequence[Stretch]) -> list[_Group]:
    """Stretches as far as neighbouring windows hear the same."""
    groups: list[_Group] = []
    group_of: list[int] = []
    for index, stretch in enumerate(stretches):
        seconds = stretch.end - stretch.start
        single = _Group(
            (index,),
            stretch.voice * seconds,
            seconds if stretch.voice.any() else 0.0,
            {stretch.window: [(stretch.start, stretch.end)]},
        )
        if stretch.same_as < 0:
            group_of.append(len(groups))
            groups.append(single)
        else:
            group_of.append(group_of[stretch.same_as])
            groups[group_of[-1]] += single
    return groups


def _likeness(one: _Group, other: _Group) -> float:
    """Cosine of two voices, less what they are heard together."""
    norms = np.linalg.norm(one.voice) * np.linalg.norm(other.voice)
    cosine = float(one.voice @ other.voice / max(norms, 1e-12))
    return cosine - TOGETHER * one.together(other)


def _merge(groups: list[_Group], most: int, alike: float) -> list[_Group]:
    """Merges the groups that are most alike, until none are, or few are left."""
    groups = list(groups)
    likeness = np.full((len(groups), len(groups)), NEVER)
    for i, one in enumerate(groups):
        for j in range(i):
            likeness[i, j] = _likeness(one, groups[j])
    while len(groups) > 1:
        i, j = divmod(int(likeness.argmax()), len(groups))
        if likeness[i, j] < alike and len(groups) <= most:
            break
        groups[j] = groups[j] + groups.pop(i)
        likeness = np.delete(np.delete(likeness, i, 0), i, 1)
        for k, other in enumerate(groups):
            if k != j:
                likeness[max(j, k), min(j, k)] = _likeness(groups[j], other)
    return groups
