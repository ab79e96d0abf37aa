#!/usr/bin/env python3
"""Simulates conversations of the talkers of a corpus."""

import argparse
import hashlib
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from conversation_lists import (
    SECOND,
    Conversation,
    read_conversation,
    speech_times,
)
from conversation_schedule import Shape, draw_conversations, list_talkers

from speechbrain_kmdanet.dataio.audio import measure_sources, read_source
from speechbrain_kmdanet.dataio.mixing import mix_sources
from speechbrain_kmdanet.dataio.mixture_files import (
    survey_mixtures,
    write_mixture,
)
from speechbrain_kmdanet.dataio.wsj0mix import SPLITS, mixture_folder
from speechbrain_kmdanet.errors import UserError, run_command
from speechbrain_kmdanet.processing.bands import resample
from speechbrain_kmdanet.utils.jobs import (
    digest,
    only_process,
    parallel,
    write_whole,
)

SAMPLE_RATE = 8000
# The defaults of both the functions and the command line
NUM_SPKS = (2, 3, 4)
CONVERSATIONS = 6
MINUTES = 10.0
PAUSE = 60.0
OVERLAP = (0.1, 0.3)
LEAST_SECONDS = 8.0
SEED = 1234

DESCRIPTION = """\
Simulates conversations: two to four talkers of a corpus take turns, pause, and
speak at the same time for a given share of the speech. First it draws lists of
who speaks which recording when, then it builds the audio from the lists:

  OUTPUT/lists/{2,3,4}speakers/SPLIT/NAME.txt
  OUTPUT/{2,3,4}speakers/wav8k/min/SPLIT/{mix,s1,s2,...}/NAME.wav
  OUTPUT/{2,3,4}speakers/rttm/SPLIT/NAME.rttm

The same options draw the same lists. An interrupted run is continued by the
same command, and what is there already is left alone."""

EPILOG = """\
example:
  python recipes/Conversations/prepare.py CORPUS OUTPUT --splits cv tt
"""


class _Job(NamedTuple):
    """A conversation, and the folder of its split."""

    conversation: Conversation
    folder: Path


def lists_folder(output_folder: str | Path, num_spks: int, split: str) -> Path:
    """Folder of the lists of conversations.

    Arguments
    ---------
    output_folder : str or pathlib.Path
        The folder that everything is written in.
    num_spks : int
        Talkers of a conversation.
    split : str
        "tr", "cv" or "tt".

    Returns
    -------
    pathlib.Path
        The folder.
    """
    return Path(output_folder, "lists", f"{num_spks}speakers", split)


def write_lists(
    corpus_folder: str | Path,
    output_folder: str | Path,
    num_spks: Sequence[int] = NUM_SPKS,
    splits: Sequence[str] = ("tt",),
    conversations: int = CONVERSATIONS,
    minutes: float = MINUTES,
    pause: float = PAUSE,
    overlap: Sequence[float] = OVERLAP,
    least_seconds: float = LEAST_SECONDS,
    seed: int = SEED,
) -> None:
    """Draws conversations and writes their lists, which may be there already.

    Arguments
    ---------
    corpus_folder : str or pathlib.Path
        Folder that holds {tr,cv,tt}/SPEAKER/FILES.
    output_folder : str or pathlib.Path
        The folder that everything is written in.
    num_spks : sequence of int
        Numbers of talkers.
    splits : sequence of str
        Splits of the corpus.
    conversations : int
        The number of conversations of each number of talkers and split.
    minutes : float
        Length of a conversation.
    pause : float
        Longest silence of a talker in seconds.
    overlap : sequence of float
        Least and largest share of the time with speech in which two or more
        speak; each conversation draws its own.
    least_seconds : float
        Talkers with recordings of fewer seconds take no part.
    seed : int
        Seed of all draws.

    Raises
    ------
    UserError
        If an argument is out of range, the corpus does not do, or there are
        other lists.
    """
    if len(overlap) != 2 or not 0 <= overlap[0] <= overlap[1] <= 0.5:
        raise UserError(
            "overlap: expected two shares from 0 to 0.5, the least first, got "
            f"{' '.join(map(str, overlap))}"
        )
    numbers = {
        "conversations": conversations,
        "minutes": minutes,
        "pause": pause,
    }
    for name, value in numbers.items():
        if not 0 < value < math.inf:
            raise UserError(f"{name}: expected more than 0, got {value:g}")
    shape = Shape(
        length=round(60 * SECOND * minutes),
        pause=round(SECOND * pause),
        overlap=(overlap[0], overlap[1]),
    )
    wanted: dict[Path, str] = {}
    for split in splits:
        talkers = list_talkers(corpus_folder, split, least_seconds)
        for count in num_spks:
            folder = lists_folder(output_folder, count, split)
            drawn = draw_conversations(
                talkers, count, conversations, shape, seed, split
            )
            texts = {folder / f"{x.name}.txt": x.text() for x in drawn}
            for path in folder.glob("*.txt"):
                if path.read_text("utf-8", "replace") != texts.get(path):
                    raise UserError(
                        f"OUTPUT: {path} is the list of another set: give the "
                        "options of that set, --keep_lists, or another folder"
                    )
            wanted |= texts
    _write_texts(wanted)


