"""Tests of k-means: closed forms, invariants and scikit-learn."""

import pytest
import torch

from speechbrain_kmdanet.processing.kmeans import METRICS, kmeans

KMeans = pytest.importorskip("sklearn.cluster").KMeans

both_metrics = pytest.mark.parametrize("metric", METRICS)


def make_points(batch=3, num_points=40, dimensions=4, seed=0):
    """Points off the origin and weights with zeros, float64."""
    generator = torch.Generator().manual_seed(seed)
    options = {"generator": generator, "dtype": torch.float64}
    x = torch.randn(batch, num_points, dimensions, **options) + 0.5
    weights = torch.rand(batch, num_points, **options)
    return x, weights * (weights > 0.2)


def seeded(seed=0):
    """Generator of the initialisation."""
    return torch.Generator().manual_seed(seed)


def assert_same(one, other):
    """Equal up to the rounding of float64 sums in another order."""
    assert (one.assignments == other.assignments).all()
    torch.testing.assert_close(
        one.centroids, other.centroids, rtol=0, atol=1e-12
    )
    torch.testing.assert_close(one.inertia, other.inertia, rtol=0, atol=1e-10)


@pytest.mark.parametrize("num_clusters", [1, 2, 3, 5])
def test_equals_scikit_learn(num_clusters):
    x, weights = make_points()
    initial = x[:, :num_clusters]
    result = kmeans(
        x,
        num_clusters,
        weights=weights,
        iterations=50,
        initial_centroids=initial,
    )
    for item in range(len(x)):
        reference = KMeans(
            num_clusters, init=initial[item].numpy(), n_init=1, tol=0
        ).fit(x[item].numpy(), sample_weight=weights[item].numpy())
        assert reference.n_iter_ < 50  # converged, as ours
        torch.testing.assert_close(
            result.centroids[item].numpy(),
            reference.cluster_centers_,
            rtol=0,
            atol=1e-12,
        )
        labels = torch.from_numpy(reference.labels_)
        assert (result.assignments[item] == labels).all()
        # ours is a difference of sums, scikit-learn's a sum of differences
        assert float(result.inertia[item]) == pytest.approx(
            reference.inertia_, rel=1e-12
        )


@both_metrics
@pytest.mark.parametrize("num_clusters", [1, 2, 4])
def test_inertia_by_its_definition(metric, num_clusters):
    x, weights = make_points()
    result = kmeans(
        x,
        num_clusters,
        weights=weights,
        metric=metric,
        iterations=3,
        generator=seeded(),
    )
    for item in range(len(x)):
        inertia = 0.0
        for cluster in range(num_clusters):
            members = result.assignments[item] == cluster
            w, points = weights[item, members], x[item, members]
            if metric == "euclidean":
                centroid = result.centroids[item, cluster]
                distances = (points - centroid).square().sum(1)
            else:
                units = points / points.norm(dim=1, keepdim=True)
                direction = w @ units
                distances = 1 - units @ direction / direction.norm()
            inertia += w @ distances
        assert float(result.inertia[item]) == pytest.approx(float(inertia))


@both_metrics
def test_inertia_never_grows_with_the_iterations(metric):
    x, weights = make_points(batch=8)
    inertia = torch.stack(
        [
            kmeans(
                x,
                4,
                weights=weights,
                metric=metric,
                iterations=iterations,
                initial_centroids=x[:, :4],
            ).inertia
            for iterations in range(1, 12)
        ]
    )
    assert (inertia.diff(dim=0) <= 1e-12).all()
    assert (inertia[-1] < inertia[0]).all()


def test_metrics_differ_where_they_should():
    # Two directions, of which one has points at two distances.
    x = torch.tensor([[[1.0, 0.0], [9.0, 1.0], [9.0, 0.0], [0.0, 1.0]]])
    options = {"initial_centroids": x[:, [0, 2]]}
    euclidean = kmeans(x, 2, **options)
    assert euclidean.assignments.tolist() == [[0, 1, 1, 0]]
    options = {"initial_centroids": x[:, [3, 2]]}
    spherical = kmeans(x, 2, metric="spherical", **options)
    assert spherical.assignments.tolist() == [[1, 1, 1, 0]]
    # the final centroids are means of the points as they are
    expected = torch.tensor([[[0.0, 1.0], [19 / 3, 1 / 3]]])
    torch.testing.assert_close(spherical.centroids, expected)


@both_metrics
@pytest.mark.parametrize("init", ["kmeans++", "random"])
@pytest.mark.parametrize("num_clusters", [2, 3])
@pytest.mark.parametrize("num_init, iterations", [(1, 20), (3, 2)])
def test_batch_equals_single_and_padding_changes_nothing(
    metric, init, num_clusters, num_init, iterations
):
    # Restarts that converge find the same: rounding would choose one.
    x, weights = make_points()
    options = {"metric": metric, "init": init}
    options |= {"num_init": num_init, "iterations": iterations}
    padded = torch.cat([x, 100 * torch.ones_like(x[:, :7])], dim=1)
    padded_weights = torch.nn.functional.pad(weights, (0, 7))
    batch = kmeans(
        padded,
        num_clusters,
        weights=padded_weights,
        generator=seeded(),
        **options,
    )
    singles = [
        kmeans(
            x[i : i + 1],
            num_clusters,
            weights=weights[i : i + 1],
            generator=seeded(),
            **options,
        )
        for i in range(len(x))
    ]
    batch = batch._replace(assignments=batch.assignments[:, : x.shape[1]])
    assert_same(batch, type(batch)(*map(torch.cat, zip(*singles))))


