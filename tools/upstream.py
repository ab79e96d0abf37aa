#!/usr/bin/env python3
"""Lays this project over a checkout of SpeechBrain, as a contribution to it.

    python tools/upstream.py CHECKOUT              # all of it
    python tools/upstream.py CHECKOUT --part 1     # what one pull request holds
    python tools/upstream.py CHECKOUT --part 1 2   # what two hold

Modules go to the same places in speechbrain/, with their imports renamed, tests
to tests/unittests/attractors, the recipe to recipes/WSJ0Mix/attractors, with a
YAML file of all layers for each system and its row in tests/recipes. The same
command again changes nothing; files that are there and differ, as edited ones,
are kept unless --force is given, but for our rows of tests/recipes.
"""

import argparse
import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from upstream_recipe import (
    OVERLAY,
    PACKAGE,
    RECIPE,
    RENAMED,
    ROOT,
    add_rows,
    flatten,
    flatten_source,
    readme,
    rewrite,
    rows,
    sample_lists,
    systems,
)

from speechbrain_kmdanet.errors import UserError, run_command

TESTS = Path("tests/unittests/attractors")
ROWS = Path("tests/recipes/WSJ0Mix.csv")
# What a checkout has, and an installed SpeechBrain has not.
THERE = Path("speechbrain/core.py"), ROWS, Path("tests/samples/separation")
README = OVERLAY / "README.md"
# What SpeechBrain does not want itself: pictures, and the SDR.
REQUIREMENTS = "matplotlib\ntorchmetrics\n"


class Part(NamedTuple):
    """A pull request.

    Arguments
    ---------
    title : str
        What it adds.
    seeds : tuple of str
        Modules that it begins with; what they import comes along.
    systems : tuple of str
        Systems whose YAML files it adds, with what these need; "*" for all
        that are left.
    scripts : tuple of str
        Scripts of the recipe that it adds.
    """

    title: str
    seeds: tuple[str, ...] = ()
    systems: tuple[str, ...] = ()
    scripts: tuple[str, ...] = ()


PARTS = {
    1: Part(
        "k-means, attractors and DANet",
        ("lobes.models.danet", "lobes.models.embedding"),
    ),
    2: Part(
        "spectra, ideal masks and losses",
        (
            "lobes.models.oracle",
            "nnet.objectives",
            "processing.bands",
            "processing.separation",
        ),
    ),
    3: Part(
        "mixtures, of files and made anew",
        (
            "dataio.batch_sampler",
            "dataio.mixture_dataset",
            "dataio.mixture_files",
            "dataio.wsj0mix",
        ),
    ),
    4: Part(
        "the recipe with three systems",
        systems=("kmeans_danet_spherical", "kmeans_danet_euclidean", "danet"),
        scripts=("train.py", "prepare_data.py"),
    ),
    5: Part("the other systems", systems=("*",)),
    6: Part(
        "inference, how many talk, and recordings of any length",
        (
            "inference.recordings",
            "inference.separation",
            "lobes.models.counting",
            "lobes.models.voice",
        ),
    ),
}
RUFF = shutil.which("ruff", path=str(Path(sys.executable).parent))
ABSOLUTE = re.compile(r"\|([^|\s][^|\n]{0,18})\|")


def module_file(name: str) -> Path:
    """The file of a module of the package, by its name in it."""
    return ROOT / PACKAGE / f"{name.replace('.', '/')}.py"


def imports(text: str) -> Iterator[str]:
    """Names, in the package, of the modules that a file needs.

    Arguments
    ---------
    text : str
        Python or YAML.

    Yields
    ------
    str
        The names.
    """
    found = re.findall(rf"{PACKAGE}\.([a-z0-9_.]+)", text)
    whole = rf"from {PACKAGE}\.([\w.]+) import \(?([\w\s,]+)"
    for folder, names in re.findall(whole, text):
        # Of a folder, modules are imported; of a module, what is in it.
        found += [f"{folder}.{name}" for name in re.findall(r"\w+", names)]
    for place in found:
        name = place.rstrip(".")
        while name and not module_file(name).is_file():
            name = name.rpartition(".")[0]  # a class, or a function
        if name:
            yield name


