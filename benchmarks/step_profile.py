#!/usr/bin/env python3
"""Shows where the time of a training step goes, now and in an older version.

git worktree add /tmp/before cee5824
python benchmarks/step_profile.py --before /tmp/before
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from measure import parse_options, report
from subjects import BATCH, SECONDS, TrainingStep
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from speechbrain_kmdanet.errors import UserError, run_command
from speechbrain_kmdanet.nnet.attractors import AttractorEstimator

# Operators, by what they do; all others are small.
KINDS = {
    "BLSTM, forward": "mkldnn_rnn_layer",
    "BLSTM, backward": "mkldnn_rnn_layer_backward",
    "linear layers": "mm addmm",
    "thin products over the embeddings": "bmm baddbmm",
    "copies and sums of gradients": "copy_ add add_ cat fill_",
    "maxima and their indices": "argmax argmin max",
    "STFT": "_fft_r2c _fft_c2r _fft_c2c",
}
REST = "the rest"
KMEANS = "k-means"
Profile = dict[str, float]


class Recorded(AttractorEstimator):
    """Attractors of another estimator, as one event of the profile.

    Arguments
    ---------
    estimator : AttractorEstimator
        The other.
    """

    def __init__(self, estimator: AttractorEstimator):
        super().__init__()
        self.estimator = estimator

    def estimate(self, *arguments: Any) -> Tensor:
        """Attractors [B, K, D] of the other."""
        with torch.profiler.record_function(KMEANS):
            return self.estimator(*arguments)


def profile_step(iterations: int, repeats: int) -> Profile:
    """Profiles steps.

    Arguments
    ---------
    iterations : int
        Iterations L of k-means.
    repeats : int
        Number of steps; one more comes first and does not count.

    Returns
    -------
    dict
        Seconds a step by kind of operator, "k-means" those of the clustering
        as a whole, which also count where they belong.
    """
    step = TrainingStep(iterations)
    step.masknet.train_attractors = Recorded(step.masknet.train_attractors)
    step()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(repeats):
            step()
    seconds = dict.fromkeys([*KINDS, REST, KMEANS], 0.0)
    kinds = {f"aten::{x}": kind for kind in KINDS for x in KINDS[kind].split()}
    for event in profiler.key_averages():
        kind = kinds.get(event.key, REST)
        seconds[kind] += event.self_cpu_time_total / 1e6 / repeats
        if event.key == KMEANS:
            seconds[KMEANS] = event.cpu_time_total / 1e6 / repeats
    return seconds


def _profile_other(folder: str, options: argparse.Namespace) -> Profile:
    """Profiles an older version by its own script, with its own package."""
    script = Path(folder, "benchmarks", "step_profile.py").absolute()
    if not script.is_file():
        raise UserError(
            f"--before: expected a checkout with benchmarks/{script.name}, "
            f"but {folder} has none: check a later commit out"
        )
    command = [sys.executable, str(script), "--as_json"]
    for name in ("iterations", "repeats", "threads"):
        command += [f"--{name}", str(getattr(options, name))]
    output = _output(command, PYTHONPATH=os.path.abspath(folder))
    return json.loads(output.splitlines()[-1])


def _output(command: list[str], **environment: str) -> str:
    """What a program writes."""
    return subprocess.run(
        command,
        env={**os.environ, **environment},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout.strip()


def _format_row(
    label: str, seconds: list[float], totals: list[float]
) -> list[str]:
    """Texts of a row."""
    texts = [label]
    for value, total in zip(seconds, totals):
        texts += [f"{value:.3f}", f"{100 * value / total:.0f}"]
    return texts


def run(arguments: list[str]) -> None:
    """Profiles, prints and writes.

    Arguments
    ---------
    arguments : list of str
        Command line without the program.

    Raises
    ------
    UserError
        If the older version has no such program.
    """
    parser = argparse.ArgumentParser(
        description="Profiles a training step of the paper's network on the "
        f"CPU ({BATCH} mixtures of {SECONDS:g} s) and writes where its time "
        "goes into RESULTS/step_profile.md."
    )
    add = parser.add_argument
    text = (
        "checkout of an older version, to show beside this one: its own "
        "benchmarks/step_profile.py (commit 6cc3d50 or later) profiles it"
    )
    add("--before", metavar="FOLDER", help=text)
    text = "L of k-means (default: 5)"
    add("--iterations", type=int, default=5, help=text)
    add("--as_json", action="store_true", help="print alone")
    options = parse_options(parser, 5, arguments)
    columns = {}
    if options.before and not options.as_json:
        before = _profile_other(options.before, options)
        command = ["git", "-C", options.before, "rev-parse", "--short", "HEAD"]
        columns[f"before ({_output(command)})"] = before
    columns["now"] = profile_step(options.iterations, options.repeats)
    if options.as_json:
        return print(json.dumps(columns["now"]))
    header = ["self time of"]
    for name in columns:
        header += [f"{name} (s)", "%"]
    profiles = list(columns.values())
    totals = [sum(x.values()) - x[KMEANS] for x in profiles]
    lines = [_format_row("all", totals, totals)]
    for kind in [*KINDS, REST, KMEANS]:
        label = f"{kind} as a whole, forward" if kind == KMEANS else kind
        lines.append(_format_row(label, [x[kind] for x in profiles], totals))
    about = (
        f"A training step of the paper's network, {BATCH} mixtures of "
        f"{SECONDS:g} s, L = {options.iterations}: mean of {options.repeats} "
        "steps under PyTorch's profiler. The last row is part of those above."
    )
    report(
        options.results / "step_profile.md",
        "Where the time of a training step goes",
        [about, (header, lines)],
    )


if __name__ == "__main__":
    sys.exit(run_command("step_profile.py", run))
