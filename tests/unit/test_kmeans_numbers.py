"""Tests of k-means with numbers that cancel, overflow, or are none."""

import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.processing import (
    kmeans as module,
    lloyd,
    seeding,
)
from speechbrain_kmdanet.processing.kmeans import METRICS, kmeans, soft_kmeans
from speechbrain_kmdanet.processing.seeding import INITS

KMeans = pytest.importorskip("sklearn.cluster").KMeans

both_metrics = pytest.mark.parametrize("metric", METRICS)
# As in training on another device, where values are not looked at.
looking = pytest.mark.parametrize("looks", [True, False])
NAN, INF = math.nan, math.inf


def seeded(seed=0):
    """Generator of the initialisation."""
    return torch.Generator().manual_seed(seed)


def make_blobs(distance=1.0, spread=0.1, each=500, dtype=torch.float32):
    """Two blobs on the first axis, as one item [1, N, D], and their labels."""
    labels = torch.arange(2).repeat_interleave(each)
    x = spread * torch.randn(2 * each, 8, dtype=dtype)
    x[:, 0] += distance * labels
    return x[None], labels


def make_points(batch=2, num_points=30, dtype=torch.float32):
    """Points that do not fall into clusters, and weights."""
    x = torch.randn(batch, num_points, 4, dtype=dtype)
    return x, torch.rand(batch, num_points, dtype=dtype) + 0.1


def look_or_not(monkeypatch, looks):
    monkeypatch.setattr(module, "_host_looks", lambda x: looks)


def inertia_of(x, result):
    """Inertia of equal weights by its definition, in float64."""
    x, centroids = x.double(), result.centroids.double()
    own = result.assignments.unsqueeze(2).expand(-1, -1, x.shape[2])
    return (x - centroids.gather(1, own)).square().sum((1, 2))


@looking
@pytest.mark.parametrize("offset", [0.0, 30.0, 1e3, 1e4, -1e5])
def test_an_offset_of_all_points_changes_nothing(monkeypatch, looks, offset):
    look_or_not(monkeypatch, looks)
    x, labels = make_blobs()
    x = x + offset
    starts = {"initial_centroids": x[:, [0, -1]]}, {"generator": seeded()}
    for start in starts:
        result = kmeans(x, 2, **start)
        found = result.assignments[0]
        assert torch.equal(found if found[0] == 0 else 1 - found, labels)
        reference = KMeans(2, n_init=1).fit(x[0].double().numpy())
        inertia = float(result.inertia)
        assert inertia == pytest.approx(reference.inertia_, rel=1e-4)
        centres = reference.cluster_centers_[reference.labels_[[0, -1]]]
        torch.testing.assert_close(
            result.centroids[0, found[[0, -1]]].double(),
            torch.from_numpy(centres),
            rtol=1e-7,  # of the offset
            atol=1e-6,
        )
        soft = soft_kmeans(x, result.centroids, alpha=500.0)
        assert torch.equal(soft.memberships[0].argmax(0), found)
        torch.testing.assert_close(soft.centroids, result.centroids)


@looking
def test_gradients_far_from_the_origin(monkeypatch, looks):
    look_or_not(monkeypatch, looks)
    x, _ = make_blobs(each=20, dtype=torch.float64)
    weights = torch.rand(1, 40, dtype=torch.float64)
    gradients = []
    for offset in (0.0, 1e6):
        points, w = x.clone().requires_grad_(), weights.clone().requires_grad_()
        start = {"initial_centroids": (x + offset)[:, [0, -1]]}
        for found in (
            kmeans(points + offset, 2, weights=w, **start).centroids,
            soft_kmeans(points + offset, **start, weights=w).centroids,
        ):
            value = (found - offset).sin().sum()
            gradients += torch.autograd.grad(value, (points, w))
    for one, other in zip(gradients[:4], gradients[4:]):
        assert one.abs().max() > 1e-3
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


@both_metrics
@pytest.mark.parametrize("spread", [1e-2, 1e-4])
def test_inertia_of_tight_clusters(metric, spread):
    x, labels = make_blobs(distance=2.0, spread=spread, each=50)
    x[..., 0] -= 1.0
    if metric == "spherical":  # Directions that are no opposites.
        x[..., 1] += 1.0
    double = kmeans(
        x.double(), 2, metric=metric, initial_centroids=x[:, [0, -1]].double()
    )
    result = kmeans(x, 2, metric=metric, initial_centroids=x[:, [0, -1]])
    assert torch.equal(result.assignments[0], labels)
    if metric == "euclidean":
        expected = inertia_of(x, double)
        torch.testing.assert_close(double.inertia, expected)
    torch.testing.assert_close(
        result.inertia.double(), double.inertia, rtol=1e-3, atol=0
    )