def build_conversations(
    corpus_folder: str | Path,
    output_folder: str | Path,
    num_spks: Sequence[int] = NUM_SPKS,
    splits: Sequence[str] = ("tt",),
    workers: int | None = None,
    progress: bool = True,
) -> list[Conversation]:
    """Builds the audio of the lists; one conversation at a time is in memory.

    All recordings are checked first. A talker has one gain in a conversation:
    the mean active level of the recordings, by their length, is normalised.
    Conversations that are there, whole and built from the same, are left.

    Arguments
    ---------
    corpus_folder : str or pathlib.Path
        The folder that the lists' paths are relative to.
    output_folder : str or pathlib.Path
        The folder that everything is written in.
    num_spks : sequence of int
        Numbers of talkers.
    splits : sequence of str
        Splits whose lists are built.
    workers : int, optional
        Number of processes. By default, the number of CPUs.
    progress : bool
        Whether to show progress bars.

    Returns
    -------
    list of Conversation
        All conversations of the lists.

    Raises
    ------
    UserError
        If a list or a recording is unusable, or a folder has other mixtures.
    """
    if workers is not None and workers < 1:
        raise UserError(f"workers: expected 1 or more, got {workers}")
    corpus = Path(corpus_folder)
    read = cache(digest)
    everything, jobs, surveys = [], [], {}
    turns: dict[Path, str] = {}
    for count in num_spks:
        for split in splits:
            data = Path(output_folder, f"{count}speakers")
            folder = mixture_folder(data, SAMPLE_RATE, "min", split)
            found = _read_lists(output_folder, count, split)
            wanted = {x.name: _identify(x, corpus, read) for x in found}
            survey = survey_mixtures(folder, count, wanted)
            surveys[folder] = survey
            jobs += [
                _Job(x, folder) for x in found if x.name not in survey.whole
            ]
            everything += found
            for each in found:
                rttm = data / "rttm" / split / f"{each.name}.rttm"
                turns[rttm] = each.rttm()
    mentions: dict[str, str] = {}
    for job in jobs:
        for utterance in job.conversation.utterances:
            mentions.setdefault(utterance.path, job.conversation.name)
    levels = measure_sources(corpus, mentions, SAMPLE_RATE, workers, progress)
    for folder, survey in surveys.items():
        survey.clear(folder)
    _write_texts(turns)
    write = partial(_write_conversation, corpus=corpus, levels=levels)
    parallel(write, jobs, "Writing conversations", workers, progress)
    return everything


def _write_texts(texts: Mapping[Path, str]) -> None:
    """Writes texts; files that have them already are left alone."""
    for path, text in texts.items():
        if not path.exists() or path.read_text("utf-8", "replace") != text:
            with write_whole(path) as unfinished:
                unfinished.write_text(text, encoding="utf-8")


def _read_lists(
    output_folder: str | Path, num_spks: int, split: str
) -> list[Conversation]:
    """The conversations of a number of talkers and a split."""
    folder = lists_folder(output_folder, num_spks, split)
    found = [read_conversation(path) for path in sorted(folder.glob("*.txt"))]
    if not found:
        raise UserError(
            f"there are no lists in {folder}: leave out --keep_lists, or put "
            "them there"
        )
    for each in found:
        if len(each.gains) != num_spks:
            raise UserError(
                f"{folder / each.name}.txt: expected {num_spks} talkers, got "
                f"{len(each.gains)}"
            )
    return found


def _identify(
    conversation: Conversation,
    corpus: Path,
    read: Callable[[Path], str | None],
) -> str:
    """What a conversation is built from, as a few digits."""
    paths = sorted({x.path for x in conversation.utterances})
    known = [
        conversation.length,
        [*conversation.gains.items()],
        conversation.utterances,
        [read(corpus / path) for path in paths],
    ]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]


