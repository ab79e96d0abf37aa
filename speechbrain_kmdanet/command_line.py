"""The command ``kmdanet``: recordings in, one file a talker out.

A folder is done in one go, or shared out among processes: each takes its part
of the sorted list, and all write one manifest, line by line. What stands there
as done is not done again, unless the recording or the options have changed.
"""

import argparse
import glob
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from tqdm import tqdm

from speechbrain_kmdanet import __version__
from speechbrain_kmdanet.dataio.audio import audio_suffixes, name_path
from speechbrain_kmdanet.dataio.corpus import file_state
from speechbrain_kmdanet.errors import UserError, one_line, run_command
from speechbrain_kmdanet.inference.batch import AUTO
from speechbrain_kmdanet.inference.recordings import (
    FORMATS,
    SeparatedRecording,
    separate_recording,
)
from speechbrain_kmdanet.inference.separation import AttractorSeparation
from speechbrain_kmdanet.inference.turns import format_rttm
from speechbrain_kmdanet.utils.jobs import write_whole

NAME = "kmdanet"
STANDARD_INPUT = "-"
EXAMPLE = Path(__file__).parent / "examples" / "two_talkers.flac"
MANIFEST = "manifest.jsonl"
DONE, FAILED, SKIPPED = "done", "failed", "skipped"
SOURCE = (
    "folder of a separator, name of a packaged one, or hf://ORGANISATION/NAME "
    "(default: kmeans_wide, packaged)"
)
TRUST = "let the separator run what its folder says: only of people you trust"
EXAMPLES = f"""examples:
  {NAME} separate meeting.wav                  talkers are counted
  {NAME} separate interviews/ --talkers 2 --out separated --rttm
  {NAME} separate 'day*/*.flac' --format flac --background
  cat in.flac | {NAME} separate - --out separated
  torchrun --nproc_per_node 4 -m speechbrain_kmdanet separate corpus/
"""


@dataclass(frozen=True)
class Input:
    """A recording to separate.

    Arguments
    ---------
    path : pathlib.Path
        The file.
    name : str
        What its files are named after, with folders, below the output folder.
    """

    path: Path
    name: str


def find_inputs(paths: Sequence[str]) -> list[Input]:
    """Finds recordings: files, all files of folders, and what patterns match.

    Arguments
    ---------
    paths : sequence of str
        What was asked for.

    Returns
    -------
    list of Input
        The recordings, sorted by name. Those of a folder have their names
        below it; where two names would be the same, suffixes tell them apart.

    Raises
    ------
    UserError
        If there are none, or two of the same name.
    """
    found: dict[Path, Path] = {}  # with the name that each has
    for text in paths:
        given = Path(text)
        matched = [given]
        if not given.exists() and glob.has_magic(text):
            matched = [Path(x) for x in glob.glob(text, recursive=True)]
            if not matched:
                raise UserError(f"nothing matches {text}: check the pattern")
        for path in matched:
            if path.is_dir():
                for inner in _list_folder(path):
                    found.setdefault(inner, inner.relative_to(path))
            else:  # whether it is there is said when its turn comes
                found.setdefault(path, Path(path.name))
    if not found:
        raise UserError(
            f"{', '.join(paths)}: no recordings there, as {NAME} reads "
            f"({', '.join(sorted(audio_suffixes()))})"
        )
    stems = [str(name.with_suffix("")) for name in found.values()]
    inputs = [
        Input(
            path,
            stem
            if stems.count(stem) == 1
            else stem + name.suffix.replace(".", "_"),
        )
        for (path, name), stem in zip(found.items(), stems)
    ]
    inputs.sort(key=lambda x: x.name)
    for one, other in zip(inputs, inputs[1:]):
        if one.name == other.name:
            raise UserError(
                f"{one.path} and {other.path} would be written to the same "
                "files: separate them with another --out each"
            )
    return inputs


