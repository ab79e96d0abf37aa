"""Tests of the anchored attractors."""

import math
from contextlib import nullcontext
from itertools import combinations

import pytest
import torch

from speechbrain_kmdanet.lobes.models.danet import DANet
from speechbrain_kmdanet.nnet.attractors import AnchoredAttractors

NUM_ANCHORS = 5
LENGTHS = [14, 9]


def make_case(num_anchors=NUM_ANCHORS, batch=2, bins=14, dimensions=3):
    """Estimator, embeddings and energies, float64."""
    estimator = AnchoredAttractors(dimensions, num_anchors, 0.8).double()
    embeddings = torch.randn(batch, bins, dimensions, dtype=torch.float64)
    return estimator, embeddings, torch.rand(batch, bins).double() + 0.01


def pad(embeddings, energies):
    """Shortens the items to LENGTHS, with something in the padding."""
    for item, length in enumerate(LENGTHS):
        embeddings[item, length:] = 1e3
        energies[item, length:] = 0.0
    return torch.tensor(LENGTHS)


def naive_attractors(anchors, embeddings, energies, num_spks):
    """Attractors of one item by brute force over the subsets, bin by bin."""
    order = sorted(range(len(energies)), key=lambda n: -float(energies[n]))
    kept = order[: math.ceil(0.8 * len(energies))]
    best, lowest = None, math.inf
    for subset in combinations(anchors, num_spks):
        sums, masses = num_spks * [0.0], num_spks * [0.0]
        for n in kept:
            likelihoods = [(anchor @ embeddings[n]).exp() for anchor in subset]
            for j, likelihood in enumerate(likelihoods):
                share = likelihood / sum(likelihoods)
                sums[j] = sums[j] + share * embeddings[n]
                masses[j] = masses[j] + share
        attractors = [s / mass for s, mass in zip(sums, masses)]
        similarity = max(
            ((a @ b).item() for a, b in combinations(attractors, 2)),
            default=0.0,
        )
        if similarity < lowest:
            best, lowest = torch.stack(attractors), similarity
    return best


