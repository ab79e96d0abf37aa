"""Tests of the masks."""

import math

import pytest
import torch

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.processing.masks import (
    distance_masks,
    dot_product_masks,
)

both_masks = pytest.mark.parametrize(
    "masks", [dot_product_masks, distance_masks]
)


@both_masks
@pytest.mark.parametrize("num_spks", [1, 2, 5])
def test_masks_share_every_bin(masks, num_spks):
    values = masks(3 * torch.randn(2, 30, 4), 3 * torch.randn(2, num_spks, 4))
    assert values.shape == (2, num_spks, 30)
    assert (values >= 0).all()
    torch.testing.assert_close(values.sum(1), torch.ones(2, 30))


@both_masks
def test_closed_form(masks):
    # Dot products 3, −6 and 0; distances 5, 4 and 3.
    embeddings = torch.tensor([[[3.0, 0.0]]], dtype=torch.float64)
    attractors = torch.tensor(
        [[[1.0, math.sqrt(21)], [-2.0, 5.0], [0.0, 0.0]]], dtype=torch.float64
    )
    if masks is dot_product_masks:
        scores = [3.0, -6.0, 0.0]
    else:
        scores = [-5.0, -math.sqrt(50), -3.0]
    powers = [math.exp(score) for score in scores]
    expected = torch.tensor(powers, dtype=torch.float64) / sum(powers)
    torch.testing.assert_close(
        masks(embeddings, attractors)[0, :, 0], expected, rtol=1e-12, atol=0
    )


@both_masks
def test_items_do_not_talk_to_each_other(masks):
    embeddings, attractors = torch.randn(3, 7, 4), torch.randn(3, 2, 4)
    batch = masks(embeddings, attractors)
    for item in range(3):
        alone = masks(embeddings[item, None], attractors[item, None])
        torch.testing.assert_close(batch[item], alone[0])


@both_masks
def test_permuted_attractors_permute_the_masks(masks):
    embeddings, attractors = torch.randn(2, 7, 4), torch.randn(2, 3, 4)
    order = [2, 0, 1]
    torch.testing.assert_close(
        masks(embeddings, attractors[:, order]),
        masks(embeddings, attractors)[:, order],
    )


@both_masks
def test_gradients_are_finite_on_an_attractor(masks):
    attractors = torch.randn(1, 2, 4).requires_grad_()
    embeddings = attractors.detach().repeat(1, 3, 1).requires_grad_()
    values = masks(embeddings, attractors)
    values[:, 0].square().sum().backward()
    assert values.isfinite().all()
    assert embeddings.grad.isfinite().all()
    assert attractors.grad.isfinite().all() and attractors.grad.abs().sum() > 0


@both_masks
def test_gradcheck(masks):
    embeddings = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    attractors = torch.randn(2, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(masks, (embeddings, attractors))


@both_masks
def test_far_away_bins_do_not_overflow(masks):
    embeddings = 1e4 * torch.randn(1, 10, 4)
    values = masks(embeddings, 1e4 * torch.randn(1, 2, 4))
    assert values.isfinite().all()
    torch.testing.assert_close(values.sum(1), torch.ones(1, 10))


def test_distance_masks_are_precise_under_autocast():
    # Embeddings of norm 20 within 1 of the attractors: the squares cancel.
    attractors = 10 + torch.randn(1, 2, 4)
    embeddings = attractors + 0.3 * torch.randn(1, 2, 4)
    exact = distance_masks(embeddings.double(), attractors.double())
    with torch.autocast("cpu", torch.bfloat16):
        cast = distance_masks(embeddings, attractors)
    # float32: squares of about 400 are exact to 1e-4, so are distances
    torch.testing.assert_close(cast.double(), exact, rtol=0, atol=1e-3)


@both_masks
def test_gradients_are_the_same_in_both_orders(masks):
    embeddings = torch.randn(2, 9, 4, dtype=torch.float64)
    attractors = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    constant = masks(embeddings, attractors)  # Without a gradient of V.
    learned = embeddings.clone().requires_grad_()
    torch.testing.assert_close(masks(learned, attractors), constant)
    upstream = torch.randn_like(constant)
    torch.testing.assert_close(
        *(
            torch.autograd.grad(masks(v, attractors), attractors, upstream)[0]
            for v in (embeddings, learned)
        )
    )
    (gradient,) = torch.autograd.grad(
        masks(learned, attractors), learned, upstream
    )
    assert gradient.stride() == learned.stride()
    assert torch.autograd.gradcheck(masks, (learned, attractors))


@pytest.mark.parametrize("offset", [30.0, 1e3, 1e5])
def test_an_offset_of_all_changes_no_distance(offset):
    attractors = torch.randn(2, 3, 4)
    embeddings = torch.randn(2, 9, 4)
    offsets = torch.tensor([offset, 0.0]).view(2, 1, 1)  # of one item
    attractors, embeddings = attractors + offsets, embeddings + offsets
    exact = distance_masks(embeddings.double(), attractors.double())
    found = distance_masks(embeddings.requires_grad_(), attractors)
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-6)
    (gradient,) = torch.autograd.grad(found[:, 0].sum(), embeddings)
    double = embeddings.detach().double().requires_grad_()
    exact = distance_masks(double, attractors.double())[:, 0].sum()
    (expected,) = torch.autograd.grad(exact, double)
    torch.testing.assert_close(
        gradient.double(), expected, rtol=1e-3, atol=1e-5
    )


@both_masks
@pytest.mark.parametrize(
    "embeddings, attractors, name",
    [
        ([[1.0]], torch.ones(1, 2, 3), "embeddings"),
        (torch.ones(7, 3), torch.ones(1, 2, 3), "embeddings"),
        (torch.ones(0, 7, 3), torch.ones(0, 2, 3), "embeddings"),
        (torch.ones(1, 7, 3).long(), torch.ones(1, 2, 3), "embeddings"),
        (torch.ones(1, 7, 3), None, "attractors"),
        (torch.ones(1, 7, 3), torch.ones(2, 3), "attractors"),
        (torch.ones(1, 7, 3), torch.ones(2, 2, 3), "attractors"),
        (torch.ones(1, 7, 3), torch.ones(1, 2, 4), "attractors"),
        (torch.ones(1, 7, 3), torch.ones(1, 0, 3), "attractors"),
    ],
)
def test_errors_name_the_argument(masks, embeddings, attractors, name):
    with pytest.raises(UserError, match=f"^{name} must be a non-empty"):
        masks(embeddings, attractors)