def _write_conversation(
    job: _Job, corpus: Path, levels: Mapping[str, float]
) -> None:
    """Lays the recordings of a conversation, and writes it."""
    conversation, folder = job
    samples = conversation.length * SAMPLE_RATE // SECOND
    sources = np.zeros((len(conversation.gains), samples), np.float32)
    powers = []
    for talker, row in zip(conversation.gains, sources):
        spoken = [x for x in conversation.utterances if x.talker == talker]
        for utterance in spoken:
            recording = resample(
                *read_source(corpus / utterance.path), SAMPLE_RATE
            )
            begin, end = (x * SAMPLE_RATE // SECOND for x in utterance[:2])
            if len(recording) > end - begin:
                raise UserError(
                    f"conversation {conversation.name}: {utterance.path} has "
                    f"{len(recording) / SAMPLE_RATE:.3f} s, more than its list "
                    "gives it: use the corpus that the list was made for"
                )
            row[begin : begin + len(recording)] = recording
        lengths = [x.end - x.start for x in spoken]
        powers.append(
            np.average([levels[x.path] for x in spoken], weights=lengths)
        )
    gains = list(conversation.gains.values())
    mixture, scaled = mix_sources(list(sources), gains, powers)
    write_mixture(folder, conversation.name, mixture, scaled, SAMPLE_RATE)


def describe(conversations: Sequence[Conversation]) -> str:
    """A line on what a set of conversations is like.

    Arguments
    ---------
    conversations : sequence of Conversation
        The set.

    Returns
    -------
    str
        Lengths, overlaps, silences and repetition.
    """
    everything = [x for talk in conversations for x in talk.utterances]
    speech = sum(speech_times(x.utterances)[0] for x in conversations)
    silences = [
        max(talk.silences(name))
        for talk in conversations
        for name in talk.gains
    ]
    distinct = {
        (talk.name, x.path) for talk in conversations for x in talk.utterances
    }
    total = sum(x.length for x in conversations)
    shares = [100 * x.overlap for x in conversations]
    return (
        f"{len(conversations)} conversations, {total / SECOND / 60:.0f} min; "
        f"speech {100 * speech / total:.0f} % of the time, of several talkers "
        f"{min(shares):.1f} to {max(shares):.1f} % of that (mean "
        f"{sum(shares) / len(shares):.1f}); a talker is silent for up to "
        f"{max(silences) / SECOND:.0f} s; a recording is heard "
        f"{len(everything) / len(distinct):.1f} times"
    )


def run(arguments: list[str]) -> None:
    """Makes the conversations that the command line asks for."""
    parser = argparse.ArgumentParser(
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("corpus", metavar="CORPUS", help="folder of {tr,cv,tt}/SPEAKER/FILES")
    add("output", metavar="OUTPUT", help="folder to write to")

    def option(name: str, default: Any, text: str, **options: Any) -> None:
        """Adds an option whose help tells its default."""
        shown = default
        if isinstance(default, tuple):
            shown = " ".join(map(str, default))
            default = list(default)
        text = f"{text} (default: {shown})"
        add(f"--{name}", default=default, help=text, **options)

    option(
        *("num_spks", NUM_SPKS, "numbers of talkers"),
        type=int,
        nargs="+",
        choices=NUM_SPKS,
    )
    option(
        *("splits", ("tt",), "splits of the corpus"), nargs="+", choices=SPLITS
    )
    option(
        *("conversations", CONVERSATIONS, "of each number and split"),
        type=int,
        metavar="N",
    )
    option(
        *("minutes", MINUTES, "length of a conversation"),
        type=float,
        metavar="M",
    )
    option(
        *("pause", PAUSE, "longest silence of a talker in seconds"),
        type=float,
        metavar="S",
    )
    option(
        *("overlap", OVERLAP, "share of the speech with two talkers or more"),
        type=float,
        nargs=2,
        metavar=("LEAST", "MOST"),
    )
    option(
        *("least_seconds", LEAST_SECONDS, "of recordings that a talker needs"),
        type=float,
        metavar="S",
    )
    option("seed", SEED, "of all draws", type=int)
    add(
        "--keep_lists",
        action="store_true",
        help="build the lists that are in OUTPUT/lists; nothing is drawn",
    )
    option("workers", os.cpu_count(), "processes", type=int, metavar="N")
    options = vars(parser.parse_args(arguments))
    corpus, output = options.pop("corpus"), Path(options.pop("output"))
    workers, keep = options.pop("workers"), options.pop("keep_lists")
    sets: dict[str, Any] = {
        name: tuple(dict.fromkeys(options.pop(name)))
        for name in ("num_spks", "splits")
    }
    with only_process(output, "give another OUTPUT"):
        if not keep:
            write_lists(corpus, output, **sets, **options)
        made = build_conversations(corpus, output, **sets, workers=workers)
    for count in sets["num_spks"]:
        chosen = [x for x in made if len(x.gains) == count]
        print(f"{output / f'{count}speakers'}: {describe(chosen)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit status."""
    return run_command("prepare.py", run, arguments)


if __name__ == "__main__":
    sys.exit(main())