@pytest.mark.parametrize("num_spks", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("padded", [False, True])
def test_equals_brute_force_over_the_subsets(num_spks, padded):
    estimator, embeddings, energies = make_case()
    num_bins = pad(embeddings, energies) if padded else None
    inputs = estimator.anchors, embeddings.requires_grad_()
    found = estimator(embeddings, energies, num_spks, num_bins=num_bins)
    expected = torch.stack(
        [
            naive_attractors(
                estimator.anchors,
                embeddings[item, :length],
                energies[item, :length],
                num_spks,
            )
            for item, length in enumerate(LENGTHS if padded else [14, 14])
        ]
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    # and so do the gradients of some function of the attractors
    factors = torch.randn_like(found)
    gradients = [
        torch.autograd.grad(
            (factors * attractors.sin()).sum(), inputs, retain_graph=True
        )
        for attractors in (found, expected)
    ]
    for gradient, wanted in zip(*gradients):
        torch.testing.assert_close(gradient, wanted, rtol=0, atol=1e-12)
    assert (gradients[0][0] != 0).any() == (num_spks > 1)
    assert (gradients[0][1] != 0).any()


def test_items_choose_their_own_subsets():
    estimator, embeddings, energies = make_case(batch=20)
    factors = torch.randn(20, 2, 3, dtype=torch.float64)
    chosen = set()
    for item in range(20):
        alone = estimator(embeddings[item, None], energies[item, None], 2)
        (gradient,) = torch.autograd.grad(
            (alone * factors[item]).sum(), estimator.anchors
        )
        used = (gradient != 0).any(1).nonzero().flatten()
        assert len(used) == 2
        chosen.add(tuple(used.tolist()))
    assert len(chosen) > 2


def test_an_anchor_that_no_bin_is_near():
    # The second anchor's assignments are e^−2000 and e^−4000: the bin that is
    # less far has all of its weight.
    estimator = AnchoredAttractors(embedding_dim=1, num_anchors=2)
    estimator.anchors.data.copy_(torch.tensor([[1e3], [-1e3]]))
    embeddings = torch.tensor([[[1.0], [2.0]]], requires_grad=True)
    attractors = estimator(embeddings, torch.ones(1, 2), 2)
    assert attractors.tolist() == [[[1.5], [1.0]]]
    attractors.sum().backward()
    assert embeddings.grad.tolist() == [[[1.5], [0.5]]]
    assert estimator.anchors.grad.isfinite().all()


def test_a_subset_far_from_the_nearest_anchor():
    # The first anchor is the nearest of both bins by e^500; the other two make
    # the least similar attractors: the product is 99 instead of 100.
    estimator = AnchoredAttractors(embedding_dim=2, num_anchors=3)
    anchors = torch.tensor([[100.0, 0.0], [0.0, 500.0], [0.0, -500.0]])
    estimator.anchors.data.copy_(anchors)
    embeddings = torch.tensor([[[10.0, 1.0], [10.0, -1.0]]])
    attractors = estimator(embeddings, torch.ones(1, 2), 2)
    torch.testing.assert_close(attractors, embeddings)


@pytest.mark.parametrize("num_spks", [1, 2, 3])
def test_batch_equals_single(num_spks):
    estimator, embeddings, energies = make_case()
    num_bins = pad(embeddings, energies)
    batch = estimator(embeddings, energies, num_spks, num_bins=num_bins)
    for item, length in enumerate(LENGTHS):
        alone = estimator(
            embeddings[item, None, :length],
            energies[item, None, :length],
            num_spks,
        )
        torch.testing.assert_close(batch[item], alone[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("num_spks", [1, 2, 3])
def test_silence(num_spks):
    estimator, embeddings, energies = make_case()
    expected = estimator(embeddings, energies, num_spks)[0]
    energies[1] = 0.0
    attractors = estimator(embeddings.requires_grad_(), energies, num_spks)
    torch.testing.assert_close(attractors[0], expected, rtol=0, atol=1e-12)
    assert (attractors[1] == 0).all()
    attractors.sum().backward()
    assert (embeddings.grad[1] == 0).all()
    for gradient in (embeddings.grad, estimator.anchors.grad):
        assert gradient.isfinite().all()


def test_one_talker_is_the_mean_of_the_energetic_bins():
    estimator = AnchoredAttractors(embedding_dim=1, energetic=0.5)
    embeddings = torch.tensor([[[1.0], [5.0], [9.0], [3.0]]])
    energies = torch.tensor([[0.1, 2.0, 0.2, 1.0]])
    attractors = estimator(embeddings, energies, 1)
    torch.testing.assert_close(attractors, torch.tensor([[[4.0]]]))


def test_autocast_and_both_modes_change_nothing():
    estimator, embeddings, energies = make_case()
    estimator, embeddings = estimator.float(), embeddings.float()
    expected = estimator.train()(embeddings, energies, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert (estimator.eval()(embeddings, energies, 3) == expected).all()


def test_anchors_follow_the_seed():
    anchors = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        anchors.append(AnchoredAttractors().anchors)
    assert anchors[0].shape == (6, 20)
    assert (anchors[0] == anchors[2]).all()
    assert (anchors[0] != anchors[1]).all()


def test_a_training_step_reads_nothing_back(monkeypatch):
    # Without data there is nothing that the host could wait for.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    estimator, embeddings, energies = make_case()
    estimator, embeddings = estimator.to("meta"), embeddings.to("meta")
    num_bins = torch.tensor(LENGTHS, device="meta")
    attractors = estimator(
        embeddings, energies.to("meta"), 3, num_bins=num_bins
    )
    attractors.sum().backward()
    assert attractors.shape == (2, 3, 3)


def test_the_graph_holds_the_chosen_subset_alone():
    def saved_bytes(num_anchors):
        estimator, embeddings, energies = make_case(num_anchors, bins=1000)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x: sizes.append(x.nbytes), lambda _: None
        ):
            estimator(embeddings.requires_grad_(), energies, 2)
        return sum(sizes)

    few, many = saved_bytes(2), saved_bytes(10)  # 1 and 45 subsets
    assert few > 2 * 1000 * 2 * 8
    assert many == few


def test_one_estimator_for_both_modes_is_trained_and_saved():
    def make_danet():
        estimator = AnchoredAttractors(embedding_dim=3)
        return DANet(torch.nn.Identity(), estimator, estimator)

    danet, other = make_danet(), make_danet()
    assert len(list(danet.parameters())) == 1
    state = danet.state_dict()
    assert list(state) == [
        "train_attractors.anchors",
        "infer_attractors.anchors",
    ]
    other.load_state_dict(state)
    assert other.train_attractors is other.infer_attractors
    anchors = danet.train_attractors.anchors
    assert (other.train_attractors.anchors == anchors).all()


def test_errors():
    estimator, embeddings, energies = make_case(num_anchors=3)
    with pytest.raises(ValueError, match="num_spks=4 .*num_anchors=3"):
        estimator(embeddings, energies, 4)
    for share in (0.0, 1.1):
        with pytest.raises(ValueError, match=f"energetic .*{share}"):
            AnchoredAttractors(energetic=share)