def _list_folder(folder: Path) -> list[Path]:
    """Recordings of a folder at any depth; hidden files are none."""
    suffixes = audio_suffixes()
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in suffixes
        and path.is_file()
        and not any(x.startswith(".") for x in path.relative_to(folder).parts)
    )


def own_share(
    inputs: Sequence[Input], environment: Mapping[str, str] = os.environ
) -> list[Input]:
    """What this process does, where torchrun or SLURM have started several.

    Arguments
    ---------
    inputs : sequence of Input
        All recordings.
    environment : mapping
        Environment variables.

    Returns
    -------
    list of Input
        The recordings of this process.

    Example
    -------
    >>> own_share("abcde", {"RANK": "1", "WORLD_SIZE": "2"})
    ['b', 'd']
    """

    def number(name: str, default: int) -> int:
        text = environment.get(name, "")
        return int(text) if text.isdecimal() else default

    rank, processes = number("RANK", 0), number("WORLD_SIZE", 1)
    if processes == 1:
        rank, processes = number("SLURM_PROCID", 0), number("SLURM_NTASKS", 1)
    array = number("SLURM_ARRAY_TASK_COUNT", 1)
    first = number("SLURM_ARRAY_TASK_MIN", 0)
    step = number("SLURM_ARRAY_TASK_STEP", 1)
    place = (number("SLURM_ARRAY_TASK_ID", first) - first) // step
    return list(inputs[place * processes + rank :: array * processes])


class Manifest:
    """What was done with each recording, one JSON object a line.

    Lines are only added, whole, by any number of processes. What failed later
    does not undo what was done.

    Arguments
    ---------
    folder : pathlib.Path
        The output folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / MANIFEST

    def add(self, line: Mapping[str, Any]) -> None:
        """Adds what was done with a recording.

        Arguments
        ---------
        line : mapping
            Its name, status and so on.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(line, ensure_ascii=False) + "\n"
        with FileLock(self.folder / f".{MANIFEST}.lock"):
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)

    def read(self) -> dict[str, dict[str, Any]]:
        """What was done last with each recording, by name."""
        if not self.path.is_file():
            return {}
        lines = {}
        for text in self.path.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
                if line["status"] == DONE:
                    lines[line["name"]] = line
            except (ValueError, KeyError, TypeError):
                continue  # a line that a full disk cut
        return lines


def separate(options: argparse.Namespace) -> int:
    """Separates recordings; returns the exit status.

    Arguments
    ---------
    options : argparse.Namespace
        The command line.

    Returns
    -------
    int
        0 if all are done, 1 if some could not be.
    """
    with _with_standard_input(options.paths) as paths:
        inputs = own_share(find_inputs(paths))
        if not inputs:
            return 0
        separator = AttractorSeparation.from_hparams(
            options.separator,
            trust=options.trust,
            run_opts={"device": options.device or _device()},
        )
        manifest = Manifest(Path(options.out))
        counts = {DONE: 0, FAILED: 0, SKIPPED: 0}
        shown = sys.stderr.isatty()
        several = len(inputs) > 1
        bar = tqdm(inputs, NAME, disable=not shown or not several, leave=False)
        for each in bar:
            try:
                status = _separate_one(
                    separator, each, options, manifest, shown and not several
                )
            except UserError as error:
                tqdm.write(f"{NAME}: {one_line(error)}", file=sys.stderr)
                manifest.add(
                    {
                        "name": each.name,
                        "path": str(each.path),
                        "status": FAILED,
                        "reason": one_line(error),
                    }
                )
                status = FAILED
            counts[status] += 1
    if several:
        sys.stderr.write(
            f"{NAME}: {counts[DONE]} separated, {counts[SKIPPED]} were done "
            f"already, {counts[FAILED]} failed; see "
            f"{manifest.path}\n"
        )
    return 1 if counts[FAILED] else 0


