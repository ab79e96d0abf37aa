"""Lists of conversations: who speaks which recording when.

A conversation is a text file,

    # 18.34 % of the speech is of two or more talkers (drawn: 18.20 %)
    seconds 600.000
    talker 0092 1.2345
    talker 0133 -1.2345
      0.000   3.460 0092 tt/0092/000920061.flac
      3.460   7.125 0092 tt/0092/000920017.flac
      6.500   9.415 0133 tt/0133/001330027.flac

with the talkers in the order of s1, s2..., their gains in dB after their
active level has been normalised, and the beginning and the end of each
recording in seconds. All times are whole milliseconds.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.inference.turns import Turn, format_rttm

SECOND = 1000  # ms
FORMAT = "expected 'seconds S', 'talker NAME GAIN' or 'START END TALKER PATH'"


class Utterance(NamedTuple):
    """A recording in a conversation.

    Arguments
    ---------
    start, end : int
        When it is heard, in ms.
    talker : str
        Who speaks.
    path : str
        The recording, relative to the folder of the corpus.
    """

    start: int
    end: int
    talker: str
    path: str


@dataclass(frozen=True)
class Conversation:
    """Who speaks which recording when.

    Arguments
    ---------
    name : str
        Name of the conversation.
    length : int
        Its length in ms.
    gains : dict
        Gains of the talkers in dB, in the order of the sources.
    utterances : tuple of Utterance
        What they say, in the order of the beginnings.
    drawn : float
        Share of the overlaps that was drawn; NaN if it comes from a list.

    Example
    -------
    >>> utterances = (
    ...     Utterance(0, 3000, "a", "a/1.wav"),
    ...     Utterance(2000, 4000, "b", "b/1.wav"),
    ... )
    >>> talk = Conversation("talk", 4000, {"a": 1.0, "b": -1.0}, utterances)
    >>> talk.overlap
    0.25
    >>> parse_conversation(talk.text(), "talk") == talk
    True
    """

    name: str
    length: int
    gains: Mapping[str, float]
    utterances: tuple[Utterance, ...]
    drawn: float = field(default=math.nan, compare=False)

    @property
    def turns(self) -> list[Turn]:
        """When each talker speaks, utterances end to end as one turn."""
        turns: list[Turn] = []
        for index, talker in enumerate(self.gains):
            spoken = [x for x in self.utterances if x.talker == talker]
            for before, this in zip([None, *spoken], spoken):
                start, end = this.start / SECOND, this.end / SECOND
                if before is not None and before.end == this.start:
                    start = turns.pop().start
                turns.append(Turn(start, end, index))
        return sorted(turns)

    @property
    def overlap(self) -> float:
        """Share of the time with speech in which two or more speak."""
        speech, overlap = speech_times(self.utterances)
        return overlap / speech

    def silences(self, talker: str) -> list[int]:
        """Pauses of a talker in ms, from the beginning and to the end, too.

        Arguments
        ---------
        talker : str
            The talker.

        Returns
        -------
        list of int
            The pauses in order.
        """
        spoken = [x for x in self.utterances if x.talker == talker]
        starts = [x.start for x in spoken] + [self.length]
        ends = [0] + [x.end for x in spoken]
        return [start - end for start, end in zip(starts, ends)]

    def text(self) -> str:
        """The list of this conversation.

        Returns
        -------
        str
            Its lines.
        """
        drawn = f" (drawn: {100 * self.drawn:.2f} %)"
        lines = [
            f"# {100 * self.overlap:.2f} % of the speech is of two or more "
            f"talkers{drawn if math.isfinite(self.drawn) else ''}",
            f"seconds {self.length / SECOND:.3f}",
            *(f"talker {name} {gain:.4f}" for name, gain in self.gains.items()),
        ]
        lines += [
            f"{x.start / SECOND:7.3f} {x.end / SECOND:7.3f} {x.talker} {x.path}"
            for x in self.utterances
        ]
        return "\n".join([*lines, ""])

    def rttm(self) -> str:
        """The turns as an RTTM file has them.

        Returns
        -------
        str
            Its lines.
        """
        return format_rttm(self.name, self.turns, list(self.gains))


def speech_times(utterances: Iterable[Utterance]) -> tuple[int, int]:
    """Times with speech, and with that of several talkers.

    Arguments
    ---------
    utterances : iterable of Utterance
        What is said, in any order.

    Returns
    -------
    speech : int
        Time in which anybody speaks, in ms.
    overlap : int
        Time in which two or more speak, in ms.

    Example
    -------
    >>> first, second = Utterance(0, 9, "a", ""), Utterance(6, 12, "b", "")
    >>> speech_times([first, second])
    (12, 3)
    """
    changes = sorted(
        change for x in utterances for change in ((x.start, 1), (x.end, -1))
    )
    speech = overlap = speakers = before = 0
    for time, step in changes:
        speech += (time - before) * (speakers >= 1)
        overlap += (time - before) * (speakers >= 2)
        speakers, before = speakers + step, time
    return speech, overlap


def read_conversation(path: str | Path) -> Conversation:
    """Reads the list of a conversation.

    Arguments
    ---------
    path : str or pathlib.Path
        The list; its name is that of the conversation.

    Returns
    -------
    Conversation
        The conversation.

    Raises
    ------
    UserError
        If there is none, or a line is malformed.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except FileNotFoundError as error:
        raise UserError(f"there is no list {path}: check its name") from error
    return parse_conversation(text, path.stem, str(path))


