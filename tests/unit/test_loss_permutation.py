"""Tests of the search of the permutation."""

from itertools import permutations

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from speechbrain_kmdanet.nnet.loss import separation
from speechbrain_kmdanet.nnet.loss.separation import (
    best_permutation,
    permute_sources,
)


@pytest.mark.parametrize("num_spks", [1, 2, 3, 4, 5])
def test_exhaustive_search_equals_the_hungarian_algorithm(
    num_spks, monkeypatch
):
    costs = torch.randn(20, num_spks, num_spks)
    expected = torch.stack(
        [torch.from_numpy(linear_sum_assignment(cost)[1]) for cost in costs]
    )
    for largest in (num_spks, num_spks - 1):  # each of the two searches
        monkeypatch.setattr(separation, "MAX_EXHAUSTIVE", largest)
        found = best_permutation(costs)
        assert found.dtype == torch.int64
        assert (found == expected).all()


def test_hungarian_algorithm_from_five_sources():
    costs = torch.randn(3, 6, 6, requires_grad=True)
    found = best_permutation(costs)
    assert (found.sort(1).values == torch.arange(6)).all()
    least = costs.gather(2, found.unsqueeze(2)).sum((1, 2))
    for _ in range(100):
        other = costs[:, torch.arange(6), torch.randperm(6)].sum(1)
        assert (least <= other + 1e-6).all()


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_every_permutation_is_found_and_undone(order):
    sources = torch.randn(4, 3, 10)
    estimates = sources[:, order]
    costs = (sources.unsqueeze(2) - estimates.unsqueeze(1)).square().sum(3)
    found = best_permutation(costs)
    assert (permute_sources(estimates, found) == sources).all()


def test_each_item_has_its_own_permutation():
    orders = torch.tensor(list(permutations(range(3))))
    costs = 1.0 - torch.nn.functional.one_hot(orders, 3)
    assert (best_permutation(costs) == orders).all()


@pytest.mark.parametrize("dim", [1, 2, 3, -1])
def test_permute_sources_along_any_dimension(dim):
    shape = [2, 4, 4, 4]
    estimates = torch.randn(shape)
    order = torch.tensor([[2, 0, 3, 1], [0, 1, 3, 2]])
    permuted = permute_sources(estimates, order, dim)
    for item in range(2):
        for place in range(4):
            assert (
                permuted[item].select(dim - 1 if dim > 0 else dim, place)
                == estimates[item].select(
                    dim - 1 if dim > 0 else dim, int(order[item, place])
                )
            ).all()


def test_gradients_pass_to_the_chosen_estimates():
    estimates = torch.randn(1, 2, 5, requires_grad=True)
    permuted = permute_sources(estimates, torch.tensor([[1, 0]]))
    permuted[:, 0].sum().backward()
    assert (estimates.grad[0] == torch.tensor([[0.0], [1.0]])).all()
