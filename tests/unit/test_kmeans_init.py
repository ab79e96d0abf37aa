"""Tests of the initialisation, the restarts and the errors of k-means."""

import math
from collections import Counter
from itertools import permutations

import pytest
import torch

from speechbrain_kmdanet.processing.kmeans import INITS, METRICS, kmeans
from speechbrain_kmdanet.processing.seeding import BLOCK, _sample


def seeded(seed=0):
    """Generator of the initialisation."""
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("init", INITS)
def test_draws_follow_their_distribution(init):
    # One iteration tells which points were drawn: the assignments. Point 3,
    # the farthest, has no weight and must not be drawn.
    points = torch.tensor([0.0, 1.0, 3.0, 99.0])
    weights = torch.tensor([2.0, 1.0, 1.0, 0.0])

    def outcome(first, second):
        closer = (points - points[second]).abs() < (
            points - points[first]
        ).abs()
        return tuple(closer.int().tolist())

    expected = Counter()
    for first, second in permutations(range(3), 2):
        if init == "random":
            expected[outcome(first, second)] += 1 / 6
        else:
            chances = weights * (points - points[first]).square()
            expected[outcome(first, second)] += float(
                weights[first] / weights.sum() * chances[second] / chances.sum()
            )
    generator = seeded()
    draws = 400
    observed = Counter(
        tuple(
            kmeans(
                points.view(1, -1, 1),
                2,
                weights=weights.view(1, -1),
                init=init,
                iterations=1,
                generator=generator,
            )
            .assignments[0]
            .tolist()
        )
        for _ in range(draws)
    )
    assert set(observed) == set(expected)
    for key, chance in expected.items():
        deviation = math.sqrt(chance * (1 - chance) / draws)
        assert abs(observed[key] / draws - chance) < 4 * deviation


@pytest.mark.parametrize("num_points", [1, 3, BLOCK, 3 * BLOCK + 5])
def test_draw_inverts_the_cumulative_chances(num_points):
    # Dyadic chances, so that every order of summing gives the same.
    chances = torch.randint(0, 3, (4, num_points), generator=seeded()) / 8
    chances[:, 0] = 0.25
    cumulated = chances.double().cumsum(1)
    for draw in torch.linspace(0, 1 - 1e-9, 97, dtype=torch.float64):
        slow = torch.searchsorted(
            cumulated, draw * cumulated[:, -1:], right=True
        ).squeeze(1)
        assert torch.equal(_sample(chances, chances, draw), slow)


def test_draw_falls_back_where_no_chance_is_left():
    fallback = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    chances = torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    drawn = _sample(chances, fallback, torch.tensor(0.5, dtype=torch.float64))
    assert drawn.tolist() == [1, 1]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("init", INITS)
def test_draws_distinct_points_of_positive_weight(metric, init):
    generator = seeded()
    for _ in range(20):
        x = torch.randn(4, 12, 6, generator=generator)
        # As many clusters as points that may be drawn: each gets one.
        weights = torch.zeros(4, 12)
        places = torch.rand(4, 12, generator=generator).argsort(1)[:, :5]
        weights.scatter_(1, places, torch.rand(4, 5, generator=generator) + 0.1)
        result = kmeans(
            x,
            5,
            weights=weights,
            metric=metric,
            init=init,
            iterations=1,
            generator=generator,
        )
        drawn = result.assignments.gather(1, places).sort(1).values
        assert (drawn == torch.arange(5)).all()


def test_kmeans_plus_plus_spreads():
    # Eight tight clusters far apart: k-means++ draws one point of each nearly
    # always, uniform draws (8!/8⁸ = 0.2 %) nearly never.
    centres = 1000.0 * torch.eye(8)
    x = centres.repeat(20, 1) + torch.randn(160, 8, generator=seeded())
    inertia = {
        init: torch.cat(
            [
                kmeans(
                    x[None], 8, init=init, iterations=1, generator=seeded(seed)
                ).inertia
                for seed in range(20)
            ]
        )
        for init in INITS
    }
    # 160 points of 8 dimensions of variance 1; one missed: 20 · 10⁶
    assert (inertia["kmeans++"] < 2000).all()
    assert (inertia["random"] > 1e6).float().mean() > 0.8


