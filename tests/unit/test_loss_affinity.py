"""Tests of the affinity loss."""

import pytest
import torch
from torch.nn.functional import normalize, one_hot

from speechbrain_kmdanet.nnet.loss.separation import affinity_loss


def make_batch(num_spks=2, dtype=torch.float64):
    """Embeddings, memberships and weights of three items of 40 bins."""
    embeddings = normalize(torch.randn(3, 40, 6, dtype=dtype), dim=2)
    talkers = torch.randint(num_spks, (3, 40))
    return embeddings, one_hot(talkers, num_spks), torch.rand(3, 40).to(dtype)


def naive_loss(embeddings, memberships, weights):
    """Weighted mean over all N × N pairs of bins (Hershey et al., Eq. 1)."""
    memberships = memberships.to(embeddings.dtype)
    errors = (
        embeddings @ embeddings.transpose(1, 2)
        - memberships @ memberships.transpose(1, 2)
    ).square()
    pairs = weights.unsqueeze(1) * weights.unsqueeze(2)
    return (pairs * errors).sum((1, 2)) / pairs.sum((1, 2))


@pytest.mark.parametrize("num_spks", [1, 2, 3])
def test_low_rank_form_equals_the_definition(num_spks):
    embeddings, memberships, weights = make_batch(num_spks)
    results = []
    for loss in (affinity_loss, naive_loss):
        points = embeddings.clone().requires_grad_()
        values = loss(points, memberships, weights)
        values.sum().backward()
        results.append((values, points.grad))
    assert (results[1][0] > 0.1).all()
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-12)


def test_float32_is_enough():
    batch = make_batch()
    torch.testing.assert_close(
        affinity_loss(*(x.float() for x in batch)).double(),
        naive_loss(*batch),
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize("num_spks", [2, 3])
def test_talkers_on_orthogonal_axes_have_no_loss(num_spks):
    _, memberships, weights = make_batch(num_spks)
    rotation, _ = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))
    embeddings = rotation[memberships.argmax(2)]
    losses = affinity_loss(embeddings, memberships, weights)
    torch.testing.assert_close(losses, torch.zeros(3).double())
    # whatever the talkers are called
    named = affinity_loss(embeddings, memberships.flip(2), weights)
    torch.testing.assert_close(named, losses)


def test_one_embedding_for_all():
    # wrong are the pairs of different talkers: 1 − Σ_k p_k²
    _, memberships, weights = make_batch(3)
    shares = (weights.unsqueeze(2) * memberships).sum(1)
    shares = shares / weights.sum(1, keepdim=True)
    embeddings = torch.eye(6, dtype=torch.float64)[0].expand(3, 40, 6)
    torch.testing.assert_close(
        affinity_loss(embeddings, memberships, weights),
        1 - shares.square().sum(1),
    )


@pytest.mark.parametrize("factor", [1e-6, 7.0, 1e6])
def test_the_scale_of_the_weights_does_not_matter(factor):
    embeddings, memberships, weights = make_batch()
    torch.testing.assert_close(
        affinity_loss(embeddings, memberships, factor * weights),
        affinity_loss(embeddings, memberships, weights),
    )


def test_a_weight_counts_bins():
    embeddings, memberships, _ = make_batch()
    counts = torch.randint(4, (40,))
    torch.testing.assert_close(
        affinity_loss(embeddings, memberships, counts.expand(3, 40)),
        affinity_loss(
            embeddings.repeat_interleave(counts, 1),
            memberships.repeat_interleave(counts, 1),
            torch.ones(3, int(counts.sum())),
        ),
    )


def test_padding_does_not_matter_and_items_do_not_talk():
    embeddings, memberships, weights = make_batch()
    lengths = (40, 17, 30)
    for item, length in enumerate(lengths):
        weights[item, length:] = 0.0
        embeddings[item, length:] = 50.0
    together = embeddings.clone().requires_grad_()
    losses = affinity_loss(together, memberships, weights)
    losses.sum().backward()
    alone = embeddings.clone().requires_grad_()
    for item, length in enumerate(lengths):
        cut = slice(item, item + 1), slice(length)
        loss = affinity_loss(alone[cut], memberships[cut], weights[cut])
        torch.testing.assert_close(loss[0], losses[item])
        loss.backward()
    torch.testing.assert_close(together.grad, alone.grad)


def test_silence():
    embeddings, memberships, weights = make_batch(dtype=torch.float32)
    embeddings.requires_grad_()
    weights[1] = 0.0
    losses = affinity_loss(embeddings, memberships, weights)
    losses.sum().backward()
    assert losses[1] == 0 and (losses[::2] > 0).all()
    assert (embeddings.grad[1] == 0).all()
    assert embeddings.grad.isfinite().all()


def test_half_precision_is_left():
    embeddings, memberships, weights = make_batch(dtype=torch.float32)
    expected = affinity_loss(embeddings, memberships, weights)
    with torch.autocast("cpu", torch.bfloat16):
        assert (
            affinity_loss(embeddings, memberships, weights) == expected
        ).all()
    halves = embeddings.bfloat16()
    losses = affinity_loss(halves, memberships, weights)
    expected = affinity_loss(halves.float(), memberships, weights)
    assert losses.dtype == torch.float32 and (losses == expected).all()


def test_shapes_that_do_not_fit():
    embeddings, memberships, weights = make_batch()
    for wrong in (
        (embeddings, memberships[:, 1:], weights),
        (embeddings, memberships, weights[:, 1:]),
    ):
        with pytest.raises(ValueError, match=r"memberships .*\(3, 40, 6\)"):
            affinity_loss(*wrong)
