"""Tests of the attractor estimators."""

import math

import pytest
import torch

from speechbrain_kmdanet.nnet.attractors import (
    AnchoredAttractors,
    AttractorEstimator,
    FixedAttractors,
    KMeansAttractors,
    OracleAttractors,
)
from speechbrain_kmdanet.processing.kmeans import METRICS, kmeans


def make_batch(batch=2, bins=30, dimensions=4, num_spks=3, seed=0):
    """Embeddings, energies and magnitudes of the sources, float64."""
    generator = torch.Generator().manual_seed(seed)
    options = {"generator": generator, "dtype": torch.float64}
    return (
        torch.randn(batch, bins, dimensions, **options),
        torch.rand(batch, bins, **options) + 0.01,
        torch.rand(batch, num_spks, bins, **options),
    )


def naive_oracle(embeddings, energies, sources, share, num_bins):
    """Eq. 1 for one item, bin by bin."""
    order = sorted(range(num_bins), key=lambda i: -float(energies[i]))
    kept = order[: math.ceil(share * num_bins)]
    attractors = []
    for source in range(len(sources)):
        members = [
            embeddings[i] for i in kept if int(sources[:, i].argmax()) == source
        ]
        attractors.append(sum(members) / len(members))
    return torch.stack(attractors)


@pytest.mark.parametrize("share", [1.0, 0.9, 0.5])
@pytest.mark.parametrize("padded", [False, True])
def test_oracle_equals_eq_1_bin_by_bin(share, padded):
    embeddings, energies, sources = make_batch()
    lengths, num_bins = [30, 30], None
    if padded:
        # 17 · 0.9 = 15.3: the last of 16 counts. Whatever is in the padding,
        # it has no weight.
        lengths = [30, 17]
        num_bins = torch.tensor(lengths)
        energies[1, 17:] = 0.0
        embeddings[1, 17:] = 1e3
    attractors = OracleAttractors(share)(
        embeddings, energies, 3, sources, num_bins
    )
    for item in range(2):
        expected = naive_oracle(
            embeddings[item],
            energies[item],
            sources[item],
            share,
            lengths[item],
        )
        torch.testing.assert_close(
            attractors[item], expected, rtol=0, atol=1e-12
        )


def test_the_energy_index_changes_the_oracle():
    embeddings, energies, sources = make_batch()
    all_bins, most = (
        OracleAttractors(share)(embeddings, energies, 3, sources)
        for share in (1.0, 0.9)
    )
    assert (all_bins - most).abs().max() > 1e-3


def test_oracle_leaves_out_silent_bins():
    embeddings, energies, sources = make_batch()
    energies[:, 10:] = 0.0  # far more than a tenth
    embeddings[:, 10:] = 1e3
    attractors = OracleAttractors(0.9)(embeddings, energies, 3, sources)
    expected = OracleAttractors(1.0)(
        embeddings[:, :10], energies[:, :10], 3, sources[:, :, :10]
    )
    torch.testing.assert_close(attractors, expected)


def test_oracle_of_a_source_that_dominates_nowhere():
    embeddings, energies, sources = make_batch()
    sources[:, 1] = 0.0
    embeddings.requires_grad_()
    attractors = OracleAttractors()(embeddings, energies, 3, sources)
    assert attractors.isfinite().all()
    assert (attractors[:, 1] == 0).all()
    attractors.sum().backward()
    assert embeddings.grad.isfinite().all()


@pytest.mark.parametrize("metric", METRICS)
def test_kmeans_attractors_are_the_centroids(metric):
    embeddings, energies, sources = make_batch()
    estimator = KMeansAttractors(metric, 7, init="random", num_init=2, seed=3)
    expected = kmeans(
        embeddings,
        3,
        weights=energies,
        metric=metric,
        iterations=7,
        init="random",
        num_init=2,
        negligible=0.03,
        generator=torch.Generator().manual_seed(3),
    ).centroids
    assert (estimator(embeddings, energies, 3) == expected).all()
    # called again, and with what only others need: no state
    assert (estimator(embeddings, energies, 3, sources) == expected).all()


def test_kmeans_attractors_without_a_seed_follow_the_global_state():
    embeddings, energies, _ = make_batch(bins=200)
    estimator = KMeansAttractors(iterations=1)
    torch.manual_seed(0)
    first, second = (estimator(embeddings, energies, 3) for _ in range(2))
    torch.manual_seed(0)
    assert (estimator(embeddings, energies, 3) == first).all()
    assert (first != second).any()


def test_a_seeded_estimator_leaves_the_global_state_alone():
    embeddings, energies, _ = make_batch()
    before = torch.get_rng_state()
    KMeansAttractors(seed=0)(embeddings, energies, 2)
    assert (torch.get_rng_state() == before).all()


@pytest.mark.parametrize("num_spks", [2, 3])
def test_all_estimators_are_called_alike(num_spks):
    embeddings, energies, sources = make_batch(num_spks=num_spks)
    embeddings, energies, sources = (
        t.float() for t in (embeddings, energies, sources)
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
        attractors = estimator(
            embeddings, energies, num_spks, sources, num_bins
        )
        assert attractors.shape == (2, num_spks, 4)
        assert attractors.dtype == torch.float32
        assert estimator.ordered is ordered
        assert isinstance(estimator, AttractorEstimator)


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
    embeddings, energies, sources = make_batch()
    embeddings.requires_grad_()
    attractors = estimator(embeddings, energies, 3, sources)
    attractors.sum().backward()
    # Weighted means: a shift of all embeddings shifts the attractors by it.
    torch.testing.assert_close(
        embeddings.grad.sum(1), torch.full((2, 4), 3.0, dtype=torch.float64)
    )


def test_errors():
    embeddings, energies, sources = make_batch()
    with pytest.raises(ValueError, match="num_spks=3, bins], got None"):
        OracleAttractors()(embeddings, energies, 3)
    with pytest.raises(ValueError, match=r"num_spks=2, .*\(2, 3, 30\)"):
        OracleAttractors()(embeddings, energies, 2, sources)
    for share in (0.0, 1.1):
        with pytest.raises(ValueError, match=f"energetic .*{share}"):
            OracleAttractors(share)


def test_draws_of_a_step_are_those_of_all_its_processes():
    embeddings, energies, _ = make_batch(batch=4, bins=200)
    estimator = KMeansAttractors(iterations=1, init="random")
    estimator.step_seed = 5
    state = torch.get_rng_state()
    whole = estimator(embeddings, energies, 3)
    # Dropout draws from the global state, each process for itself.
    assert (torch.get_rng_state() == state).all()
    for half in (slice(0, 2), slice(2, 4)):
        attractors = estimator(embeddings[half], energies[half], 3)
        torch.testing.assert_close(attractors, whole[half])
    estimator.step_seed = 6
    assert (estimator(embeddings, energies, 3) != whole).any()
    estimator.seed = 5  # that of the user comes first
    assert (estimator(embeddings, energies, 3) == whole).all()
