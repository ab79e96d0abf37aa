"""The recipe of what a separator knows of talkers: trained, added, measured."""

import os
import shutil
import subprocess
import sys

import pytest
import torch
from recipe_runs import ROOT
from tiny_separator import write_separator

from speechbrain_kmdanet.inference.separation import AttractorSeparation
from speechbrain_kmdanet.lobes.models.counting import TalkerCounter
from speechbrain_kmdanet.utils.export import add_module

RECIPE = ROOT / "recipes" / "Talkers"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_separator(tmp_path_factory.mktemp("separator"))


def run(script, *arguments, cwd):
    """Runs a script of the recipe."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, str(RECIPE / script), *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_separator_learns_to_count_and_voices(source, data, tmp_path):
    folder = tmp_path / "separator"
    shutil.copytree(source, folder)
    mixture = torch.randn(1, 8000)
    before = AttractorSeparation.from_hparams(folder).separate_batch(mixture)
    for what in ("counter", "voice"):
        options = ["--separator", folder, "--minutes", "0.02"]
        if what == "counter":
            options += ["--calibrate", data.two, data.three]
        made = run(
            "train_talkers.py", what, data.corpus, *options, cwd=tmp_path
        )
        assert made.returncode == 0, made.stderr
    separator = AttractorSeparation.from_hparams(folder)
    assert torch.equal(separator.separate_batch(mixture), before)
    count = separator.count_batch(mixture)
    assert 1 <= int(count.num_spks) <= 4 and 0 < float(count.confidence) <= 1
    torch.testing.assert_close(count.chances.sum(1), torch.ones(1))
    sources = separator.separate_batch(mixture, "auto")
    assert sources.shape[2] == int(count.num_spks)
    assert separator.voice(mixture[0]).shape == (separator.voice_size,)
    made = run(
        "evaluate_counting.py",
        *(data.two, data.three, "--separator", folder),
        *("--output", tmp_path / "counting"),
        cwd=tmp_path,
    )
    assert made.returncode == 0, made.stderr
    table = (tmp_path / "counting.md").read_text(encoding="utf-8")
    assert "Told apart: 1 and 2: " in table
    rows = [line.split("|") for line in table.splitlines()]
    # Two talkers of four mixtures, each with one alone; three of two mixtures.
    counted = {
        int(row[1]): sum(map(int, row[2:6]))
        for row in rows
        if row[1:] and row[1].strip().isdecimal()
    }
    assert counted == {1: 4, 2: 4, 3: 2}


def test_a_batch_of_different_numbers(source, tmp_path):
    folder = tmp_path / "separator"
    shutil.copytree(source, folder)
    options = {"num_bins": 65, "channels": [4, 4, 4], "hidden_size": 8}
    add_module(folder, "counter", TalkerCounter(**options), options)
    separator = AttractorSeparation.from_hparams(folder)
    mixtures = torch.randn(3, 8000)
    # One that says of each what it is to say.
    wanted = torch.tensor([1, 3, 2])
    logits = torch.nn.functional.one_hot(wanted - 1, 4).float()
    separator.mods.counter.forward = lambda spectrum, num_frames: logits
    # The trunk runs once for all of them.
    trunk, runs = separator.mods.masknet.embedding_net, []
    trunk.register_forward_hook(lambda *_: runs.append(1))
    sources, count = separator.separate_counted(mixtures)
    assert len(runs) == 1
    assert torch.equal(count.num_spks, wanted)
    assert sources.shape == (3, 8000, 3)
    for item, number in enumerate(wanted.tolist()):
        alone = separator.separate_batch(mixtures[item, None], number)[0]
        torch.testing.assert_close(
            sources[item, :, :number], alone, rtol=0, atol=1e-5
        )
        assert not sources[item, :, number:].any()
    # No more than are asked for.
    assert separator.separate_counted(mixtures, most=2)[0].shape[2] <= 2


def test_what_is_added_replaces_what_was(source, tmp_path):
    folder = tmp_path / "separator"
    shutil.copytree(source, folder)
    options = {"num_bins": 65, "channels": [4, 4, 4], "hidden_size": 8}
    for size in (8, 16):
        options["hidden_size"] = size
        counter = TalkerCounter(**options)
        add_module(folder, "counter", counter, options)
    separator = AttractorSeparation.from_hparams(folder)
    loaded = separator.mods.counter.state_dict()
    for name, value in counter.state_dict().items():
        torch.testing.assert_close(
            loaded[name], value, rtol=1e-3, atol=1e-3, check_dtype=False
        )
