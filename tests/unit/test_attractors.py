"""Tests of the attractor estimators.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import math

import pytest
import torch

from speechbrain_kmdanet.nnet.anchors import AnchoredAttractors
from speechbrain_kmdanet.nnet.attractors import (
    KMeansAttractors,
    OracleAttractors,
)
from speechbrain_kmdanet.nnet.fixed_attractors import FixedAttractors
from speechbrain_kmdanet.processing.kmeans import METRICS, kmeans


def make_batch(batch=2, bins=30, dimensions=4, num_spks=3, seed=0):
    """Embeddings, weights and magnitudes of the sources, float64."""
    generator = torch.Generator().manual_seed(seed)
    options = {"generator": generator, "dtype": torch.float64}
    return (
        torch.randn(batch, bins, dimensions, **options),
        torch.rand(batch, bins, **options) + 0.01,
        torch.rand(batch, num_spks, bins, **options),
    )


def naive_oracle(embeddings, weights, sources, energetic, num_bins):
    """Eq. 1 for one item, bin by bin."""
    order = sorted(range(num_bins), key=lambda i: -float(weights[i]))
    kept = order[: math.ceil(energetic * num_bins)]
    attractors = []
    for source in range(len(sources)):
        members = [
            embeddings[i] for i in kept if int(sources[:, i].argmax()) == source
        ]
        attractors.append(sum(members) / len(members))
    return torch.stack(attractors)


@pytest.mark.parametrize("energetic", [1.0, 0.9, 0.5])
@pytest.mark.parametrize("padded", [False, True])
def test_oracle_equals_eq_1_bin_by_bin(energetic, padded):
    embeddings, weights, sources = make_batch()
    lengths, num_bins = [30, 30], None
    if padded:
        # 17 · 0.9 = 15.3: the last of 16 counts. Whatever is in the padding,
        # it has no weight.
        lengths = [30, 17]
        num_bins = torch.tensor(lengths)
        weights[1, 17:] = 0.0
        embeddings[1, 17:] = 1e3
    attractors = OracleAttractors(energetic)(
        embeddings, weights, 3, sources, num_bins
    )
    for item in range(2):
        expected = naive_oracle(
            embeddings[item], weights[item], sources[item], energetic,
            lengths[item],
        )  # fmt: skip
        torch.testing.assert_close(
            attractors[item], expected, rtol=0, atol=1e-12
        )


def test_the_energy_index_changes_the_oracle():
    embeddings, weights, sources = make_batch()
    all_bins, most = (
        OracleAttractors(energetic)(embeddings, weights, 3, sources)
        for energetic in (1.0, 0.9)
    )
    assert (all_bins - most).abs().max() > 1e-3


def test_oracle_leaves_out_silent_bins():
    embeddings, weights, sources = make_batch()
    weights[:, 10:] = 0.0  # far more than a tenth
    embeddings[:, 10:] = 1e3
    attractors = OracleAttractors(0.9)(embeddings, weights, 3, sources)
    expected = OracleAttractors(1.0)(
        embeddings[:, :10], weights[:, :10], 3, sources[:, :, :10]
    )
    torch.testing.assert_close(attractors, expected)


def test_oracle_of_a_source_that_dominates_nowhere():
    embeddings, weights, sources = make_batch()
    sources[:, 1] = 0.0
    embeddings.requires_grad_()
    attractors = OracleAttractors()(embeddings, weights, 3, sources)
    assert attractors.isfinite().all()
    assert (attractors[:, 1] == 0).all()
    attractors.sum().backward()
    assert embeddings.grad.isfinite().all()


@pytest.mark.parametrize("metric", METRICS)
def test_kmeans_attractors_are_the_centroids(metric):
    embeddings, weights, sources = make_batch()
    estimator = KMeansAttractors(metric, 7, init="random", num_init=2, seed=3)
    expected = kmeans(
        embeddings, 3, weights=weights, metric=metric, iterations=7,
        init="random", num_init=2, generator=torch.Generator().manual_seed(3),
    ).centroids  # fmt: skip
    assert (estimator(embeddings, weights, 3) == expected).all()
    # called again, and with what only others need: no state
    assert (estimator(embeddings, weights, 3, sources) == expected).all()


def test_kmeans_attractors_without_a_seed_follow_the_global_state():
    embeddings, weights, _ = make_batch(bins=200)
    estimator = KMeansAttractors(iterations=1)
    torch.manual_seed(0)
    first, second = (estimator(embeddings, weights, 3) for _ in range(2))
    torch.manual_seed(0)
    assert (estimator(embeddings, weights, 3) == first).all()
    assert (first != second).any()


def test_a_seeded_estimator_leaves_the_global_state_alone():
    embeddings, weights, _ = make_batch()
    before = torch.get_rng_state()
    KMeansAttractors(seed=0)(embeddings, weights, 2)
    assert (torch.get_rng_state() == before).all()


@pytest.mark.parametrize("num_spks", [2, 3])
def test_all_estimators_are_called_alike(num_spks):
    embeddings, weights, sources = make_batch(num_spks=num_spks)
    embeddings, weights, sources = (
        t.float() for t in (embeddings, weights, sources)
    )
    fixed = FixedAttractors(embedding_dim=4)
    num_bins = torch.tensor([30, 30])
    for estimator, training, ordered in (
        (OracleAttractors(), True, True),
        (KMeansAttractors("euclidean"), True, False),
        (KMeansAttractors("spherical"), False, False),
        (AnchoredAttractors(embedding_dim=4), True, False),
        (fixed, True, True),
        (fixed, False, False),
    ):
        estimator.train(training)
        attractors = estimator(embeddings, weights, num_spks, sources, num_bins)
        assert attractors.shape == (2, num_spks, 4)
        assert attractors.dtype == torch.float32
        assert estimator.ordered is ordered


@pytest.mark.parametrize(
    "estimator",
    [
        OracleAttractors(),
        KMeansAttractors("euclidean", seed=0),
        KMeansAttractors("spherical", seed=0),
    ],
    ids=["oracle", "euclidean", "spherical"],
)
def test_gradients_flow_to_the_embeddings(estimator):
    embeddings, weights, sources = make_batch()
    embeddings.requires_grad_()
    attractors = estimator(embeddings, weights, 3, sources)
    attractors.sum().backward()
    # Weighted means: a shift of all embeddings shifts the attractors by it.
    torch.testing.assert_close(
        embeddings.grad.sum(1), torch.full((2, 4), 3.0, dtype=torch.float64)
    )


def test_errors():
    embeddings, weights, sources = make_batch()
    with pytest.raises(ValueError, match="num_spks=3, bins], got None"):
        OracleAttractors()(embeddings, weights, 3)
    with pytest.raises(ValueError, match=r"num_spks=2, .*\(2, 3, 30\)"):
        OracleAttractors()(embeddings, weights, 2, sources)
    for energetic in (0.0, 1.1):
        with pytest.raises(ValueError, match=f"energetic .*{energetic}"):
            OracleAttractors(energetic)
