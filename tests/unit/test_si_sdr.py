"""Tests of SI-SDR."""

import numpy as np
import pytest
import torch
from speechbrain.nnet.losses import cal_si_snr

from speechbrain_kmdanet.nnet.loss.separation import (
    pairwise_si_sdr,
    si_sdr,
    zero_padding,
)


def naive_si_sdr(estimate, source):
    """The definition of Le Roux et al., of signals without mean."""
    estimate = np.asarray(estimate, dtype=np.float64)
    source = np.asarray(source, dtype=np.float64)
    estimate, source = estimate - estimate.mean(), source - source.mean()
    target = estimate @ source / (source @ source) * source
    noise = estimate - target
    return 10 * np.log10((target @ target) / (noise @ noise))


def make_signals(batch=3, samples=200, num_spks=2, dtype=torch.float64):
    """Sources with an offset, and estimates that resemble them."""
    generator = torch.Generator().manual_seed(0)
    options = {"generator": generator, "dtype": dtype}
    sources = torch.randn(batch, samples, num_spks, **options) + 0.5
    noise = torch.randn(batch, samples, num_spks, **options)
    return 0.3 * sources + 0.1 * noise - 2.0, sources


def test_equals_the_definition():
    estimates, sources = make_signals()
    scores = si_sdr(estimates, sources)
    pairs = pairwise_si_sdr(estimates, sources)
    assert scores.shape == (3, 2) and pairs.shape == (3, 2, 2)
    for item in range(3):
        for i in range(2):
            source = sources[item, :, i]
            for j in range(2):
                expected = naive_si_sdr(estimates[item, :, j], source)
                # the floor at −80 dB weighs on scores near 0 dB by 1e-7 dB,
                # on those of unrelated signals more
                assert float(pairs[item, i, j]) == pytest.approx(
                    expected, abs=1e-3
                )
                if i == j:
                    assert float(scores[item, i]) == pytest.approx(
                        expected, abs=1e-5
                    )


def test_equals_that_of_speechbrain():
    estimates, sources = make_signals(dtype=torch.float32)
    # It wants the time first, and changes its argument.
    expected = -cal_si_snr(
        sources.transpose(0, 1), estimates.transpose(0, 1).clone()
    )
    torch.testing.assert_close(
        si_sdr(estimates, sources), expected[0], rtol=0, atol=1e-3
    )


@pytest.mark.parametrize("measure", [si_sdr, pairwise_si_sdr])
def test_true_lengths(measure):
    estimates, sources = make_signals()
    lengths = torch.tensor([200, 120, 50])
    garbled = [t.clone() for t in (estimates, sources)]
    for tensor in garbled:
        for item, length in enumerate(lengths):
            tensor[item, length:] = 7.0
    scores = measure(*garbled, lengths)
    for item, length in enumerate(lengths):
        alone = measure(
            estimates[item, None, :length], sources[item, None, :length]
        )
        torch.testing.assert_close(scores[item], alone[0])
    # nothing was written into the arguments
    assert (garbled[0][2, 50:] == 7.0).all()


@pytest.mark.parametrize("measure", [si_sdr, pairwise_si_sdr])
@pytest.mark.parametrize("factor", [1e-3, -2.0, 1e3])
def test_neither_scale_nor_offset_matters(measure, factor):
    estimates, sources = make_signals()
    torch.testing.assert_close(
        measure(factor * estimates + 1.0, 5 * sources - 3.0),
        measure(estimates, sources),
    )


@pytest.mark.parametrize("measure", [si_sdr, pairwise_si_sdr])
def test_bounds(measure):
    _, sources = make_signals(num_spks=1)
    perfect = measure(0.5 * sources, sources)
    torch.testing.assert_close(perfect, torch.full_like(perfect, 80.0))
    # a silent estimate is the worst, not 0 dB
    silent = measure(torch.zeros_like(sources), sources)
    torch.testing.assert_close(silent, torch.full_like(silent, -80.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("estimate", [0.0, 1e-25, 1.0])
@pytest.mark.parametrize("source", [0.0, 1e-25, 1.0])
def test_silence_has_finite_scores_and_gradients(dtype, estimate, source):
    estimates, sources = make_signals(num_spks=1, dtype=dtype)
    estimates = (estimate * estimates).requires_grad_()
    scores = si_sdr(estimates, source * sources)
    scores.sum().backward()
    assert scores.isfinite().all()
    assert estimates.grad.isfinite().all()
    assert pairwise_si_sdr(estimates, source * sources).isfinite().all()


def test_zero_padding():
    waveforms = torch.ones(2, 4, 3)
    assert zero_padding(waveforms, None) is waveforms
    padded = zero_padding(waveforms, torch.tensor([4, 1]))
    assert (padded[0] == 1).all()
    assert (padded[1, 0] == 1).all() and (padded[1, 1:] == 0).all()
    assert (waveforms == 1).all()


def test_the_limit_is_approached_softly():
    estimates, sources = make_signals(num_spks=1)
    bad, good = estimates, sources + 1e-9 * estimates
    limited = si_sdr(good, sources, limit=30.0)
    assert ((limited - 30.0).abs() < 0.01).all()
    # Far below it, it hardly counts.
    difference = si_sdr(bad, sources) - si_sdr(bad, sources, limit=30.0)
    assert (difference.abs() < 0.05).all()
    gradients = []
    for estimate in (bad, sources + 1e-4 * estimates):
        estimate = estimate.clone().requires_grad_()
        si_sdr(estimate, sources, limit=30.0).sum().backward()
        gradients.append(float(estimate.grad.norm()))
    assert gradients[1] < gradients[0]
