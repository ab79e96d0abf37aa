"""Tests of the separator that users load."""

import copy
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from speechbrain.inference.separation import SepformerSeparation
from speechbrain.utils.fetching import FetchConfig
from tiny_separator import write_separator

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.inference.separation import AttractorSeparation
from speechbrain_kmdanet.processing.highpass import HighPass


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_separator(tmp_path_factory.mktemp("separator"))


@pytest.fixture(scope="module")
def separator(folder):
    return AttractorSeparation.from_hparams(folder, run_opts={"device": "cpu"})


def noise(batch, num_samples, seed=0):
    """Mixtures [B, L] with an uneven spectrum and level."""
    generator = torch.Generator().manual_seed(seed)
    mix = 0.05 * torch.randn(batch, num_samples, generator=generator)
    time = torch.arange(num_samples) / 8000
    return mix * (1 + torch.sin(20 * time)) + 0.1 * torch.sin(2500 * time)


def contents(folder):
    """What is in a folder, links not followed, with times of change."""
    return {
        (str(path), path.is_symlink(), path.lstat().st_mtime_ns)
        for path in [folder, *folder.rglob("*")]
    }


@pytest.mark.parametrize("half", [False, True])
def test_equals_stock_speechbrain(tmp_path, half):
    source = write_separator(tmp_path, half)
    ours = AttractorSeparation.from_hparams(source, run_opts={"device": "cpu"})
    stock = SepformerSeparation.from_hparams(
        str(source), run_opts={"device": "cpu"}
    )
    weights = torch.load(source / "masknet.ckpt")
    assert {value.dtype for value in weights.values() if value.dim() > 1} == {
        torch.float16 if half else torch.float32
    }
    mix = noise(2, 2001)
    sources = ours.separate_batch(mix)
    assert sources.shape == (2, 2001, 2)
    # Stock SpeechBrain leaves out what is inaudible.
    rest = (mix - ours.mods.encoder.highpass(mix)).unsqueeze(2) / 2
    torch.testing.assert_close(sources, stock.separate_batch(mix) + rest)
    # The separation is one: masks are not all alike.
    assert (sources[..., 0] - sources[..., 1]).abs().max() > 0.01