def _separate_one(
    separator: AttractorSeparation,
    each: Input,
    options: argparse.Namespace,
    manifest: Manifest,
    progress: bool,
) -> str:
    """Separates a recording, if that is not done; returns what came of it."""
    folder, name = (
        manifest.folder / Path(each.name).parent,
        Path(each.name).name,
    )
    asked = {
        "separator": str(options.separator or "packaged"),
        "talkers": options.talkers,
        "rate": options.rate,
        "channel": options.channel,
        "format": options.format,
        "background": options.background,
    }
    state = list(file_state(each.path)) if each.path.is_file() else None
    if not options.overwrite:
        known = manifest.read().get(each.name, {})
        files = known.get("tracks", [])
        if (
            known.get("options") == asked
            and known.get("state") == state
            and all((manifest.folder / file).is_file() for file in files)
        ):
            sys.stdout.write(f"{name_path(each.path)}: done already\n")
            return SKIPPED
        first = folder / f"{name}_1.{options.format}"
        if first.exists():
            raise UserError(
                f"cannot separate {name_path(each.path)}: {first} is there, of "
                "another recording or other options: give --overwrite, or "
                "another --out"
            )
    made = separate_recording(
        separator,
        each.path,
        folder,
        options.talkers,
        options.rate,
        options.channel,
        options.format,
        options.background,
        name,
        progress,
    )
    talkers = len(made.tracks)
    line = {
        "name": each.name,
        "path": str(each.path),
        "status": DONE,
        "talkers": talkers,
        "seconds": round(made.seconds, 3),
        "tracks": [os.path.relpath(x, manifest.folder) for x in made.tracks],
        "state": state,
        "options": asked,
    }
    _write_beside(made, folder / name, name, line, options)
    manifest.add(line)
    files = ", ".join(map(str, made.tracks))
    found = "1 talker" if talkers == 1 else f"{talkers} talkers"
    sys.stdout.write(f"{name_path(each.path)}: {found}: {files}\n")
    return DONE


def _write_beside(
    made: SeparatedRecording,
    stem: Path,
    name: str,
    line: Mapping[str, Any],
    options: argparse.Namespace,
) -> None:
    """Writes who speaks when, as it was asked for."""
    labels = [file.stem for file in made.tracks]
    if options.rttm:
        with write_whole(f"{stem}.rttm") as file:
            text = format_rttm(name, made.turns, labels)
            file.write_text(text, encoding="utf-8")
    if options.json:
        turns = [
            {"start": turn.start, "end": turn.end, "track": turn.track + 1}
            for turn in made.turns
        ]
        about = {
            key: line[key] for key in ("path", "talkers", "seconds", "tracks")
        }
        with write_whole(f"{stem}.json") as file:
            text = json.dumps(about | {"turns": turns}, indent=2)
            file.write_text(text + "\n", encoding="utf-8")


@contextmanager
def _with_standard_input(paths: Sequence[str]) -> Iterator[list[str]]:
    """Paths, with a file of what comes from standard input for its sign."""
    with tempfile.TemporaryDirectory() as folder:
        given = []
        for path in paths:
            if path == STANDARD_INPUT:
                path = os.path.join(folder, "stdin")
                with open(path, "wb") as file:
                    shutil.copyfileobj(sys.stdin.buffer, file)
            given.append(path)
        yield given


