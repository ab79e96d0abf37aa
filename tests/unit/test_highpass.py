"""Tests of what an encoder does not hear."""

import math

import pytest
import torch

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.lobes.models.waveform import WaveformEncoder
from speechbrain_kmdanet.processing.highpass import HighPass
from speechbrain_kmdanet.processing.stft import STFTEncoder

RATE = 8000
TIME = torch.arange(2 * RATE) / RATE


def tone(frequency):
    return torch.sin(2 * math.pi * frequency * TIME)[None]


@pytest.mark.parametrize("frequency", [4, 8, 15, 30, 60, 100, 1000])
def test_butterworth(frequency):
    filtered = HighPass(30, RATE)(tone(frequency))[0, RATE:]
    gain = float(filtered.square().mean().sqrt() * math.sqrt(2))
    # The bilinear transform warps frequencies.
    ratio = math.tan(math.pi * 30 / RATE) / math.tan(math.pi * frequency / RATE)
    assert gain == pytest.approx(1 / math.sqrt(1 + ratio**8), abs=2e-3)


@pytest.mark.parametrize("cutoff", [0, 30])
def test_a_batch_and_its_items(cutoff):
    net = HighPass(cutoff, RATE)
    signals = torch.randn(2, 900) + torch.tensor([[0.3], [-2.0]])
    signals[1, 500:] = 0.0
    filtered = net(signals, torch.tensor([900, 500]))
    torch.testing.assert_close(filtered[1:, :500], net(signals[1:, :500]))
    assert not filtered[1, 500:].any()


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_any_level_and_any_offset(scale):
    net, signal = HighPass(30, RATE), torch.randn(1, 900)
    expected = net(signal)
    torch.testing.assert_close(net(scale * signal) / scale, expected)
    torch.testing.assert_close(net(signal + 0.5), expected, atol=1e-5, rtol=0)
    assert torch.equal(net(torch.zeros(1, 900)), torch.zeros(1, 900))


def test_half_precision_and_none():
    signal = torch.randn(1, 900)
    assert HighPass(30, RATE)(signal.half()).dtype == torch.float16
    assert HighPass(None, RATE)(signal) is signal
    expected = signal - signal.mean()
    torch.testing.assert_close(HighPass(0, RATE)(signal), expected)


@pytest.mark.parametrize("encoder", [STFTEncoder, WaveformEncoder])
def test_encoders_hear_what_is_left(encoder):
    torch.manual_seed(0)
    deaf = encoder(highpass=30, sample_rate=RATE)
    torch.manual_seed(0)
    plain = encoder()
    signals = torch.randn(2, 900)
    lengths = torch.tensor([900, 500])
    filtered = HighPass(30, RATE)(signals, lengths)
    assert torch.equal(deaf(signals, lengths), plain(filtered))
    assert deaf.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("cutoff", [-1, 4000, 9000])
def test_refuses_other_frequencies(cutoff):
    with pytest.raises(UserError, match="highpass must be a frequency in Hz"):
        HighPass(cutoff, RATE)
