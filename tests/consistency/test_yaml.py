"""Every YAML file loads, fits together and has no key that nothing uses."""

import re

import pytest
import ruamel.yaml
import torch
from recipe_runs import OWN, RECIPE, ROOT, SYSTEMS
from speechbrain.utils.run_opts import RunOptions

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.utils.schema import read_schema
from speechbrain_kmdanet.utils.yaml_layers import (
    load_settings,
    read_layers,
    save_settings,
)

SCHEMA = ROOT / "hparams" / "schema.yaml"
SHARED = sorted({*(ROOT / "hparams").glob("*.yaml")} - {SCHEMA})
MODELS = [path for path in SHARED if "\nmasknet:" in path.read_text("utf-8")]
RECIPES = [RECIPE / "hparams" / f"{system}.yaml" for system in SYSTEMS]
LAYERS = sorted({*(RECIPE / "hparams").glob("*.yaml"), *SHARED})
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
both = pytest.mark.parametrize(
    "path", MODELS + RECIPES, ids=lambda path: f"{path.parts[-3]}/{path.name}"
)


def small_options(path, folder):
    """Those of SMALL for keys that a file has, and what has to be given."""
    keys = read_layers(path)
    options = {key: SMALL[key] for key in keys if key in SMALL}
    if "data_folder" in keys:
        options.update(data_folder="unused", output_folder=str(folder))
    return options


@both
def test_every_model_separates_in_both_modes(path, tmp_path):
    model = load_settings(path, small_options(path, tmp_path))
    mixture = torch.randn(1, 3000)
    spectrum = model["encoder"](mixture)
    sources = torch.randn(1, 2, *spectrum.shape[1:], dtype=spectrum.dtype)
    for training in (True, False):
        masknet = model["masknet"].train(training)
        with torch.no_grad():
            masks = masknet(spectrum, sources=sources)
        waveforms = model["decoder"](masks[0] * spectrum)
        assert waveforms.shape[1] >= 3000 and waveforms.isfinite().all()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_recipes(path, tmp_path):
    hparams = load_settings(path, small_options(path, tmp_path))
    assert hparams["system"] == path.stem
    modules = hparams["modules"]
    assert set(modules) == {"encoder", "masknet", "decoder"}
    parameters = [p for module in modules.values() for p in module.parameters()]
    # An oracle has none.
    assert bool(parameters) == (hparams["system"] != "oracle")
    if parameters:
        hparams["opt_class"](parameters)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len([x for x in lines if x and not x.startswith("#")]) <= 8


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_the_seed_is_set_before_networks_are_made(path):
    keys = list(read_layers(path))
    networks = {"encoder", "decoder", "masknet", "modules", "trunk_net"}
    made = [keys.index(key) for key in networks & set(keys)]
    assert keys.index("__set_seed") < min(made)


def uses(text):
    """Keys that YAML refers to, in values and in names of layers."""
    return set(re.findall(r"<(\w+)[\[>]", text))


@pytest.mark.parametrize("path", LAYERS, ids=lambda path: path.name)
def test_no_key_is_unused(path):
    keys = re.findall(r"^(\w+):", path.read_text("utf-8"), re.MULTILINE)
    code = "\n".join(file.read_text("utf-8") for file in RECIPE.glob("*.py"))
    # hparams["x"], or "x" in a list of keys; self.hparams.x; f"{stage}_x"
    used = {*re.findall(r'"(\w+)"', code), *re.findall(r"\.(\w+)", code)}
    endings = tuple(re.findall(r'f"\{\w+\}(_\w+)"', code))
    for file in LAYERS:
        used |= uses(file.read_text(encoding="utf-8"))
    used |= set(RunOptions().as_dict())
    # SpeechBrain's name for what is there for its effect; and our layers
    used |= {"__set_seed", "layers"}
    unused = [key for key in keys if key not in used]
    assert not [key for key in unused if not key.endswith(endings)]


def test_the_schema_has_every_key_and_no_other():
    keys = set()
    for file in LAYERS:
        text = file.read_text(encoding="utf-8")
        keys |= set(ruamel.yaml.YAML().load(text)) - {"layers", "__set_seed"}
    assert set(read_schema(SCHEMA)["properties"]) == keys


def files_under(path):
    """The layers of a file, each once, without itself."""
    text = path.read_text(encoding="utf-8").replace("<trunk>", "blstm")
    text = text.replace("<schedule>", "intervals").replace("<tracking>", "text")
    layers = ruamel.yaml.YAML().load(text).get("layers", ())
    found = {(path.parent / name).resolve() for name in layers}
    return found.union(*map(files_under, found))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_a_key_is_declared_once(path):
    # What a system has of its own, and its model, may choose another value.
    model = sorted(files_under(path) & set(MODELS))
    places = {}
    for file in files_under(path) - set(model):
        for key in ruamel.yaml.YAML().load(file.read_text(encoding="utf-8")):
            places.setdefault(key, set()).add(file.name)
    twice = {key for key, files in places.items() if len(files) > 1}
    # Where training.yaml asks for them; and how waveforms are trained on.
    allowed = {"layers", "encoder", "decoder"}
    if path.stem in OWN:  # they lie on waveform.yaml
        allowed |= {"loss", "number_of_epochs", "batch_size", "lr"}
    if path.match("kmeans_danet_*_plus.yaml"):  # lies on another system
        allowed |= {"system", "number_of_epochs"}
    assert twice <= allowed


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_what_is_saved_makes_the_same_and_refers_to_nothing(path, tmp_path):
    options = small_options(path, tmp_path)
    copy = tmp_path / "hyperparams.yaml"
    save_settings(path, options, copy)
    text = copy.read_text(encoding="utf-8")
    assert "!ref" not in text and "<" not in text
    assert not re.search("^layers:", text, re.MULTILINE)
    ours, theirs = load_settings(path, options), load_settings(copy)
    assert ours.keys() <= theirs.keys() | {"layers"}
    for one, other in zip(ours["modules"].values(), theirs["modules"].values()):
        assert str(one) == str(other)
        for key, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[key]), key


