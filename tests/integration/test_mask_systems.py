"""Deep clustering and mask inference with train.py, on tiny data."""

import json
import re
from dataclasses import replace

import pytest
import torch

from speechbrain_kmdanet.inference.separation import AttractorSeparation

ANY_NUMBER = ("dpcl", "dpcl_plus")  # of talkers, with one network
# SI-SDRi after two epochs in dB; masks are learned more slowly than clusters.
LEARNED = {"dpcl": 4.0, "dpcl_plus": 4.0, "chimera": 0.2, "upit": 0.2}


def refused(capsys, status):
    """Message of the one line with which train.py ends."""
    assert status == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize("system", LEARNED)
def test_training_evaluation_and_separation(train, data, tmp_path, system):
    options = dict(data_folder=data.two, number_of_epochs=2)
    assert train(system, tmp_path, **options) == 0
    log = (tmp_path / "train_log.txt").read_text()
    assert re.findall(r"^epoch: (\d+)", log, re.M) == ["1", "2"]
    losses = re.findall(r"loss: ([-+.\de]+)", log)
    assert len(losses) == 4 and all(0 < float(loss) < 10 for loss in losses)
    summary = tmp_path / "test_2speakers" / "summary.json"
    scores = json.loads(summary.read_text())
    assert scores["utterances"] == 4
    assert scores["si_sdri"]["mean"] > LEARNED[system]

    separator = AttractorSeparation.from_hparams(tmp_path / "pretrained")
    mixtures = torch.randn(2, 4001)
    sources = separator.separate_batch(mixtures)
    assert sources.shape == (2, 4001, 2) and sources.isfinite().all()
    if system in ANY_NUMBER:
        sources = separator.separate_batch(mixtures, num_spks=3)
        torch.testing.assert_close(sources.sum(2), mixtures, atol=1e-4, rtol=0)
    else:
        with pytest.raises(ValueError, match="only, got num_spks=3"):
            separator.separate_batch(mixtures, num_spks=3)


def test_stages(recipe, train, data, tmp_path, monkeypatch):
    calls = []

    def note(name, objective):
        def noted(separation):
            calls.append((name, separation.masks is None))
            return objective(separation)

        return replace(objective, loss=noted)

    for name, objective in recipe.OBJECTIVES.items():
        monkeypatch.setitem(recipe.OBJECTIVES, name, note(name, objective))
    options = dict(data_folder=data.two, pretraining_epochs=1)
    assert train("dpcl_plus", tmp_path, number_of_epochs=2, **options) == 0
    # In each epoch 8 mixtures in two batches, and 2 for validation alone.
    pretraining = 2 * [("affinity", True)] + 2 * [("affinity", False)]
    # Then the final loss alone, also in the test of 4 mixtures.
    assert calls == pretraining + 8 * [("magnitude", False)]
    # A training that is over is only tested, and that with the final loss.
    calls.clear()
    assert train("dpcl_plus", tmp_path, number_of_epochs=2, **options) == 0
    assert calls == 4 * [("magnitude", False)]


@pytest.mark.parametrize(
    "system, options, expected",
    [
        (
            "dpcl",
            dict(loss="si_sdr"),
            "loss si_sdr needs masks, and dpcl makes none",
        ),
        (
            "upit",
            dict(loss="affinity"),
            "loss affinity needs embeddings, and upit makes",
        ),
        ("upit", dict(embedding_dim=8), "must have num_spks=2 outputs a bin"),
        (
            "dpcl_plus",
            dict(pretraining_loss="affine"),
            "pretraining_loss must be one of ('magnitude', ",
        ),
        (
            "dpcl",
            dict(pretraining_epochs=1),
            "pretraining_loss must be one of ('magnitude', ",
        ),
        (
            "dpcl",
            dict(threshold_db=-40),
            "threshold_db must be a positive number",
        ),
    ],
)
def test_wrong_options(
    train, data, tmp_path, capsys, system, options, expected
):
    options = {"data_folder": data.two, **options}
    assert expected in refused(capsys, train(system, tmp_path, **options))
