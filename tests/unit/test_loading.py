"""A separator's folder runs nothing; what is no separator is refused early."""

import os
import shutil
import socket
import time
from contextlib import suppress
from pathlib import Path

import huggingface_hub
import pytest
import torch
from recipe_runs import BESIDE, OWN, RECIPE, SYSTEMS, TRUNK
from speechbrain.inference.separation import SepformerSeparation
from speechbrain.utils.fetching import FetchFrom, FetchSource
from tiny_separator import write_separator

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.inference.loading import MAX_BYTES
from speechbrain_kmdanet.inference.separation import AttractorSeparation
from speechbrain_kmdanet.utils.export import write_pretrained
from speechbrain_kmdanet.utils.yaml_layers import load_settings, save_settings

CPU = {"run_opts": {"device": "cpu"}}
OUTER = "tag:yaml.org,2002:python/object/apply:"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write_separator(tmp_path_factory.mktemp("separator"))


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "separator")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Nobody asks the network for anything."""
    asked = []
    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, lambda *x, **y: asked.append(x))
    monkeypatch.setattr(socket.socket, "connect", lambda *x: asked.append(x))
    yield
    assert not asked


def load(folder, **options):
    return AttractorSeparation.from_hparams(folder, **CPU, **options)


def edit(folder, old, new):
    """Replaces a part of the hyperparameters, which must be there."""
    path = folder / "hyperparams.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def refused(folder, **options):
    """The one line that loading a folder ends in."""
    with pytest.raises(UserError) as error:
        load(folder, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


# Places where something else is made, of which each makes a folder: CANARY.
VALUES = [
    "!apply:os.mkdir [CANARY]",
    "!applyref:os.mkdir [CANARY]",
    "!new:logging.FileHandler [CANARY]",
    "!new:subprocess.Popen [[mkdir, CANARY]]",
    "!new:speechbrain_kmdanet.dataio.mixing.np.memmap"
    " {filename: CANARY, mode: w+, shape: 1}",
    "!new:speechbrain_kmdanet.lobes.models.danet.torch.serialization.tarfile."
    "TarFile {name: CANARY, mode: w}",
    "!include:other.yaml",
    "!name:functools.partial [!apply:os.mkdir [CANARY]]",
    "!!python/object/apply:os.mkdir [CANARY]",
    "!!python/object/new:numpy.memmap [CANARY, uint8, w+, 0, [1]]",
    f"!<{OUTER}os.mkdir> [CANARY]",
    "(!!python/object/apply:os.mkdir [CANARY])",
    "[{a: !apply:os.mkdir [CANARY]}]",
]
HOOK = "!name:os.mkdir {path: CANARY}"
# What is put in, in place of what.
ATTACKS = [
    *[("modules:", f"x: {value}\nmodules:") for value in VALUES],
    ("seed: 0", "seed: !apply:os.mkdir [CANARY]"),
    ("loadables:", f"conditions: {{masknet: {HOOK}}}\n  loadables:"),
    ("loadables:", f"custom_hooks: {{masknet: {HOOK}}}\n  loadables:"),
    (
        "# Separator for",
        f"%TAG !e! {OUTER}\n---\nx: !e!os.mkdir [CANARY]\n# Separator for",
    ),
]


@pytest.mark.parametrize("old, new", ATTACKS, ids=[x[1][:60] for x in ATTACKS])
def test_nothing_is_run(folder, tmp_path, old, new):
    canary = tmp_path / "canary"
    edit(folder, old, new.replace("CANARY", str(canary)))
    included = f"y: !apply:os.mkdir [{canary}]\n"
    (folder / "other.yaml").write_text(included)
    if "custom_hooks" not in new:  # is called with what mkdir does not take
        # SpeechBrain's loader is caught: the test would see it.
        with suppress(Exception):
            SepformerSeparation.from_hparams(
                str(folder), savedir=str(tmp_path / "stock")
            )
        deadline = time.monotonic() + 10
        while not canary.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert canary.exists()
        canary.rmdir() if canary.is_dir() else canary.unlink()
    for options in {}, {"overrides": {"num_spks": 3}}:
        message = refused(folder, **options)
        assert "trust=True loads it, if you trust" in message
    assert not canary.exists()


def test_a_text_is_no_tuple(folder, tmp_path):
    # The first time in a process, HyperPyYAML drops these quotes.
    call = f"'(!!python/object/apply:os.mkdir [{tmp_path / 'x'}])'"
    edit(folder, "modules:", f"x: {call}\nmodules:")
    assert "'!tuple' is no module" in refused(folder)
    assert not (tmp_path / "x").exists()


def test_what_is_trusted_is_run(folder, tmp_path):
    edit(folder, "modules:", f"x: !apply:os.mkdir [{tmp_path / 'x'}]\nmodules:")
    assert load(folder, trust=True).hparams.x is None
    assert (tmp_path / "x").is_dir()


def test_the_refusal_names_line_and_tag(folder):
    edit(folder, "modules:", "x: !apply:os.getcwd []\nmodules:")
    lines = (folder / "hyperparams.yaml").read_text().splitlines()
    number = lines.index("x: !apply:os.getcwd []") + 1
    assert refused(folder) == (
        f"{folder / 'hyperparams.yaml'}: line {number}: '!apply:os.getcwd' is "
        "no module of a separator and could run anything: trust=True loads "
        "it, if you trust who made it"
    )


def test_overrides_run_nothing(folder, tmp_path):
    canary = tmp_path / "canary"
    call = f"!apply:os.mkdir [{canary}]"
    for overrides in f"num_spks: {call}", f"encoder: {{n_fft: {call}}}":
        assert "trust=True" in refused(folder, overrides=overrides)
    assert not canary.exists()


def test_overrides(folder):
    for overrides in {"num_spks": 3}, "num_spks: 3":
        assert load(folder, overrides=overrides).hparams.num_spks == 3
        trusted = load(folder, overrides=overrides, trust=True)
        assert trusted.hparams.num_spks == 3
    nested = {"masknet": {"infer_attractors": {"iterations": 7}}}
    net = load(folder, overrides=nested).mods.masknet
    assert net.infer_attractors.iterations == 7
    for trust in (False, True):
        options = {"overrides": {"num_spk": 3}, "trust": trust}
        assert "'num_spk' not found" in refused(folder, **options)
    overrides = {"nothing": 3}
    load(folder, overrides=overrides, overrides_must_match=False)


@pytest.mark.parametrize(
    "bomb",
    [
        "a0: &a0 [x]\n" + "".join(f"a{i + 1}: &a{i + 1} [*a{i}, *a{i}, *a{i}]\n"
        for i in range(60)),
        "a0: &a0 {x: y}\n" + "".join(
            f"a{i + 1}: &a{i + 1} {{a: *a{i}, b: *a{i}}}\n" for i in range(60)
        ),
        "a0: &a0 {x: y}\n" + "".join(
            f"a{i + 1}: &a{i + 1} {{<<: [*a{i}, *a{i}]}}\n" for i in range(60)
        ),
        "a: &a [*a]\n",
        "a: &a {b: *a}\n",
        "a: " + "[" * 7_000 + "]" * 7_000 + "\n",
        "a: " + "{a: " * 3_000 + "\n",
        "a: " + "- " * 7_000 + "1\n",
        "a: " + "9" * 15_000 + "\n",
        "a: 1e" + "9" * 15_000 + "\n",
        "a: " + "x" * MAX_BYTES + "\n",
        "a: !ref 9**9**9**9**<num_spks>\n",
        "a: !ref <a>\n",
    ],
    ids=lambda bomb: f"{bomb[:30]}...{len(bomb)}",
)  # fmt: off
def test_bombs_end_early(folder, bomb):
    edit(folder, "modules:", f"{bomb}modules:")
    start = time.process_time()
    if bomb.startswith("a: 1e"):
        load(folder)  # infinity
    else:
        assert "hyperparams.yaml" in refused(folder)
    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "has no key 'pretrainer'"),
        ("pretrainer: 1\n", "sample_rate must be a positive integer, got None"),
        ("pretrainer: [\n", "hyperparams.yaml: while parsing"),
        ("pretrainer: 1\n--- 2", "expected a single document"),
        ("pretrainer: 1\npretrainer: 2\n", "found duplicate key"),
        ("!!set\npretrainer:\n", "no values by key|trust=True"),
        ("- 1\n#\npretrainer: 1\n", "hyperparams.yaml: while parsing"),
        ("pretrainer: !new:speechbrain_kmdanet.lobes.models.danet.Other\n",
         "there is no speechbrain_kmdanet.lobes.models.danet.Other in this"),
        ("pretrainer: !new:speechbrain_kmdanet.lobes.models.danet.DANet\n",
         "cannot make speechbrain_kmdanet.lobes.models.danet.DANet: .*missing"),
        ("pretrainer: \x00\n", "hyperparams.yaml: "),
        ("pretrainer: \udcff\n", "hyperparams.yaml: 'utf-8' codec"),
    ],
)  # fmt: off
def test_what_is_no_separator(folder, text, message):
    path = folder / "hyperparams.yaml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=message) as error:
        load(folder)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("sample_rate: 8000", "sample_rate: fast", "positive integer, got 'fa"),
        ("num_spks: 2", "num_spks: 0", "num_spks must be a positive integer"),
        ("num_spks: 2", "num_spks: true", "integer, got True"),
        ("num_spks: 2", "3: 2\nnum_spks: 2", "its keys must be names"),
        ("n_fft: 128", "n_fft: many", "cannot make .*STFTEncoder"),
        ("n_fft: 128", "n: 128", "cannot make .*STFTEncoder.*argument 'n'"),
        ("hidden_size: 8", "hidden_size: -8", "cannot make .*EmbeddingNet"),
        ("  decoder: *id003", "", "modules must be encoder, masknet, decoder"),
        ("decoder: *id003", "decoder: 3", "modules must be encoder, masknet"),
        ("modules:", "modules:\n  ../x: *id002", "modules must be encoder"),
        ("loadables:\n    masknet: *id002", "loadables: {}", "got $"),
        ("loadables:\n    masknet: *id002", "loadables: {encoder: *id001}",
         r"the modules with weights \(masknet\), got encoder"),
        ("loadables:\n    masknet: *id002", "loadables: {masknet: *id001}",
         r"the modules with weights \(masknet\), got masknet"),
        ("loadables:\n    masknet: *id002",
         "loadables: {masknet: *id002, ../other: *id002}", "got masknet, ../o"),
        ("loadables:", "paths: {masknet: /masknet.ckpt}\n  loadables:",
         "paths of the pretrainer: trust=True"),
        ("loadables:", "collect_in: /tmp\n  loadables:",
         "collect_in of the pretrainer: trust=True"),
    ],
)  # fmt: off
def test_settings_that_make_no_separator(folder, old, new, message):
    edit(folder, old, new)
    with pytest.raises(UserError, match=message) as error:
        load(folder)
    assert str(folder / "hyperparams.yaml") in str(error.value)
    assert "\n" not in str(error.value)


def test_files_lie_inside(folder, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("masknet.ckpt", "hyperparams.yaml"):
        (folder / name).rename(outside / name)
        (folder / name).symlink_to(outside / name)
        message = refused(folder)
        assert (
            f"{folder / name} lies outside of {folder}: trust=True" in message
        )
        load(folder, trust=True)
        (folder / name).unlink()
        shutil.copy(outside / name, folder)
    load(folder)
    for path in ("../outside/hyperparams.yaml", outside / "hyperparams.yaml"):
        options = {"hparams_file": str(path)}
        assert "lies outside of" in refused(folder, **options)
    # The folder itself may be reached by a link, and links may stay inside.
    (tmp_path / "link").symlink_to(folder)
    (folder / "masknet.ckpt").rename(folder / "weights")
    (folder / "masknet.ckpt").symlink_to("weights")
    load(tmp_path / "link")


@pytest.mark.parametrize("name", ["masknet.ckpt", "hyperparams.yaml"])
def test_what_is_no_file(folder, name):
    path = folder / name
    path.unlink()
    assert f"{folder} holds no {name}: expected the folder" in refused(folder)
    os.mkfifo(path)
    assert f"holds no {name}" in refused(folder)
    path.unlink()
    path.symlink_to(path)
    assert f"holds no {name}" in refused(folder)
    path.unlink()
    path.symlink_to("/dev/zero")
    assert "lies outside of" in refused(folder)
    path.unlink()
    path.mkdir()
    assert f"holds no {name}" in refused(folder)


@pytest.mark.parametrize(
    "source",
    [
        "no/such",
        "speechbrain/sepformer-wsj02mix",
        "nowhere",
        "",
        "a" * 5000,
        "a\0b",
        Path("no/such"),
        FetchSource(FetchFrom.LOCAL, "no/such"),
        3,
        b"bytes",
    ],
)
@pytest.mark.parametrize("trust", [False, True])
def test_the_network_is_not_asked(source, trust, monkeypatch):
    def fail(**_):
        raise AssertionError("asked Hugging Face")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(UserError, match="source.* folder"):
        AttractorSeparation.from_hparams(source, trust=trust)


@pytest.mark.parametrize(
    "source",
    ["hf://some/one", FetchSource(FetchFrom.HUGGING_FACE, "some/one")],
)
def test_hugging_face_when_it_is_asked_for(
    folder, tmp_path, monkeypatch, source
):
    asked = []

    def download(repo_id, filename, **_):
        asked.append((repo_id, filename))
        # A link that leads out of its folder, as there.
        link = tmp_path / "snapshot" / filename
        link.parent.mkdir(exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(folder / filename)
        return str(link)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    names = "hyperparams.yaml", "masknet.ckpt"
    for options in {}, {"savedir": tmp_path / "saved"}, {"trust": True}:
        asked.clear()
        separator = load(source, **options)
        assert set(asked) == {("some/one", name) for name in names}
        assert_equal(separator, load(folder))
    edit(folder, "modules:", "x: !apply:os.mkdir [x]\nmodules:")
    assert "trust=True" in refused(source)


def test_a_download_that_fails(monkeypatch):
    def download(**_):
        raise OSError("no such repository\nask for another one")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert refused("hf://some/one") == (
        "hyperparams.yaml of some/one could not be fetched (no such repository)"
    )
    message = refused("https://example.org/separator")
    assert "`savedir` must be specified" in message


def assert_equal(separator, other):
    """Two separators have the same modules and weights."""
    assert repr(separator.mods) == repr(other.mods)
    state, others = separator.state_dict(), other.state_dict()
    assert state.keys() == others.keys()
    for name, value in state.items():
        assert torch.equal(value, others[name]), name


@pytest.mark.parametrize("system", sorted(set(SYSTEMS) - {"oracle"}))
def test_every_system_is_loaded(system, tmp_path):
    sizes = OWN.get(system, {**TRUNK, **BESIDE.get(system, {})})
    path = RECIPE / "hparams" / f"{system}.yaml"
    overrides = {
        **sizes,
        "data_folder": str(tmp_path),
        "output_folder": str(tmp_path / "output"),
    }
    resolved, folder = tmp_path / "hyperparams.yaml", tmp_path / "pretrained"
    save_settings(path, overrides, resolved)
    hparams = load_settings(path, overrides)
    write_pretrained(folder, resolved, hparams["modules"])
    separator = load(folder)
    stock = SepformerSeparation.from_hparams(str(folder), savedir=str(folder))
    assert_equal(separator, stock)
    # What is no weight is the same, too.
    for name, module in separator.mods.named_modules():
        own, other = vars(module), vars(stock.mods.get_submodule(name))
        for key, value in own.items():
            if isinstance(value, (bool, int, float, str, tuple, type(None))):
                assert value == other[key] and type(value) is type(other[key])


@pytest.mark.parametrize(
    "interface", [AttractorSeparation, SepformerSeparation]
)
def test_numbers_are_said_once(folder, tmp_path, interface):
    text = (folder / "hyperparams.yaml").read_text()
    assert text.count("num_spks: 2\n") == text.count("sample_rate: 8000\n") == 1
    assert "num_spks: !ref <num_spks>\n" in text
    options = {**CPU, "savedir": tmp_path / "fetched"}
    separator = interface.from_hparams(
        folder, overrides={"num_spks": 3}, **options
    )
    assert separator.mods.masknet.num_spks == 3
    assert separator.separate_batch(torch.randn(1, 4000)).shape == (1, 4000, 3)


@pytest.mark.parametrize(
    "value", ["<nothing>", "<encoder>", "<num_spks> + 1", "num_spks", "<ring>"]
)
def test_references_to_anything_but_plain_values_are_refused(folder, value):
    edit(folder, "!ref <num_spks>", f"!ref {value}")
    path = folder / "hyperparams.yaml"
    path.write_text(f"ring: !ref <ring>\n{path.read_text()}")
    with pytest.raises(UserError, match="'!ref' is no module of a separator"):
        load(folder)
