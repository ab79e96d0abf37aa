"""The command ``kmdanet``: recordings in, one file a talker out.

What takes seconds to import is imported by the sub-command that needs it, so
that ``kmdanet --help`` answers at once.
"""

import argparse
import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from speechbrain_kmdanet import EXAMPLE, __version__
from speechbrain_kmdanet.errors import UserError, one_line, run_command

if TYPE_CHECKING:
    from speechbrain_kmdanet.inference.separation import AttractorSeparation

NAME = "kmdanet"
FORMATS = ("wav", "flac", "opus")
SOURCE = (
    "folder of a separator, name of a packaged one, or hf://ORGANISATION/NAME "
    "(default: kmeans_wide, which is packaged)"
)
TRUST = "let the separator run what its folder says: if you trust who made it"
HELP: dict[str, Any] = {
    "description": "Separates the talkers of recordings of one microphone.",
    "epilog": f"""examples:
  {NAME} example                        write a recording to try it on
  {NAME} separate meeting.wav           write separated/meeting_1.wav, ...
  {NAME} COMMAND --help                 say what a command can do
""",
}
SEPARATE: dict[str, Any] = {
    "help": "recordings in, one file a talker out",
    "description": """\
Separates recordings of any length, rate and number of channels. The tracks of
DAY/NAME.wav are DIR/NAME_1.wav, DIR/NAME_2.wav and so on; those of recordings
in a folder that is given lie below DIR as the recordings below the folder.

DIR/manifest.jsonl lists what was done, a line a recording. What is finished is
not done again: the same command goes on where it was stopped. A recording that
cannot be separated does not stop the others.

Processes started by torchrun or srun, and the jobs of a SLURM array, share the
recordings out. All of them may write into one DIR.""",
    "epilog": f"""examples:
  {NAME} separate meeting.wav
  {NAME} separate interviews/ --talkers 2 --out tracks --rttm
  {NAME} separate 'day*/*.flac' --format flac --background
  cat meeting.flac | {NAME} separate - --out tracks
  torchrun --nproc_per_node 4 -m speechbrain_kmdanet separate corpus/
  sbatch --array=0-99 --wrap '{NAME} separate corpus/ --out tracks'

exit status: 0 if all are separated, 1 if some cannot be, 2 if the command line
is wrong, 130 after Ctrl-C
""",
}


class Parser(argparse.ArgumentParser):
    """A command line whose errors take one line."""

    def error(self, message: str) -> NoReturn:
        """Refuses a command line.

        Arguments
        ---------
        message : str
            What is wrong.

        Raises
        ------
        UserError
            Always.
        """
        raise UserError(f"{message} (see {self.prog} --help)")


def _separate(options: argparse.Namespace) -> int:
    """Separates recordings."""
    from tqdm import tqdm

    from speechbrain_kmdanet.inference import corpus
    from speechbrain_kmdanet.inference.loading import DEFAULT
    from speechbrain_kmdanet.utils.jobs import make_folder
    from speechbrain_kmdanet.utils.processes import Manifest, find_share

    share, output = find_share(), Path(options.out)
    if share.processes > 1 and corpus.STANDARD_INPUT in options.paths:
        raise UserError(
            "standard input cannot be shared out among processes: give files"
        )
    manifest = Manifest(output)
    request = corpus.Request(
        options.separator or DEFAULT,
        options.talkers,
        options.rate,
        options.channel,
        options.format,
        options.background,
    )
    with _standard_input(options.paths) as spooled:
        everything = corpus.find_inputs(
            options.paths, output, manifest.tracks(), spooled
        )
        inputs = share.of(everything)
        separator = _load(options, share.rank)
        if options.talkers == "auto" and not separator.can_count:
            raise UserError(
                f"--talkers auto needs a separator that counts talkers, which "
                f"{request.source} does not: give --talkers K"
            )
        make_folder(output, "--out")
        counts = {corpus.DONE: 0, corpus.SKIPPED: 0, corpus.FAILED: 0}
        several, shown = len(everything) > 1, sys.stderr.isatty()
        results = corpus.separate_recordings(
            separator,
            inputs,
            output,
            request,
            [name for name in ("rttm", "json") if getattr(options, name)],
            options.overwrite,
            shown and not several,
            everything,
        )
        bar = tqdm(
            results,
            NAME,
            len(inputs),
            unit="recording",
            disable=not (shown and several),
            dynamic_ncols=True,
        )
        for each, line in bar:
            counts[line["status"]] += 1
            _tell(each, line, output, several)
    if inputs:
        manifest.tidy()
    if several:
        place = f" (process {share.rank} of {share.processes})"
        sys.stderr.write(
            f"{NAME}: {counts[corpus.DONE]} separated, "
            f"{counts[corpus.SKIPPED]} finished before, "
            f"{counts[corpus.FAILED]} failed"
            f"{place if share.processes > 1 else ''}: see {manifest.path}\n"
        )
    return 1 if counts[corpus.FAILED] else 0


