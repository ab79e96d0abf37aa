"""Tests of the search for clusters: groups, threads, and light points."""

import pytest
import torch
from torch.nn.functional import pad

from speechbrain_kmdanet.processing import lloyd
from speechbrain_kmdanet.processing.kmeans import METRICS, kmeans
from speechbrain_kmdanet.processing.lloyd import Lloyd
from speechbrain_kmdanet.processing.seeding import Problem

NEGLIGIBLE = 0.1
both_metrics = pytest.mark.parametrize("metric", METRICS)


def make_points(batch=5, num_points=60, seed=0):
    """Points, and weights as uneven as energies, some of them 0; float64."""
    generator = torch.Generator().manual_seed(seed)
    options = {"generator": generator, "dtype": torch.float64}
    x = torch.randn(batch, num_points, 4, **options) + 0.5
    weights = torch.randn(batch, num_points, **options) ** 6
    weights[:, 3::7] = 0.0
    return x, weights


def assert_same(one, other):
    """Equal up to the rounding of float64 sums in another order."""
    for a, b in zip(one, other):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@both_metrics
@pytest.mark.parametrize("negligible", [0.0, NEGLIGIBLE])
@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("num_init, iterations", [(1, 20), (2, 3)])
def test_groups_change_nothing(
    monkeypatch, metric, negligible, size, num_init, iterations
):
    # Restarts that converge find the same: rounding would choose one.
    x, weights = make_points()

    def search():
        return kmeans(
            x,
            3,
            weights=weights,
            metric=metric,
            iterations=iterations,
            num_init=num_init,
            negligible=negligible,
            generator=torch.Generator().manual_seed(0),
        )

    together = search()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(lloyd, "GROUP", size * x[0].numel())
    assert len(lloyd._groups(x)) == -(-len(x) // size)
    assert_same(search(), together)


@pytest.mark.parametrize(
    "items, threads, sizes",
    [(5, 2, [4, 1]), (3, 2, [2, 2, 1]), (1, 4, [1] * 5), (9, 4, [5])],
)
def test_groups_keep_all_threads_busy(monkeypatch, items, threads, sizes):
    x, _ = make_points()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(lloyd, "GROUP", items * x[0].numel())
    assert [len(x[items]) for items in lloyd._groups(x)] == sizes


@pytest.mark.parametrize("num_clusters", [2, 3])
@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("threads", [2, 3])
def test_threads_share_the_points_of_an_item(
    monkeypatch, num_clusters, spherical, copied, threads
):
    x, weights = make_points(batch=1, num_points=61)
    start = x[:, 1 : num_clusters + 1]
    problem = Problem(x, weights, x.norm(dim=2), spherical, num_clusters)
    monkeypatch.setattr(lloyd, "COPY_FROM", 1 if copied else 99)
    sums = {}
    for smallest in (1, 99):
        monkeypatch.setattr(lloyd, "SPLIT_FROM", smallest)
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        steps = Lloyd(problem)
        steps.step(start, last=True)
        sums[smallest] = steps._sums()
    assert_same(sums[1], sums[99])


def slow_kmeans(x, weights, metric, centroids, heavy, iterations):
    """Algorithm 1 as it is written; the last iteration sees all points."""
    unit = torch.nn.functional.normalize(x, dim=2)
    for iteration in range(iterations):
        last = iteration == iterations - 1
        if metric == "spherical":
            directions = torch.nn.functional.normalize(centroids, dim=2)
            labels = (unit @ directions.transpose(1, 2)).argmax(2)
        else:
            labels = torch.cdist(x, centroids).argmin(2)
        clusters = torch.arange(centroids.shape[1]).view(-1, 1)
        masses = (labels.unsqueeze(1) == clusters) * weights.unsqueeze(1)
        if not last:
            masses = masses * heavy.unsqueeze(1)
        points = x if last or metric == "euclidean" else unit
        found = masses @ points / masses.sum(2, keepdim=True)
        centroids = torch.where(found.isnan(), centroids, found)
    return centroids


@both_metrics
@pytest.mark.parametrize("iterations", [1, 2, 6])
def test_light_points_wait_for_the_last_iteration(metric, iterations):
    x, weights = make_points()
    mean = weights.sum(1, keepdim=True) / (weights > 0).sum(1, keepdim=True)
    heavy = weights >= NEGLIGIBLE * mean
    assert 0.2 < heavy.double().mean() < 0.8
    assert (weights * ~heavy).sum() < NEGLIGIBLE * weights.sum()
    start = x[:, 1:4]
    found = kmeans(
        x,
        3,
        weights=weights,
        metric=metric,
        iterations=iterations,
        negligible=NEGLIGIBLE,
        initial_centroids=start,
    )
    slow = slow_kmeans(x, weights, metric, start, heavy, iterations)
    torch.testing.assert_close(found.centroids, slow)


def test_kept_points_have_their_weights_and_padding_has_none():
    x, weights = make_points()
    kept = weights > 0.5
    assert len(kept.sum(1).unique()) > 1  # Items of different lengths.
    problem = Problem(x, weights, x.norm(dim=2), True, 3)
    heavy = lloyd._keep(problem, kept)
    assert heavy.points.shape == (len(x), kept.sum(1).max(), x.shape[2])
    assert heavy[3:] == problem[3:]
    for item, count in enumerate(kept.sum(1)):
        for some, every in zip(heavy[:3], problem[:3]):
            assert torch.equal(some[item, :count], every[item, kept[item]])
        assert (heavy.weights[item, count:] == 0).all()


@both_metrics
def test_left_out_or_weightless_is_the_same(monkeypatch, metric):
    # A device that must not be waited for gets weights of 0 instead of copies.
    x, weights = make_points()
    options = {"weights": weights, "metric": metric, "negligible": NEGLIGIBLE}
    copied = kmeans(x, 3, initial_centroids=x[:, 1:4], **options)
    monkeypatch.setattr(
        lloyd,
        "_keep",
        lambda problem, kept: problem._replace(weights=problem.weights * kept),
    )
    zeroed = kmeans(x, 3, initial_centroids=x[:, 1:4], **options)
    assert_same(copied, zeroed)
    exact = kmeans(
        x, 3, weights=weights, metric=metric, initial_centroids=x[:, 1:4]
    )
    assert not torch.equal(exact.centroids, copied.centroids)


@both_metrics
@pytest.mark.parametrize("factor", [1.0, 1e-6, 1e6])
def test_what_is_light_depends_on_the_item_alone(metric, factor):
    x, weights = make_points()
    options = {"metric": metric, "negligible": NEGLIGIBLE}

    def search(x, weights):
        return kmeans(
            x,
            3,
            weights=weights,
            generator=torch.Generator().manual_seed(0),
            **options,
        ).centroids

    padded = search(pad(x, (0, 0, 0, 999), value=5.0), pad(weights, (0, 999)))
    for item in range(len(x)):
        alone = search(x[item, None], factor * weights[item, None])
        torch.testing.assert_close(alone[0], padded[item])


@both_metrics
@pytest.mark.parametrize("batch", [1, 3])
def test_silence_and_single_points_leave_something_to_iterate(metric, batch):
    x, weights = make_points(batch)
    start = x[:, [3, 4]]
    options = {"metric": metric, "negligible": 0.5, "initial_centroids": start}
    silent = torch.zeros_like(weights)
    assert torch.equal(
        kmeans(x, 2, weights=silent, **options).centroids.isfinite(),
        torch.ones_like(start, dtype=torch.bool),
    )
    # A single point is heavy; the other cluster has to wait for the light ones.
    alone = torch.full_like(weights, 1e-9)
    alone[:, 3] = 1.0
    found = kmeans(x, 2, weights=alone, **options)
    assert (found.assignments[:, 3] == 0).all()
    assert (found.assignments == 1).any(1).all()
    assert found.centroids.isfinite().all()


@both_metrics
def test_inertia_only_where_it_is_asked_for(metric):
    x, weights = make_points()
    options = {"weights": weights, "metric": metric}
    full = kmeans(x, 3, initial_centroids=x[:, 1:4], **options)
    fast = kmeans(
        x, 3, initial_centroids=x[:, 1:4], with_inertia=False, **options
    )
    assert fast.inertia is None
    assert_same(full[:2], fast[:2])
    restarted = kmeans(x, 3, num_init=2, with_inertia=False, **options)
    assert restarted.inertia.shape == (len(x),)


@both_metrics
def test_threads_share_the_gradient_of_an_item(monkeypatch, metric):
    x, weights = make_points(batch=1, num_points=61)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    gradients = []
    for smallest in (1, 99):
        monkeypatch.setattr(lloyd, "SPLIT_FROM", smallest)
        points = x.clone().requires_grad_()
        centroids = kmeans(
            points,
            3,
            weights=weights,
            metric=metric,
            initial_centroids=x[:, 1:4],
        ).centroids
        gradients += torch.autograd.grad(centroids.square().sum(), points)
    torch.testing.assert_close(*gradients)
