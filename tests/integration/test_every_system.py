"""Every YAML file of the recipe, with every trunk, on the data of the demo."""

import json
import math
import re

import pytest
from recipe_runs import BESIDE, OWN, ROOT, SYSTEMS
from tiny_trunk import SETTINGS

from speechbrain_kmdanet.inference.separation import AttractorSeparation
from speechbrain_kmdanet.utils.yaml_layers import read_layers

WITH_TRUNK = sorted(set(SYSTEMS) - set(OWN))
EPOCHS = dict(number_of_epochs=2, batch_size=2, segment_seconds=0.5)


def outputs_of(system):
    """Outputs a bin: masks of some systems, embeddings of others."""
    return BESIDE.get(system, {}).get("embedding_dim", 8)


def assert_trained_and_evaluated(folder, system):
    summary = folder / "test_2speakers" / "summary.json"
    scores = json.loads(summary.read_text())
    assert scores["utterances"] == scores["si_sdri"]["scored"] == 2
    assert math.isfinite(scores["si_sdri"]["mean"])
    if system == "oracle":
        assert scores["si_sdri"]["mean"] > 5
        return
    log = (folder / "train_log.txt").read_text()
    assert re.findall(r"^epoch: (\d+)", log, re.M) == ["1", "2"]
    weights = list((folder / "pretrained").glob("*.ckpt"))
    assert "masknet.ckpt" in {path.name for path in weights}


@pytest.mark.parametrize("system", SYSTEMS)
def test_trains_two_epochs_and_evaluates(train, minimix, tmp_path, system):
    data_folder = minimix / "2speakers"
    assert train(system, tmp_path, data_folder=data_folder, **EPOCHS) == 0
    assert_trained_and_evaluated(tmp_path, system)


@pytest.mark.parametrize("system", WITH_TRUNK)
def test_the_dual_path_trunk(train, minimix, tmp_path, system):
    sizes = {"channels": 8, "hidden_size": 8, "num_blocks": 1}
    status = train(
        system,
        tmp_path,
        sizes={**sizes, "embedding_dim": outputs_of(system)},
        trunk="dual_path",
        data_folder=minimix / "2speakers",
        **EPOCHS,
    )
    assert status == 0
    assert_trained_and_evaluated(tmp_path, system)


@pytest.mark.parametrize("system", WITH_TRUNK)
def test_another_trunk_costs_a_class_and_a_file(
    train, minimix, tmp_path, system
):
    path = tmp_path / "tiny.yaml"
    path.write_text(SETTINGS.format(stft=ROOT / "hparams" / "stft.yaml"))
    output = tmp_path / "output"
    status = train(
        system,
        output,
        sizes={"embedding_dim": outputs_of(system)},
        trunk=path.with_suffix(""),
        data_folder=minimix / "2speakers",
        **EPOCHS,
    )
    assert status == 0
    assert_trained_and_evaluated(output, system)
    # The separator is loaded without the files of the layers.
    path.unlink()
    folder = output / "pretrained"
    with pytest.raises(ValueError, match="TinyTrunk.*trust=True"):
        AttractorSeparation.from_hparams(folder)
    separator = AttractorSeparation.from_hparams(folder, trust=True)
    net = separator.mods.masknet
    trunk = getattr(net, "embedding_net", None) or net.trunk
    assert type(trunk).__name__ == "TinyTrunk"


def test_sizes_of_a_trunk_belong_to_it(tmp_path):
    # Layers of a trunk that was not chosen leave no keys behind.
    path = tmp_path / "tiny.yaml"
    path.write_text(SETTINGS.format(stft=ROOT / "hparams" / "stft.yaml"))
    model = ROOT / "hparams" / "kmeans_danet.yaml"
    keys = read_layers(model, {"trunk": str(path.with_suffix(""))})
    assert "width" in keys and "hidden_size" not in keys
    assert "hidden_size" in read_layers(model)