def _tell(
    each: Any, line: Mapping[str, Any], output: Path, several: bool
) -> None:
    """Says what came of a recording."""
    from tqdm import tqdm

    from speechbrain_kmdanet.dataio.audio import name_path

    if line["status"] == "failed":
        reason = line["error"]
        if each.label == "-":
            reason = reason.replace(str(each.path), "standard input")
        tqdm.write(f"{NAME}: error: {reason}", file=sys.stderr)
    elif line["status"] == "done" or not several:
        known = " finished before," if line["status"] == "skipped" else ""
        talkers = f"{line['talkers']} talker{'s' * (line['talkers'] != 1)}"
        files = ", ".join(name_path(output / file) for file in line["tracks"])
        name = name_path("stdin" if each.label == "-" else each.path)
        tqdm.write(f"{name}:{known} {talkers}: {files}", file=sys.stdout)
        sys.stdout.flush()


@contextmanager
def _standard_input(paths: Sequence[str]) -> Iterator[Path | None]:
    """A file of what comes from standard input, if that is asked for."""
    if "-" not in paths:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        spooled = Path(folder, "stdin")
        with spooled.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        yield spooled


def _load(options: argparse.Namespace, rank: int = 0) -> "AttractorSeparation":
    """The separator that is asked for, on its device."""
    import torch

    from speechbrain_kmdanet.inference.separation import AttractorSeparation

    device = getattr(options, "device", "cpu")
    if device is None:
        device, gpus = "cpu", torch.cuda.device_count()
        if torch.cuda.is_available() and gpus:
            # Of the processes on one machine, each takes the next GPU.
            slurm = os.environ.get("SLURM_LOCALID", rank)
            local = int(os.environ.get("LOCAL_RANK", slurm))
            device = f"cuda:{local % gpus}"
    if device == "cuda":
        device = "cuda:0"
    try:
        torch.zeros(1, device=device).item()
    except (AssertionError, RuntimeError) as error:
        raise UserError(
            f"--device {device} cannot be used ({one_line(error).split('. ')[0]}): give "
            "cpu, or cuda:N for a GPU that PyTorch sees"
        ) from error
    return AttractorSeparation.from_hparams(
        options.separator, trust=options.trust, run_opts={"device": device}
    )


