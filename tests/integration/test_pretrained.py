"""The separators that come with the project, beside the package and in it."""

from pathlib import Path

import pytest
import torch
from speechbrain.inference.separation import SepformerSeparation

from speechbrain_kmdanet.inference.separation import AttractorSeparation

ROOT = Path(__file__).parents[2]
FOLDERS = [
    path.parent
    for place in (ROOT, ROOT / "speechbrain_kmdanet")
    for path in sorted(place.glob("pretrained/*/hyperparams.yaml"))
]


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda path: path.name)
def folder(request):
    return request.param


@pytest.fixture(scope="module")
def separator(folder):
    return AttractorSeparation.from_hparams(source=str(folder))


def voiced(pitch, seconds=2.0, rate=8000):
    """Syllables of a harmonic tone, a stand-in for a voice [L]."""
    time = torch.arange(int(seconds * rate)) / rate
    harmonics = torch.arange(1, int(3500 / pitch))
    glide = pitch * (time + 0.01 * torch.sin(2 * torch.pi * 0.7 * time))
    tones = torch.sin(2 * torch.pi * harmonics[:, None] * glide)
    syllables = torch.sin(torch.pi * pitch / 40 * time).square()
    return 0.1 * (tones / harmonics[:, None] ** 0.7).sum(0) * syllables


def test_stock_separator_agrees(separator, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    stock = SepformerSeparation.from_hparams(
        source=str(folder), savedir=str(tmp_path / "stock")
    )
    mixture = torch.stack(
        [voiced(110) + voiced(230), voiced(140) + 0.5 * voiced(290)]
    )
    mixture = mixture - mixture.mean(1, keepdim=True)
    expected = stock.separate_batch(mixture)
    assert expected.shape == (*mixture.shape, 2)
    # The stock interface decodes one source at a time: rounding differs.
    torch.testing.assert_close(
        separator.separate_batch(mixture), expected, atol=1e-6, rtol=1e-5
    )


def test_loaders_agree_bit_for_bit(separator, folder):
    stock = SepformerSeparation.from_hparams(str(folder), savedir=str(folder))
    others = (
        AttractorSeparation(dict(stock.mods), vars(stock.hparams)),
        AttractorSeparation.from_hparams(folder, trust=True),
    )
    mixture = (voiced(110) + voiced(230)).unsqueeze(0)
    for num_spks in (1, 2, 3, 4):
        sources = separator.separate_batch(mixture, num_spks)
        for other in others:
            again = other.separate_batch(mixture, num_spks)
            assert torch.equal(sources, again)


def test_sources_sum_to_the_mixture(separator):
    mixture = (voiced(110) + voiced(230)).unsqueeze(0)
    for num_spks in (2, 3):
        sources = separator.separate_batch(mixture, num_spks=num_spks)
        assert sources.shape == (*mixture.shape, num_spks)
        rest = mixture - sources.sum(2)
        if separator.mods.masknet.remainder is None:
            assert rest.abs().max() < 1e-4
        else:  # What is no talker is in no source.
            assert 1e-4 < rest.abs().max()
            assert rest.square().sum() < 0.5 * mixture.square().sum()


def test_weights_are_small_and_loaded_into_float32(separator, folder):
    assert (folder / "masknet.ckpt").stat().st_size < 20e6
    stored = torch.load(folder / "masknet.ckpt", weights_only=True)
    loaded = separator.mods.masknet.state_dict()
    assert stored.keys() == loaded.keys()
    for name, value in loaded.items():
        assert value.dtype != torch.float16
        assert torch.equal(value, stored[name].to(value.dtype))


def test_settings_have_no_address(folder):
    text = (folder / "hyperparams.yaml").read_text()
    assert "://" not in text and "/" not in text
