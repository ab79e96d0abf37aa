"""Draws conversations: talkers take turns, pause, and fall into each other.

Whoever has spoken draws when to speak again, by preference soon, and the one
who has waited longest comes next. A turn begins in a pause or before the end
of the one before. How long before, is drawn so that the overlaps have their
share of the speech so far: an average that is reached has to be no draw.
"""

import math
import random
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from conversation_lists import SECOND, Conversation, Utterance, speech_times

from speechbrain_kmdanet.dataio.audio import (
    UnusableSource,
    audio_suffixes,
    read_header,
)
from speechbrain_kmdanet.errors import UserError

GAIN_DB = 2.5  # the largest gain of a talker, and loss of another
TURN = 2000, 12000  # ms that a turn lasts, until its last utterance ends
PAUSE = 200, 4000  # ms in which nobody speaks
SOONEST = 500  # ms until a talker speaks again
WAITING = 0.7  # of the longest silence: the rest is for waiting
CLEAN = 0.3  # of the turns that could overlap do not
SHORTEST = 150  # ms of an overlap
TOLERANCE = 0.01  # of the share of the overlaps
ATTEMPTS = 300
# By talker, the lengths of the recordings in ms by path
Recordings = Mapping[str, Mapping[str, int]]


class Shape(NamedTuple):
    """What the conversations are like.

    Arguments
    ---------
    length : int
        Length of a conversation in ms.
    pause : int
        Longest silence of a talker in ms.
    overlap : tuple of float
        Least and largest share of the speech that is of several talkers.
    """

    length: int
    pause: int
    overlap: tuple[float, float]


def list_talkers(
    corpus: str | Path, split: str, least_seconds: float = 0.0
) -> dict[str, dict[str, int]]:
    """Lists the recordings of a split of a corpus.

    Arguments
    ---------
    corpus : str or pathlib.Path
        Folder that holds SPLIT/SPEAKER/FILES.
    split : str
        "tr", "cv" or "tt".
    least_seconds : float
        Talkers with less are left out.

    Returns
    -------
    dict
        By talker, a dict of the lengths in ms, rounded up, by the path
        relative to the corpus.

    Raises
    ------
    UserError
        If there is no such folder, a recording cannot be read, or a name has
        a space, at which lists are divided.
    """
    corpus = Path(corpus)
    folder = corpus / split
    if not folder.is_dir():
        raise UserError(
            f"CORPUS: expected the layout {{tr,cv,tt}}/SPEAKER/FILES, but "
            f"there is no folder {folder}: give another one, or other --splits"
        )
    talkers: dict[str, dict[str, int]] = {}
    suffixes = audio_suffixes()
    for path in sorted(folder.glob("*/**/*")):
        if path.suffix.lower() not in suffixes:
            continue
        speaker = path.relative_to(folder).parts[0]
        if len(speaker.split()) != 1:
            raise UserError(
                f"{folder / speaker}: the name of a talker must be without "
                "spaces in a list: rename the folder"
            )
        try:
            samples, rate, _ = read_header(path)
        except UnusableSource as error:
            raise UserError(f"{path} is {error}") from error
        name = path.relative_to(corpus).as_posix()
        length = math.ceil(samples * SECOND / rate)
        talkers.setdefault(speaker, {})[name] = length
    return {
        talker: files
        for talker, files in talkers.items()
        if sum(files.values()) >= SECOND * least_seconds
    }


def draw_conversations(
    talkers: Recordings,
    num_spks: int,
    count: int,
    shape: Shape,
    seed: int,
    split: str = "tt",
) -> list[Conversation]:
    """Draws conversations.

    All talkers take part once before one of them does again, as far as their
    number can be divided. So do the recordings of a talker in a conversation.
    The first ones of a larger set are those of a smaller one.

    Arguments
    ---------
    talkers : dict
        The recordings, see :func:`list_talkers`.
    num_spks : int
        Talkers of a conversation.
    count : int
        The number of conversations.
    shape : Shape
        What they are like.
    seed : int
        Seed of all draws.
    split : str
        Name of the split.

    Returns
    -------
    list of Conversation
        The conversations.

    Raises
    ------
    UserError
        If there are too few talkers, or no such conversations can be drawn.
    """
    if len(talkers) < num_spks:
        raise UserError(
            f"CORPUS: {split} has {len(talkers)} talkers with enough "
            f"recordings, fewer than num_spks {num_spks}: give fewer "
            "--num_spks or a lower --least_seconds"
        )
    groups = len(talkers) // num_spks
    conversations = []
    for index in range(count):
        circle, place = divmod(index, groups)
        key = f"Conversations {seed} {split} {num_spks}"
        order = random.Random(f"{key} talkers {circle}").sample(
            sorted(talkers), len(talkers)
        )
        cast = order[place * num_spks : (place + 1) * num_spks]
        recordings = {talker: talkers[talker] for talker in cast}
        rng = random.Random(f"{key} {index}")
        name = f"{split}_{num_spks}speakers_{index + 1:03d}"
        conversations.append(_draw_conversation(name, recordings, shape, rng))
    return conversations


