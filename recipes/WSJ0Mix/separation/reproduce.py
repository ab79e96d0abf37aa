#!/usr/bin/env python3
"""Redoes the tables and the figure of the paper on your data.

    python reproduce.py table1 --data_folder ROOT --hours 5

Authors
 * The speechbrain_kmdanet developers 2026
"""

import signal
import sys

from reproduction.budget import Budget
from reproduction.costs import describe_costs
from reproduction.figure import draw_figure_1
from reproduction.methods import ANY, BY_NAME
from reproduction.options import TABLES, parse_arguments
from reproduction.plan import Planner
from reproduction.report import hide_paths, write_table
from reproduction.tables import (
    REFERENCE,
    cells_1,
    cells_2,
    cells_3,
    make_table_1,
    make_table_2,
    make_table_3,
)
from user_errors import user_message


def find_runs(table, options, planner):
    """Runs that a table or the figure needs.

    Arguments
    ---------
    table : str
        Which one.
    options : argparse.Namespace
        The command line.
    planner : Planner
        Plans the runs.

    Returns
    -------
    list of Run
        The runs in their order.
    """
    if table == "figure1":
        if options.separator:
            return []
        method = BY_NAME[(options.systems or [REFERENCE])[0]]
        if method.numbers != ANY:
            raise ValueError(
                f"figure1 draws the embeddings of a system that clusters them, "
                f"got --systems {method.name}"
            )
        return [planner.training(method, "2", options.seeds[0])]
    if table == "table3":
        systems = options.systems or BY_NAME
        columns = planner.choose_numbers(options.train_on)
        return planner.runs(cells_3(systems, columns))
    return planner.runs({"table1": cells_1, "table2": cells_2}[table]())


def write(table, options, planner):
    """Writes a table, with the figures that there are.

    Arguments
    ---------
    table : str
        Which one.
    options : argparse.Namespace
        The command line.
    planner : Planner
        Knows where the results are.

    Returns
    -------
    str
        Markdown.
    """
    stem = options.results / f"{table}_{options.name}"
    if table == "table3":
        columns = planner.choose_numbers(options.train_on)
        made = make_table_3(planner, options.name, columns)
    else:
        make = {"table1": make_table_1, "table2": make_table_2}[table]
        made = make(planner, options.name)
    return write_table(made, planner, stem)


def draw(options, runs, command):
    """Draws Figure 1.

    Arguments
    ---------
    options : argparse.Namespace
        The command line.
    runs : list of Run
        The training of the separator, unless it is given.
    command : str
        The command line.

    Returns
    -------
    str
        Markdown.
    """
    separator = options.separator or runs[0].folder / "pretrained"
    return draw_figure_1(
        separator,
        runs[0].title if runs else f"The separator {separator.name}",
        options.data_folder / "2speakers",
        options.mixture,
        options.results / f"figure1_{options.name}",
        command,
    )


def run(arguments):
    """Makes the runs, and writes the tables.

    Arguments
    ---------
    arguments : list of str
        The command line without the name of the program.

    Raises
    ------
    ValueError
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
        options.data_folder, options.runs, budget, options.seeds,
        options.overrides,
    )  # fmt: skip
    command = hide_paths(["python", "reproduce.py", *arguments])
    tables = TABLES if options.table == "all" else [options.table]
    wanted = {table: find_runs(table, options, planner) for table in tables}
    every = {run.folder: run for runs in wanted.values() for run in runs}
    if every:
        costs = describe_costs(list(every.values()), options.runs)
        print(costs, flush=True)
    if options.dry_run:
        return
    for table, runs in wanted.items():
        todo = [run for run in runs if not run.is_done()]
        for number, it in enumerate(todo, 1):
            print(f"\n{table}, run {number} of {len(todo)}: {it.title}")
            sys.stdout.flush()
            it.execute(command)
            if table != "figure1":
                # What there is can be read while the others are made.
                write(table, options, planner)
        if table == "figure1":
            text = draw(options, runs, command)
        else:
            text = write(table, options, planner)
        print(f"\n{text}\nwritten to {options.results}", flush=True)


def main(arguments):
    """Runs the command line, see `run`.

    Returns
    -------
    int
        0 if all is well, 2 for an error of the user, 130 when interrupted.
    """
    try:
        run(arguments)
    except KeyboardInterrupt:
        print("reproduce.py: the same command goes on from here")
        return 130
    except Exception as error:
        message = user_message(error)
        if message is None:
            raise
        print(f"reproduce.py: error: {message}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    # As when it is interrupted: train.py is not left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main(sys.argv[1:]))
