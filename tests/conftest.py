"""Fixtures: tiny data sets, and the recipe run in this process."""

import importlib
import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import synthesis

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "recipes" / "WSJ0Mix" / "separation"
PROBE = Path(__file__).resolve().parent / "probe_train.py"
# Loaders without workers: starting them takes longer than reading.
TINY = {
    "hidden_size": 32,
    "num_layers": 1,
    "embedding_dim": 8,
    "lr": 0.01,
    "batch_size": 4,
    "segment_seconds": 1.0,
    "compute_sdr": False,
    "num_examples": 0,
    "device": "cpu",
    **{
        f"{stage}_loader_options": "{num_workers: 0}"
        for stage in ("train", "valid", "test")
    },
}


def command_line(system, output_folder, *flags, **options):
    """Command line of train.py for a tiny network."""
    options = {**TINY, "output_folder": output_folder, **options}
    arguments = [str(RECIPE / "hparams" / f"{system}.yaml"), "--noprogressbar"]
    for key, value in options.items():
        arguments += [f"--{key}", str(value)]
    return [*arguments, *flags]


@pytest.fixture(scope="session")
def recipe():
    """The recipe's train.py as a module."""
    sys.path.insert(0, str(RECIPE))
    return importlib.import_module("train")


@pytest.fixture(scope="session")
def train(recipe):
    """Runs train.py in this process and returns its exit status."""

    def run(*arguments, **options):
        root, hook = logging.getLogger(), sys.excepthook
        handlers, level = list(root.handlers), root.level
        # SpeechBrain asks pip for the environment, which takes seconds.
        describe = "speechbrain.utils.logger.get_environment_description"
        try:
            with mock.patch(describe, return_value=""):
                return recipe.main(command_line(*arguments, **options))
        finally:
            root.handlers[:], sys.excepthook = handlers, hook
            root.setLevel(level)

    return run


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A corpus, and mixtures of two and of three of its speakers."""
    folder = tmp_path_factory.mktemp("data")
    corpus = folder / "corpus"
    paths = synthesis.write_corpus(corpus)
    two = synthesis.build_set(
        corpus, paths, folder, 2, {"tr": 8, "cv": 2, "tt": 4}
    )
    three = synthesis.build_set(corpus, paths, folder, 3, {"tt": 2})
    return SimpleNamespace(corpus=corpus, two=two, three=three)


@pytest.fixture(scope="session")
def trained(train, data, tmp_path_factory):
    """Output folder of a training that has learned to separate."""
    folder = tmp_path_factory.mktemp("trained")
    status = train(
        "kmeans_danet_spherical",
        folder,
        data_folder=data.two,
        number_of_epochs=6,
        compute_sdr=True,
        num_examples=1,
    )
    assert status == 0
    return folder
