#!/usr/bin/env python3
"""Measures how clustering and separation grow with length and talkers.

python benchmarks/scaling.py
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import torch
from measure import parse_options, peak_memory, report, seconds, take_turns
from subjects import DIMENSIONS, Separator, make_sources
from tqdm import tqdm

from speechbrain_kmdanet.errors import run_command
from speechbrain_kmdanet.nnet.attractors import KMeansAttractors
from speechbrain_kmdanet.processing.bins import flatten_bins

LENGTHS = (10, 30, 60, 120, 300, 600)  # s, of two talkers
TALKERS = (2, 3, 4, 5, 6, 7, 8)  # in a minute
MINUTE = 60
REST = ["over real time", "its memory (MB)"]
HEADER = ["clustering (s)", *REST, "separation (s)", *REST]
Found = dict[str, tuple[float, float]]


def measure_size(
    separator: Separator, length: int, talkers: int, repeats: int
) -> Found:
    """Measures clustering and separation of one mixture.

    Arguments
    ---------
    separator : Separator
        What separates it.
    length : int
        Length of the mixture in seconds.
    talkers : int
        Number of talkers.
    repeats : int
        Number of rounds.

    Returns
    -------
    dict
        Pair of the least seconds and of the peak of megabytes, by name.
    """
    mixture = make_sources(1, length).sum(2)
    energies = flatten_bins(separator.encoder(mixture).abs().square())
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(*energies.shape, DIMENSIONS, generator=generator)
    # All 20 iterations are made: random points do not converge before.
    attractors = KMeansAttractors("spherical", iterations=20, seed=0)
    functions = {
        "clustering": partial(attractors, embeddings, energies, talkers),
        "separation": partial(separator, mixture, talkers),
    }
    gauges = {name: partial(seconds, functions[name]) for name in functions}
    times = take_turns(gauges, repeats)
    return {
        name: (min(times[name]), peak_memory(function))
        for name, function in functions.items()
    }


def format_row(first: int, length: int, found: Found) -> list[str]:
    """Formats what was measured.

    Arguments
    ---------
    first : int
        What varies.
    length : int
        Length of the mixture in seconds.
    found : dict
        What was measured.

    Returns
    -------
    list of str
        Texts: what varies, and HEADER.
    """
    texts = [str(first)]
    for time, memory in found.values():
        texts += [f"{time:.3g}", f"{time / length:.2g}", f"{memory:.0f}"]
    return texts


def draw(path: Path, columns: dict[str, dict[int, Found]]) -> None:
    """Draws times and memory.

    Arguments
    ---------
    path : pathlib.Path
        PNG to write.
    columns : dict
        What was measured, by what varies, by the name of that.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(9, 6), layout="constrained")
    for column, (label, rows) in enumerate(columns.items()):
        for name in ("clustering", "separation"):
            values = [found[name] for found in rows.values()]
            for axis, points in zip(axes[:, column], zip(*values)):
                axis.plot(list(rows), points, marker="o", label=name)
        axes[1, column].set_xlabel(label)
    for axis in axes.flat:
        axis.grid(alpha=0.3)
        axis.set_ylim(bottom=0)
    axes[0, 0].set_ylabel("time (s)")
    axes[1, 0].set_ylabel("peak memory (MB)")
    axes[0, 0].legend()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def run(arguments: list[str]) -> None:
    """Measures, prints, draws and writes.

    Arguments
    ---------
    arguments : list of str
        Command line without the program.
    """
    parser = argparse.ArgumentParser(
        description="Measures time and peak memory of k-means and of "
        "separation on the CPU against the length of the mixture and the "
        "number of talkers, and writes RESULTS/scaling.md and scaling.png. "
        "Takes some minutes."
    )
    parser.add_argument(
        "--longest",
        type=int,
        default=max(LENGTHS),
        metavar="SECONDS",
        help="leave out longer mixtures than this (default: none)",
    )
    options = parse_options(parser, 3, arguments)
    lengths = [x for x in LENGTHS if x <= options.longest]
    minute = min(MINUTE, options.longest)
    sizes = [(x, 2) for x in lengths] + [(minute, x) for x in TALKERS]
    separator = Separator("kmeans_danet")
    found = {
        (length, talkers): measure_size(
            separator, length, talkers, options.repeats
        )
        for length, talkers in tqdm(sizes, "Sizes", dynamic_ncols=True)
    }
    by_length = {x: found[x, 2] for x in lengths}
    by_talkers = {x: found[minute, x] for x in TALKERS}
    options.results.mkdir(parents=True, exist_ok=True)
    draw(
        options.results / "scaling.png",
        {"length (s)": by_length, f"talkers in {MINUTE} s": by_talkers},
    )
    parts = [
        "![Time and memory by length and talkers](scaling.png)",
        "k-means of the embeddings (spherical, 20 iterations), and separation "
        "with the paper's network: least time of "
        f"{options.repeats} rounds and peak of the memory of tensors.",
        (
            ["length (s), two talkers", *HEADER],
            [format_row(x, x, by_length[x]) for x in lengths],
        ),
        (
            [f"talkers, {minute} s", *HEADER],
            [format_row(x, minute, by_talkers[x]) for x in TALKERS],
        ),
    ]
    report(options.results / "scaling.md", "Scaling", parts)


if __name__ == "__main__":
    sys.exit(run_command("scaling.py", run))
