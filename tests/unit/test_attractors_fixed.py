"""Tests of the fixed attractors: what is kept, and what it comes to."""

from collections import deque

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from speechbrain_kmdanet.nnet import attractors as module
from speechbrain_kmdanet.nnet.attractors import (
    FixedAttractors,
    OracleAttractors,
)

TRUE = torch.tensor([[9.0, 0.0], [0.0, 9.0], [-9.0, -9.0]])


def see(estimator, attractors):
    """A training step whose oracle attractors are these [B, K, D]."""
    batch, num_spks, _ = attractors.shape
    sources = torch.eye(num_spks).expand(batch, -1, -1)
    energies = torch.ones(batch, num_spks)
    return estimator.train()(attractors, energies, num_spks, sources)


def infer(estimator, num_spks, batch=1):
    """Attractors at inference."""
    embeddings = torch.randn(batch, 10, estimator.centroids_1.shape[1])
    energies = torch.rand(batch, 10)
    return estimator.eval()(embeddings, energies, num_spks).clone()


def noisy(mixtures, deviation=0.3, num_spks=3):
    """Attractors of mixtures, the talkers in any order."""
    orders = torch.rand(mixtures, num_spks).argsort(1)
    noise = torch.randn(mixtures, num_spks, 2)
    return TRUE[orders] + deviation * noise


@pytest.fixture
def fits(monkeypatch):
    """Numbers of talkers that centroids are found for."""
    found = []
    kmeans = module.kmeans

    def count(points, num_clusters, **options):
        found.append(num_clusters)
        return kmeans(points, num_clusters, **options)

    monkeypatch.setattr(module, "kmeans", count)
    return found


def test_training_is_that_of_the_oracle():
    embeddings = torch.randn(2, 30, 4, requires_grad=True)
    energies, sources = torch.rand(2, 30), torch.rand(2, 3, 30)
    energies[1, 17:] = 0.0
    num_bins = torch.tensor([30, 17])
    estimator = FixedAttractors(embedding_dim=4, energetic=0.7)
    attractors = estimator(embeddings, energies, 3, sources, num_bins)
    expected = OracleAttractors(0.7)(embeddings, energies, 3, sources, num_bins)
    assert (attractors == expected).all()
    attractors.sum().backward()
    assert (embeddings.grad != 0).any()
    # what is kept holds no graph
    assert not estimator.seen_3.requires_grad
    assert (estimator.seen_3[:2] == attractors).all()
    assert estimator.ordered and not estimator.eval().ordered


def test_inference_takes_the_centres_of_those_of_training():
    estimator = FixedAttractors(embedding_dim=2)
    for _ in range(10):
        see(estimator, noisy(5))
    found = infer(estimator, 3, batch=4)
    assert found.shape == (4, 3, 2)
    assert (found == found[:1]).all()
    # the mean of 50 points of deviation 0.3: 4 · 0.3 / √50
    distances = torch.cdist(TRUE, found[0]).min(1).values
    assert (distances < 0.17).all()


def test_the_numbers_of_talkers_have_their_own_attractors():
    estimator = FixedAttractors(embedding_dim=2)
    see(estimator, torch.tensor([[[1.0, 0.0], [5.0, 0.0]]]))
    see(estimator, torch.tensor([[[2.0, 0.0]], [[4.0, 0.0]]]))
    assert infer(estimator, 1).tolist() == [[[3.0, 0.0]]]
    assert sorted(infer(estimator, 2)[0, :, 0].tolist()) == [1.0, 5.0]


@pytest.mark.parametrize("batches", [[1] * 20, [3] * 9, [5, 2, 4, 7, 1], [9]])
def test_the_last_mixtures_with_defined_attractors_are_kept(batches):
    estimator = FixedAttractors(embedding_dim=2, memory=7)
    kept, total = deque(maxlen=7), 0
    for batch in batches:
        attractors = noisy(batch, num_spks=2)
        undefined = torch.rand(batch) < 0.3
        attractors[undefined, 1] = 0.0
        see(estimator, attractors)
        # more than fit in are cut
        kept.extend(attractors[:7][~undefined[:7]].tolist())
        total += int((~undefined[:7]).sum())
        seen = estimator.seen_2[: len(kept)].tolist()
        assert sorted(seen) == sorted(kept)
    assert estimator.recorded.tolist() == [0, total, 0]


def test_silence_and_nan_are_not_recorded():
    embeddings = torch.randn(3, 30, 2)
    energies, sources = torch.rand(3, 30), torch.rand(3, 2, 30)
    energies[0] = sources[0] = 0.0
    embeddings[1] = torch.nan
    estimator = FixedAttractors(embedding_dim=2)
    attractors = estimator(embeddings, energies, 2, sources)
    assert estimator.recorded.tolist() == [0, 1, 0]
    assert (estimator.seen_2[0] == attractors[2]).all()
    assert infer(estimator, 2).isfinite().all()


def test_the_centroids_are_found_once_for_each_state_of_training(fits):
    estimator = FixedAttractors(embedding_dim=2)
    see(estimator, noisy(20))
    first = infer(estimator, 3)
    assert (infer(estimator, 3) == first).all()
    assert fits == [3]
    see(estimator, noisy(1))
    assert (infer(estimator, 3) != first).any()
    # found again from the same, they are the same
    again = estimator.centroids_3.clone()
    for _ in range(5):
        estimator.fitted.zero_()
        assert (infer(estimator, 3)[0] == again).all()
    assert fits == 7 * [3]


def test_the_state_dict_has_all_of_it(fits):
    estimator, other = (FixedAttractors(embedding_dim=2) for _ in range(2))
    see(estimator, noisy(20))
    see(estimator, noisy(20, num_spks=2))
    expected = infer(estimator, 3)
    other.load_state_dict(estimator.state_dict())
    assert (infer(other, 3) == expected).all()
    assert fits == [3]
    # not needed before, but seen
    assert (infer(other, 2) == infer(estimator, 2)).all()
    # and a training goes on
    for each in (estimator, other):
        see(each, noisy(1))
        assert each.recorded.tolist() == [0, 20, 21]


def test_the_state_is_small():
    state = FixedAttractors().state_dict().values()
    assert sum(value.nbytes for value in state) < 125e3


def test_a_training_step_reads_nothing_back():
    # Fake tensors have no values that the host could wait for.
    with FakeTensorMode():
        estimator = FixedAttractors(embedding_dim=4).to("cuda")
        embeddings, energies, sources = (
            torch.rand(shape, device="cuda")
            for shape in ((2, 30, 4), (2, 30), (2, 3, 30))
        )
        attractors = estimator(embeddings, energies, 3, sources)
        assert attractors.shape == (2, 3, 4)


def test_errors():
    estimator = FixedAttractors(embedding_dim=2, max_spks=3)
    with pytest.raises(ValueError, match="num_spks=2 were never fitted: train"):
        infer(estimator, 2)
    see(estimator, noisy(10, num_spks=2))
    infer(estimator, 2)
    with pytest.raises(ValueError, match="num_spks=3 were never fitted: train"):
        infer(estimator, 3)
    for call in (infer, lambda each, k: see(each, torch.rand(1, k, 2))):
        with pytest.raises(ValueError, match="max_spks=3, got 4"):
            call(estimator, 4)
    with pytest.raises(ValueError, match="need the magnitudes of the sources"):
        estimator.train()(torch.rand(1, 10, 2), torch.rand(1, 10), 2)