def test_inertia_counts_points_without_direction_as_before(monkeypatch):
    x, _ = make_blobs(distance=0.0, each=20, dtype=torch.float64)
    x[..., 1] += 1.0
    x[:, :3] = 0.0
    summed, left = [], {"metric": "spherical", "initial_centroids": x[:, 4:6]}
    for tight in (0.0, 2.0):
        monkeypatch.setattr(lloyd, "TIGHT", tight)
        summed.append(kmeans(x, 2, **left).inertia)
    torch.testing.assert_close(*summed)
    assert float(summed[0]) > 3.0


@looking
@both_metrics
@pytest.mark.parametrize("power", [-130, -60, -20, 20, 62, 126])
def test_points_of_any_size(monkeypatch, looks, metric, power):
    look_or_not(monkeypatch, looks)
    x, weights = make_points()
    x[0] = x[0].round(decimals=2)
    options = {"weights": weights, "metric": metric, "num_init": 2}
    expected = kmeans(x, 3, **options, generator=seeded())
    # One item is as it was, and is not concerned.
    factors = torch.tensor([1.0, 2.0**power]).view(2, 1, 1)
    points = (x * factors).requires_grad_()
    result = kmeans(points, 3, **options, generator=seeded())
    if power < -126:  # Subnormal numbers have few digits.
        assert (result.assignments == expected.assignments).float().mean() > 0.9
        assert result.centroids.isfinite().all()
        return
    assert torch.equal(result.assignments, expected.assignments)
    torch.testing.assert_close(
        result.centroids / factors, expected.centroids, rtol=1e-6, atol=1e-6
    )
    result.centroids.sum().backward()
    torch.testing.assert_close(points.grad.sum(1), torch.full((2, 4), 3.0))
    if metric == "euclidean":
        expected = expected.inertia * factors.flatten() ** 2
    else:
        expected = expected.inertia
    torch.testing.assert_close(result.inertia, expected)


@pytest.mark.parametrize(
    "power, alpha",
    [
        (-40, 2.0**60),
        (-25, 2.0**51),
        (20, 2.0**-39),
        (62, 2.0**-123),
        (99, 2.0),
    ],
)
def test_soft_clusters_of_any_size(power, alpha):
    x, weights = make_points()
    factor = 2.0**power
    found = soft_kmeans(factor * x, factor * x[:, :3], weights, alpha)
    # Where it is larger than any that may be asked for, it is as hard.
    alpha = min(alpha * factor**2, 2.0**60)
    expected = soft_kmeans(x, x[:, :3], weights, alpha)
    torch.testing.assert_close(found.memberships, expected.memberships)
    torch.testing.assert_close(found.centroids / factor, expected.centroids)


@both_metrics
@pytest.mark.parametrize(
    "dtype, power",
    [
        (torch.float32, -120),
        (torch.float32, 120),
        (torch.float64, -1000),
        (torch.float64, 1000),
        (torch.float16, -10),
        (torch.int32, 20),
    ],
)
def test_weights_of_any_size(metric, dtype, power):
    x, weights = make_points()
    weights = (16 * weights).ceil() / 16  # Exact in all of these types.
    options = {"metric": metric, "num_init": 2}
    expected = kmeans(x, 3, weights=weights, **options, generator=seeded())
    scaled = (weights.double() * 2.0**power).to(dtype)
    result = kmeans(x, 3, weights=scaled, **options, generator=seeded())
    assert torch.equal(result.assignments, expected.assignments)
    torch.testing.assert_close(result.centroids, expected.centroids)
    inertia = (expected.inertia.double() * 2.0**power).float()
    torch.testing.assert_close(result.inertia, inertia, rtol=1e-5, atol=0)


