"""Fixtures: tiny data sets, and the recipe run in this process."""

import importlib
import logging
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import synthesis
import torch
from recipe_runs import MINIMIX, command_line
from speechbrain.utils import importutils

# Tensors are small here: a second thread would only wait, and on a busy machine
# for long. Tests of threads say how many there are.
torch.set_num_threads(1)

# A shell has its background jobs ignore Ctrl-C, and their children with them:
# tests of interruptions would wait for what never comes.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What Hypothesis keeps lies in pytest's cache.
CACHE = Path(__file__).parents[1] / ".pytest_cache" / "hypothesis"
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(CACHE))

# Hypothesis asks every module for its file, which would import the lazy ones of
# SpeechBrain; some of them need packages that are not there.
if hasattr(importutils, "LazyModule"):
    importutils.LazyModule.__file__ = None


@pytest.fixture(scope="session")
def recipe():
    """The recipe's train.py as a module."""
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
    three = synthesis.build_set(
        corpus, paths, folder, 3, {"tr": 4, "cv": 2, "tt": 2}
    )
    return SimpleNamespace(corpus=corpus, two=two, three=three)


@pytest.fixture(scope="session")
def minimix(tmp_path_factory):
    """Folder of the demo's data: synthetic speech, a tiny set of it."""
    from recipes.MiniMix.prepare import prepare_minimix

    folder = tmp_path_factory.mktemp("minimix")
    prepare_minimix(folder, workers=2, **MINIMIX)
    return folder


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
