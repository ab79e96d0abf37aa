#!/usr/bin/env python3
"""Measures a training step by its iterations of k-means and its precision.

    python benchmarks/iterations.py --device cuda

Authors
 * The speechbrain_kmdanet developers 2026
"""

import argparse
import statistics
import sys

import torch
from memory import peak_memory
from options import parse_options
from report import write_report
from steps import BATCH, SECONDS, TrainingStep
from timing import measure
from tqdm import tqdm

ITERATIONS = (1, 3, 5, 10, 20)  # the paper's Table 2
PRECISIONS = ("fp32", "bf16")
HEADER = [
    "network", "L", "step (ms)", "over L = 1", "mixtures/s", "memory (MB)",
]  # fmt: skip


def measure_precision(precision, options):
    """Measures steps of all numbers of iterations in turns.

    Arguments
    ---------
    precision : str
        "fp32" or "bf16", of the network.
    options : argparse.Namespace
        The command line.

    Returns
    -------
    list of list of str
        Rows, see HEADER.
    """
    steps = {
        iterations: TrainingStep(
            iterations,
            batch=options.batch_size,
            seconds=options.seconds,
            device=options.device,
            precision=precision,
        )
        for iterations in ITERATIONS
    }
    times = measure(steps, options.repeats)
    medians = {L: statistics.median(seconds) for L, seconds in times.items()}
    return [
        [
            precision,
            str(L),
            f"{1000 * medians[L]:.0f}",
            f"{medians[L] / medians[1]:.2f}",
            f"{options.batch_size / medians[L]:.1f}",
            f"{peak_memory(steps[L], options.device):.0f}",
        ]
        for L in ITERATIONS
    ]


def main():
    """Measures, prints and writes; returns the exit status."""
    parser = argparse.ArgumentParser(
        description="Measures training steps of the paper's network with L = "
        f"{', '.join(map(str, ITERATIONS))} iterations of k-means: time, "
        "mixtures a second and peak memory, in single and mixed precision. "
        "Writes RESULTS/iterations_DEVICE.md."
    )
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu",
        help="cpu or cuda (default: cuda if there is one)",
    )  # fmt: skip
    parser.add_argument(
        "--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS,
        help="of the network; k-means is in fp32 (default: both)",
    )  # fmt: skip
    parser.add_argument(
        "--batch_size", type=int, default=BATCH,
        help=f"mixtures in a batch (default: {BATCH})",
    )  # fmt: skip
    parser.add_argument(
        "--seconds", type=float, default=SECONDS,
        help=f"length of a mixture (default: {SECONDS:g})",
    )  # fmt: skip
    options = parse_options(parser, repeats=5)
    lines = [
        line
        for precision in tqdm(options.precisions, "Precisions")
        for line in measure_precision(precision, options)
    ]
    about = (
        f"Training steps of the paper's network, {options.batch_size} mixtures "
        f"of {options.seconds:g} s: medians over {options.repeats} rounds in "
        "which all L take turns, and the peak of the memory of tensors."
    )
    kind = torch.device(options.device).type
    write_report(
        options.results / f"iterations_{kind}.md",
        "Iterations of k-means in training",
        [about, (HEADER, lines)],
        options.device,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
