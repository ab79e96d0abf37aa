"""Many recordings: found, shared out among processes, listed when done.

Processes that torchrun or SLURM have started find the same sorted list, and
take every n-th recording of it. None waits for another: all they have in common
is a manifest, to which each adds whole lines.
"""

import errno
import glob
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from speechbrain_kmdanet.dataio.audio import audio_suffixes, name_path
from speechbrain_kmdanet.dataio.corpus import file_state
from speechbrain_kmdanet.errors import UserError, one_line
from speechbrain_kmdanet.inference.batch import AUTO
from speechbrain_kmdanet.inference.recordings import (
    MOST,
    SeparatedRecording,
    separate_recording,
)
from speechbrain_kmdanet.inference.separation import AttractorSeparation
from speechbrain_kmdanet.inference.turns import format_rttm
from speechbrain_kmdanet.utils.jobs import digest, write_whole
from speechbrain_kmdanet.utils.processes import Manifest

SUFFIXES = frozenset(audio_suffixes())
STANDARD_INPUT = "-"
BEGUN, DONE, FAILED, SKIPPED = "begun", "done", "failed", "skipped"
# What is wrong with the name of one file, and not with the disk.
NAME_ERRORS = {errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL}


class Input(NamedTuple):
    """A recording to separate.

    Arguments
    ---------
    path : pathlib.Path
        The file.
    label : str
        What it is called in the manifest: its absolute path, or "-".
    name : pathlib.Path
        What its tracks are named after, below the output folder.
    """

    path: Path
    label: str
    name: Path


@dataclass(frozen=True)
class Request:
    """How recordings are separated, see :func:`.separate_recording`.

    Arguments
    ---------
    source : str
        What the separator was loaded from: another one is another request.
    num_spks : int or str
        Number of talkers, or "auto".
    sample_rate : int
        Rate of the tracks in Hz: that of the recording by default.
    channel : int
        Channel to separate, from 1 on; the mean of all by default.
    file_format : str
        "wav", "flac" or "opus".
    background : bool
        Whether to write what is no talker's, too.
    """

    source: str
    num_spks: int | str = AUTO
    sample_rate: int | None = None
    channel: int | None = None
    file_format: str = "wav"
    background: bool = False


def find_inputs(
    paths: Sequence[str],
    output: str | Path,
    made: Collection[str] = (),
    spooled: Path | None = None,
) -> list[Input]:
    """Finds recordings: files, those of folders, and what patterns match.

    Arguments
    ---------
    paths : sequence of str
        Files, folders, patterns as "day*/*.wav", and "-" for standard input.
    output : str or pathlib.Path
        The output folder: what lies in it is not found from outside of it.
    made : collection of str
        Absolute paths of tracks that were made: they are no recordings.
    spooled : pathlib.Path
        File of what came from standard input.

    Returns
    -------
    list of Input
        The recordings, sorted by label. Names are those below the folder that
        was given, or below the part of a pattern that matches nothing else. No
        two are the same: where they would be, folders and suffixes go in.

    Raises
    ------
    UserError
        If there are none.
    """
    output = os.path.abspath(output)
    left_out = False
    found: dict[str, tuple[Path, Path]] = {}
    for text in paths:
        if text == STANDARD_INPUT and spooled is not None:
            found[STANDARD_INPUT] = spooled, Path("stdin")
            continue
        for path, root in _expand(text):
            label = os.path.abspath(path)
            below = Path(os.path.relpath(label, root))
            if ".." in below.parts:  # a name never leaves the output folder
                below = Path(path.name)
            mine = _is_inside(label, output) and not _is_inside(root, output)
            if label in made or mine:
                left_out = True
            else:
                found.setdefault(label, (path, below))
    if not found:
        given = ", ".join(map(name_path, paths))
        if left_out:
            raise UserError(
                f"{given}: only what was separated before, into {output}: give "
                "another --out to separate it again"
            )
        raise UserError(
            f"{given}: no recordings there ({', '.join(sorted(SUFFIXES))})"
        )
    names = _name({label: below for label, (_, below) in found.items()})
    return [
        Input(found[label][0], label, names[label]) for label in sorted(found)
    ]


