#!/usr/bin/env python3
"""Measures how fast the package is, as ratios within one run.

    python benchmarks/run.py

Authors
 * The speechbrain_kmdanet developers 2026
"""

import argparse
import sys
from pathlib import Path

import clustering
import evaluation
import separation
import torch
import training
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "recipes" / "WSJ0Mix" / "separation"))
from reproduction.formatting import format_markdown  # noqa: E402
from reproduction.provenance import describe_environment  # noqa: E402

GROUPS = {
    "clustering": clustering.ROWS,
    "training": training.ROWS,
    "separation": separation.ROWS,
    "evaluation": evaluation.ROWS,
}
HEADER = ["what", "goal", "measured", "range", "met", "seconds"]


def parse_arguments(arguments=None):
    """Returns the arguments of the command line."""
    parser = argparse.ArgumentParser(
        description="Measures ratios of times within one run, and writes them "
        "beside the goals into RESULTS/benchmarks.md. Takes some minutes; what "
        "else the machine does should not change meanwhile."
    )
    parser.add_argument(
        "--groups", nargs="+", choices=GROUPS, default=list(GROUPS),
        help="what to measure (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--repeats", type=int, default=7, help="rounds of each (default: 7)"
    )
    parser.add_argument(
        "--threads", type=int, default=2, help="of PyTorch (default: 2)"
    )
    parser.add_argument(
        "--results", type=Path, default=ROOT / "results", metavar="RESULTS",
        help="where to write (default: results/ of the repository)",
    )  # fmt: skip
    return parser.parse_args(arguments)


def format_row(row, ratio):
    """Texts of a row: what, goal, measured, range, met, seconds."""
    sign = "at most" if row.at_most else "at least"
    seconds = [f"{name} {x:.3g}" for name, x in ratio.seconds.items()]
    return [
        row.what,
        f"{sign} {row.goal:.4g}",
        f"{ratio.median:.3g}",
        f"{ratio.low:.3g} to {ratio.high:.3g}",
        "yes" if row.is_met(ratio) else "no",
        ", ".join(seconds),
    ]


def main(arguments=None):
    """Measures, prints and writes; returns the exit status."""
    options = parse_arguments(arguments)
    torch.set_num_threads(options.threads)
    rows = [row for group in options.groups for row in GROUPS[group]]
    lines = [
        format_row(row, row.run(options.repeats))
        for row in tqdm(rows, "Benchmarks", dynamic_ncols=True)
    ]
    about = describe_environment()
    command = " ".join(["python benchmarks/run.py", *(arguments or [])])
    text = (
        "# Benchmarks\n\nRatios of times: medians over "
        f"{options.repeats} rounds in which the two take turns, and their "
        "range; the least seconds of each.\n\n"
        f"{format_markdown(HEADER, lines)}\n"
        f"Measured on {about['date']}, {about['machine']}; "
        f"{about['versions']}; commit {about['commit']}; with\n\n"
        f"```shell\n{command}\n```\n"
    )
    print(text)
    options.results.mkdir(parents=True, exist_ok=True)
    path = options.results / "benchmarks.md"
    path.write_text(text, encoding="utf-8")
    print(f"written to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