def closure(texts: list[str]) -> set[str]:
    """Modules of the package that some files need, also through others."""
    found: set[str] = set()
    waiting = [name for text in texts for name in imports(text)]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += imports(module_file(name).read_text("utf-8"))
    return found


def destination(name: str) -> Path:
    """Where a module goes, in a checkout."""
    place = RENAMED.get(name, name).replace(".", "/")
    return Path("speechbrain", f"{place}.py")


def rewrite_python(text: str) -> str:
    """See :func:`rewrite`, for a Python file."""
    tree = ast.parse(text)
    lines = text.splitlines()
    for node in ast.walk(tree):
        holders = ast.FunctionDef, ast.ClassDef, ast.Module
        if isinstance(node, holders) and ast.get_docstring(node):
            written = node.body[0]
            for number in range(written.lineno - 1, written.end_lineno or 0):
                lines[number] = ABSOLUTE.sub(r"abs(\1)", lines[number])
    future = "from __future__ import annotations"
    if any(isinstance(node, ast.FunctionDef) for node in ast.walk(tree)):
        after = tree.body[0].end_lineno if ast.get_docstring(tree) else 0
        lines[after:after] = ["", future] if after else [future, ""]
    return rewrite("\n".join(lines) + "\n")


def chosen_systems(part: int) -> list[str]:
    """The systems whose YAML files a part adds."""
    names = PARTS[part].systems
    if "*" not in names:
        return [*names]
    before = {x for other in range(1, part) for x in PARTS[other].systems}
    return [name for name in systems() if name not in before]


def part_modules(part: int) -> set[str]:
    """The modules that a part adds to those before it."""
    needed: set[str] = set()
    for number in range(1, part + 1):
        texts = [f"{PACKAGE}.{name}" for name in PARTS[number].seeds]
        texts += [flatten_source(name) for name in chosen_systems(number)]
        for script in PARTS[number].scripts:
            texts.append((RECIPE / script).read_text("utf-8"))
        found = closure(texts)
        needed = found - needed if number == part else needed | found
    return needed


def part_tests(modules: set[str], before: set[str]) -> Iterator[Path]:
    """Unit tests that need some of these modules, those before, and no more."""
    for file in sorted((ROOT / "tests" / "unit").glob("*.py")):
        text = file.read_text("utf-8")
        needed = set(imports(text))
        others = {
            x.split(".")[0]
            for x in re.findall(r"^(?:from|import) (\w+)", text, re.M)
        }
        own = {x.stem for x in (ROOT / "tests").glob("*.py")}
        own |= {x.stem for x in (ROOT / "recipes").rglob("*.py")}
        own |= {"recipes", "benchmarks", "reproduction", "hypothesis"}
        # SpeechBrain's utils gives proxies of its modules, in which a test
        # cannot replace anything.
        proxies = re.search(rf"^from {PACKAGE}\.utils import", text, re.M)
        if others & own or proxies or not needed <= modules | before:
            continue
        if needed & modules or (file.stem == "conftest" and not before):
            yield file


def plan(checkout: Path, parts: list[int]) -> dict[Path, str]:
    """What is to be written, by its place in a checkout.

    Arguments
    ---------
    checkout : pathlib.Path
        The checkout.
    parts : list of int
        The parts that are wanted.

    Returns
    -------
    dict
        Texts by path.
    """
    files: dict[Path, str] = {}
    before: set[str] = set()
    for part in sorted(PARTS):
        modules, names = part_modules(part), chosen_systems(part)
        if part in parts:
            for name in sorted(modules):
                text = module_file(name).read_text("utf-8")
                files[destination(name)] = rewrite_python(text)
            for file in part_tests(modules, before):
                text = rewrite_python(file.read_text("utf-8"))
                files[TESTS / file.name] = text
            for name in names:
                files[_yaml(name)] = flatten(name)
            for script in PARTS[part].scripts:
                text = (RECIPE / script).read_text("utf-8")
                files[OVERLAY / script] = rewrite_python(text)
            if PARTS[part].scripts:
                files[OVERLAY / "extra_requirements.txt"] = REQUIREMENTS
                files.update(sample_lists(checkout))
        before |= modules
    if any(map(chosen_systems, parts)):
        files[README] = readme(_systems_there(checkout, parts))
    return files