def test_loading_leaves_nothing_behind(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = contents(folder)
    folder.chmod(0o555)
    try:
        for source in folder, str(folder), os.path.relpath(folder):
            AttractorSeparation.from_hparams(source)
    finally:
        folder.chmod(0o755)
    assert contents(folder) == before
    assert not any(tmp_path.iterdir())


def test_wrong_folders(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    offline = FetchConfig(allow_network=False)
    for source, message in {
        str(tmp_path): "holds no hyperparams.yaml: expected the folder",
        # what train.py writes outside the folder pretrained
        str(folder.parent): "has no key 'pretrainer': expected the folder",
        "no/such/folder": "'no/such/folder' is not a folder, seen from",
        "no/such": "'no/such' is not a folder",
        Path("nowhere"): "'nowhere' is not a folder",
    }.items():
        with pytest.raises(ValueError, match=message) as error:
            AttractorSeparation.from_hparams(source, fetch_config=offline)
        assert "\n" not in str(error.value)
    assert not any(tmp_path.iterdir())


def test_batch_equals_single_items(separator):
    lengths = (600, 1500, 1097)
    mix = noise(3, 1500)
    mix[0, 600:] = 7.0  # is not looked at
    mix[2, 1097:] = float("nan")
    sources = separator.separate_batch(mix, 3, torch.tensor(lengths) / 1500)
    assert sources.shape == (3, 1500, 3)
    for item, length in enumerate(lengths):
        alone = separator.separate_batch(mix[item : item + 1, :length], 3)
        torch.testing.assert_close(
            sources[item, :length], alone[0], rtol=0, atol=1e-5
        )
        assert not sources[item, length:].any()
    whole = separator.separate_batch(mix[1:2], 2, torch.ones(1))
    assert torch.equal(whole, separator.separate_batch(mix[1:2], 2))


def test_changes_nothing_but_the_mode(folder):
    model = AttractorSeparation.from_hparams(
        folder, run_opts={"device": "cpu"}, freeze_params=False
    )
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    mix = noise(2, 500).requires_grad_()
    given = mix.detach().clone()
    model.train()  # batch statistics and dropout must not come into it
    sources = model(mix, num_spks=2, lengths=torch.tensor([1.0, 0.5]))
    assert not sources.requires_grad and not model.training
    assert not any(module.training for module in model.modules())
    assert all(p.requires_grad for p in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert torch.equal(mix, given)
    assert torch.equal(torch.get_rng_state(), random_state)


def test_scale_equivariance(separator):
    mix = noise(1, 1000)
    sources = separator.separate_batch(mix)
    for gain in 1e-4, -0.3, 1e4:
        torch.testing.assert_close(
            separator.separate_batch(gain * mix) / gain,
            sources,
            rtol=0,
            atol=1e-5,
        )


@pytest.mark.parametrize("gain", [1e-44, 1e-37, 1e-30, 1e30, 1e37])
def test_level_beyond_what_energies_can_tell(separator, gain):
    mix = noise(3, 1000)
    mix[1] *= gain / mix[1].abs().max()
    mix[2] = 0.0
    sources = separator.separate_batch(mix)
    expected = separator.separate_batch(mix[1:2].double() / gain)
    # Close to the smallest number there is, the steps between numbers are wide.
    step = torch.finfo(torch.float32).smallest_normal * 2**-23
    torch.testing.assert_close(
        sources[1:2].double(),
        gain * expected.double(),
        rtol=0,
        atol=1e-5 * gain + 2 * step,
    )
    # What the others are like is nothing to the first.
    torch.testing.assert_close(
        sources[:1], separator.separate_batch(mix[:1]), rtol=0, atol=1e-5
    )
    assert not sources[2].any()


def test_no_sources_that_are_not_finite(separator):
    top = 0.99 * torch.finfo(torch.float32).max
    mix = noise(2, 1000)
    mix[1] = top * (mix[1] / mix[1].abs().max())
    try:
        assert separator.separate_batch(mix).isfinite().all()
    except UserError as error:
        # A source may be louder than the mixture.
        assert "item 1 of the batch have NaN or infinite" in str(error)
    damaged = copy.deepcopy(separator)
    next(damaged.mods.masknet.parameters()).fill_(float("nan"))
    with pytest.raises(UserError):
        damaged.separate_batch(noise(1, 1000))
    hook = separator.mods.decoder.register_forward_hook(
        lambda module, inputs, output: output * float("nan")
    )
    with hook, pytest.raises(UserError, match="the weights of the separator"):
        separator.separate_batch(noise(1, 1000))


def test_silence_gives_zeros(separator):
    mix = noise(2, 600)
    mix[1] = 0.0
    sources = separator.separate_batch(mix, 3)
    assert not sources[1].any() and sources[0].any()
    assert sources.isfinite().all()
    assert not separator.separate_batch(torch.zeros(1, 600)).any()


@pytest.mark.parametrize("num_spks", [1, 2, 3, 5, np.int64(2)])
def test_any_number_of_talkers(separator, num_spks):
    mix = noise(2, 777).double()
    sources = separator.separate_batch(mix, num_spks)
    assert sources.shape == (2, 777, num_spks)
    torch.testing.assert_close(sources.sum(2), mix.float(), rtol=0, atol=1e-6)


def with_sample(value):
    mix = noise(2, 300)
    mix[1, 200] = value
    return mix


@pytest.mark.parametrize(
    "mix, arguments, message",
    [
        (np.zeros((1, 300)), {}, "floating-point tensor .* got float64"),
        ([[0.0]], {}, "floating-point tensor .* got list"),
        (torch.ones(1, 300).short(), {}, r"tensor .* got torch.int16"),
        (torch.ones(1, 300).cfloat(), {}, r"tensor .* got torch.complex64"),
        (torch.ones(300), {}, r"\[batch, samples\], got shape \(300,\)"),
        (torch.ones(1, 300, 2), {}, r"got shape \(1, 300, 2\)"),
        (torch.ones(1, 0), {}, r"non-empty .* got shape \(1, 0\)"),
        (torch.ones(0, 300), {}, r"non-empty .* got shape \(0, 300\)"),
        (with_sample(float("nan")), {}, "item 1 of the batch has NaN or inf"),
        (with_sample(-float("inf")), {}, "item 1 of the batch has NaN or inf"),
        (1e60 * torch.ones(1, 300).double(), {}, "the mixture has NaN or inf"),
        (
            torch.ones(1, 2),
            {},
            r"the mixture has 2 samples \(0.25 ms at 8000 Hz\), at least 128 "
            r"samples \(16 ms\) are needed",
        ),
        (
            torch.ones(2, 300),
            {"lengths": torch.tensor([1.0, 0.3])},
            "item 1 of the batch has 90 samples .* at least 128",
        ),
        (torch.ones(2, 300), {"lengths": torch.ones(3)}, "2 relative lengths"),
        (torch.ones(1, 300), {"lengths": [300]}, r"in \(0, 1\] .* got \[300"),
        (torch.ones(1, 300), {"lengths": [0.0]}, r"in \(0, 1\] .* got \[0.0\]"),
        (torch.ones(1, 300), {"lengths": [float("nan")]}, r"got \[nan\]"),
        (torch.ones(1, 300), {"num_spks": 0}, "integer >= 1, got 0"),
        (torch.ones(1, 300), {"num_spks": -2}, "integer >= 1, got -2"),
        (torch.ones(1, 300), {"num_spks": 2.0}, "integer >= 1, got 2.0"),
        (torch.ones(1, 300), {"num_spks": True}, "integer >= 1, got True"),
        (torch.ones(1, 300), {"num_spks": "two"}, "auto\", got 'two'"),
        (
            torch.zeros(1, 300),
            {"num_spks": 10**9},
            "num_spks=1000000000 talkers need .*: at most 100 are separated",
        ),
    ],
)
def test_refused_input(separator, mix, arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        separator.separate_batch(mix, **arguments)
    assert "\n" not in str(error.value)


def test_more_talkers_than_bins_with_energy(separator, monkeypatch):
    # A filter would leave a trace of the sound in all frames after it.
    monkeypatch.setattr(separator.mods.encoder, "highpass", HighPass())
    mix = torch.zeros(1, 1000)
    mix[0, 500] = 1.0  # in a few of the 36 frames
    with pytest.raises(ValueError, match="num_spks=900 .* ask for fewer"):
        separator.separate_batch(mix, 900)