@looking
@both_metrics
@pytest.mark.parametrize("value", [NAN, INF, -INF, 3e38, 1e-45])
def test_a_point_of_weight_0_is_ignored_whatever_it_is(
    monkeypatch, looks, metric, value
):
    look_or_not(monkeypatch, looks)
    x, weights = make_points()
    weights[0, 5] = weights[1, :3] = 0.0
    odd = x.clone()
    odd[0, 5], odd[1, :3, 1] = value, value
    odd.requires_grad_()
    kept = weights > 0
    for init in INITS:
        options = {"weights": weights, "metric": metric, "init": init}
        options |= {"num_init": 2, "negligible": 0.1}
        expected = kmeans(x, 3, **options, generator=seeded())
        result = kmeans(odd, 3, **options, generator=seeded())
        assert torch.equal(result.assignments[kept], expected.assignments[kept])
        torch.testing.assert_close(result.centroids, expected.centroids)
        torch.testing.assert_close(result.inertia, expected.inertia)
        (gradient,) = torch.autograd.grad(result.centroids.sum(), odd)
        assert gradient.isfinite().all() and (gradient[~kept] == 0).all()
    soft, expected = (soft_kmeans(p, x[:, 10:13], weights) for p in (odd, x))
    torch.testing.assert_close(soft.centroids, expected.centroids)
    assert soft.memberships.isfinite().all()
    (gradient,) = torch.autograd.grad(soft.centroids.sum(), odd)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("weights", NAN, "weights must be finite and not negative, got nan"),
        ("weights", INF, "weights must be finite and not negative, got inf"),
        ("weights", -1e-30, "weights must be .* not negative, got -1.0+"),
        ("x", NAN, "x must be finite, got nan in item 1 .* weights of 0"),
        ("x", -INF, "x must be finite, got inf in item 1"),
        ("initial_centroids", NAN, "initial_centroids must be finite"),
        ("initial_centroids", INF, "initial_centroids must be finite"),
    ],
)
def test_values_that_are_none_are_refused(name, value, message):
    x, weights = make_points()
    given = {"x": x, "weights": weights, "initial_centroids": x[:, 1:3].clone()}
    given[name][1, 0] = value
    calls = [
        lambda: kmeans(num_clusters=2, **given),
        lambda: soft_kmeans(**given),
    ]
    if name != "initial_centroids":
        given = given | {"initial_centroids": None}
        drawn = {"x": given["x"], "weights": given["weights"]}
        calls[1:] = [lambda: kmeans(num_clusters=2, **drawn)]
    for call in calls:
        with pytest.raises(UserError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name, value",
    [("x", NAN), ("x", INF)]
    + [("weights", value) for value in (NAN, INF, -1.0)],
)
@both_metrics
def test_where_nobody_looks_such_an_item_has_no_centroids(
    monkeypatch, metric, name, value
):
    x, weights = make_points()
    options = {"metric": metric, "generator": seeded()}
    expected = kmeans(x, 3, weights=weights, **options).centroids
    look_or_not(monkeypatch, False)
    given = {"x": x, "weights": weights}
    given[name][1, 0] = value
    found = kmeans(num_clusters=3, **given, metric=metric, generator=seeded())
    torch.testing.assert_close(found.centroids[0], expected[0])
    assert found.centroids[1].isnan().all()
    assert (found.assignments >= 0).all() and (found.assignments < 3).all()


def test_looking_changes_nothing(monkeypatch):
    x, weights = make_points()
    x[1] = x[1] + 40.0
    x[0] = x[0] * 2.0**40
    found = []
    for looks in (True, False):
        look_or_not(monkeypatch, looks)
        found.append(kmeans(x, 3, weights=weights, generator=seeded()))
    for one, other in zip(*found):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    "x",
    [
        None,
        [[[1.0], [2.0]]],
        torch.ones(1, 2, 1).numpy(),
        torch.ones(0, 5, 2),
        torch.ones(2, 0, 2),
        torch.ones(2, 5, 0),
        torch.ones(2, 5),
        torch.ones(2, 5, 2).int(),
        torch.ones(2, 5, 2) * 1j,
    ],
    ids=lambda x: str(getattr(x, "shape", x)),
)
def test_what_is_no_batch_of_points_is_refused(x):
    for call in (
        lambda: kmeans(x, 1),
        lambda: soft_kmeans(x, torch.ones(2, 1, 2)),
    ):
        with pytest.raises(UserError, match="^x must be a non-empty floating"):
            call()


