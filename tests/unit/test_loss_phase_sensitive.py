"""Tests of the phase-sensitive loss."""

from itertools import permutations

import pytest
import torch

from speechbrain_kmdanet.nnet.loss.separation import phase_sensitive_loss

NUM_FRAMES = torch.tensor([7, 4, 6])
both_powers = pytest.mark.parametrize("power", [1, 2])
with_and_without_pit = pytest.mark.parametrize("pit", [False, True])


def make_batch(num_spks=3, batch=3):
    """Masks, mixture and sources, with something in the padding."""
    shape = batch, num_spks, 5, 7
    sources = torch.randn(shape, dtype=torch.complex128)
    return torch.rand(shape).double().transpose(0, 1), sources.sum(1), sources


def naive_targets(spectrum, sources):
    """|S| cos(∠S − ∠X), truncated to [0, |X|], from the angles."""
    spectrum = spectrum.unsqueeze(1)
    cosines = (sources.angle() - spectrum.angle()).cos()
    projections = (sources.abs() * cosines).clamp_min(0.0)
    return torch.minimum(projections, spectrum.abs())


@both_powers
@with_and_without_pit
def test_definition(power, pit):
    masks, spectrum, sources = make_batch()
    losses = phase_sensitive_loss(masks, spectrum, sources, None, power, pit)
    targets = naive_targets(spectrum, sources)
    orders = list(permutations(range(3))) if pit else [(0, 1, 2)]
    for item in range(3):
        mixture = spectrum[item].abs()
        totals = [
            sum(
                (masks[order[k], item] * mixture - targets[item, k])
                .abs()
                .pow(power)
                .sum()
                for k in range(3)
            )
            for order in orders
        ]
        expected = min(totals) / 3 / mixture.pow(power).sum()
        torch.testing.assert_close(losses[item], expected)


@both_powers
@pytest.mark.parametrize(
    "angle, target", [(0, 0.5), (60, 0.25), (90, 0), (120, 0), (300, 0.25)]
)
def test_known_phases(angle, target, power):
    # A source at half the magnitude of the mixture, turned by an angle.
    angles = 2 * torch.pi * torch.rand(1, 5, 7).double()
    spectrum = torch.polar(torch.rand(1, 5, 7).double(), angles)
    half, turn = torch.tensor([0.5, torch.pi * angle / 180]).double()
    sources = (spectrum * torch.polar(half, turn)).unsqueeze(1)
    for mask in (0.0, 0.4, target):
        masks = torch.full((1, 1, 5, 7), mask).double()
        torch.testing.assert_close(
            phase_sensitive_loss(masks, spectrum, sources, power=power),
            torch.tensor([abs(mask - target)]).double().pow(power),
        )


@both_powers
def test_targets_that_are_not_truncated(power):
    # Sources of 3 and -2: masks that reach them exist, but not from 0 to 1.
    sources = torch.tensor([3.0 + 0j, -2.0]).view(1, 2, 1, 1)
    masks = torch.tensor([3.0, -2.0]).view(2, 1, 1, 1)
    mixture, options = sources.sum(1), dict(power=power, truncate=False)
    assert phase_sensitive_loss(masks, mixture, sources, **options) == 0
    best = masks.clamp(0, 1)
    assert phase_sensitive_loss(best, mixture, sources, **options) == 2**power


@both_powers
def test_a_source_louder_than_the_mixture_is_truncated(power):
    sources = torch.tensor([3.0 + 0j, -2.0]).view(1, 2, 1, 1)
    masks = torch.tensor([1.0, 0.0]).view(2, 1, 1, 1)
    assert (
        phase_sensitive_loss(masks, sources.sum(1), sources, power=power) == 0
    )


@both_powers
@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_pit_ignores_the_order_of_the_masks(power, order):
    masks, spectrum, sources = make_batch()
    permuted = masks[list(order)]
    torch.testing.assert_close(
        phase_sensitive_loss(permuted, spectrum, sources, power=power),
        phase_sensitive_loss(masks, spectrum, sources, power=power),
    )
    if order != (0, 1, 2):
        without = dict(power=power, pit=False)
        assert (
            phase_sensitive_loss(permuted, spectrum, sources, **without)
            != phase_sensitive_loss(masks, spectrum, sources, **without)
        ).all()


@both_powers
@pytest.mark.parametrize("factor", [1e-6, 0.5, 1e6])
def test_levels_do_not_matter(power, factor):
    masks, spectrum, sources = make_batch()
    factors = torch.tensor([factor, 1.0, 3.0]).double().view(-1, 1, 1)
    torch.testing.assert_close(
        phase_sensitive_loss(
            masks, factors * spectrum, factors[:, None] * sources, power=power
        ),
        phase_sensitive_loss(masks, spectrum, sources, power=power),
    )


@both_powers
@with_and_without_pit
def test_padding_does_not_matter_and_items_do_not_talk(power, pit):
    masks, spectrum, sources = make_batch()
    together = masks.clone().requires_grad_()
    losses = phase_sensitive_loss(
        together, spectrum, sources, NUM_FRAMES, power, pit
    )
    losses.sum().backward()
    alone = masks.clone().requires_grad_()
    for item, frames in enumerate(NUM_FRAMES):
        loss = phase_sensitive_loss(
            alone[:, item : item + 1, :, :frames],
            spectrum[item : item + 1, :, :frames],
            sources[item : item + 1, ..., :frames],
            None,
            power,
            pit,
        )
        torch.testing.assert_close(loss[0], losses[item])
        loss.backward()
    assert (together.grad != 0).any()
    torch.testing.assert_close(together.grad, alone.grad)


@both_powers
def test_gradcheck(power):
    masks, spectrum, sources = make_batch(2)
    assert torch.autograd.gradcheck(
        lambda x: phase_sensitive_loss(x, spectrum, sources, NUM_FRAMES, power),
        masks.clone().requires_grad_(),
    )


@both_powers
def test_silence(power):
    masks, spectrum, sources = make_batch()
    spectrum, sources = spectrum.cfloat(), sources.cfloat()
    spectrum[1] = sources[1] = 0.0
    masks = masks.float().requires_grad_()
    losses = phase_sensitive_loss(masks, spectrum, sources, power=power)
    losses.sum().backward()
    assert losses[1] == 0 and (losses[::2] > 0).all()
    assert (masks.grad[:, 1] == 0).all() and masks.grad.isfinite().all()


def test_wrong_arguments():
    masks, spectrum, sources = make_batch()
    with pytest.raises(ValueError, match=r"power must be 1 or 2, got 3"):
        phase_sensitive_loss(masks, spectrum, sources, power=3)
    with pytest.raises(ValueError, match=r"masks .*\(3, 3, 5, 7\), got \(2, 3"):
        phase_sensitive_loss(masks[:2], spectrum, sources)
