#!/usr/bin/env python3
"""Trains candidates for equal CPU time, and compares them on cv.

    python race.py --minutes 30 -- --data_folder ROOT --dynamic_mixing CORPUS

A candidate is a line of race.yaml: options of train.py, and its system. Its
steps are timed on one thread first; what fits into the CPU time is its number
of steps, and the schedule of its learning rate ends there. What follows the --
goes to all of them. A run is made once; the same command goes on after an
interruption.
"""

import argparse
import csv
import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import train
from matplotlib.figure import Figure
from reproduction.methods import RECIPE, system_file
from reproduction.runs import Run, describe_sources
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from speechbrain_kmdanet.errors import UserError, one_line, run_command
from speechbrain_kmdanet.utils.jobs import in_new_process, write_whole
from speechbrain_kmdanet.utils.plots import NUMBER
from speechbrain_kmdanet.utils.report import (
    format_markdown,
    format_number,
    hide_paths,
)
from speechbrain_kmdanet.utils.settings import parse_command, positive, show
from speechbrain_kmdanet.utils.yaml_layers import load_settings

SYSTEM = "kmeans_danet_spherical"
# All are trained alike, unless what follows the -- says otherwise.
COMMON = {
    "loss": "si_sdr",
    "schedule": "warm_cool",
    "batch_size": 2,
    "segment_seconds": 4.0,
    "mixing_spks": "[2, 3]",
    "compute_sdr": False,
    "num_examples": 0,
    "device": "cpu",
    # What a worker does would not count as CPU time.
    "train_loader_options": "{num_workers: 0}",
}
TIMED_STEPS, UNTIMED_STEPS = 10, 2


class Cost(NamedTuple):
    """What a candidate costs.

    Arguments
    ---------
    parameters : int
        Number of its parameters.
    step_seconds : float
        CPU time of a step of its training.
    batch_size : int
        Mixtures in a step.
    segment_seconds : float
        Length of a mixture.
    """

    parameters: int
    step_seconds: float
    batch_size: int
    segment_seconds: float


class Line(NamedTuple):
    """What became of a candidate.

    Arguments
    ---------
    name : str
        Its name.
    cost : Cost
        What it costs.
    hours : float
        Hours of mixtures that it was trained on.
    curve : list of (float, float)
        CPU-hours of training and SI-SDRi on cv in dB, after each epoch.
    """

    name: str
    cost: Cost
    hours: float
    curve: list[tuple[float, float]]


def measure_cost(system: str, options: Mapping[str, Any]) -> Cost:
    """Times steps of a training, on one thread.

    Arguments
    ---------
    system : str
        Name of the YAML file.
    options : dict
        Settings of train.py by name.

    Returns
    -------
    Cost
        What it costs.
    """
    torch.set_num_threads(1)
    arguments = [str(system_file(system))]
    for key, value in options.items():
        arguments += [f"--{key}", str(value)]
    steps = UNTIMED_STEPS + TIMED_STEPS
    path, _, overrides = parse_command(arguments)
    hparams = load_settings(path, train.name_mixtures(overrides))
    Path(hparams["save_folder"]).mkdir(parents=True, exist_ok=True)
    loader: Any = train.make_loaders(hparams)[0]
    modules = hparams["modules"]
    brain = train.Separator(modules, hparams["opt_class"], hparams)
    brain.train_data = loader.dataset
    brain.init_optimizers()
    brain.modules.train()
    brain.on_stage_start(train.sb.Stage.TRAIN, epoch=1)
    for step, batch in zip(range(1, steps + 1), loader):
        if step == UNTIMED_STEPS + 1:
            began = time.process_time()
        brain.step = step
        brain.fit_batch(batch)
    seconds = (time.process_time() - began) / (step - UNTIMED_STEPS)
    parameters = sum(x.numel() for x in brain.modules.parameters())
    segment = hparams["segment_seconds"]
    return Cost(parameters, seconds, hparams["batch_size"], segment)


