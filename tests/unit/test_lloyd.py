"""Tests of Lloyd iterations: two orders in memory, and equal scores."""

import pytest
import torch

from speechbrain_kmdanet.processing.lloyd import COPY_FROM, Lloyd, means


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("num_clusters", [1, 2, 3, 5])
def test_order_in_memory_changes_nothing(spherical, num_clusters):
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(2, 50, 4, generator=generator, dtype=torch.float64)
    weights = torch.rand(2, 50, generator=generator, dtype=torch.float64)
    start = points[:, :num_clusters]
    across, along = (
        Lloyd(points, weights, num_clusters, spherical, iterations)
        for iterations in (1, COPY_FROM)
    )
    assert not across.transposed.is_contiguous()
    assert along.transposed.is_contiguous()
    assert torch.equal(along.transposed, points.transpose(1, 2))
    for iterations in (1, 2, 7):
        torch.testing.assert_close(
            along.run(start, iterations), across.run(start, iterations)
        )
    assert torch.equal(along.assign(start), across.assign(start))
    torch.testing.assert_close(along.sums(), across.sums())
    torch.testing.assert_close(along.masses, across.masses)


@pytest.mark.parametrize("num_clusters", [2, 3, 4])
def test_the_first_of_equal_centroids_takes_the_points(num_clusters):
    points = torch.tensor([[[1.0], [2.0]]])
    lloyd = Lloyd(points, torch.ones(1, 2), num_clusters, spherical=False)
    equal = torch.full((1, num_clusters, 1), 5.0)
    assert lloyd.assign(equal).tolist() == [[0, 0]]
    lloyd.sums()
    assert lloyd.masses.sum(2).flatten().tolist() == [2.0] + [0.0] * (
        num_clusters - 1
    )
    moved = lloyd.step(equal)
    assert moved.flatten().tolist() == [1.5] + [5.0] * (num_clusters - 1)


def test_a_light_cluster_keeps_its_accuracy_beside_a_heavy_one():
    # Its sum must not be what the heavy one leaves of the total.
    points = torch.tensor([[[-1.0, 3.0], [7.0, 0.3]]])
    lloyd = Lloyd(points, torch.tensor([[1e9, 1e-3]]), 2, spherical=False)
    assert torch.equal(lloyd.step(points), points)


def test_subnormal_mass_counts_as_none():
    sums = torch.tensor([[[1e-44], [3.0]]])
    masses = torch.tensor([[[1e-44], [2.0]]])
    previous = torch.full((1, 2, 1), 9.0)
    assert means(sums, masses, previous).flatten().tolist() == [9.0, 1.5]