@both_metrics
@pytest.mark.parametrize("num_clusters", [2, 3])
def test_permuted_points_permute_the_assignments(metric, num_clusters):
    x, weights = make_points()
    order = torch.randperm(x.shape[1], generator=seeded())
    options = {
        "metric": metric,
        "initial_centroids": x[:, :num_clusters],
    }
    straight = kmeans(x, num_clusters, weights=weights, **options)
    shuffled = kmeans(
        x[:, order], num_clusters, weights=weights[:, order], **options
    )
    assert_same(
        straight._replace(assignments=straight.assignments[:, order]), shuffled
    )


@both_metrics
@pytest.mark.parametrize("factor", [1e-3, 7.0, 1e3])
def test_scale_equivariance(metric, factor):
    x, weights = make_points()
    one = kmeans(x, 3, weights=weights, metric=metric, generator=seeded())
    other = kmeans(
        factor * x, 3, weights=weights, metric=metric, generator=seeded()
    )
    assert (one.assignments == other.assignments).all()
    torch.testing.assert_close(other.centroids, factor * one.centroids)
    power = 2 if metric == "euclidean" else 0
    torch.testing.assert_close(other.inertia, factor**power * one.inertia)


@both_metrics
def test_weights_are_multiplicities(metric):
    x, _ = make_points(num_points=20)
    initial = x[:, :3]
    counts = torch.arange(20) % 4
    weighted = kmeans(
        x,
        3,
        weights=counts.expand(3, -1),
        metric=metric,
        initial_centroids=initial,
    )
    repeated = kmeans(
        x.repeat_interleave(counts, dim=1),
        3,
        metric=metric,
        initial_centroids=initial,
    )
    labels = weighted.assignments.repeat_interleave(counts, dim=1)
    assert_same(weighted._replace(assignments=labels), repeated)


@both_metrics
def test_pure_function(metric):
    x, weights = make_points()
    initial = x[:, :3].clone()
    arguments = (x, weights, initial)
    before = [t.clone() for t in arguments]
    for options in ({"initial_centroids": initial}, {"num_init": 2}):
        first, second = (
            kmeans(
                x,
                3,
                weights=weights,
                metric=metric,
                generator=seeded(3),
                **options,
            )
            for _ in range(2)
        )
        assert all((a == b).all() for a, b in zip(first, second))
    assert all((a == b).all() for a, b in zip(arguments, before))


@both_metrics
@pytest.mark.parametrize("num_clusters", [2, 3])
def test_an_empty_cluster_keeps_its_centroid(metric, num_clusters):
    x, weights = make_points()
    initial = x[:, :num_clusters].clone()
    initial[:, -1] = -50.0  # behind and far away from all points
    result = kmeans(
        x.abs(),
        num_clusters,
        weights=weights,
        metric=metric,
        initial_centroids=initial,
    )
    assert (result.assignments < num_clusters - 1).all()
    kept = initial[:, -1]
    if metric == "spherical":
        kept = kept / kept.norm(dim=1, keepdim=True)
    torch.testing.assert_close(result.centroids[:, -1], kept)


@both_metrics
@pytest.mark.parametrize("num_clusters", [2, 3])
@pytest.mark.parametrize("point", [(0.0, 4.0), (3.0, 4.0)])
def test_identical_points_have_no_inertia(metric, num_clusters, point):
    x = torch.tensor(point).expand(2, 10, 2)
    result = kmeans(x, num_clusters, metric=metric, generator=seeded())
    if point[0] == 0:  # Nothing is rounded: equal centroids stay equal.
        assert (result.assignments == 0).all()
        torch.testing.assert_close(result.centroids[:, 0], x[:, 0])
    own = result.assignments.unsqueeze(2).expand(-1, -1, 2)
    torch.testing.assert_close(result.centroids.gather(1, own), x)
    # rounding of sums of 10 points of squared norm 25
    assert (result.inertia <= 1e-4).all()


@both_metrics
def test_a_loud_point_without_direction_is_harmless(metric):
    x, weights = (t.float() for t in make_points())
    x[:, 3], weights[:, 3] = 0.0, 1e6  # w/‖x‖ would overflow
    result = kmeans(x, 3, weights=weights, metric=metric, generator=seeded())
    assert all(value.isfinite().all() for value in result)
    others = (result.assignments != result.assignments[:, 3:4]).any(1)
    assert others.all()


@both_metrics
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_clustered_in_float32(metric, dtype):
    x, weights = make_points()
    x, weights = x.to(dtype).requires_grad_(), weights.to(dtype)
    options = {"metric": metric, "generator": seeded()}
    half = kmeans(x, 3, weights=weights, **options)
    options["generator"] = seeded()
    single = kmeans(x.float(), 3, weights=weights.float(), **options)
    assert half.centroids.dtype == half.inertia.dtype == torch.float32
    assert all((a == b).all() for a, b in zip(half, single))
    half.centroids.sum().backward()
    assert x.grad.dtype == dtype


@both_metrics
def test_autocast_changes_nothing(metric):
    x, weights = (t.float() for t in make_points())
    plain = kmeans(x, 3, weights=weights, metric=metric, generator=seeded())
    with torch.autocast("cpu", torch.bfloat16):
        cast = kmeans(x, 3, weights=weights, metric=metric, generator=seeded())
    assert all((a == b).all() for a, b in zip(plain, cast))
