#!/usr/bin/env python3
"""Measures how fast the package is, as ratios within one run.

python benchmarks/run.py
"""

import argparse
import sys

from measure import parse_options, report
from rows import GROUPS, Ratio, Row
from tqdm import tqdm

from speechbrain_kmdanet.errors import run_command

HEADER = ["what", "goal", "measured", "range", "met", "least of each"]


def format_row(row: Row, ratio: Ratio) -> list[str]:
    """Formats what was measured.

    Arguments
    ---------
    row : Row
        What.
    ratio : Ratio
        What it came to.

    Returns
    -------
    list of str
        Texts, see HEADER.
    """
    least = [f"{name} {x:.3g} {row.unit}" for name, x in ratio.least.items()]
    return [
        row.what,
        f"{row.bound} {row.goal:.4g}",
        f"{ratio.median:.3g}",
        f"{ratio.low:.3g} to {ratio.high:.3g}",
        "yes" if row.is_met(ratio) else "no",
        ", ".join(least),
    ]


def run(arguments: list[str]) -> None:
    """Measures, prints and writes.

    Arguments
    ---------
    arguments : list of str
        Command line without the program.
    """
    parser = argparse.ArgumentParser(
        description="Measures ratios of times within one run, and writes them "
        "beside the goals into RESULTS/benchmarks.md. Takes some seven "
        "minutes; what else the machine does should not change meanwhile."
    )
    parser.add_argument(
        "--groups",
        nargs="+",
        choices=GROUPS,
        default=list(GROUPS),
        help="what to measure (default: all)",
    )
    options = parse_options(parser, 9, arguments)
    rows = [row for group in options.groups for row in GROUPS[group]]
    lines = [
        format_row(row, row.measure(options.repeats))
        for row in tqdm(rows, "Benchmarks", dynamic_ncols=True)
    ]
    about = (
        f"Ratios: medians over {options.repeats} rounds in which the two take "
        "turns, and their range; the least of each."
    )
    path = options.results / "benchmarks.md"
    report(path, "Benchmarks", [about, (HEADER, lines)])


if __name__ == "__main__":
    sys.exit(run_command("run.py", run))
