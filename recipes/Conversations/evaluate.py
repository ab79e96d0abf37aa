#!/usr/bin/env python3
"""Measures how well a separator follows the talkers of conversations."""

import argparse
import csv
import math
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from conversation_lists import read_rttm

from speechbrain_kmdanet.dataio.audio import (
    UnusableSource,
    list_recordings,
    read_source,
)
from speechbrain_kmdanet.dataio.wsj0mix import SPLITS, mixture_folder
from speechbrain_kmdanet.errors import UserError, run_command
from speechbrain_kmdanet.utils.conversations import (
    diarisation_error,
    follow_talkers,
    overlap_si_sdri,
)
from speechbrain_kmdanet.utils.evaluation import Z_95
from speechbrain_kmdanet.utils.jobs import write_whole
from speechbrain_kmdanet.utils.report import (
    format_figure,
    format_markdown,
    write_report,
)

SAMPLE_RATE = 8000
# A recording, where to put its tracks, and how many; gives tracks and turns.
Separate = Callable[[Path, Path, int | str], Any]
Row = dict[str, Any]
HEADER = (
    "set",
    "conversations",
    "right track (%)",
    "SI-SDRi in overlaps (dB)",
    "right number",
    "tracks found",
    "diarisation error (%)",
    "missed",
    "false alarm",
    "confusion",
    "times real time",
)
NOTES = """\
Right track: share of the speech time of a talker on the one track that is
theirs. SI-SDRi: in the regions where two or more speak for at least 0.5 s.
Right number: conversations in which as many tracks as talkers were found.
Diarisation error: of who speaks when, without a collar, the sum of what
follows. Times real time: seconds of audio separated in a second. Means over
the conversations with 95 % intervals."""

DESCRIPTION = """\
Separates conversations that prepare.py has made into one track a talker, and
measures: the share of speech time on its right track, the SI-SDR improvement in
the overlaps, the talkers found, who speaks when, and the speed."""

EPILOG = """\
example:
  python recipes/Conversations/evaluate.py DATA \\
      --separator kmeans_wide --talkers true \\
      --output results/conversations
"""


