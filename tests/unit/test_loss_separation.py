"""Tests of the losses."""

from itertools import permutations

import pytest
import torch

from speechbrain_kmdanet.nnet.loss.separation import magnitude_loss, si_sdr_loss

LENGTHS = torch.tensor([11, 7, 4])


def make_batch(loss, num_spks=3, seed=0):
    """Estimates and sources of three items for a loss, float64."""
    generator = torch.Generator().manual_seed(seed)
    shape = (
        (3, num_spks, 5, 11) if loss is magnitude_loss else (3, 11, num_spks)
    )
    options = {"generator": generator, "dtype": torch.float64}
    estimates = torch.randn(shape, **options)
    sources = torch.randn(shape, **options)
    if loss is magnitude_loss:
        return estimates.abs(), sources.abs()
    return estimates, sources


def spks_dim(loss):
    """Dimension of the sources: first in spectra, last in waveforms."""
    return 1 if loss is magnitude_loss else 2


def cut(loss, tensor, item):
    """One item without its padding, as a batch."""
    time = 3 if loss is magnitude_loss else 1
    return tensor[item : item + 1].narrow(time, 0, int(LENGTHS[item]))


def garble(loss, tensor):
    """Writes what must not matter into the padding."""
    tensor = tensor.clone()
    for item, length in enumerate(LENGTHS):
        padding = (
            tensor[item].movedim(2, 0) if tensor.dim() == 4 else tensor[item]
        )
        padding[length:] = 3.0
    return tensor


both_losses = pytest.mark.parametrize("loss", [magnitude_loss, si_sdr_loss])
with_and_without_pit = pytest.mark.parametrize("pit", [False, True])