def _draw_conversation(
    name: str, recordings: Recordings, shape: Shape, rng: random.Random
) -> Conversation:
    """Draws until no talker is silent for too long and overlaps have their
    share."""
    snr = [rng.uniform(0, GAIN_DB) for _ in range(len(recordings) // 2)]
    gains = [sign * gain for gain in snr for sign in (1, -1)]
    gains += [0.0] * (len(recordings) % 2)
    drawn = rng.uniform(*shape.overlap)
    for _ in range(ATTEMPTS):
        conversation = Conversation(
            name,
            shape.length,
            {x: round(gain, 4) for x, gain in zip(recordings, gains)},
            tuple(_draw_utterances(recordings, shape, drawn, rng)),
            drawn,
        )
        if _keeps(conversation, shape.pause):
            return conversation
    raise UserError(
        f"no conversation {name} of {shape.length / SECOND:g} s with pauses of "
        f"at most {shape.pause / SECOND:g} s and {100 * drawn:.0f} % of overlap "
        f"was found in {ATTEMPTS} attempts: give more --minutes, a longer "
        "--pause or less --overlap"
    )


def _keeps(conversation: Conversation, pause: int) -> bool:
    """Whether a conversation is what it was to be."""
    everybody = {x.talker for x in conversation.utterances}
    return (
        everybody == {*conversation.gains}
        and abs(conversation.overlap - conversation.drawn) <= TOLERANCE
        and all(max(conversation.silences(x)) <= pause for x in everybody)
    )


def _draw_utterances(
    recordings: Recordings, shape: Shape, share: float, rng: random.Random
) -> list[Utterance]:
    """Draws who speaks what when; overlaps have about their share."""
    queues = {
        talker: deque(rng.sample(sorted(files.items()), len(files)))
        for talker, files in recordings.items()
    }
    longest = max(SOONEST, WAITING * shape.pause)
    ends = dict.fromkeys(recordings, 0)
    due = {x: _between(rng, SOONEST, longest) for x in recordings}
    spoken: list[Utterance] = []
    while True:
        talker = min(due, key=lambda x: due[x])
        queue = queues[talker]
        turn = _draw_turn(queue, rng)
        end = max(ends.values())
        start = _between(rng, *PAUSE) + end
        if ends[talker] < end and rng.random() >= CLEAN:
            together = _lacking(spoken, sum(x for _, x in turn), share)
            together = round(together * rng.uniform(0, 2))
            if together >= SHORTEST:
                earliest = ends[talker] + PAUSE[0]
                start = max(end - together, min(earliest, end))
        while turn and start + sum(x for _, x in turn) > shape.length:
            turn = turn[:-1]
        if not turn:
            return sorted(spoken)
        for path, length in turn:
            spoken.append(Utterance(start, start + length, talker, path))
            start += length
        queue.rotate(-len(turn))
        ends[talker] = start
        due[talker] = start + _between(rng, SOONEST, longest)


def _draw_turn(
    queue: Sequence[tuple[str, int]], rng: random.Random
) -> list[tuple[str, int]]:
    """The next recordings of a talker, until the turn is long enough."""
    wanted = rng.randint(*TURN)
    turn: list[tuple[str, int]] = []
    for recording in queue:
        if sum(x for _, x in turn) >= wanted:
            break
        turn.append(recording)
    return turn


def _lacking(spoken: list[Utterance], length: int, share: float) -> float:
    """Overlap of the next turn in ms with which the share is reached."""
    speech, overlap = speech_times(spoken)
    lacking = (share * (speech + length) - overlap) / (1 + share)
    return min(max(lacking, 0.0), length)


def _between(rng: random.Random, low: float, high: float) -> int:
    """A time in ms, of any order of magnitude alike."""
    return round(math.exp(rng.uniform(math.log(low), math.log(high))))
