#!/usr/bin/env python3
"""Measures a training step by its iterations of k-means and its precision.

python benchmarks/iterations.py --device cuda
"""

import argparse
import statistics
import sys
from functools import partial

import torch
from measure import parse_options, peak_memory, report, seconds, take_turns
from subjects import BATCH, SECONDS, TrainingStep, make_sources
from tqdm import tqdm

from speechbrain_kmdanet.errors import run_command

ITERATIONS = (1, 3, 5, 10, 20)  # the paper's Table 2
PRECISIONS = ("fp32", "bf16")
MEASURED = ["step (ms)", "over L = 1", "mixtures/s", "memory (MB)"]
HEADER = ["network", "L", *MEASURED]


def measure_precision(
    precision: str, options: argparse.Namespace
) -> list[list[str]]:
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
    make = partial(
        TrainingStep,
        sources=make_sources(options.batch_size, options.seconds),
        device=options.device,
        precision=precision,
        trunk=options.trunk,
    )
    steps = {L: make(L) for L in ITERATIONS}
    gauges = {L: partial(seconds, steps[L]) for L in steps}
    times = take_turns(gauges, options.repeats)
    medians = {L: statistics.median(times[L]) for L in times}
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


def run(arguments: list[str]) -> None:
    """Measures, prints and writes.

    Arguments
    ---------
    arguments : list of str
        Command line without the program.
    """
    parser = argparse.ArgumentParser(
        description="Measures training steps of k-means DANet with L = "
        f"{', '.join(map(str, ITERATIONS))} iterations of k-means: time, "
        "mixtures a second and peak memory, in single and mixed precision. "
        "Writes RESULTS/iterations_DEVICE.md; the trunk, if it is not the "
        "paper's, is in its name."
    )
    add = parser.add_argument
    device = "cuda" if torch.cuda.is_available() else "cpu"
    text = "cpu or cuda (default: cuda if there is one)"
    add("--device", default=device, help=text)
    add(
        "--precisions",
        nargs="+",
        choices=PRECISIONS,
        default=PRECISIONS,
        help="of the network; k-means is in fp32 (default: both)",
    )
    text = "name of a YAML file of hparams/ (default: blstm, the paper's)"
    add("--trunk", default="blstm", help=text)
    text = f"mixtures in a batch (default: {BATCH})"
    add("--batch_size", type=int, default=BATCH, help=text)
    text = f"length of a mixture (default: {SECONDS:g})"
    add("--seconds", type=float, default=SECONDS, help=text)
    options = parse_options(parser, 5, arguments)
    lines = [
        line
        for precision in tqdm(options.precisions, "Precisions")
        for line in measure_precision(precision, options)
    ]
    about = (
        f"Training steps on the trunk {options.trunk}, {options.batch_size} "
        f"mixtures of {options.seconds:g} s: medians over {options.repeats} rounds in "
        "which all L take turns, and the peak of the memory of tensors."
    )
    kind = torch.device(options.device).type
    if options.trunk != "blstm":
        kind = f"{options.trunk}_{kind}"
    report(
        options.results / f"iterations_{kind}.md",
        "Iterations of k-means in training",
        [about, (HEADER, lines)],
        options.device,
    )


if __name__ == "__main__":
    sys.exit(run_command("iterations.py", run))
