#!/usr/bin/env python3
"""Redoes the tables and the figure of the paper on your data.

python reproduce.py table1 --data_folder ROOT --hours 5
"""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from reproduction.figure import draw_figure_1
from reproduction.methods import ANY, BY_NAME, RECIPE, TRAIN_ON
from reproduction.plan import MODELS, Budget, Planner
from reproduction.runs import Run, describe_costs
from reproduction.tables import REFERENCE, TABLES, write_table

from speechbrain_kmdanet.errors import UserError, run_command
from speechbrain_kmdanet.utils.report import hide_paths
from speechbrain_kmdanet.utils.schema import SCHEMA, check_settings
from speechbrain_kmdanet.utils.settings import positive

FIGURE = "figure1"
DESCRIPTION = """\
Redoes the tables and the figure of the paper on data in the layout of wsj0-mix:
trains with train.py what is missing, evaluates it, and writes the paper's
figures beside ours (Markdown and CSV).

  table1   the same DANet with Euclidean and spherical k-means at inference
  table2   spherical k-means DANet with L = 1, 3, 5, 10 and 20 iterations in
           training: SI-SDRi, and minutes of an epoch
  table3   all systems, trained on 2, on 3, and on 2 and 3 speakers, tested on
           2 and on 3
  figure1  the embeddings of a mixture with the attractors of the ground truth
           and those of both kinds of k-means
  all      one after the other

First it says which runs that takes and what they cost. A run is made once: what
is done with the same settings is not repeated, not for another table either.
The same command goes on after an interruption, and --systems and --train_on do
table3 piece by piece."""

EPILOG = """\
Settings for train.py in all runs follow a --:

  python reproduce.py table3 --data_folder ROOT --hours 5 \\
      --dynamic_mixing CORPUS --systems danet oracle_ratio --train_on 2 \\
      -- --hidden_size 256 --batch_size 8

They go to the systems that have them; a loss or network of a system's own stays
as it is. Folders of runs with other settings are left alone: give --runs.

systems:
"""


def seed(text: str) -> int:
    """Type of an option: what the schema says of a seed."""
    value = int(text)
    check_settings({"seed": value}, MODELS / SCHEMA)
    return value


OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "table": (
        "see above",
        {"choices": [*TABLES, FIGURE, "all"], "metavar": "TABLE"},
    ),
    "--data_folder": (
        "holds 2speakers/ and, for 3 speakers, 3speakers/",
        {"type": Path, "metavar": "ROOT", "required": True},
    ),
    "--hours": (
        "hours of mixtures that each training sees (default: the numbers of "
        "epochs in the YAML files, which are the paper's)",
        {"type": positive(float), "metavar": "H"},
    ),
    "--dynamic_mixing": (
        "train on new mixtures in every epoch, of this folder with one folder "
        "of recordings per speaker, instead of tr",
        {"type": Path, "metavar": "CORPUS"},
    ),
    "--epoch_size": (
        "mixtures in an epoch of dynamic mixing (default: a 14th of the "
        "hours, at most 20000)",
        {"type": positive(int), "metavar": "N"},
    ),
    "--seeds": (
        "each training is made with each of these (default: 1234)",
        {"type": seed, "metavar": "SEED", "nargs": "+", "default": [1234]},
    ),
    "--systems": (
        "run these of table3 (default: all), or draw this one in figure1 "
        f"(default: {REFERENCE}); listed below",
        {"choices": BY_NAME, "metavar": "SYSTEM", "nargs": "+"},
    ),
    "--train_on": (
        "train the systems of table3 on these numbers of speakers (default: "
        "all that ROOT has)",
        {"choices": TRAIN_ON, "nargs": "+"},
    ),
    "--separator": (
        "figure1: the separator, instead of training one",
        {"type": Path, "metavar": "FOLDER"},
    ),
    "--mixture": ("figure1: a mixture of tt", {"metavar": "NAME"}),
    "--genders": (
        "figure1: the first mixture of two men, by this CSV file with the "
        "columns path and gender (m or f) of the recordings",
        {"type": Path, "metavar": "FILE"},
    ),
    "--name": (
        "name of the data in the tables and of their files (default: the last "
        "part of ROOT)",
        {},
    ),
    "--runs": (
        "where the runs go (default: results/reproduce/NAME_HOURS beside "
        "reproduce.py)",
        {"type": Path, "metavar": "FOLDER"},
    ),
    "--results": (
        "where the tables go (default: results/ of the repository)",
        {
            "type": Path,
            "metavar": "FOLDER",
            "default": RECIPE.parents[2] / "results",
        },
    ),
    "--dry_run": ("say what it costs, and stop", {"action": "store_true"}),
}


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Parses the command line.

    Arguments
    ---------
    arguments : sequence of str
        The command line without the name of the program.

    Returns
    -------
    argparse.Namespace
        The options; overrides is what follows "--", values by name.
    """
    systems = [f"  {x.name:28}{x.label}" for x in BY_NAME.values()]
    parser = argparse.ArgumentParser(
        prog="reproduce.py",
        description=DESCRIPTION,
        epilog=EPILOG + "\n".join(systems),
        usage="%(prog)s TABLE --data_folder ROOT [options] [-- --KEY VALUE ...]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for name, (text, rest) in OPTIONS.items():
        parser.add_argument(name, help=text, **rest)
    split = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser.parse_args(arguments[:split])
    if options.epoch_size and not options.dynamic_mixing:
        parser.error("--epoch_size goes with --dynamic_mixing")
    options.overrides = _parse_overrides(parser, arguments[split + 1 :])
    options.name = options.name or options.data_folder.absolute().name
    if options.runs is None:
        hours = f"{options.hours:g}h" if options.hours else "full"
        folder = RECIPE / "results" / "reproduce"
        options.runs = folder / f"{options.name}_{hours}"
    return options


def _parse_overrides(
    parser: argparse.ArgumentParser, words: Sequence[str]
) -> dict[str, str | None]:
    """Values by name of what follows "--"; None for those without a value."""
    overrides: dict[str, str | None] = {}
    name = None
    for word in words:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            if name in overrides:
                parser.error(f"--{name} is given twice")
            overrides[name] = value if equals else None
        elif name is None or overrides[name] is not None:
            parser.error(f"expected --KEY VALUE behind --, got {word!r}")
        else:
            overrides[name] = word
    return overrides


def plan_table(
    name: str, options: argparse.Namespace, planner: Planner
) -> tuple[list[Run], Callable[[], str]]:
    """Plans a table.

    Arguments
    ---------
    name : str
        Which one.
    options : argparse.Namespace
        The command line.
    planner : Planner
        Plans the runs.

    Returns
    -------
    runs : list of Run
        The runs that it needs, in their order.
    write : callable
        Writes it, with the figures that there are, and returns the Markdown.
    """
    table, data = TABLES[name], options.name
    columns = table.columns or planner.choose_columns(options.train_on)
    # --systems picks from Table 3, which has all of them.
    names = (name == "table3" and options.systems) or ()
    runs = planner.runs(table.cells(columns, names))
    write = partial(write_table, name, data, columns, planner, options.results)
    return runs, write


def plan_figure(
    options: argparse.Namespace, planner: Planner, command: str
) -> tuple[list[Run], Callable[[], str]]:
    """Plans the figure, see :func:`plan_table`; the command is its source."""
    runs, separator = [], options.separator
    title = f"The separator {separator.name}" if separator else ""
    if not separator:
        method = BY_NAME[(options.systems or [REFERENCE])[0]]
        if method.numbers != ANY:
            raise UserError(
                f"{FIGURE} draws the embeddings of a system that clusters "
                f"them, got --systems {method.name}"
            )
        runs = [planner.training(method, "2", options.seeds[0])]
        title, separator = runs[0].title, runs[0].folder / "pretrained"
    draw = partial(
        draw_figure_1,
        separator,
        title,
        options.data_folder / "2speakers",
        options.mixture,
        options.genders,
        options.name,
        options.results,
        command,
    )
    return runs, draw


def run(arguments: list[str]) -> None:
    """Makes the runs, and writes the tables.

    Arguments
    ---------
    arguments : list of str
        The command line without the name of the program.

    Raises
    ------
    UserError
        If an option or the data cannot be used, or train.py fails.
    """
    options = parse_arguments(arguments)
    corpus = options.dynamic_mixing
    budget = Budget(
        options.hours,
        str(corpus.absolute()) if corpus else None,
        options.epoch_size,
    )
    planner = Planner(
        options.data_folder,
        options.runs,
        budget,
        options.seeds,
        options.overrides,
    )
    command = hide_paths(["python", "reproduce.py", *arguments])
    names = [*TABLES, FIGURE] if options.table == "all" else [options.table]
    wanted = {
        name: plan_table(name, options, planner)
        if name in TABLES
        else plan_figure(options, planner, command)
        for name in names
    }
    every = {run.folder: run for runs, _ in wanted.values() for run in runs}
    if every:
        costs = describe_costs(list(every.values()), options.runs)
        print(costs, flush=True)
    if options.dry_run:
        return
    for name, (runs, write) in wanted.items():
        todo = [run for run in runs if not run.is_done()]
        for number, it in enumerate(todo, 1):
            title = f"{name}, run {number} of {len(todo)}: {it.title}"
            print(f"\n{title}", flush=True)
            it.execute(command)
            if number < len(todo):
                # What there is can be read while the others are made.
                write()
        print(f"\n{write()}\nwritten to {options.results}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line, see :func:`run_command` for the exit status."""
    return run_command("reproduce.py", run, arguments)


if __name__ == "__main__":
    # As when it is interrupted: train.py is not left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
