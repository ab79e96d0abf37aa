"""Tests of soft k-means."""

import pytest
import torch

from speechbrain_kmdanet.processing.kmeans import kmeans, soft_kmeans


def make_batch(num_clusters=3, bins=30, dtype=torch.float64):
    """Points, initial centroids and weights of two items."""
    x = torch.randn(2, bins, 4, dtype=dtype)
    return x, x[:, :num_clusters].clone(), torch.rand(2, bins, dtype=dtype)


def naive_soft_kmeans(x, centroids, weights, alpha, iterations):
    """One item, point by point and cluster by cluster."""

    def shares_of(point):
        scores = [
            (-alpha * (point - centroid).square().sum()).exp()
            for centroid in centroids
        ]
        return [score / sum(scores) for score in scores]

    centroids = list(centroids)
    for _ in range(iterations):
        shares = [shares_of(point) for point in x]
        for k in range(len(centroids)):
            masses = [w * share[k] for w, share in zip(weights, shares)]
            total = sum(mass * point for mass, point in zip(masses, x))
            centroids[k] = total / sum(masses)
    memberships = [torch.stack(shares_of(point)) for point in x]
    return torch.stack(centroids), torch.stack(memberships, dim=1)


@pytest.mark.parametrize("alpha", [0.3, 5.0])
@pytest.mark.parametrize("iterations", [1, 4])
@pytest.mark.parametrize("num_clusters", [1, 2, 3])
def test_naive_loop(alpha, iterations, num_clusters):
    x, centroids, weights = make_batch(num_clusters, bins=12)
    result = soft_kmeans(x, centroids, weights, alpha, iterations)
    for item in range(2):
        expected = naive_soft_kmeans(
            x[item], centroids[item], weights[item], alpha, iterations
        )
        torch.testing.assert_close(
            (result.centroids[item], result.memberships[item]), expected
        )


@pytest.mark.parametrize("iterations", [1, 3])
def test_gradients_against_finite_differences(iterations):
    x, centroids, weights = make_batch(2, bins=6)
    inputs = x, centroids, weights
    assert torch.autograd.gradcheck(
        lambda *inputs: tuple(soft_kmeans(*inputs, 2.0, iterations)),
        [value.requires_grad_() for value in inputs],
    )


@pytest.mark.parametrize("num_clusters", [2, 3])
def test_hard_k_means_is_the_limit(num_clusters):
    x, centroids, weights = make_batch(num_clusters)
    soft = soft_kmeans(x, centroids, weights, alpha=1e6, iterations=3)
    hard = kmeans(
        x,
        num_clusters,
        weights=weights,
        iterations=3,
        initial_centroids=centroids,
    )
    torch.testing.assert_close(soft.centroids, hard.centroids)
    # hard assignments are those before the last update
    nearest = torch.cdist(hard.centroids, x).argmin(1)
    assert (soft.memberships.argmax(1) == nearest).all()
    assert ((soft.memberships == 0) | (soft.memberships == 1)).all()


def test_without_hardness_all_clusters_are_alike():
    x, centroids, weights = make_batch()
    result = soft_kmeans(x, centroids, weights, alpha=1e-9, iterations=1)
    torch.testing.assert_close(
        result.memberships, torch.full((2, 3, 30), 1 / 3).double()
    )
    mean = (weights.unsqueeze(2) * x).sum(1) / weights.sum(1, keepdim=True)
    torch.testing.assert_close(
        result.centroids, mean.unsqueeze(1).expand(2, 3, 4)
    )


def test_memberships_sum_to_one():
    x, centroids, weights = make_batch(dtype=torch.float32)
    memberships = soft_kmeans(x, centroids, weights).memberships
    torch.testing.assert_close(memberships.sum(1), torch.ones(2, 30))


def test_weights_count_points():
    x, centroids, _ = make_batch()
    counts = torch.randint(4, (30,))
    torch.testing.assert_close(
        soft_kmeans(x, centroids, counts.expand(2, 30)).centroids,
        soft_kmeans(x.repeat_interleave(counts, 1), centroids).centroids,
    )


def test_points_without_weight_do_not_matter_and_items_do_not_talk():
    x, centroids, weights = make_batch()
    weights[1, 11:] = 0.0
    x[1, 11:] = 9.0
    together = soft_kmeans(x, centroids, weights)
    alone = soft_kmeans(x[1:, :11], centroids[1:], weights[1:, :11])
    torch.testing.assert_close(together.centroids[1:], alone.centroids)
    torch.testing.assert_close(
        together.memberships[1:, :, :11], alone.memberships
    )


def test_without_any_weight_the_centroids_stay():
    x, centroids, weights = make_batch(dtype=torch.float32)
    weights[1] = 0.0
    x.requires_grad_()
    result = soft_kmeans(x, centroids, weights)
    assert (result.centroids[1] == centroids[1]).all()
    (result.memberships.square().sum() + result.centroids.sum()).backward()
    assert x.grad.isfinite().all() and (x.grad != 0).any()


def test_half_precision_is_left():
    x, centroids, weights = make_batch(dtype=torch.float32)
    expected = soft_kmeans(x, centroids, weights)
    with torch.autocast("cpu", torch.bfloat16):
        result = soft_kmeans(x, centroids, weights)
    assert (result.memberships == expected.memberships).all()
    halves = soft_kmeans(x.bfloat16(), centroids, weights)
    assert halves.centroids.dtype == torch.float32


@pytest.mark.parametrize(
    "options, expected",
    [
        (dict(alpha=0.0), "alpha must be positive .*, got 0.0"),
        (dict(iterations=0), "iterations must be an integer >= 1, got 0"),
        (dict(weights=torch.ones(2, 29)), r"weights .*points=30\].*\(2, 29\)"),
        (dict(initial_centroids=torch.ones(2, 3, 5)), "initial_centroids"),
        (dict(initial_centroids=torch.ones(2, 4)), "initial_centroids"),
    ],
)
def test_wrong_arguments(options, expected):
    x, centroids, _ = make_batch()
    with pytest.raises(ValueError, match=expected):
        soft_kmeans(x, **{"initial_centroids": centroids, **options})
