#!/usr/bin/env python3
"""How well a separator counts talkers, and what that does to its sources.

python evaluate_counting.py DATA/2speakers DATA/3speakers --output results/counting
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from counted_sets import read_counted
from scipy.optimize import linear_sum_assignment
from tqdm import tqdm

from speechbrain_kmdanet.errors import run_command
from speechbrain_kmdanet.inference.separation import AttractorSeparation
from speechbrain_kmdanet.nnet.loss.separation import si_sdr
from speechbrain_kmdanet.utils.report import write_report

NOTES = (
    "A row is a true number of talkers, the columns the counted ones. Of two "
    "numbers, a mixture of one of them is right where the other is not the "
    "likelier. SI-SDRi: talkers whom no source is left for have none."
)


def improvement(
    mixture: torch.Tensor, sources: torch.Tensor, estimates: torch.Tensor
) -> float:
    """SI-SDRi in dB, the best sources for the talkers.

    Arguments
    ---------
    mixture : torch.Tensor
        The mixture [L].
    sources : torch.Tensor
        Its talkers [L, K].
    estimates : torch.Tensor
        Any number of sources [L, J].

    Returns
    -------
    float
        The mean of the talkers; one without a source has 0.

    Example
    -------
    >>> sources = torch.eye(4)[:, :2] + 0.1
    >>> improvement(sources.sum(1), sources, sources.sum(1, keepdim=True))
    0.0
    """
    count, made = sources.shape[1], estimates.shape[1]
    before = si_sdr(mixture.expand(count, -1), sources.T)  # [K]
    scores = torch.stack(
        [si_sdr(x.expand(count, -1), sources.T) for x in estimates.T], 1
    )  # [K, J]
    gains = (scores - before.unsqueeze(1)).clamp(-30.0, 80.0).numpy()
    talkers, chosen = linear_sum_assignment(gains, maximize=True)
    return float(gains[talkers, chosen].sum() / count) if made else 0.0


def run(arguments: list[str]) -> None:
    """Counts, separates and writes the table, as the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("data", nargs="+", metavar="DATA", help="folders as of WSJ0-mix")
    add("--separator", metavar="SOURCE", help="default: the packaged one")
    add("--split", default="tt", choices=["cv", "tt"], help="default: tt")
    add("--most", type=int, help="mixtures of a folder (default: all)")
    add("--output", required=True, metavar="PATH", help="writes PATH.md")
    options = parser.parse_args(arguments)
    separator: Any = AttractorSeparation.from_hparams(options.separator)
    counts = separator.mods.counter.max_spks if separator.can_count else 0
    confusions = np.zeros((counts, counts), int)
    pairs = np.zeros((counts, 2), int)  # right and all, of k against k + 1
    gains: list[list[tuple[float, float]]] = [[] for _ in range(counts)]
    for each in tqdm(read_counted(options.data, options.split, options.most)):
        mix, true = each.mixture.unsqueeze(0), each.sources.shape[1]
        chances = separator.count_batch(mix).chances[0].cpu()
        confusions[true - 1, int(chances.argmax())] += 1
        for lower in {true - 1, true} & {*range(1, counts)}:
            likelier = lower + int(chances[lower] > chances[lower - 1])
            pairs[lower - 1] += likelier == true, 1
        if true > 1:
            sources = [
                separator.separate_batch(mix, count)[0].cpu()
                for count in ("auto", true)
            ]
            gains[true - 1].append(
                tuple(
                    improvement(each.mixture, each.sources, x) for x in sources
                )
            )
    lines = []
    for true, row in enumerate(confusions, 1):
        if row.sum():
            own = (
                np.mean(gains[true - 1], 0) if gains[true - 1] else [np.nan] * 2
            )
            figures = ["–" if np.isnan(x) else f"{x:.2f}" for x in own]
            lines.append([str(true), *map(str, row), *figures])
    header = ["talkers", *map(str, range(1, counts + 1))]
    header += ["SI-SDRi, counted (dB)", "SI-SDRi, known (dB)"]
    told = ", ".join(
        f"{lower} and {lower + 1}: {100 * right / every:.1f} %"
        for lower, (right, every) in enumerate(pairs, 1)
        if every and confusions[lower].sum() and confusions[lower - 1].sum()
    )
    text = write_report(
        Path(f"{options.output}.md"),
        f"Talkers counted ({options.split})",
        [(header, lines), f"Told apart: {told}.", NOTES],
    )
    sys.stdout.write(text)


def main() -> int:
    """Runs the command line; returns the exit status."""
    return run_command("evaluate_counting.py", run)


if __name__ == "__main__":
    sys.exit(main())
