#!/usr/bin/env python3
"""Measures how clustering and separation grow with length and talkers.

    python benchmarks/scaling.py

Authors
 * The speechbrain_kmdanet developers 2026
"""

import argparse
import sys

import torch
from memory import peak_memory
from options import parse_options
from report import write_report
from separation import make_mixture, make_separator
from speech import SAMPLE_RATE
from timing import measure
from tqdm import tqdm

from speechbrain_kmdanet.nnet.attractors import KMeansAttractors
from speechbrain_kmdanet.processing.bins import flatten_bins

DIMENSIONS = 20
LENGTHS = (10, 30, 60, 120, 300, 600)  # s, of two talkers
TALKERS = (2, 3, 4, 5, 6, 7, 8)  # in a minute
MINUTE = 60
HEADER = [
    "clustering (s)", "over real time", "its memory (MB)", "separation (s)",
    "over real time", "its memory (MB)",
]  # fmt: skip


def measure_size(seconds, talkers, repeats):
    """Measures clustering and separation of one mixture.

    Arguments
    ---------
    seconds : float
        Length of the mixture.
    talkers : int
        Number of talkers.
    repeats : int
        Number of rounds.

    Returns
    -------
    dict
        Pair of the least seconds and of the peak of megabytes, by name.
    """
    mixture = make_mixture(seconds * SAMPLE_RATE)
    separate = make_separator("kmeans_danet")
    weights = flatten_bins(separate.encode(mixture).abs().square())
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(*weights.shape, DIMENSIONS, generator=generator)
    # All 20 iterations are made: random points do not converge before.
    attractors = KMeansAttractors("spherical", iterations=20, seed=0)
    functions = {
        "clustering": lambda: attractors(embeddings, weights, talkers),
        "separation": lambda: separate(mixture, talkers),
    }
    times = measure(functions, repeats)
    return {
        name: (min(times[name]), peak_memory(function))
        for name, function in functions.items()
    }


def format_row(first, seconds, found):
    """Texts of a row: what varies, and HEADER."""
    texts = [str(first)]
    for time, memory in found.values():
        texts += [f"{time:.3g}", f"{time / seconds:.2g}", f"{memory:.0f}"]
    return texts


def draw(path, by_length, by_talkers):
    """Draws times and memory.

    Arguments
    ---------
    path : pathlib.Path
        PNG to write.
    by_length : dict
        What was measured, by length.
    by_talkers : dict
        What was measured, by number of talkers.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(9, 6), layout="constrained")
    for column, (label, rows) in enumerate(
        {"length (s)": by_length, f"talkers in {MINUTE} s": by_talkers}.items()
    ):
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


def main():
    """Measures, prints, draws and writes; returns the exit status."""
    parser = argparse.ArgumentParser(
        description="Measures time and peak memory of k-means and of "
        "separation on the CPU against the length of the mixture and the "
        "number of talkers, and writes RESULTS/scaling.md and scaling.png. "
        "Takes some minutes."
    )
    parser.add_argument(
        "--longest", type=int, default=max(LENGTHS), metavar="SECONDS",
        help="leave out longer mixtures than this (default: none)",
    )  # fmt: skip
    options = parse_options(parser, repeats=3)
    lengths = [x for x in LENGTHS if x <= options.longest]
    minute = min(MINUTE, options.longest)
    sizes = [(x, 2) for x in lengths] + [(minute, x) for x in TALKERS]
    found = {
        size: measure_size(*size, options.repeats)
        for size in tqdm(sizes, "Sizes", dynamic_ncols=True)
    }
    by_length = {x: found[x, 2] for x in lengths}
    by_talkers = {x: found[minute, x] for x in TALKERS}
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
    options.results.mkdir(parents=True, exist_ok=True)
    draw(options.results / "scaling.png", by_length, by_talkers)
    write_report(options.results / "scaling.md", "Scaling", parts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
