#!/usr/bin/env python3
"""Shows where the time of a training step goes, now and in an older version.

    git worktree add /tmp/before 772b831
    python benchmarks/step_profile.py --before /tmp/before

Authors
 * The speechbrain_kmdanet developers 2026
"""

import argparse
import json
import os
import subprocess
import sys

import torch
from options import parse_options
from report import write_report
from steps import BATCH, SECONDS, TrainingStep
from torch.profiler import ProfilerActivity, profile

# Operators, by what they do; all others are small.
KINDS = {
    "BLSTM, forward": ("aten::mkldnn_rnn_layer",),
    "BLSTM, backward": ("aten::mkldnn_rnn_layer_backward",),
    "linear layers": ("aten::mm", "aten::addmm"),
    "thin products over the embeddings": ("aten::bmm", "aten::baddbmm"),
    "copies and sums of gradients": (
        "aten::copy_", "aten::add", "aten::add_", "aten::cat", "aten::fill_",
    ),
    "maxima and their indices": ("aten::argmax", "aten::argmin", "aten::max"),
    "STFT": ("aten::_fft_r2c", "aten::_fft_c2r", "aten::_fft_c2c"),
}  # fmt: skip
REST = "the rest"


def profile_step(iterations, repeats):
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
    attractors = step.masknet.train_attractors
    forward = attractors.forward

    def recorded(*arguments):
        with torch.profiler.record_function("k-means"):
            return forward(*arguments)

    attractors.forward = recorded
    step()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(repeats):
            step()
    seconds = dict.fromkeys([*KINDS, REST, "k-means"], 0.0)
    kinds = {name: kind for kind, names in KINDS.items() for name in names}
    for event in profiler.key_averages():
        kind = kinds.get(event.key, REST)
        seconds[kind] += event.self_cpu_time_total / 1e6 / repeats
        if event.key == "k-means":
            seconds["k-means"] = event.cpu_time_total / 1e6 / repeats
    return seconds


def _profile_other(folder, options):
    """Profiles the package in another folder, in a process of its own."""
    command = [sys.executable, __file__, "--as_json"]
    command += ["--iterations", str(options.iterations)]
    command += ["--repeats", str(options.repeats)]
    command += ["--threads", str(options.threads)]
    output = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": os.path.abspath(folder)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    return json.loads(output.splitlines()[-1])


def _commit(folder):
    """Commit of a checkout."""
    command = ["git", "-C", folder, "rev-parse", "--short", "HEAD"]
    return subprocess.run(
        command, check=True, capture_output=True, text=True
    ).stdout.strip()


def main():
    """Profiles, prints and writes; returns the exit status."""
    parser = argparse.ArgumentParser(
        description="Profiles a training step of the paper's network on the "
        f"CPU ({BATCH} mixtures of {SECONDS:g} s) and writes where its time "
        "goes into RESULTS/step_profile.md."
    )
    parser.add_argument(
        "--before", metavar="FOLDER",
        help="checkout of an older version, to show beside this one",
    )  # fmt: skip
    parser.add_argument(
        "--iterations", type=int, default=5, help="L of k-means (default: 5)"
    )
    parser.add_argument("--as_json", action="store_true", help="print alone")
    options = parse_options(parser, repeats=5)
    if options.as_json:
        print(json.dumps(profile_step(options.iterations, options.repeats)))
        return 0
    columns = {}
    if options.before:
        name = f"before ({_commit(options.before)})"
        columns[name] = _profile_other(options.before, options)
    columns["now"] = profile_step(options.iterations, options.repeats)
    totals = [
        sum(x for kind, x in seconds.items() if kind != "k-means")
        for seconds in columns.values()
    ]
    header = ["self time of"]
    for name in columns:
        header += [f"{name} (s)", "%"]
    lines = [_format_line("all", totals, totals)]
    lines += [
        _format_line(kind, [x[kind] for x in columns.values()], totals)
        for kind in [*KINDS, REST]
    ]
    whole = [x["k-means"] for x in columns.values()]
    lines.append(_format_line("k-means as a whole, forward", whole, totals))
    about = (
        f"A training step of the paper's network, {BATCH} mixtures of "
        f"{SECONDS:g} s, L = {options.iterations}: mean of {options.repeats} "
        "steps under PyTorch's profiler. The last row is part of those above."
    )
    write_report(
        options.results / "step_profile.md",
        "Where the time of a training step goes",
        [about, (header, lines)],
    )
    return 0


def _format_line(label, seconds, totals):
    """Texts of a row."""
    texts = [label]
    for value, total in zip(seconds, totals):
        texts += [f"{value:.3f}", f"{100 * value / total:.0f}"]
    return texts


if __name__ == "__main__":
    sys.exit(main())