def test_layers_lie_over_one_another(tmp_path):
    def write(name, text):
        (tmp_path / name).write_text(text, encoding="utf-8")

    write(
        "under.yaml", "a: 1\nb: {c: 2, d: 3}\ne: !new:torch.nn.Linear {x: 1}\n"
    )
    write("other.yaml", "layers: [under.yaml]\nchosen: no\n")
    write("one.yaml", "layers: [under.yaml]\nchosen: yes\nb: {d: 4}\n")
    write(
        "top.yaml",
        "layers: [under.yaml, <which>.yaml]\nwhich: one\na: 5\n"
        "e: !new:torch.nn.ReLU {inplace: True}\n",
    )
    merged = read_layers(tmp_path / "top.yaml")
    assert merged["a"] == 5 and merged["chosen"] == "yes"
    assert merged["b"] == {"c": 2, "d": 4}
    # What makes something else replaces the arguments, too.
    assert dict(merged["e"]) == {"inplace": True}
    assert merged["e"].tag.value == "!new:torch.nn.ReLU"
    assert list(merged) == ["a", "b", "e", "chosen", "which"]
    merged = read_layers(tmp_path / "top.yaml", "which: other")
    assert merged["chosen"] == "no" and merged["b"] == {"c": 2, "d": 3}
    with pytest.raises(UserError, match="layer none.yaml, but .* no file"):
        read_layers(tmp_path / "top.yaml", {"which": "none"})
    write("empty.yaml", "")
    with pytest.raises(UserError, match="empty.yaml has no settings"):
        read_layers(tmp_path / "empty.yaml")


@pytest.mark.parametrize(
    "text, message",
    [
        ("a: [1\n", r"top.yaml is no YAML file: .*expected ',' or ']'"),
        ("a: 1\na: 2\n", "top.yaml is no YAML file: .*duplicate key"),
        ("layers: under.yaml\n", "layers of .*top.yaml must be a list of fil"),
        ("layers:\n", "layers of .*top.yaml must be a list of files, got Non"),
        ("layers: [3]\n", "a layer of .*top.yaml must be the name .* got 3"),
        ("layers: [<which>.yaml]\n", "which must be a name, as it chooses .*"),
        ("layers: [top.yaml]\n", "has the layer .*top.yaml, which it lies un"),
        ("layers: [cycle.yaml]\n", "has the layer .*top.yaml, which it lies "),
        ("b: !ref <c>\n", "no layer of .*top.yaml has the key c: check its la"),
        ("masknet: !PLACEHOLDER\n", "no layer of .*top.yaml makes the masknet"),
        ("c: !PLACEHOLDER\n", "c must be given: --c VALUE"),
    ],
)
def test_layers_that_cannot_be(tmp_path, text, message):
    (tmp_path / "top.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "cycle.yaml").write_text("layers: [top.yaml]\n")
    with pytest.raises(UserError, match=message) as error:
        load_settings(tmp_path / "top.yaml")
    assert "\n" not in str(error.value)


def test_a_chosen_layer_is_also_found_from_where_the_user_is(
    tmp_path, monkeypatch
):
    (tmp_path / "mine.yaml").write_text("a: 1\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    model = ROOT / "hparams" / "kmeans_danet.yaml"
    for name in ("mine", "mine.yaml", str(tmp_path / "mine")):
        assert read_layers(model, {"trunk": name})["a"] == 1
    for trunk, message in (
        ("none", "has the layer none.yaml, but there is no file"),
        ("", "trunk must be a name"),
        ("stft", "no layer of .* has the key trunk_net: check its layers"),
    ):
        with pytest.raises(UserError, match=message):
            load_settings(model, {"trunk": trunk})


def test_defaults_are_written_out(tmp_path):
    path = tmp_path / "model.yaml"
    path.write_text(
        "masknet: !new:speechbrain_kmdanet.nnet.attractors.KMeansAttractors\n"
        "    iterations: 7\n",
        encoding="utf-8",
    )
    save_settings(path, None, tmp_path / "copy.yaml")
    text = (tmp_path / "copy.yaml").read_text(encoding="utf-8")
    for line in (
        "iterations: 7",
        "metric: euclidean",
        "init: kmeans++",
        "num_init: 1",
        "negligible: 0.03",
        "seed:",
    ):
        assert f"  {line}\n" in text
    estimator = load_settings(tmp_path / "copy.yaml")["masknet"]
    assert estimator.seed is None and estimator.iterations == 7


def test_the_checks_see_files():
    assert len(MODELS) >= 12 and len(RECIPES) >= 15 and len(LAYERS) > 25