@with_and_without_pit
def test_eq_3_by_its_definition(pit):
    estimates, sources = make_batch(magnitude_loss)
    orders = list(permutations(range(3))) if pit else [(0, 1, 2)]
    losses = magnitude_loss(estimates, sources, pit=pit)
    assert losses.shape == (3,)
    for item in range(3):
        errors = (sources[item, :, None] - estimates[item]).square().sum((2, 3))
        expected = min(
            sum(float(errors[k, order[k]]) for k in range(3))
            for order in orders
        ) / (3 * 5 * 11)
        assert float(losses[item]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("snr", [-10.0, 0.0, 17.0, 40.0])
@with_and_without_pit
def test_si_sdr_loss_closed_form(snr, pit):
    # Noise without mean, orthogonal to its source, of known power.
    generator = torch.Generator().manual_seed(1)
    sources, noise = torch.randn(
        2, 4, 500, 2, generator=generator, dtype=torch.float64
    )
    basis = torch.cat([torch.ones_like(sources[..., :1]), sources], dim=2)
    noise = noise - basis @ torch.linalg.lstsq(basis, noise).solution
    sources = sources - sources.mean(1, keepdim=True)
    power = sources.square().sum(1) / noise.square().sum(1)
    estimates = sources + noise * (power * 10 ** (-snr / 10)).sqrt()[:, None]
    if pit:
        estimates = estimates.flip(2)
    losses = si_sdr_loss(estimates, sources, pit=pit)
    # the floor at ±80 dB: 1e-8 of the ratio at 0 dB, 1e-4 at 40 dB
    torch.testing.assert_close(
        losses, torch.full_like(losses, -snr), rtol=0, atol=1e-3
    )


@pytest.mark.parametrize("factor", [1e-3, 0.5, 1e3])
def test_si_sdr_loss_does_not_see_levels(factor):
    estimates, sources = make_batch(si_sdr_loss)
    factors = torch.tensor([factor, 1.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(
        si_sdr_loss(estimates * factors, sources * factor),
        si_sdr_loss(estimates, sources),
    )


@both_losses
@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_pit_ignores_the_order_of_the_estimates(loss, order):
    estimates, sources = make_batch(loss)
    index = torch.tensor(order)
    permuted = estimates.index_select(spks_dim(loss), index)
    torch.testing.assert_close(
        loss(permuted, sources), loss(estimates, sources)
    )
    if order != (0, 1, 2):
        without = loss(permuted, sources, pit=False)
        assert (without != loss(estimates, sources, pit=False)).all()


@both_losses
@pytest.mark.parametrize("num_spks", [2, 3, 5])
def test_pit_never_exceeds_the_given_order(loss, num_spks):
    for seed in range(5):
        estimates, sources = make_batch(loss, num_spks, seed)
        assert (
            loss(estimates, sources)
            <= loss(estimates, sources, pit=False) + 1e-12
        ).all()


@both_losses
@with_and_without_pit
def test_padding_does_not_matter(loss, pit):
    estimates, sources = make_batch(loss)
    batch = loss(garble(loss, estimates), garble(loss, sources), LENGTHS, pit)
    for item in range(3):
        alone = loss(
            cut(loss, estimates, item), cut(loss, sources, item), pit=pit
        )
        torch.testing.assert_close(batch[item], alone[0])


@both_losses
@with_and_without_pit
def test_gradients_of_a_batch_are_those_of_its_items(loss, pit):
    # Otherwise items are talking to each other.
    estimates, sources = make_batch(loss)
    together = estimates.clone().requires_grad_()
    loss(together, sources, LENGTHS, pit).sum().backward()
    alone = estimates.clone().requires_grad_()
    for item in range(3):
        loss(
            cut(loss, alone, item), cut(loss, sources, item), pit=pit
        ).backward()
    assert (alone.grad.abs().flatten(1).sum(1) > 0).all()
    torch.testing.assert_close(together.grad, alone.grad)


@both_losses
def test_gradcheck(loss):
    estimates, sources = make_batch(loss, num_spks=2)
    assert torch.autograd.gradcheck(
        lambda x: loss(x, sources, LENGTHS), estimates.requires_grad_()
    )


@both_losses
def test_arguments_are_not_changed(loss):
    estimates, sources = make_batch(loss)
    before = estimates.clone(), sources.clone()
    loss(estimates, sources, LENGTHS)
    assert (estimates == before[0]).all() and (sources == before[1]).all()


@with_and_without_pit
def test_a_silent_source_is_left_out_of_si_sdr(pit):
    estimates, sources = make_batch(si_sdr_loss, num_spks=2)
    sources[1, :, 0] = 0.0
    # Silent within its length; what is beyond does not count.
    sources[1, LENGTHS[1] :, 0] = 1.0
    estimates.requires_grad_()
    losses = si_sdr_loss(estimates, sources, LENGTHS, pit)
    length = int(LENGTHS[1])
    scores = [
        si_sdr_loss(
            estimates[1:2, :length, j : j + 1], sources[1:2, :length, 1:]
        )
        for j in ((0, 1) if pit else (1,))
    ]
    torch.testing.assert_close(losses[1], torch.stack(scores).min())
    losses.sum().backward()
    assert estimates.grad.isfinite().all()


@with_and_without_pit
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_silence_has_no_si_sdr_loss(dtype, pit):
    for estimates in (torch.zeros(2, 50, 2), torch.randn(2, 50, 2)):
        estimates = estimates.to(dtype).requires_grad_()
        losses = si_sdr_loss(estimates, torch.zeros_like(estimates), pit=pit)
        assert (losses == 0).all()
        losses.sum().backward()
        assert (estimates.grad == 0).all()


def test_a_silent_estimate_has_a_finite_gradient():
    estimates = torch.zeros(1, 50, 1, requires_grad=True)
    si_sdr_loss(estimates, torch.randn(1, 50, 1)).sum().backward()
    assert estimates.grad.isfinite().all()


@both_losses
def test_shapes_that_differ(loss):
    estimates, sources = make_batch(loss)
    with pytest.raises(
        ValueError, match="estimates of shape .*sources of shape"
    ):
        loss(estimates[:, :2], sources)