def evaluate_conversations(
    data: str | Path,
    separate: Separate,
    talkers: str = "auto",
    split: str = "tt",
    tracks_folder: str | Path | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """Separates and scores all conversations of a split.

    Arguments
    ---------
    data : str or pathlib.Path
        Folder that prepare.py has written, or its {2,3,4}speakers.
    separate : callable
        Separates a recording (its path) into a folder, into a number of
        tracks or "auto"; returns what has tracks, the paths of their files,
        and turns, each of (start, end, track).
    talkers : str
        "auto", a number, or "true" for that of each conversation.
    split : str
        "tr", "cv" or "tt".
    tracks_folder : str or pathlib.Path, optional
        Where the tracks stay, a folder a set; nowhere by default.
    report : callable
        What to do with a line on each conversation.

    Returns
    -------
    list of dict
        Scores of the conversations, by the names of the columns.

    Raises
    ------
    UserError
        If there are no conversations, or a file cannot be used.
    """
    if talkers not in ("auto", "true") and not _is_number(talkers):
        raise UserError(
            f"talkers: expected auto, true or a number from 1 on, got {talkers}"
        )
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as unkept:
        for name, folder, rttm in _find_sets(Path(data), split):
            for path in list_recordings(folder / "mix").values():
                sources = _read_sources(folder, path.name)
                count: int | str = talkers
                if talkers == "true":
                    count = sources.shape[1]
                elif talkers != "auto":
                    count = int(talkers)
                turns = read_rttm(rttm / f"{path.stem}.rttm")
                made = Path(tracks_folder or unkept, name)
                start = time.perf_counter()
                recording = separate(path, made, count)
                seconds = time.perf_counter() - start
                rows.append(
                    {"set": name, "conversation": path.stem}
                    | _score(sources, turns, recording)
                    | {
                        "times_real_time": len(sources)
                        / SAMPLE_RATE
                        / max(seconds, 1e-9)
                    }
                )
                if tracks_folder is None:
                    for track in recording.tracks:
                        Path(track).unlink()
                report(_describe(rows[-1]))
    return rows


def _is_number(text: str) -> bool:
    """Whether a text is a number of talkers."""
    return text.isascii() and text.isdigit() and int(text) > 0


def _find_sets(data: Path, split: str) -> list[tuple[str, Path, Path]]:
    """Name, folder of the audio, and folder of the turns, of each set."""
    roots = [data, *sorted(data.glob("*speakers"))]
    sets = [
        (root.name, folder, root / "rttm" / split)
        for root in roots
        if (folder := mixture_folder(root, SAMPLE_RATE, "min", split)).is_dir()
    ]
    if not sets:
        raise UserError(
            f"DATA: there are no conversations of {split} in {data}: give the "
            "OUTPUT of prepare.py, and one of its --splits"
        )
    return sets


def _read_sources(folder: Path, name: str) -> np.ndarray:
    """The true sources [L, K] of a conversation, float32."""
    number = len([*folder.glob("s[1-9]*")])
    paths = [folder / f"s{i + 1}" / name for i in range(number)]
    return _read_signals(paths)


def _read_signals(paths: Sequence[str | Path]) -> np.ndarray:
    """Signals of one length from files [L, number], float32."""
    signals = []
    for path in paths:
        try:
            signals.append(read_source(path)[0].astype(np.float32))
        except UnusableSource as error:
            raise UserError(f"{path} is {error}") from error
    lengths = {len(signal) for signal in signals}
    if len(lengths) != 1:
        raise UserError(
            f"{paths[0]} and its like: expected one length, got "
            f"{sorted(lengths)} samples: make them anew"
        )
    return np.stack(signals, axis=1)


def _score(
    sources: np.ndarray,
    turns: Sequence[tuple[float, float, str]],
    recording: Any,
) -> Row:
    """Scores of a conversation."""
    tracks = _read_signals(recording.tracks)
    following = follow_talkers(sources, tracks, SAMPLE_RATE)
    improvement, seconds = overlap_si_sdri(
        sources, tracks, following.assignment, SAMPLE_RATE
    )
    found = [(start, end, str(track)) for start, end, track in recording.turns]
    errors = diarisation_error(turns, found)
    return {
        "talkers": sources.shape[1],
        "tracks": tracks.shape[1],
        "right_track": following.share,
        "overlap_si_sdri": improvement,
        "overlap_seconds": seconds,
        "diarisation_error": errors.rate,
        "missed": errors.missed / errors.total,
        "false_alarm": errors.false_alarm / errors.total,
        "confusion": errors.confusion / errors.total,
    }


def _describe(row: Mapping[str, Any]) -> str:
    """A line on a conversation."""
    return (
        f"{row['conversation']}: {row['tracks']} tracks of {row['talkers']} "
        f"talkers, {100 * row['right_track']:.1f} % on the right one, "
        f"SI-SDRi in overlaps {row['overlap_si_sdri']:.2f} dB, diarisation "
        f"error {100 * row['diarisation_error']:.1f} %, "
        f"{row['times_real_time']:.1f} times real time"
    )


def make_table(rows: Sequence[Row]) -> list[list[str]]:
    """Means of the sets as texts.

    Arguments
    ---------
    rows : sequence of dict
        Scores, see :func:`evaluate_conversations`.

    Returns
    -------
    list of list of str
        One line a set, for the columns of HEADER.
    """
    lines = []
    for name in dict.fromkeys(row["set"] for row in rows):
        chosen = [row for row in rows if row["set"] == name]
        right = sum(row["tracks"] == row["talkers"] for row in chosen)
        parts = ("missed", "false_alarm", "confusion")
        lines.append(
            [
                name,
                str(len(chosen)),
                format_figure(_mean(chosen, "right_track", 100.0)),
                format_figure(_mean(chosen, "overlap_si_sdri")),
                f"{right} of {len(chosen)}",
                " ".join(str(row["tracks"]) for row in chosen),
                format_figure(_mean(chosen, "diarisation_error", 100.0)),
                *(f"{_mean(chosen, x, 100.0)['mean']:.1f}" for x in parts),
                f"{_mean(chosen, 'times_real_time')['mean']:.1f}",
            ]
        )
    return lines


def _mean(
    rows: Sequence[Row], column: str, scale: float = 1.0
) -> dict[str, float | None]:
    """Mean and half of the 95 % interval, without what has no score."""
    values = scale * np.array([row[column] for row in rows])
    values = values[np.isfinite(values)]
    if not len(values):
        return {"mean": None, "ci95": None}
    spread = values.std(ddof=1) if len(values) > 1 else 0.0
    half = Z_95 * spread / math.sqrt(len(values))
    return {"mean": float(values.mean()), "ci95": float(half)}


def write_results(
    output: Path, rows: Sequence[Row], split: str, talkers: str, device: str
) -> None:
    """Writes OUTPUT.md and OUTPUT.csv.

    Arguments
    ---------
    output : pathlib.Path
        Their path, without the suffix.
    rows : sequence of dict
        Scores, see :func:`evaluate_conversations`.
    split : str
        What was separated.
    talkers : str
        What the separator was told of the number of talkers.
    device : str
        What it ran on.
    """
    told = {"auto": "counted", "true": "given"}.get(talkers, talkers)
    write_report(
        output.with_name(f"{output.name}.md"),
        f"Conversations of {split}, number of talkers: {told}",
        [(HEADER, make_table(rows)), NOTES],
        device,
    )
    with (
        write_whole(output.with_name(f"{output.name}.csv")) as unfinished,
        unfinished.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {
                    name: round(x, 4) if isinstance(x, float) else x
                    for name, x in row.items()
                }
            )


def load_separate(folder: str, device: str) -> Separate:
    """Loads a separator.

    Arguments
    ---------
    folder : str
        Its folder, or its name in the package.
    device : str
        Where it shall run.

    Returns
    -------
    callable
        What :func:`evaluate_conversations` takes.
    """
    from speechbrain_kmdanet.inference.recordings import separate_recording
    from speechbrain_kmdanet.inference.separation import AttractorSeparation

    separator = AttractorSeparation.from_hparams(
        source=folder, run_opts={"device": device}
    )

    def separate(path: Path, tracks_folder: Path, num_spks: int | str) -> Any:
        """Separates one recording."""
        tracks_folder.mkdir(parents=True, exist_ok=True)
        return separate_recording(
            separator, path, tracks_folder, num_spks, progress=False
        )

    return separate


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Reads the command line.

    Arguments
    ---------
    arguments : sequence of str
        Command line without the name.

    Returns
    -------
    argparse.Namespace
        The options.
    """
    parser = argparse.ArgumentParser(
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("data", metavar="DATA", help="OUTPUT of prepare.py, or a set in it")
    add("--separator", required=True, metavar="FOLDER", help="folder or name")
    add(
        "--talkers",
        default="auto",
        metavar="N",
        help="how many there are: auto (counted), a number, or true (what is "
        "true of each conversation) (default: auto)",
    )
    add("--split", default="tt", choices=SPLITS, help="default: tt")
    add(
        "--output",
        type=Path,
        metavar="FILE",
        help="table to write, FILE.md and FILE.csv (default: none)",
    )
    add(
        "--tracks",
        metavar="FOLDER",
        help="where the tracks stay to be heard (default: nowhere)",
    )
    add("--device", default="cpu", help="cpu, cuda... (default: cpu)")
    return parser.parse_args(arguments)


def main(
    arguments: Sequence[str] | None = None, separate: Separate | None = None
) -> int:
    """Runs the command line; returns its exit status."""

    def run(words: list[str]) -> None:
        """Measures what the command line asks for."""
        options = parse_arguments(words)
        rows = evaluate_conversations(
            options.data,
            separate or load_separate(options.separator, options.device),
            options.talkers,
            options.split,
            options.tracks,
            report=lambda line: print(line, flush=True),
        )
        if options.output:
            write_results(
                options.output,
                rows,
                options.split,
                options.talkers,
                options.device,
            )
        print(f"\n{format_markdown(HEADER, make_table(rows))}", end="")

    return run_command("evaluate.py", run, arguments)


if __name__ == "__main__":
    sys.exit(main())
