"""Tests of counting talkers, and of vectors of voices."""

import pytest
import torch

from speechbrain_kmdanet.lobes.models.counting import TalkerCounter

BINS, FRAMES = 65, 30
NUM_FRAMES = torch.tensor([30, 17, 8, 1])


@pytest.fixture
def counter():
    """A tiny counter that has seen something."""
    counter = TalkerCounter(BINS, channels=(4, 5, 6), hidden_size=8)
    for _ in range(3):
        counter(make_spectrum())
    return counter.eval()


def make_spectrum(batch=4):
    return torch.randn(batch, BINS, FRAMES, dtype=torch.complex64)


def test_batch_equals_single(counter):
    spectrum = make_spectrum()
    garbled = spectrum.clone()
    for item, frames in enumerate(NUM_FRAMES):
        garbled[item, :, frames:] = 50 * torch.rand(BINS, 1)
    batch = counter(garbled, NUM_FRAMES)
    for item, frames in enumerate(NUM_FRAMES):
        alone = counter(spectrum[item, None, :, :frames])[0]
        torch.testing.assert_close(batch[item], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_the_level_is_not_seen(counter, factor):
    spectrum = make_spectrum()
    torch.testing.assert_close(
        counter(factor * spectrum), counter(spectrum), rtol=0, atol=1e-4
    )


def test_silence_is_finite_and_trains(counter):
    spectrum = make_spectrum()
    spectrum[1] = 0.0
    counter.train()
    logits = counter(spectrum)
    logits.square().sum().backward()
    assert logits.isfinite().all()
    for name, parameter in counter.named_parameters():
        assert parameter.grad.isfinite().all(), name


def test_learns_to_count():
    # A talker is a band of noise here.
    torch.manual_seed(0)
    counter = TalkerCounter(
        BINS, max_spks=2, channels=(4, 4, 4), hidden_size=16, dropout=0.0
    )
    optimizer = torch.optim.Adam(counter.parameters(), 1e-2)

    def draw(count):
        labels = torch.randint(2, (count,))
        spectrum = make_spectrum(count)
        for item, label in enumerate(labels):
            spectrum[item, 30 + 20 * label :] *= 1e-3
        return spectrum, labels

    for _ in range(40):
        spectrum, labels = draw(8)
        loss = torch.nn.functional.cross_entropy(counter(spectrum), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    spectrum, labels = draw(50)
    right = counter.eval()(spectrum).argmax(1) == labels
    assert right.float().mean() > 0.9
