#!/usr/bin/env python3
"""Measures how fast the package is, as ratios within one run.

    python benchmarks/run.py

Authors
 * The speechbrain_kmdanet developers 2026
"""

import argparse
import sys

import clustering
import distributed
import evaluation
import loader
import separation
import training
from options import parse_options
from report import write_report
from tqdm import tqdm

GROUPS = {
    "clustering": clustering.ROWS,
    "training": training.ROWS,
    "loader": loader.ROWS,
    "distributed": distributed.ROWS,
    "separation": separation.ROWS,
    "evaluation": evaluation.ROWS,
}
HEADER = ["what", "goal", "measured", "range", "met", "least of each"]


def parse_arguments():
    """Returns the arguments of the command line."""
    parser = argparse.ArgumentParser(
        description="Measures ratios of times within one run, and writes them "
        "beside the goals into RESULTS/benchmarks.md. Takes some seven "
        "minutes; what else the machine does should not change meanwhile."
    )
    parser.add_argument(
        "--groups", nargs="+", choices=GROUPS, default=list(GROUPS),
        help="what to measure (default: all)",
    )  # fmt: skip
    return parse_options(parser, repeats=9)


def format_row(row, ratio):
    """Texts of a row, see HEADER."""
    sign = "at most" if row.at_most else "at least"
    least = [f"{name} {x:.3g} {ratio.unit}" for name, x in ratio.least.items()]
    return [
        row.what,
        f"{sign} {row.goal:.4g}",
        f"{ratio.median:.3g}",
        f"{ratio.low:.3g} to {ratio.high:.3g}",
        "yes" if row.is_met(ratio) else "no",
        ", ".join(least),
    ]


def main():
    """Measures, prints and writes; returns the exit status."""
    options = parse_arguments()
    rows = [row for group in options.groups for row in GROUPS[group]]
    lines = [
        format_row(row, row.run(options.repeats))
        for row in tqdm(rows, "Benchmarks", dynamic_ncols=True)
    ]
    about = (
        f"Ratios: medians over {options.repeats} rounds in which the two take "
        "turns, and their range; the least of each."
    )
    parts = [about, (HEADER, lines)]
    write_report(options.results / "benchmarks.md", "Benchmarks", parts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
