"""Weights that do not fit, are damaged or run something are not loaded."""

import os
import pickle
import zipfile

import pytest
import torch
from torch import nn

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.utils.export import load_state, load_weights


def network(seed=0):
    """Linear layers with a batch normalisation, which has integers, too."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "masknet.ckpt"


def loaded(path):
    """What a network of other weights has after loading."""
    module = network(seed=1)
    load_state(module, path)
    return module.state_dict()


def assert_equal(state, other):
    assert state.keys() == other.keys()
    for name, value in state.items():
        assert torch.equal(value, other[name]), name


@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "module." * 2]
)
def test_names_of_wrapped_modules(path, prefix):
    state = network().state_dict()
    torch.save({prefix + name: state[name] for name in state}, path)
    assert_equal(loaded(path), state)


def test_weights_of_data_parallel(path):
    module = network()
    torch.save(nn.DataParallel(module).state_dict(), path)
    state = {name: value.cpu() for name, value in module.state_dict().items()}
    assert_equal(loaded(path), state)


def test_a_module_called_module(path):
    # Such a name is its own, not that of a wrapper.
    trained, other = (nn.ModuleDict({"module": network(x)}) for x in (0, 1))
    torch.save(trained.state_dict(), path)
    load_state(other, path)
    assert_equal(other.state_dict(), trained.state_dict())


def test_other_precision(path):
    state = network().state_dict()
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        torch.save(
            {x: y.to(kind) if y.dim() else y for x, y in state.items()}, path
        )
        for name, value in loaded(path).items():
            assert value.dtype == state[name].dtype
            torch.testing.assert_close(value, state[name], atol=1e-2, rtol=1e-2)


def changed(**values):
    """The weights with others in their place; None takes one out."""
    state = {**network().state_dict(), **values}
    return {name: x for name, x in state.items() if x is not None}


def wrapped_twice():
    """Weights of one name: once with a prefix, once without."""
    state = network().state_dict()
    return {**state, **{f"module.{name}": state[name] for name in state}}


@pytest.mark.parametrize(
    "state, message",
    [
        ({}, r'\(Missing key\(s\) in state_dict: "0.weight"\)'),
        (changed(**{"0.bias": None}), r'Missing key.* "0.bias"\)'),
        (changed(other=torch.zeros(1)), r'Unexpected key.* "other"\)'),
        (changed(**{"2.weight": torch.zeros(4, 2)}),
         r"\(size mismatch for 2.weight\)"),
        (changed(**{"2.weight": torch.zeros(1).expand(10**12)}),
         r"\(size mismatch for 2.weight\)"),
        (wrapped_twice(), "Unexpected key"),
        (changed(**{"2.bias": torch.zeros(2).int()}),
         r"\(2.bias is torch.int32, expected torch.float32\)"),
        (changed(**{"2.bias": torch.zeros(2).cfloat()}),
         r"\(2.bias is torch.complex64, expected torch.float32\)"),
        (changed(**{"1.num_batches_tracked": torch.tensor(1.5)}),
         r"num_batches_tracked is torch.float32, expected torch.int64\)"),
        (changed(**{"2.bias": torch.zeros(2, device="meta")}), "2.bias"),
    ],
)  # fmt: off
def test_what_does_not_fit(path, state, message):
    torch.save(state, path)
    pattern = f"masknet.ckpt does not fit the model .*{message}"
    if "2.bias" == message:
        pattern = "masknet.ckpt does not fit"
    with pytest.raises(UserError, match=pattern) as error:
        loaded(path)
    assert str(error.value).endswith("must be those of its training")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), -float("inf"), 1e300]
)
def test_not_finite(path, value):
    bias = torch.tensor([0.0, value], dtype=torch.float64)
    torch.save(changed(**{"2.bias": bias}), path)
    pattern = r"masknet.ckpt has NaN or infinite weights \(2.bias\): .*diverged"
    with pytest.raises(UserError, match=pattern):
        loaded(path)


class Attack:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def old_format(path, content):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def bare_pickle(path, content):
    path.write_bytes(pickle.dumps(content))


def disguised(path, content):
    """A pickle that ends as a ZIP archive."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    path.write_bytes(pickle.dumps(content) + path.read_bytes())


@pytest.mark.parametrize(
    "save",
    [lambda path, x: torch.save(x, path), old_format, bare_pickle, disguised],
)
@pytest.mark.parametrize("place", ["alone", "weight", "name"])
def test_a_pickle_runs_nothing(path, tmp_path, save, place):
    canary = tmp_path / "canary"
    attack = Attack(canary)
    weights = {"alone": attack, "weight": {"x": attack}, "name": {attack: 1}}
    save(path, weights[place])
    if save is bare_pickle:
        pickle.loads(path.read_bytes())
    elif save is not disguised:
        torch.load(path, weights_only=False)
    if save is not disguised:
        canary.rmdir()  # it would run
    with pytest.raises(UserError, match="masknet.ckpt holds no weights"):
        loaded(path)
    assert not canary.exists()


def test_torchscript_is_not_loaded(path, monkeypatch):
    torch.jit.script(network()).save(path)
    ran = []
    # What PyTorch before 2.6 does, whatever it is told.
    monkeypatch.setattr(torch, "load", lambda *x, **y: ran.append(x) or {})
    with pytest.raises(UserError, match="masknet.ckpt holds no weights"):
        loaded(path)
    assert not ran


@pytest.mark.parametrize(
    "content",
    [
        None,
        3,
        [torch.zeros(1)],
        torch.zeros(2),
        {"state_dict": {"x": torch.zeros(1)}},
        {"x": 1},
        {1: torch.zeros(1)},
        {"x": None},
        # Whose indices might lead anywhere
        {"x": torch.zeros(2).to_sparse()},
    ],
)
@pytest.mark.filterwarnings("ignore:Sparse invariant")
def test_what_is_no_state(path, content):
    torch.save(content, path)
    with pytest.raises(UserError, match="holds no weights, or is damaged"):
        loaded(path)


def test_every_damage_is_told(path):
    torch.save(network().state_dict(), path)
    whole = path.read_bytes()
    expected = network().state_dict()
    damaged = [whole[:size] for size in range(0, len(whole), 97)]
    damaged += [b"", b"text", b"PK\3\4", whole + b"x" * 70_000, bytes(1000)]
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        place = int(torch.randint(len(whole), (1,), generator=generator))
        flipped = whole[place] ^ (1 << place % 8)
        damaged.append(whole[:place] + bytes([flipped]) + whole[place + 1 :])
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            state = loaded(path)
        except UserError as error:
            refused += 1
            assert str(path) in str(error) and "\n" not in str(error)
        else:  # A byte that says nothing: of padding, of a time.
            assert_equal(state, expected)
    assert refused > 0.4 * len(damaged)


def test_what_is_no_file(path, tmp_path):
    with pytest.raises(FileNotFoundError, match="masknet.ckpt"):
        loaded(path)
    os.mkfifo(path)
    for place in (path, tmp_path, "/dev/zero"):
        with pytest.raises(UserError, match="holds no weights"):
            loaded(place)


def test_initial_weights_are_named(path):
    torch.save({}, path)
    with pytest.raises(UserError, match="^initial_weights: .*does not fit"):
        load_weights({"masknet": network()}, path)
