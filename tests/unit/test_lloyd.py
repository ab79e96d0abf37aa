"""Tests of Lloyd iterations: two orders in memory, and equal scores."""

import pytest
import torch

from speechbrain_kmdanet.processing.lloyd import COPY_FROM, Lloyd, means
from speechbrain_kmdanet.processing.seeding import Problem


def make_problem(points, weights, num_clusters, spherical=False):
    """Points and weights to be clustered."""
    norms = torch.linalg.vector_norm(points, dim=2)
    return Problem(points, weights, norms, spherical, num_clusters)


def run(lloyd, centroids, iterations):
    """Centroids after several iterations."""
    for _ in range(iterations):
        centroids = lloyd.step(centroids).centroids
    return centroids


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("num_clusters", [1, 2, 3, 5])
def test_order_in_memory_changes_nothing(spherical, num_clusters):
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(2, 50, 4, generator=generator, dtype=torch.float64)
    weights = torch.rand(2, 50, generator=generator, dtype=torch.float64)
    problem = make_problem(points, weights, num_clusters, spherical)
    start = points[:, :num_clusters]
    across, along = (
        Lloyd(problem, iterations) for iterations in (1, COPY_FROM)
    )
    assert not across._transposed.is_contiguous()
    assert along._transposed.is_contiguous()
    assert torch.equal(along._transposed, points.transpose(1, 2))
    for iterations in (1, 2, 7):
        torch.testing.assert_close(
            run(along, start, iterations), run(across, start, iterations)
        )
    for with_inertia in (False, True):
        found, expected = (
            lloyd.step(start, True, with_inertia) for lloyd in (along, across)
        )
        assert found.centroids is expected.centroids is start
        assert torch.equal(found.labels, expected.labels)
    torch.testing.assert_close(found.inertia, expected.inertia)
    # what was left of the last assignment
    for lloyd in (along, across):
        lloyd.step(start, last=True)
    torch.testing.assert_close(along._sums(), across._sums())
    torch.testing.assert_close(along._masses, across._masses)


@pytest.mark.parametrize("num_clusters", [2, 3, 4])
def test_the_first_of_equal_centroids_takes_the_points(num_clusters):
    points = torch.tensor([[[1.0], [2.0]]])
    lloyd = Lloyd(make_problem(points, torch.ones(1, 2), num_clusters))
    equal = torch.full((1, num_clusters, 1), 5.0)
    assert lloyd.step(equal, last=True).labels.tolist() == [[0, 0]]
    lloyd._sums()
    assert lloyd._masses.sum(2).flatten().tolist() == [2.0] + [0.0] * (
        num_clusters - 1
    )
    moved = lloyd.step(equal).centroids
    assert moved.flatten().tolist() == [1.5] + [5.0] * (num_clusters - 1)


def test_a_light_cluster_keeps_its_accuracy_beside_a_heavy_one():
    # Its sum must not be what the heavy one leaves of the total.
    points = torch.tensor([[[-1.0, 3.0], [7.0, 0.3]]])
    lloyd = Lloyd(make_problem(points, torch.tensor([[1e9, 1e-3]]), 2))
    assert torch.equal(lloyd.step(points).centroids, points)


def test_subnormal_mass_counts_as_none():
    sums = torch.tensor([[[1e-44], [3.0]]])
    masses = torch.tensor([[[1e-44], [2.0]]])
    previous = torch.full((1, 2, 1), 9.0)
    assert means(sums, masses, previous).flatten().tolist() == [9.0, 1.5]