def _device() -> str:
    """The fastest device that there is."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def info(options: argparse.Namespace) -> int:
    """Says what a separator is; returns the exit status.

    Arguments
    ---------
    options : argparse.Namespace
        The command line.

    Returns
    -------
    int
        0
    """
    separator = AttractorSeparation.from_hparams(
        options.source, trust=options.trust
    )
    modules = separator.mods
    masker: Any = modules.masknet
    trunk = getattr(masker, "embedding_net", masker)
    counter = modules.counter.max_spks if separator.can_count else None
    size = sum(weights.numel() for weights in separator.parameters())
    any_number = "any number" if masker.any_number else masker.num_spks
    keeps_out = getattr(masker, "remainder", None) is not None
    lines = {
        "system": type(masker).__name__,
        "network": type(trunk).__name__,
        "parameters": f"{size:,}",
        "sample rate": f"{separator.hparams.sample_rate} Hz",
        "talkers": f"{any_number}, {masker.num_spks} by default",
        "counts talkers": f"up to {counter}" if counter else "no",
        "knows voices": "yes" if "voice" in modules else "no",
        "keeps noise out": "yes" if keeps_out else "no",
        "safe": (
            "not checked: --trust lets it run what it wants"
            if options.trust
            else "yes, nothing that lies in its folder was run"
        ),
    }
    for key, value in lines.items():
        sys.stdout.write(f"{key:16}{value}\n")
    return 0


def example(options: argparse.Namespace) -> int:
    """Copies the example recording to where one is; returns the exit status.

    Arguments
    ---------
    options : argparse.Namespace
        The command line.

    Returns
    -------
    int
        0
    """
    with write_whole(EXAMPLE.name) as file:
        shutil.copyfile(EXAMPLE, file)
    sys.stdout.write(
        f"{EXAMPLE.name}: two synthetic voices at once; now try\n"
        f"  {NAME} separate {EXAMPLE.name}\n"
    )
    return 0


def _talkers(text: str) -> int | str:
    """A number of talkers of the command line, or "auto"."""
    return int(text) if text.isdecimal() else text


def make_parser() -> argparse.ArgumentParser:
    """The command line.

    Returns
    -------
    argparse.ArgumentParser
        The parser, whose result has a function ``run`` of itself.
    """
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        NAME,
        description="Separates the talkers of recordings of one microphone.",
        epilog=EXAMPLES,
        formatter_class=raw,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser(
        "separate",
        help="recordings in, one file a talker out",
        description=(
            "Separates recordings of any length, rate and number of channels "
            "into one file a talker: NAME_1.wav, NAME_2.wav and so on. What is "
            "done already is not done again."
        ),
        epilog=EXAMPLES,
        formatter_class=raw,
    )
    command.set_defaults(run=separate)
    add = command.add_argument
    add(
        "paths",
        nargs="+",
        metavar="PATH",
        help="files, folders (at any depth), patterns, or - for standard input",
    )
    add(
        "--talkers",
        type=_talkers,
        default=AUTO,
        metavar="auto|K",
        help="number of talkers in a recording (default: they are counted)",
    )
    add(
        "--out",
        default="separated",
        metavar="DIR",
        help="(default: %(default)s)",
    )
    add("--separator", metavar="SOURCE", help=SOURCE)
    add("--format", choices=FORMATS, default="wav", help="(default: wav)")
    add(
        "--rate",
        type=int,
        metavar="HZ",
        help="(default: that of the recording)",
    )
    add(
        "--channel",
        type=int,
        metavar="N",
        help="from 1 on (default: mean of all)",
    )
    add(
        "--background",
        action="store_true",
        help="write what is no talker's, too",
    )
    add("--rttm", action="store_true", help="write who speaks when: NAME.rttm")
    add(
        "--json", action="store_true", help="write the same and more: NAME.json"
    )
    add(
        "--device", help="cpu, cuda, cuda:1... (default: a GPU if there is one)"
    )
    add("--overwrite", action="store_true", help="do again what is done")
    add("--trust", action="store_true", help=TRUST)
    command = commands.add_parser("info", help="what a separator is")
    command.set_defaults(run=info)
    command.add_argument("source", nargs="?", metavar="SOURCE", help=SOURCE)
    command.add_argument("--trust", action="store_true", help=TRUST)
    command = commands.add_parser(
        "example", help="write an example recording here"
    )
    command.set_defaults(run=example)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Arguments
    ---------
    arguments : sequence of str
        Command line without the name; that of the process by default.

    Returns
    -------
    int
        Exit status: 0 if all is well, 1 if some recordings failed, 2 for an
        error of the user, 130 when interrupted.
    """
    status = 0

    def run(given: list[str]) -> None:
        nonlocal status
        options = make_parser().parse_args(given)
        status = options.run(options)

    return run_command(NAME, run, arguments) or status
