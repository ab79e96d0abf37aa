"""Every YAML file of the recipe, on the data of the demo."""

import json
import math
import re

import pytest
from recipe_runs import RECIPE

SYSTEMS = sorted(path.stem for path in (RECIPE / "hparams").glob("*.yaml"))


@pytest.mark.parametrize("system", SYSTEMS)
def test_trains_two_epochs_and_evaluates(train, minimix, tmp_path, system):
    options = dict(number_of_epochs=2, batch_size=2, segment_seconds=0.5)
    data_folder = minimix / "2speakers"
    assert train(system, tmp_path, data_folder=data_folder, **options) == 0
    summary = tmp_path / "test_2speakers" / "summary.json"
    scores = json.loads(summary.read_text())
    assert scores["utterances"] == scores["si_sdri"]["scored"] == 2
    assert math.isfinite(scores["si_sdri"]["mean"])
    if system == "oracle":
        assert scores["si_sdri"]["mean"] > 5
        return
    log = (tmp_path / "train_log.txt").read_text()
    assert re.findall(r"^epoch: (\d+)", log, re.M) == ["1", "2"]
    weights = list((tmp_path / "pretrained").glob("*.ckpt"))
    assert "masknet.ckpt" in {path.name for path in weights}
