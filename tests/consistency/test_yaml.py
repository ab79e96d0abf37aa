"""Every YAML file loads, fits together and has no key that nothing uses.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import re
import sys
from pathlib import Path

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.run_opts import RunOptions

ROOT = Path(__file__).resolve().parents[2]
MODELS = sorted((ROOT / "hparams").glob("*.yaml"))
RECIPE = ROOT / "recipes" / "WSJ0Mix" / "separation"
RECIPES = sorted((RECIPE / "hparams").glob("*.yaml"))
DEFAULTS = sorted((RECIPE / "hparams" / "defaults").glob("*.yaml"))
# Just large enough to run; a system has some of these keys.
SMALL = {
    "hidden_size": 16,
    "num_layers": 1,
    "num_filters": 8,
    "bottleneck_size": 8,
    "num_blocks": 2,
    "num_repeats": 1,
    "num_heads": 2,
    "chunk_size": 20,
}


@pytest.fixture
def load_settings():
    """Reads the file of a system with its defaults."""
    sys.path.insert(0, str(RECIPE))
    from settings import load_settings

    return load_settings


def load(path, **overrides):
    """Loads the YAML file of a model."""
    with open(path, encoding="utf-8") as file:
        return load_hyperpyyaml(file, overrides)


def small_options(*paths):
    """Those of SMALL for keys that the files have."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in paths)
    keys = re.findall(r"^(\w+):", text, re.MULTILINE)
    return {key: SMALL[key] for key in keys if key in SMALL}


def assert_separates(model):
    """A mixture goes through encoder, masknet and decoder, in both modes."""
    mixture = torch.randn(1, 3000)
    spectrum = model["encoder"](mixture)
    sources = torch.randn(1, 2, *spectrum.shape[1:], dtype=spectrum.dtype)
    for training in (True, False):
        masknet = model["masknet"].train(training)
        with torch.no_grad():
            masks = masknet(spectrum, sources=sources)
        waveforms = model["decoder"](masks[0] * spectrum)
        assert waveforms.shape[1] >= 3000 and waveforms.isfinite().all()


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.name)
def test_models(path):
    overrides = small_options(path)
    if "trunk: " in path.read_text(encoding="utf-8"):
        overrides["trunk"] = small_options(path.with_name("spectral.yaml"))
    model = load(path, **overrides)
    if "masknet" in model:
        assert_separates(model)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_recipes(path, tmp_path, load_settings):
    text = path.read_text(encoding="utf-8")
    taken = [file for file in DEFAULTS if file.name in text]
    options = small_options(path, *taken)
    options.update(data_folder="unused", output_folder=str(tmp_path))
    hparams = load_settings(str(path), options)
    assert hparams["system"] == path.stem
    assert_separates(hparams["model"])
    # Brain trains these, and the checkpointer saves all that have weights.
    modules = hparams["modules"]
    assert set(modules) == {"encoder", "masknet", "decoder"}
    for name, module in modules.items():
        if name == "masknet" or module.state_dict():
            assert hparams["checkpointer"].recoverables[name] is module
    parameters = [p for module in modules.values() for p in module.parameters()]
    # An oracle has none.
    assert bool(parameters) == (hparams["system"] != "oracle")
    if parameters:
        hparams["opt_class"](parameters)


@pytest.mark.parametrize("path", RECIPES + DEFAULTS, ids=lambda path: path.name)
def test_no_key_of_a_recipe_is_unused(path):
    text = path.read_text(encoding="utf-8")
    keys = re.findall(r"^(\w+):", text, re.MULTILINE)
    code = "\n".join(
        file.read_text(encoding="utf-8") for file in RECIPE.glob("*.py")
    )
    # hparams["x"], or "x" in a list of keys; self.hparams.x; f"{stage}_x"
    used = {*re.findall(r'"(\w+)"', code), *re.findall(r"\.(\w+)", code)}
    endings = tuple(re.findall(r'f"\{\w+\}(_\w+)"', code))
    for file in {path, *DEFAULTS}:
        text = file.read_text(encoding="utf-8")
        used |= set(re.findall(r"<(\w+)[\[>]", text))  # !ref
    used |= set(RunOptions().as_dict())
    # SpeechBrain's name for what is there for its effect
    used.add("__set_seed")
    unused = [key for key in keys if key not in used]
    assert not [key for key in unused if not key.endswith(endings)]


def test_the_check_of_unused_keys_sees_files():
    assert MODELS and RECIPES and DEFAULTS