def _systems_there(checkout: Path, parts: list[int]) -> list[str]:
    """The systems that are in a checkout, or will be with some parts."""
    return [
        name
        for part in sorted(PARTS)
        for name in chosen_systems(part)
        if part in parts or (checkout / _yaml(name)).is_file()
    ]


def _yaml(system: str) -> Path:
    """Where the YAML file of a system goes, in a checkout."""
    return OVERLAY / "hparams" / f"{system}.yaml"


def lay_over(
    checkout: Path, parts: list[int], force: bool = False
) -> tuple[int, int]:
    """Writes what differs; how many files were written, and are there.

    Arguments
    ---------
    checkout : pathlib.Path
        A checkout of SpeechBrain.
    parts : list of int
        The parts that are wanted.
    force : bool
        Whether to replace files that are there and differ.

    Returns
    -------
    tuple of int
        Files written, and all files of the parts.

    Raises
    ------
    UserError
        If it is no checkout, lacks a part that is stood on, or has other files
        in these places. Nothing is written then.
    """
    for path in THERE:
        if not (checkout / path).exists():
            raise UserError(
                f"there is no {path} in {checkout}: give a checkout of "
                "SpeechBrain"
            )
    for part in range(1, max(parts)):
        needed = [] if part in parts else map(destination, part_modules(part))
        for path in needed:
            if not (checkout / path).is_file():
                raise UserError(
                    f"part {max(parts)} stands on part {part}, of which {path} "
                    f"is not in {checkout}: lay that over before, or give "
                    f"--part {part} {max(parts)}"
                )
    files = plan(checkout, parts)
    # Sorted before they are compared: the second time, nothing changes.
    for path, text in files.items():
        if path.suffix == ".py" and RUFF:
            files[path] = _sorted(text, checkout, path, RUFF)
    new = {
        path: text
        for path, text in files.items()
        if _check_place(checkout, path, text, force)
    }
    for path, text in new.items():
        (checkout / path).parent.mkdir(parents=True, exist_ok=True)
        (checkout / path).write_text(text, encoding="utf-8")
    names = [x for part in parts for x in chosen_systems(part)]
    listed = bool(names) and add_rows(checkout / ROWS, rows(names))
    return len(new) + listed, len(files)


def _check_place(checkout: Path, path: Path, text: str, force: bool) -> bool:
    """Whether a file has to be written, if what is there may be replaced."""
    file = checkout / path
    for folder in file.relative_to(checkout).parents:
        if (checkout / folder).is_file():
            raise UserError(
                f"{checkout / folder} is a file where a folder has to go: "
                "move it away"
            )
    if not file.exists():
        return True
    there = file.read_text("utf-8", errors="replace")
    if there == text:
        return False
    ours = path == README and there == readme(_systems_there(checkout, []))
    if not (force or ours):
        raise UserError(
            f"{file} is there and differs, as one of SpeechBrain's or an edited "
            "one: keep it, or give --force to replace all that differ"
        )
    return True


def _sorted(text: str, checkout: Path, path: Path, ruff: str) -> str:
    """A Python file with imports and form as SpeechBrain's settings want."""
    for options in (["check", "--fix", "--exit-zero"], ["format"]):
        done = subprocess.run(
            [ruff, *options, "--stdin-filename", str(path), "-"],
            cwd=checkout,
            input=text,
            capture_output=True,
            text=True,
        )
        text = done.stdout or text
    return text


def run(arguments: list[str]) -> None:
    """Does what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "checkout", type=Path, metavar="CHECKOUT", help="of SpeechBrain"
    )
    parser.add_argument(
        "--part",
        type=int,
        nargs="+",
        choices=sorted(PARTS),
        default=sorted(PARTS),
        help="; ".join(f"{x}: {part.title}" for x, part in PARTS.items())
        + " (default: all)",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="replace files that are there and differ",
    )
    options = parser.parse_args(arguments)
    written, count = lay_over(options.checkout, options.part, options.force)
    unsorted = "" if RUFF else "; install ruff to have imports sorted"
    sys.stdout.write(
        f"{options.checkout}: {count} files, {written} of them written now"
        f"{unsorted}\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    return run_command("upstream.py", run, arguments)


if __name__ == "__main__":
    sys.exit(main())