@pytest.mark.parametrize(
    "name, value",
    [
        ("weights", [1.0, 2.0]),
        ("weights", torch.ones(1, 30)),
        ("weights", torch.ones(2, 30) * 1j),
        ("weights", torch.ones(2, 30).numpy()),
        ("weights", torch.ones(2, 30, device="meta")),
        ("initial_centroids", [[1.0]]),
        ("initial_centroids", torch.ones(2, 3)),
        ("initial_centroids", torch.ones(2, 3, 5)),
        ("initial_centroids", torch.ones(2, 3, 4).numpy()),
        ("initial_centroids", torch.ones(2, 3, 4, device="meta")),
    ],
    ids=lambda x: x if isinstance(x, str) else type(x).__name__,
)
def test_what_does_not_belong_to_the_points_is_refused(name, value):
    x, _ = make_points()
    with pytest.raises(UserError, match=f"^{name} must be a non-empty real"):
        kmeans(x, 3, **{name: value})
    options = {"initial_centroids": x[:, :3], name: value}
    with pytest.raises(UserError, match=f"^{name} must be a non-empty real"):
        soft_kmeans(x, **options)


@pytest.mark.parametrize(
    "name, value",
    [
        ("num_clusters", True),
        ("num_clusters", "2"),
        ("num_clusters", torch.ones(2, 2)),
        ("iterations", None),
        ("num_init", math.nan),
        ("metric", ["euclidean"]),
        ("metric", torch.ones(3).numpy()),
        ("init", None),
        ("negligible", "0.1"),
        ("negligible", torch.ones(2, 2)),
        ("generator", 0.5),
    ],
)
def test_other_arguments_of_any_type_are_refused_in_one_line(name, value):
    x, _ = make_points()
    with pytest.raises(UserError, match=f"^{name} must be") as caught:
        kmeans(x, **{"num_clusters": 2, name: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("alpha", [NAN, INF, -1.0, 1e30, "5", None])
def test_hardness_is_a_number(alpha):
    x, _ = make_points()
    with pytest.raises(UserError, match="^alpha must be positive"):
        soft_kmeans(x, x[:, :2], alpha=alpha)


class Operations(TorchDispatchMode):
    """Names of all that is computed, and the types that come out of it."""

    def __init__(self):
        super().__init__()
        self.names, self.types = set(), set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.names.add(func.overloadpacket.__name__)
        for x in out if isinstance(out, tuple | list) else [out]:
            if isinstance(x, torch.Tensor):
                self.types.add(x.dtype)
        return out


def cluster_in_all_ways(x, weights):
    for metric in METRICS:
        for init in INITS:
            kmeans(
                x,
                3,
                weights=weights,
                metric=metric,
                init=init,
                num_init=2,
                negligible=0.1,
            )
    soft_kmeans(x, x[:, :3], weights)


def test_a_device_without_float64(monkeypatch):
    # The GPUs of Macs have none.
    x, weights = make_points(num_points=600)
    with Operations() as used:
        cluster_in_all_ways(x, weights)
    assert torch.float64 in used.types
    expected = kmeans(x, 3, weights=weights, generator=seeded())
    for each in (module, seeding):
        monkeypatch.setattr(each, "widest", lambda device: torch.float32)
    with Operations() as used:
        cluster_in_all_ways(x, weights)
    assert used.types.isdisjoint({torch.float64, torch.complex128})
    torch.manual_seed(0)
    found = kmeans(x, 3, weights=weights)
    assert found.centroids.shape == expected.centroids.shape
    assert float(found.inertia.sum()) < 1.2 * float(expected.inertia.sum())


def test_nothing_on_a_gpu_depends_on_chance():
    # What PyTorch lists as not deterministic there, of what one might use.
    with FakeTensorMode(), Operations() as used:
        x = torch.randn(2, 600, 4, device="cuda", requires_grad=True)
        cluster_in_all_ways(x, torch.rand(2, 600, device="cuda"))
    assert {"bmm", "le", "where"} <= used.names
    assert used.names.isdisjoint(
        {"cumsum", "kthvalue", "median", "histc", "bincount"}
        | {"index_add", "scatter_add", "scatter_reduce", "put"}
    )


@pytest.mark.parametrize("size", [1, 2, 5, 256])
def test_chances_are_added_up_alike_on_a_gpu(monkeypatch, size):
    chances = torch.rand(3, size, dtype=torch.float64)
    expected = chances.cumsum(1)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr(torch.Tensor, "cumsum", None)
    torch.testing.assert_close(seeding._add_up(chances), expected)