def test_kmeans_plus_plus_ignores_points_already_covered():
    # Spherical: same direction, other length, so nothing is gained.
    x = torch.tensor([[[1.0, 0.0], [5.0, 0.0], [900.0, 0.0], [0.0, 0.1]]])
    for seed in range(20):
        result = kmeans(
            x, 2, metric="spherical", iterations=1, generator=seeded(seed)
        )
        labels = result.assignments[0]
        assert (labels[:3] == labels[0]).all() and labels[3] != labels[0]


@pytest.mark.parametrize("metric", METRICS)
def test_restarts_keep_the_run_of_lowest_inertia(metric):
    x = torch.randn(6, 60, 3, generator=seeded(1), dtype=torch.float64)
    weights = torch.rand(6, 60, generator=seeded(2), dtype=torch.float64)
    options = {"weights": weights, "metric": metric, "iterations": 4}
    generator = seeded(5)
    runs = [kmeans(x, 5, **options, generator=generator) for _ in range(6)]
    best = kmeans(x, 5, **options, num_init=6, generator=seeded(5))
    inertias = torch.stack([run.inertia for run in runs])
    lowest, second = inertias.sort(dim=0).values[:2]
    assert (second > (1 + 1e-6) * lowest).all()  # Not by rounding.
    # Of so many iterations the points are copied: float64 in another order.
    rounding = {"rtol": 1e-10, "atol": 1e-12}
    torch.testing.assert_close(best.inertia, lowest, **rounding)
    # each item has its own best run, centroids and assignments included
    chosen = inertias.argmin(0)
    assert len(chosen.unique()) > 1
    for item, run in enumerate(chosen):
        assert (best.assignments[item] == runs[run].assignments[item]).all()
        torch.testing.assert_close(
            best.centroids[item], runs[run].centroids[item], **rounding
        )


def test_equal_items_of_a_batch_are_clustered_alike():
    x = torch.randn(1, 50, 3, generator=seeded()).expand(4, -1, -1)
    result = kmeans(x, 5, iterations=1, generator=seeded())
    assert (result.assignments == result.assignments[:1]).all()


def test_given_centroids_draw_nothing():
    x = torch.randn(2, 9, 3)
    state = torch.get_rng_state()
    kmeans(x, 2, initial_centroids=x[:, :2], num_init=3)
    assert torch.equal(torch.get_rng_state(), state)
    kmeans(x, 2)
    assert not torch.equal(torch.get_rng_state(), state)


def test_draws_come_from_the_global_generator_by_default():
    x = torch.randn(1, 50, 3, generator=seeded())
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(kmeans(x, 5, iterations=1).centroids)
    assert (results[0] == results[1]).all()
    assert (results[0] != results[2]).any()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"x": torch.ones(5, 2)}, r"x must be .*\(5, 2\)"),
        ({"x": torch.ones(1, 5, 2).long()}, "x must be .*int64"),
        ({"weights": torch.ones(1, 4)}, r"weights .*points=5\].*\(1, 4\)"),
        ({"weights": torch.ones(5)}, r"weights .*\(5,\)"),
        ({"num_clusters": 0}, "num_clusters .*0"),
        ({"num_clusters": 2.0}, r"num_clusters .*2\.0"),
        ({"num_clusters": 6}, r"num_clusters=6 .*\(1, 5, 2\)"),
        ({"iterations": 0}, "iterations .*0"),
        ({"num_init": -1}, "num_init .*-1"),
        ({"negligible": 1.0}, "negligible .*1.0"),
        ({"negligible": -0.1}, "negligible .*-0.1"),
        ({"negligible": float("nan")}, "negligible .*nan"),
        ({"metric": "cosine"}, "metric .*'cosine'"),
        ({"init": "k-means++"}, r"init .*'k-means\+\+'"),
        (
            {"initial_centroids": torch.ones(1, 3, 2)},
            r"initial_centroids .*clusters=2, .*\(1, 3, 2\)",
        ),
    ],
)
def test_errors_name_the_argument(arguments, message):
    arguments = {"x": torch.rand(1, 5, 2), "num_clusters": 2, **arguments}
    with pytest.raises(ValueError, match=message):
        kmeans(**arguments)


def test_a_seed_is_a_generator_of_it():
    x = torch.randn(2, 50, 3)
    seeded = kmeans(x, 3, generator=7).centroids
    generator = torch.Generator().manual_seed(7)
    assert torch.equal(seeded, kmeans(x, 3, generator=generator).centroids)
    assert not torch.equal(seeded, kmeans(x, 3, generator=8).centroids)
