"""Reports: figures as text, with what and by which command they were made."""

import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch

from speechbrain_kmdanet.utils.jobs import write_whole

NOTHING = "–"
ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"PyTorch": "torch", "SpeechBrain": "speechbrain"}
# Options whose values are paths, and what is written in their place.
PLACEHOLDERS = {
    "--data_folder": "ROOT",
    "--dynamic_mixing": "CORPUS",
    "--separator": "SEPARATOR",
}
LEFT_OUT = ("--runs", "--results")
# An absolute path, alone or inside of YAML.
PATH = re.compile(r"(?<![\w./])/[\w.~][^,'\"\]}]*")

Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def format_figure(
    figure: Mapping[str, float | None], signed: bool = False
) -> str:
    """A mean with its interval as text.

    Arguments
    ---------
    figure : mapping
        mean and ci95 (half the width of the interval), None if there are none.
    signed : bool
        Whether a positive mean has a sign, too.

    Returns
    -------
    str
        For example "5.92 ± 0.27", or a dash.

    Example
    -------
    >>> format_figure({"mean": 5.916, "ci95": 0.27}, signed=True)
    '+5.92 ± 0.27'
    """
    if figure["mean"] is None:
        return NOTHING
    mean = f"{figure['mean']:{'+' if signed else ''}.2f}".replace("-", "−")
    return f"{mean} ± {figure['ci95']:.2f}"


def format_number(value: float | None, digits: int = 2) -> str:
    """A number as text.

    Arguments
    ---------
    value : float
        The number, or None.
    digits : int
        Digits behind the point.

    Returns
    -------
    str
        The number, or a dash.
    """
    return NOTHING if value is None else f"{value:.{digits}f}"


def format_hours(hours: float) -> str:
    """Hours of mixtures as text.

    Arguments
    ---------
    hours : float
        Number of hours.

    Returns
    -------
    str
        With three significant digits, or whole hours.
    """
    return f"{hours:.0f} h" if hours >= 99.95 else f"{hours:.3g} h"


def format_time(seconds: float) -> str:
    """A time as text.

    Arguments
    ---------
    seconds : float
        Time in seconds.

    Returns
    -------
    str
        In seconds, minutes, or hours and minutes.

    Example
    -------
    >>> format_time(89), format_time(3600), format_time(6000)
    ('89 s', '60 min', '1 h 40 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def format_markdown(
    header: Sequence[str], lines: Sequence[Sequence[str]]
) -> str:
    """A table as Markdown.

    Arguments
    ---------
    header : sequence of str
        Names of the columns.
    lines : sequence of sequence of str
        Texts of the lines.

    Returns
    -------
    str
        Lines of the same width.

    Example
    -------
    >>> print(format_markdown(["x", "figure"], [["bbb", "22"]]), end="")
    | x   | figure |
    | --- | ------ |
    | bbb | 22     |
    """
    lines = [header, *lines]
    widths = [max(map(len, column)) for column in zip(*lines)]
    rows = [
        " | ".join(text.ljust(width) for text, width in zip(line, widths))
        for line in lines
    ]
    rows.insert(1, " | ".join("-" * width for width in widths))
    return "".join(f"| {row} |\n" for row in rows)


def format_source(about: Mapping[str, str], verb: str = "Measured on") -> str:
    """Where figures come from, as Markdown.

    Arguments
    ---------
    about : mapping
        What :func:`describe_environment` says, and the command.
    verb : str
        What goes before the date.

    Returns
    -------
    str
        A paragraph, and the command as a block of code.
    """
    return (
        f"{verb} {about['date']}, {about['machine']}; {about['versions']}; "
        f"commit {about['commit']}; with\n\n```shell\n{about['command']}\n```\n"
    )


def describe_environment(device: str | None = None) -> dict[str, str]:
    """Describes what a run is made with; no names of hosts or users.

    Arguments
    ---------
    device : str
        Device that the run was told to use, if it was.

    Returns
    -------
    dict
        date, machine, versions and commit.
    """
    versions = [f"Python {platform.python_version()}"]
    versions += [f"{name} {version(it)}" for name, it in PACKAGES.items()]
    return {
        "date": date.today().isoformat(),
        "machine": _machine(device),
        "versions": ", ".join(versions),
        "commit": _commit(),
    }


def hide_paths(command: Sequence[str]) -> str:
    """The command with names in the place of folders.

    Arguments
    ---------
    command : sequence of str
        Interpreter, program and arguments.

    Returns
    -------
    str
        One line, or several with backslashes.

    Example
    -------
    >>> hide_paths(
    ...     ["python", "train.py", "--data_folder=/home/me", "--lr", "1"]
    ... )
    'python train.py --data_folder ROOT --lr 1'
    """
    parts: list[str] = []
    words = iter(command[2:])
    for word in words:
        name, equals, _ = word.partition("=")
        if name in LEFT_OUT or name in PLACEHOLDERS:
            if not equals:
                next(words, None)
            if name in PLACEHOLDERS:
                parts.append(f"{name} {PLACEHOLDERS[name]}")
            continue
        text = shlex.quote(PATH.sub("PATH", word))
        if word.startswith("--") or not parts:
            parts.append(text)
        else:
            parts[-1] += f" {text}"
    lines = [" ".join(command[:2])]
    for part in parts:
        if len(lines[-1]) + len(part) > 77:
            lines.append("   ")
        lines[-1] += f" {part}"
    return " \\\n".join(lines)


def write_report(
    path: Path, title: str, parts: Sequence[str | Table], device: str = "cpu"
) -> str:
    """Writes what this program has measured, with what, and its command line.

    Arguments
    ---------
    path : pathlib.Path
        Markdown file.
    title : str
        Its title.
    parts : sequence
        Paragraphs, and tables as pairs of header and lines.
    device : str
        What it was measured on.

    Returns
    -------
    str
        What is in the file.
    """
    texts = [
        part if isinstance(part, str) else format_markdown(*part).rstrip()
        for part in parts
    ]
    script = Path(sys.argv[0]).resolve()
    # As it is called from the top of the repository.
    inside = script.is_relative_to(ROOT)
    name = script.relative_to(ROOT).as_posix() if inside else script.name
    command = hide_paths(["python", name, *sys.argv[1:]])
    about = {**describe_environment(device), "command": command}
    text = "\n\n".join([f"# {title}", *texts, format_source(about)])
    with write_whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    return text


def _machine(device: str | None) -> str:
    """Model of the GPU, or of the CPU with the number of threads."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and torch.cuda.is_available():
        return torch.cuda.get_device_name(device)
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        info = ""
    model = re.search(r"^model name\s*:\s*(.+)$", info, re.M)
    name = model[1] if model else platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} threads"


def _commit() -> str:
    """Commit of the package's checkout, "-dirty" with changes; or unknown."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    # An installed package may lie inside the checkout of another project.
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(ROOT.parent)}
    try:
        described = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return described.stdout.strip()