def _info(options: argparse.Namespace) -> int:
    """Says what a separator is, and whether it is safe."""
    from speechbrain_kmdanet.inference.loading import (
        TRUST,
        find_untrusted,
        resolve_source,
    )

    source = resolve_source(options.separator)
    lines = {"source": options.separator or "packaged"}
    if isinstance(source, Path):
        files = [path for path in source.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        lines = {"folder": str(source), "size": f"{size / 1e6:.1f} MB"}
    reasons: list[str] = []
    separator: AttractorSeparation | None = None
    try:
        options.trust, trust = False, options.trust
        separator = _load(options)
    except UserError as error:
        if TRUST not in str(error):
            raise
        reasons = [one_line(error)]
        if isinstance(source, Path):
            reasons = find_untrusted(source) or reasons
        options.trust = trust
        if trust:
            separator = _load(options)
    if separator:
        lines |= _describe(separator)
    lines["safe"] = "yes: nothing that lies in its folder is run"
    if reasons:
        lines["safe"] = f"no, it asks for --trust: {'; '.join(reasons)}"
    for key, value in lines.items():
        sys.stdout.write(f"{key:16}{value}\n")
    return 1 if reasons else 0


def _describe(separator: "AttractorSeparation") -> dict[str, str]:
    """What a separator is."""
    modules = separator.mods
    masker: Any = modules.masknet
    system = type(masker).__name__
    estimator: Any = getattr(masker, "infer_attractors", None)
    if estimator is not None:
        metric = getattr(estimator, "metric", None)
        kind = [type(estimator).__name__, *([metric] if metric else [])]
        system += f", {' '.join(map(str, kind))}"
    trunk = getattr(masker, "embedding_net", masker)
    parts = [type(trunk).__name__]
    if hasattr(trunk, "first"):
        parts = [type(net).__name__ for net in (trunk.first, trunk.second)]
    parameters = sum(weights.numel() for weights in separator.parameters())
    default = masker.num_spks
    counts = "no"
    if separator.can_count:
        counts = f"from 1 to {modules.counter.max_spks}"
    noise = getattr(masker, "remainder", None) is not None
    return {
        "system": system,
        "trunk": " + ".join(parts),
        "parameters": f"{parameters:,}",
        "sample rate": f"{separator.hparams.sample_rate} Hz",
        "talkers": (
            f"any number, {default} by default"
            if getattr(masker, "any_number", True)
            else f"{default}"
        ),
        "counts talkers": counts,
        "knows voices": "yes" if "voice" in modules else "no",
        "noise": "kept out of the tracks" if noise else "on the tracks",
    }


def _example(options: argparse.Namespace) -> int:
    """Writes the example recording to where one is."""
    sound, here = EXAMPLE.read_bytes(), Path(EXAMPLE.name)
    if here.exists() and here.read_bytes() != sound:
        raise UserError(
            f"{here} is there, and another file: remove it, or go elsewhere"
        )
    here.write_bytes(sound)
    sys.stdout.write(
        f"{here}: two voices at once; try\n  {NAME} separate {here}\n"
    )
    return 0


def _export(options: argparse.Namespace) -> int:
    """Writes a separator as one ONNX file, as a folder for a hub, or both."""
    from speechbrain_kmdanet.utils.jobs import make_folder

    if not (options.onnx or options.hub):
        raise UserError("export needs --onnx FILE, or --hub DIR")
    if options.onnx:
        make_folder(Path(options.onnx).parent, "--onnx")
        if Path(options.onnx).is_dir():
            raise UserError(f"--onnx {options.onnx} is a folder: give a file")
    if options.hub:
        from speechbrain_kmdanet.inference.loading import resolve_source
        from speechbrain_kmdanet.utils.hub import write_hub_folder

        source = resolve_source(options.separator)
        if not isinstance(source, Path):
            raise UserError(f"{options.separator} is no local folder")
        make_folder(options.hub, "--hub")
        for path in write_hub_folder(source, options.hub):
            sys.stdout.write(f"{path}\n")
    if options.onnx:
        onnx = _optional("onnx", "export", "onnx")
        onnx.export_onnx(_load(options), options.onnx, options.talkers)
        sys.stdout.write(f"{options.onnx}\n")
    return 0


def _page(options: argparse.Namespace) -> int:
    """Serves a page on which recordings are separated, until Ctrl-C."""
    served = _optional("page", "page", "page")
    served.serve(options.separator, host=options.host, port=options.port)
    return 0


def _optional(module: str, command: str, extra: str) -> ModuleType:
    """A module of inference/ whose requirements are an extra."""
    try:
        return importlib.import_module(
            f"speechbrain_kmdanet.inference.{module}"
        )
    except ImportError as error:
        raise UserError(
            f"{command} needs {error.name or error}: pip install "
            f"'speechbrain_kmdanet[{extra}]'"
        ) from error


def _place(text: str) -> str:
    """Where something is written."""
    if not text:
        raise argparse.ArgumentTypeError("expected a path, got an empty one")
    return text


def _number(text: str, low: int = 1, high: int = sys.maxsize) -> int:
    """A whole number, from one number to another."""
    if not (text.isdecimal() and low <= int(text) <= high):
        numbers = f"a number from {low} to {high}"
        if high == sys.maxsize:
            numbers = f"{low}, {low + 1}, ..."
        raise argparse.ArgumentTypeError(f"expected {numbers}, got {text!r}")
    return int(text)


def _rate(text: str) -> int:
    """A sample rate."""
    from speechbrain_kmdanet.dataio.audio import RATES

    return _number(text, *RATES)


def _talkers(text: str) -> int:
    """A number of talkers."""
    from speechbrain_kmdanet.lobes.models.masker import MOST_TALKERS

    return _number(text, high=MOST_TALKERS)


def _talkers_or_auto(text: str) -> int | str:
    """A number of talkers, or that they are counted."""
    return text if text == "auto" else _talkers(text)


def make_parser() -> Parser:
    """Makes what reads the command line.

    Returns
    -------
    Parser
        The parser; what it reads has the function ``run`` of a sub-command.
    """
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(NAME, formatter_class=raw, **HELP)
    parser.add_argument(
        "--version", action="version", version=f"{NAME} {__version__}"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("separate", formatter_class=raw, **SEPARATE)
    command.set_defaults(run=_separate)
    add = command.add_argument
    add(
        "paths",
        nargs="+",
        metavar="PATH",
        help="files, folders (at any depth), quoted patterns such as "
        "'**/*.wav', - for standard input",
    )
    add(
        "--talkers",
        type=_talkers_or_auto,
        default="auto",
        metavar="auto|K",
        help="talkers of a recording (default: they are counted)",
    )
    text = "where to write (default: separated)"
    add("--out", type=_place, default="separated", metavar="DIR", help=text)
    add("--separator", metavar="SOURCE", help=SOURCE)
    text = "of the tracks (default: wav)"
    add("--format", choices=FORMATS, default="wav", help=text)
    text = "sample rate of the tracks (default: that of the recording)"
    add("--rate", type=_rate, metavar="HZ", help=text)
    text = "channel to separate, from 1 on (default: the mean of all)"
    add("--channel", type=_number, metavar="N", help=text)
    text = "write what is no talker's, too: NAME_background.wav"
    add("--background", action="store_true", help=text)
    text = "write who speaks when: NAME.rttm"
    add("--rttm", action="store_true", help=text)
    text = "write tracks, length, confidence, who speaks when: NAME.json"
    add("--json", action="store_true", help=text)
    add("--device", help="cpu, cuda:0, ... (default: a GPU, if there is one)")
    text = "make again, and write over, what is there"
    add("--overwrite", action="store_true", help=text)
    add("--trust", action="store_true", help=TRUST)

    text = "what a separator is, and whether it is safe"
    command = commands.add_parser("info", help=text, description=text)
    command.set_defaults(run=_info)
    command.add_argument("separator", nargs="?", metavar="SOURCE", help=SOURCE)
    command.add_argument("--trust", action="store_true", help=TRUST)

    text = "write a recording to try it on"
    command = commands.add_parser("example", help=text, description=text)
    command.set_defaults(run=_example)

    text = "write a separator as ONNX (extra: onnx), or for a hub of models"
    command = commands.add_parser("export", help=text, description=text)
    command.set_defaults(run=_export)
    command.add_argument("separator", nargs="?", metavar="SOURCE", help=SOURCE)
    add = command.add_argument
    text = "ONNX file to write"
    add("--onnx", type=_place, metavar="FILE", help=text)
    text = "folder to write, which loads where this package is not installed"
    add("--hub", type=_place, metavar="DIR", help=text)
    text = "talkers of the ONNX file (default: those of the separator)"
    add("--talkers", type=_talkers, metavar="K", help=text)
    add("--trust", action="store_true", help=TRUST)

    text = "serve a page to separate recordings on (extra: page)"
    command = commands.add_parser("page", help=text, description=text)
    command.set_defaults(run=_page)
    add = command.add_argument
    add("separator", nargs="?", metavar="SOURCE", help=SOURCE)
    text = "(default: 127.0.0.1, this computer alone)"
    add("--host", default="127.0.0.1", help=text)
    port = partial(_number, high=65535)
    add("--port", type=port, default=7860, help="(default: 7860)")
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
        Exit status: that of the sub-command, or see :func:`.run_command`.
    """
    status = 0

    def run(given: list[str]) -> None:
        nonlocal status
        options = make_parser().parse_args(given)
        status = options.run(options)

    return run_command(NAME, run, arguments) or status
