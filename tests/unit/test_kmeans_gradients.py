"""Tests of the gradients of k-means, against the fully unrolled graph."""

import pytest
import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    FakeTensorMode,
)

from speechbrain_kmdanet.processing.kmeans import METRICS, kmeans


def naive_mean(points, weights, previous):
    """Eq. 6 for one cluster; without weight it keeps its centroid."""
    if not points or sum(weights) == 0:
        return previous
    return sum(w * v for v, w in zip(points, weights)) / sum(weights)


def naive_kmeans(x, weights, centroids, metric, iterations):
    """Algorithm 1 for one item, to the letter; autograd sees all of it."""
    points, centroids = list(x), list(centroids)
    if metric == "spherical":
        points = [v / v.norm() for v in points]
        centroids = [c / c.norm() for c in centroids]

    def closeness(point, centroid):
        if metric == "spherical":
            return float((point @ centroid).detach())
        return -float((point - centroid).norm().detach())

    for _ in range(iterations):
        previous = centroids
        labels = []
        for point in points:
            scores = [closeness(point, centroid) for centroid in centroids]
            labels.append(scores.index(max(scores)))
        clusters = [
            [i for i, label in enumerate(labels) if label == cluster]
            for cluster in range(len(centroids))
        ]
        centroids = []
        for members, centroid in zip(clusters, previous):
            mean = naive_mean(
                [points[i] for i in members],
                [weights[i] for i in members],
                centroid,
            )
            unit = metric == "spherical"
            centroids.append(mean / mean.norm() if unit else mean)
    # Line 12; the same means once more for the Euclidean metric.
    centroids = [
        naive_mean([x[i] for i in members], [weights[i] for i in members], c)
        for members, c in zip(clusters, previous)
    ]
    return torch.stack(centroids), torch.tensor(labels)


def make_problem(num_clusters, seed=1, num_points=25):
    """Overlapping points, weights with zeros, initial centroids; float64."""
    generator = torch.Generator().manual_seed(seed)
    options = {"generator": generator, "dtype": torch.float64}
    # Off the origin, so that the spherical clusters differ in size.
    x = torch.randn(2, num_points, 4, **options) + 0.3
    weights = torch.rand(2, num_points, **options)
    weights = weights * (weights > 0.25)
    initial = torch.randn(2, num_clusters, 4, **options)
    return x, weights, initial


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("num_clusters", [2, 3, 5])
@pytest.mark.parametrize("iterations", [1, 3, 10])
def test_equals_the_full_unrolling(metric, num_clusters, iterations):
    x, weights, initial = make_problem(num_clusters)
    x.requires_grad_()
    result = kmeans(
        x,
        num_clusters,
        weights=weights,
        metric=metric,
        iterations=iterations,
        initial_centroids=initial,
    )
    expected = [
        naive_kmeans(*item, metric, iterations)
        for item in zip(x, weights, initial)
    ]
    centroids = torch.stack([item[0] for item in expected])
    labels = torch.stack([item[1] for item in expected])
    assert (result.assignments == labels).all()
    # float64; the two only add in another order
    torch.testing.assert_close(result.centroids, centroids, rtol=0, atol=1e-12)

    probe = torch.randn_like(initial)
    (gradient,) = torch.autograd.grad((result.centroids.sin() * probe).sum(), x)
    (naive,) = torch.autograd.grad((centroids.sin() * probe).sum(), x)
    assert naive.abs().max() > 0.01
    torch.testing.assert_close(gradient, naive, rtol=0, atol=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_the_unrolling_above_has_something_to_do(metric):
    x, weights, initial = make_problem(3)
    runs = [
        kmeans(
            x,
            3,
            weights=weights,
            metric=metric,
            iterations=iterations,
            initial_centroids=initial,
        )
        for iterations in (1, 3, 10)
    ]
    for one, other in zip(runs, runs[1:]):
        assert (one.assignments != other.assignments).any()
        assert (one.centroids - other.centroids).abs().max() > 0.01


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("num_clusters", [2, 3])
def test_gradcheck_of_the_last_update(metric, num_clusters):
    x, weights, initial = make_problem(num_clusters, num_points=7)

    def centroids(x, weights):
        return kmeans(
            x,
            num_clusters,
            weights=weights,
            metric=metric,
            iterations=2,
            initial_centroids=initial,
        ).centroids

    # Weights away from 0, where a cluster may become empty.
    weights = weights + 0.1
    assert torch.autograd.gradcheck(
        centroids, (x.requires_grad_(), weights.requires_grad_())
    )


def test_only_the_assigned_points_of_positive_weight_get_a_gradient():
    x, weights, initial = make_problem(2)
    x.requires_grad_()
    result = kmeans(x, 2, weights=weights, initial_centroids=initial)
    result.centroids[:, 0].sum().backward()
    touched = x.grad.abs().sum(2) > 0
    assert (touched == ((result.assignments == 0) & (weights > 0))).all()


@pytest.mark.parametrize("metric", METRICS)
def test_saved_memory_does_not_depend_on_the_iterations(metric):
    x, weights, initial = make_problem(3)
    # A graph through x only, as below an embedding network.
    x = x.requires_grad_() * 1.0
    saved = {}
    for iterations in (1, 20):
        sizes = []

        def pack(tensor, sizes=sizes):
            sizes.append(tensor.numel() * tensor.element_size())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            kmeans(
                x,
                3,
                weights=weights,
                metric=metric,
                iterations=iterations,
                initial_centroids=initial,
            )
        saved[iterations] = sizes
    assert saved[1] and saved[1] == saved[20]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("num_clusters", [2, 3])
def test_never_waits_for_the_device(metric, num_clusters):
    # Fake tensors have no values: whatever would read one, as .item() and
    # `if tensor:` do, and so wait for a device, raises.
    device = {"device": "cuda"}
    with FakeTensorMode():
        with pytest.raises(DataDependentOutputException):
            bool(torch.ones((), **device))
        x = torch.randn(2, 30, 4, requires_grad=True, **device)
        weights = torch.rand(2, 30, **device)
        for initial in (torch.randn(2, num_clusters, 4, **device), None):
            result = kmeans(
                x,
                num_clusters,
                weights=weights,
                metric=metric,
                iterations=3,
                num_init=2,
                initial_centroids=initial,
                negligible=0.1,
            )
            assert result.centroids.shape == (2, num_clusters, 4)
            assert result.assignments.shape == (2, 30)
            assert result.inertia.shape == (2,)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("num_clusters", [2, 3])
@pytest.mark.parametrize(
    "case", ["weightless", "silent", "identical", "empty cluster", "subnormal"]
)
def test_gradients_are_finite(metric, num_clusters, case):
    x, weights, initial = (t.float() for t in make_problem(num_clusters))
    options = {}
    if case == "weightless":
        weights = torch.zeros_like(weights)
    elif case == "silent":
        x = torch.zeros_like(x)
    elif case == "identical":
        x = x[:, :1].expand_as(x).clone()
    elif case == "empty cluster":
        initial[:, 0] = -100 * x.mean(1)
        options["initial_centroids"] = initial
    elif case == "subnormal":
        x = x * 1e-40
    # Loud bins: w/‖x‖ must not overflow.
    weights = 1e3 * weights
    x.requires_grad_()
    result = kmeans(
        x,
        num_clusters,
        weights=weights,
        metric=metric,
        **options,
        generator=torch.Generator().manual_seed(0),
    )
    result.centroids.square().sum().backward()
    assert result.centroids.isfinite().all()
    assert result.inertia.isfinite().all()
    assert x.grad.isfinite().all()
    if case == "weightless":
        assert (x.grad == 0).all()
