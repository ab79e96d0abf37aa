"""Systems that differ in their attractors: trained, tested and loaded."""

import json
from types import SimpleNamespace

import pytest
import torch

from speechbrain_kmdanet.inference.separation import AttractorSeparation
from speechbrain_kmdanet.nnet import attractors


@pytest.fixture(
    scope="module",
    params=["adanet", "danet_fixed", "kmeans_danet_spherical_plus"],
)
def system(request, train, data, tmp_path_factory):
    """A system after two epochs, its output folder and its separator."""
    folder = tmp_path_factory.mktemp(request.param)
    status = train(
        request.param, folder, data_folder=data.two, number_of_epochs=2
    )
    assert status == 0
    separator = AttractorSeparation.from_hparams(folder / "pretrained")
    return SimpleNamespace(
        name=request.param, folder=folder, separator=separator
    )


def test_the_test_has_results(system):
    results = system.folder / "test_2speakers" / "summary.json"
    summary = json.loads(results.read_text())
    assert summary["utterances"] == summary["si_sdri"]["scored"] == 4
    assert summary["weights"].startswith("epoch ")
    log = (system.folder / "log.txt").read_text()
    assert "tr.csv: 8 mixtures, 0.0 h (wsj0-2mix: 30 h)" in log


def test_the_pretrained_folder_separates(system, monkeypatch):
    # what was found in the evaluation is not found again
    if system.name == "danet_fixed":
        monkeypatch.delattr(attractors, "kmeans")
    mixtures = torch.randn(3, 4001)
    sources = system.separator.separate_batch(mixtures, num_spks=2)
    assert sources.shape == (3, 4001, 2)
    torch.testing.assert_close(sources.sum(2), mixtures, atol=1e-4, rtol=0)
    # not two halves of it
    assert (sources[..., 0] - sources[..., 1]).abs().max() > 1e-2


def test_attractors_of_the_loaded_separator(system):
    masknet = system.separator.mods.masknet
    if system.name == "kmeans_danet_spherical_plus":
        assert masknet.train_attractors.iterations == 10
        assert masknet.train_attractors.metric == "spherical"
        assert masknet.infer_attractors.iterations == 20
        return
    attractors = masknet.train_attractors
    assert masknet.infer_attractors is attractors
    if system.name == "danet_fixed":
        # 8 mixtures in each of 2 epochs, or in 1 if that one was the best
        assert attractors.recorded[1] in (8, 16)
        assert (attractors.fitted == attractors.recorded).all()
        with pytest.raises(ValueError, match="num_spks=3 were never fitted"):
            system.separator.separate_batch(torch.randn(1, 4001), num_spks=3)


def test_anchors_are_trained(train, data, tmp_path):
    anchors = []
    for lr in (1e-30, 0.01):
        folder = tmp_path / str(lr)
        options = dict(number_of_epochs=1, lr=lr, num_anchors=3)
        assert train("adanet", folder, data_folder=data.two, **options) == 0
        state = torch.load(
            folder / "pretrained" / "masknet.ckpt", weights_only=True
        )
        anchors.append(state["infer_attractors.anchors"])
        assert (state["train_attractors.anchors"] == anchors[-1]).all()
    assert anchors[0].shape == (3, 8)
    # Adam's two steps, at most lr each
    change = (anchors[1] - anchors[0]).abs().max()
    assert 0.005 < change < 0.021


@pytest.mark.parametrize("metric", ["euclidean", "spherical"])
def test_the_schedule_of_the_longer_training_is_stretched(
    recipe, metric, tmp_path
):
    name = f"hparams/kmeans_danet_{metric}_plus.yaml"
    path = recipe.__file__.replace("train.py", name)
    options = {"data_folder": "unused", "output_folder": str(tmp_path)}
    hparams = recipe.load_settings(path, options)
    assert hparams["number_of_epochs"] == 700
    train_attractors = hparams["masknet"].train_attractors
    assert train_attractors.metric == metric
    assert train_attractors.iterations == 10
    steps = [step["steps"] for step in hparams["lr_scheduler"].intervals]
    assert steps == [300, 450, 600, 650]