def read_curve(train_log: Path) -> list[tuple[float, float]]:
    """CPU-hours and SI-SDRi on cv after each epoch of a training.

    Arguments
    ---------
    train_log : pathlib.Path
        train_log.txt of the training.

    Returns
    -------
    list of (float, float)
        The curve; an interrupted epoch takes the time of the others.
    """
    text = train_log.read_text(encoding="utf-8")
    seconds, scores = (
        [float(x) for x in re.findall(f"{name}: {NUMBER}", text)]
        for name in ("train cpu_seconds", "valid si_sdri")
    )
    hour = sorted(seconds)[len(seconds) // 2] / 3600
    return [(hour * n, score) for n, score in enumerate(scores, start=1)]


def read_candidates(path: Path) -> dict[str, dict[str, Any]]:
    """Reads the candidates.

    Arguments
    ---------
    path : pathlib.Path
        YAML file.

    Returns
    -------
    dict
        Options by candidate.

    Raises
    ------
    UserError
        If the file holds something else.
    """
    try:
        found = YAML(typ="safe").load(path)
    except (YAMLError, ValueError) as error:
        raise UserError(f"{path} is no YAML file: {one_line(error)}") from error
    if not (
        isinstance(found, dict)
        and found
        and all(isinstance(options, dict) for options in found.values())
    ):
        raise UserError(
            f"{path} must hold candidates, NAME: {{KEY: VALUE}}, got "
            f"{show(found)}"
        )
    return found


def race(
    name: str, candidate: Mapping[str, Any], options: argparse.Namespace
) -> tuple[Run, Line]:
    """Trains a candidate.

    Arguments
    ---------
    name : str
        Its name.
    candidate : dict
        Its options.
    options : argparse.Namespace
        The command line.

    Returns
    -------
    Run
        Its run.
    Line
        What became of it.
    """
    folder = options.runs / name
    own = dict(candidate)
    system = own.pop("system", SYSTEM)
    settings = {
        **COMMON,
        **own,
        **options.overrides,
        "output_folder": folder,
        "test_folder": folder,
    }
    measured = folder / "cost.json"
    if not measured.is_file():
        size = "epoch_size", (TIMED_STEPS + UNTIMED_STEPS) * 32
        cost = in_new_process(
            measure_cost, system, {**settings, size[0]: size[1]}
        )
        with write_whole(measured) as path:
            path.write_text(json.dumps(cost._asdict()), encoding="utf-8")
    cost = Cost(**json.loads(measured.read_text(encoding="utf-8")))
    steps = 60 * options.minutes / options.evaluations / cost.step_seconds
    size = max(1, round(steps)) * cost.batch_size
    settings["number_of_epochs"] = options.evaluations
    settings["epoch_size"] = size
    hours = options.evaluations * size * cost.segment_seconds / 3600
    run = Run(name, folder, folder, name, system, settings, hours, 0)
    run.execute(options.command)
    return run, Line(name, cost, hours, read_curve(folder / "train_log.txt"))


def write_results(
    lines: Sequence[Line], runs: Sequence[Run], options: argparse.Namespace
) -> str:
    """Writes the table, as Markdown and CSV, and the picture of the curves.

    Arguments
    ---------
    lines : sequence of Line
        What became of the candidates.
    runs : sequence of Run
        Their runs.
    options : argparse.Namespace
        The command line.

    Returns
    -------
    str
        The Markdown.
    """
    lines = sorted(lines, key=lambda line: -line.curve[-1][1])
    header = ["candidate", "parameters", "s/step", "hours of mixtures"]
    header += [f"cv at {x[0]:.2f} CPU-h" for x in lines[0].curve]
    rows = [
        [
            line.name,
            f"{line.cost.parameters / 1e6:.2f} M",
            format_number(line.cost.step_seconds, 3),
            format_number(line.hours, 1),
            *(format_number(score) for _, score in line.curve),
        ]
        for line in lines
    ]
    text = (
        "# Candidates at equal CPU time\n\nSI-SDRi in dB on cv.\n\n"
        f"{format_markdown(header, rows)}\n{describe_sources(runs)}\n"
    )
    with write_whole(options.results.with_suffix(".md")) as path:
        path.write_text(text, encoding="utf-8")
    with (
        write_whole(options.results.with_suffix(".csv")) as path,
        path.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["candidate", "cpu_hours", "cv_si_sdri"])
        for line in lines:
            for hours, score in line.curve:
                writer.writerow([line.name, f"{hours:.4f}", f"{score:.2f}"])
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis = figure.subplots()
    for line in lines:
        axis.plot(*zip(*line.curve), marker=".", label=line.name)
    axis.set(xlabel="CPU-hours of training", ylabel="SI-SDRi on cv (dB)")
    axis.grid(alpha=0.3)
    axis.legend()
    with write_whole(options.results.with_suffix(".png")) as path:
        figure.savefig(path, dpi=110, format="png")
    return text


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Parses the command line.

    Arguments
    ---------
    arguments : sequence of str
        The command line without the name of the program.

    Returns
    -------
    argparse.Namespace
        The options; overrides is what follows "--", values by name.
    """
    parser = argparse.ArgumentParser(
        prog="race.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [NAME ...] [options] -- --data_folder ROOT "
        "--dynamic_mixing CORPUS [--KEY VALUE ...]",
        allow_abbrev=False,
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="candidates (default: all)"
    )
    add = parser.add_argument
    add("--candidates", type=Path, default=RECIPE / "race.yaml", metavar="FILE")
    add(
        "--minutes",
        type=positive(float),
        default=30.0,
        help="CPU time of a training, without validation (default: 30)",
    )
    add(
        "--evaluations",
        type=positive(int),
        default=4,
        metavar="N",
        help="points of a curve (default: 4)",
    )
    add(
        "--runs",
        type=Path,
        default=RECIPE / "results" / "race",
        metavar="FOLDER",
    )
    add(
        "--results",
        type=Path,
        default=RECIPE.parents[2] / "results" / "race",
        metavar="FILE",
        help="table and picture, without a suffix (default: results/race)",
    )
    split = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser.parse_args(arguments[:split])
    words = list(arguments[split + 1 :])
    keys, values = words[::2], words[1::2]
    if len(keys) != len(values) or not all(x.startswith("--") for x in keys):
        parser.error("expected pairs of --KEY VALUE behind --")
    options.overrides = {key[2:]: x for key, x in zip(keys, values)}
    if len(options.overrides) < len(keys):
        parser.error("an option behind -- is given twice")
    return options


def run(arguments: list[str]) -> None:
    """Trains the candidates, and writes the table.

    Arguments
    ---------
    arguments : list of str
        The command line without the name of the program.

    Raises
    ------
    UserError
        If a candidate is unknown, or train.py fails.
    """
    options = parse_arguments(arguments)
    options.command = hide_paths(["python", "race.py", *arguments])
    candidates = read_candidates(options.candidates)
    unknown = [x for x in options.names if x not in candidates]
    if unknown:
        raise UserError(
            f"{options.candidates} has no {unknown[0]}: choose from "
            f"{', '.join(candidates)}"
        )
    done = [
        race(name, candidates[name], options)
        for name in options.names or candidates
    ]
    runs, lines = zip(*done)
    print(write_results(lines, runs, options))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line, see :func:`run`; returns the exit status."""
    return run_command("race.py", run, arguments)


if __name__ == "__main__":
    sys.exit(main())