def _expand(text: str) -> Iterator[tuple[Path, str]]:
    """Files that are meant, each with the folder that its name begins in."""
    given = Path(text)
    if not text:
        raise UserError("PATH is empty: give a file, a folder or a pattern")
    if given.is_dir():
        yield from ((path, text) for path in _walk(text))
    elif glob.has_magic(text) and not given.exists():
        fixed = takewhile(lambda part: not glob.has_magic(part), given.parts)
        root = str(Path(*fixed))
        for match in glob.iglob(text, recursive=True):
            paths = _walk(match) if os.path.isdir(match) else [Path(match)]
            yield from ((path, root) for path in paths if _is_audio(path))
    else:  # Whether it is there is said when its turn comes.
        yield given, str(given.parent)


def _walk(folder: str) -> Iterator[Path]:
    """Recordings in a folder, at any depth; links to folders are not followed."""

    def refuse(error: OSError) -> None:
        raise error

    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from filter(_is_audio, (Path(place, name) for name in files))


def _is_audio(path: Path) -> bool:
    """Whether a file's name is that of a recording, and not hidden."""
    return path.suffix.lower() in SUFFIXES and path.name[0] != "."


def _is_inside(path: str | Path, folder: str) -> bool:
    """Whether something is a folder, or lies in it."""
    return Path(os.path.abspath(path)).is_relative_to(folder)


def _name(below: Mapping[str, Path]) -> dict[str, Path]:
    """A name without suffix for each recording, of which no two are the same."""
    short = {
        # A file can be called "..wav".
        label: path.parent / (path.stem if path.stem.strip(".") else path.name)
        for label, path in below.items()
    }
    names = dict(short)
    for lengthen in (_with_folder, _with_suffix):
        alike: dict[Path, list[str]] = {}
        for label, name in names.items():
            alike.setdefault(name, []).append(label)
        for name, labels in alike.items():
            # A folder only tells those apart that lie in different ones.
            apart = len({os.path.dirname(label) for label in labels}) > 1
            if len(labels) > 1 and (apart or lengthen is _with_suffix):
                for label in labels:
                    names[label] = lengthen(Path(label), below[label], name)
    taken: set[Path] = set()
    # Who has the name of the file itself keeps it.
    for label in sorted(names, key=lambda x: (names[x] != short[x], x)):
        name, number = names[label], 1
        while names[label] in taken:
            number += 1
            names[label] = name.with_name(f"{name.name}-{number}")
        taken.add(names[label])
    return names


def _with_folder(path: Path, below: Path, name: Path) -> Path:
    """A name behind that of the folder which it begins in."""
    return Path(path.parents[len(below.parts) - 1].name) / name


def _with_suffix(path: Path, below: Path, name: Path) -> Path:
    """A name with what was its suffix."""
    return name.with_name(name.name + below.suffix.replace(".", "_"))


def separate_recordings(
    separator: AttractorSeparation,
    inputs: Sequence[Input],
    output: str | Path,
    request: Request,
    beside: Collection[str] = (),
    overwrite: bool = False,
    progress: bool = False,
    others: Sequence[Input] = (),
) -> Iterator[tuple[Input, dict[str, Any]]]:
    """Separates recordings, one after the other; a bad one stops no other.

    A recording is finished if the manifest says so, neither it nor the request
    has changed since, and all files are there: then it is not done again.

    Arguments
    ---------
    separator : AttractorSeparation
        The separator.
    inputs : sequence of Input
        The recordings.
    output : str or pathlib.Path
        Where tracks and the manifest are written.
    request : Request
        How they are separated.
    beside : collection of str
        What else is written: "rttm" and "json".
    overwrite : bool
        Whether what is there already is made again.
    progress : bool
        Whether each recording has a progress bar.
    others : sequence of Input
        Those that other processes separate: no recording is written over.

    Yields
    ------
    Input
        A recording.
    dict
        What came of it: its status, "done", "skipped" or "failed", and, if
        it was separated, talkers, confidence (None if their number was
        given), seconds, tracks and background; if it failed, the error.
    """
    manifest = Manifest(output)
    known = manifest.read()
    options = vars(request).copy()
    kept = {os.path.realpath(each.path) for each in [*inputs, *others]}
    for each in inputs:
        before = known.get(each.label, {})
        made_of = {"state": _state(each), "options": options}
        line: dict[str, Any] = {"path": each.label, "status": BEGUN, **made_of}
        same = all(before.get(key) == made_of[key] for key in made_of)
        # What was begun, or has lost a file, is ours to write.
        ours = overwrite or same or before.get("status") == BEGUN
        try:
            if not overwrite and same:
                if _is_finished(before, each, manifest.folder, beside):
                    yield each, {**before, "status": SKIPPED}
                    continue
            _check_free(each, manifest.folder, request, beside, kept, ours)
        except (UserError, OSError) as error:  # What is known of it stays.
            yield each, {**line, "status": FAILED, "error": _reason(error)}
            continue
        manifest.add(line)
        try:
            made = separate_recording(
                separator,
                each.path,
                manifest.folder / each.name.parent,
                request.num_spks,
                request.sample_rate,
                request.channel,
                request.file_format,
                request.background,
                each.name.name,
                progress,
            )
            line = _describe(each, made, manifest.folder) | made_of
            _write_beside(made, manifest.folder / each.name, line, beside)
            _remove_stale(before, line, manifest.folder)
        except (UserError, OSError) as error:
            line = {"path": each.label, "status": FAILED, **made_of}
            line["error"] = _reason(error)
        manifest.add(line)
        yield each, line