def parse_conversation(
    text: str, name: str, where: str = "list"
) -> Conversation:
    """Reads the text of a list.

    Arguments
    ---------
    text : str
        The text.
    name : str
        Name of the conversation.
    where : str
        What it is called in errors.

    Returns
    -------
    Conversation
        The conversation.

    Raises
    ------
    UserError
        If a line is malformed, a talker speaks while they speak, or one of
        those who are named does not speak.
    """
    length, gains, utterances = 0, dict[str, float](), list[Utterance]()
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        try:
            if fields[0] == "seconds":
                (length,) = map(_milliseconds, fields[1:])
            elif fields[0] == "talker":
                _, talker, gain = fields
                gains[talker] = float(gain)
            else:
                start, end, talker, path = line.split(maxsplit=3)
                times = _milliseconds(start), _milliseconds(end)
                utterances.append(Utterance(*times, talker, path.strip()))
        except ValueError:
            raise UserError(
                f"{where}, line {number}: {FORMAT}, got {line.strip()[:60]!r}"
            ) from None
    utterances.sort()
    conversation = Conversation(name, length, gains, tuple(utterances))
    strangers = {x.talker for x in utterances} ^ {*gains}
    if strangers or not gains:
        raise UserError(
            f"{where}: expected talkers that have both a line 'talker NAME "
            f"GAIN' and utterances, got {sorted(strangers)} without one"
        )
    for talker in gains:
        backwards = any(
            x.end <= x.start for x in utterances if x.talker == talker
        )
        if backwards or min(conversation.silences(talker)) < 0:
            raise UserError(
                f"{where}: {talker} would speak twice at a time, backwards, or "
                f"beyond the end at {length / SECOND:g} s: change the times"
            )
    return conversation


def _milliseconds(text: str) -> int:
    """Seconds of a list as milliseconds."""
    if not re.fullmatch(r"\d+(\.\d{1,3})?", text):
        raise ValueError(text)
    return round(float(text) * SECOND)


def read_rttm(path: str | Path) -> list[tuple[float, float, str]]:
    """Reads who speaks when.

    Arguments
    ---------
    path : str or pathlib.Path
        RTTM file of one recording.

    Returns
    -------
    list of tuple
        Start and end in seconds, and talker, of each turn.

    Raises
    ------
    UserError
        If there is none, or it is no RTTM file.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        rows: Sequence[list[str]] = [x.split() for x in lines if x.strip()]
        return [(float(x[3]), float(x[3]) + float(x[4]), x[7]) for x in rows]
    except (OSError, ValueError, IndexError) as error:
        raise UserError(
            f"{path} is no RTTM file that can be read: recipes/Conversations/"
            "prepare.py writes them beside the conversations"
        ) from error
