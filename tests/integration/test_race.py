"""Candidates at equal CPU time, on tiny data, with race.py."""

import csv
import json
import logging
import sys
from unittest import mock

import pytest
import race
from recipe_runs import TINY


@pytest.fixture(scope="module")
def results(recipe, data, tmp_path_factory):
    """A race of two trunks: its folder, and how to run it again."""
    folder = tmp_path_factory.mktemp("race")
    (folder / "race.yaml").write_text(
        "small: {trunk: blstm, hidden_size: 8, num_layers: 1}\n"
        "bands: {trunk: dual_path, channels: 4, hidden_size: 4, "
        "num_blocks: 1, frame_size: 4, window_ms: 16}\n"
    )
    calls = []

    def call_train(arguments):
        root, hook = logging.getLogger(), sys.excepthook
        handlers, level = list(root.handlers), root.level
        describe = "speechbrain.utils.logger.get_environment_description"
        calls.append(arguments)
        try:
            with mock.patch(describe, return_value=""):
                return recipe.main([*arguments, "--noprogressbar"])
        finally:
            root.handlers[:], sys.excepthook = handlers, hook
            root.setLevel(level)

    def run(*names):
        calls.clear()
        command = [*names, "--minutes", "0.01", "--evaluations", "2"]
        command += ["--candidates", str(folder / "race.yaml")]
        command += ["--runs", str(folder / "runs")]
        command += ["--results", str(folder / "table"), "--"]
        options = {
            **TINY,
            "data_folder": data.two,
            "dynamic_mixing": data.corpus,
            "segment_seconds": 0.5,
        }
        for key, value in options.items():
            command += [f"--{key}", str(value)]
        with mock.patch("reproduction.runs.call_train", call_train):
            return race.main(command)

    assert run() == 0
    assert len(calls) == 2
    return folder, run, calls


def test_trains_all_for_the_same_time(results):
    folder, _, _ = results
    with (folder / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["candidate"] for row in rows} == {"small", "bands"}
    assert len(rows) == 4
    for name in ("small", "bands"):
        cost = json.loads((folder / "runs" / name / "cost.json").read_text())
        run = json.loads((folder / "runs" / name / "run.json").read_text())
        steps = int(run["settings"]["epoch_size"]) / cost["batch_size"]
        # Half of the time, to the nearest step.
        seconds = cost["step_seconds"]
        assert abs(steps * seconds - 0.3) <= max(0.5, steps == 1) * seconds
        assert 0 < cost["parameters"] < 1e5
    text = (folder / "table.md").read_text()
    assert "| small " in text and "0.00 M" in text
    assert (folder / "table.png").stat().st_size > 5000


def test_a_run_is_made_once(results):
    _, run, calls = results
    assert run() == 0
    assert calls == []


def test_refuses_an_unknown_candidate(results, capsys):
    _, run, _ = results
    assert run("quick") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "has no quick: choose from small, bands" in error