def _state(each: Input) -> list[Any] | None:
    """What changes with a recording: None if it cannot be used anyway."""
    if each.label == STANDARD_INPUT:
        return [digest(each.path)]
    try:
        return list(file_state(each.path))
    except OSError:
        return None


def _reason(error: Exception) -> str:
    """What is wrong with a recording; what is wrong with a disk is raised."""
    if isinstance(error, OSError) and error.errno not in NAME_ERRORS:
        raise error
    return one_line(error)


def _is_finished(
    line: Mapping[str, Any], each: Input, folder: Path, beside: Collection[str]
) -> bool:
    """Whether all files of a recording are there."""
    files = [*line.get("tracks", []), line.get("background")]
    files += [f"{each.name}.{suffix}" for suffix in beside]
    return line.get("status") == DONE and all(
        (folder / file).is_file() for file in files if file
    )


def _check_free(
    each: Input,
    folder: Path,
    request: Request,
    beside: Collection[str],
    kept: Collection[str],
    ours: bool,
) -> None:
    """Refuses to write over recordings, or files of something else."""
    count = MOST if request.num_spks == AUTO else int(request.num_spks)
    tracks = [str(1 + track) for track in range(count)]
    tracks += ["background"] * request.background
    endings = [f"_{track}.{request.file_format}" for track in tracks]
    endings += [f".{suffix}" for suffix in beside]
    for ending in endings:
        file = folder / f"{each.name}{ending}"
        if os.path.realpath(file) in kept:
            reason, remedy = "a recording to separate", "another --out"
        elif file.exists() and not ours:
            reason = "made of another recording or in another way"
            remedy = "--overwrite, or another --out"
        else:
            continue
        raise UserError(
            f"cannot separate {name_path(each.path)}: {name_path(file)} is "
            f"there, {reason}: give {remedy}"
        )


def _describe(
    each: Input, made: SeparatedRecording, folder: Path
) -> dict[str, Any]:
    """What the manifest says of a recording."""
    files = [os.path.relpath(file, folder) for file in made.tracks]
    line = {
        "path": each.label,
        "status": DONE,
        "talkers": len(made.tracks),
        "seconds": round(made.seconds, 3),
        "confidence": made.confidence,
        "tracks": files,
    }
    if made.background:
        line["background"] = os.path.relpath(made.background, folder)
    return line


def _write_beside(
    made: SeparatedRecording,
    stem: Path,
    line: Mapping[str, Any],
    beside: Collection[str],
) -> None:
    """Writes who speaks when, as it was asked for."""
    labels = ["_".join(file.stem.split()) for file in made.tracks]
    texts = {"rttm": format_rttm(stem.name, made.turns, labels)}
    told = "path", "talkers", "confidence", "seconds"
    about = {key: line[key] for key in told}
    about["tracks"] = [file.name for file in made.tracks]
    about["turns"] = [
        {"start": turn.start, "end": turn.end, "track": 1 + turn.track}
        for turn in made.turns
    ]
    if made.background:
        about["background"] = made.background.name
    texts["json"] = json.dumps(about, indent=2) + "\n"
    for suffix in beside:
        with write_whole(stem.with_name(f"{stem.name}.{suffix}")) as file:
            text = texts[suffix]
            file.write_text(text, encoding="utf-8", errors="surrogateescape")


def _remove_stale(
    before: Mapping[str, Any], line: Mapping[str, Any], folder: Path
) -> None:
    """Removes tracks of talkers that an earlier separation had found."""
    suffixes = {Path(file).suffix for file in line["tracks"]}
    for file in {*before.get("tracks", [])} - {*line["tracks"]}:
        path = folder / file
        if path.suffix in suffixes and _is_inside(
            path, os.path.abspath(folder)
        ):
            path.unlink(missing_ok=True)
