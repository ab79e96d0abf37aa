"""Permutation-invariant training: which estimate belongs to which source.

Reference: Yu, Kolbæk, Tan and Jensen, "Permutation invariant training of deep
models for speaker-independent multi-talker speech separation".

Authors
 * The speechbrain_kmdanet developers 2026
"""

from functools import cache
from itertools import permutations

import torch
from scipy.optimize import linear_sum_assignment

# All permutations up to here (24 of them); the Hungarian algorithm above.
MAX_EXHAUSTIVE = 4


def best_permutation(costs):
    """Permutation of least total cost, for each item of a batch.

    Arguments
    ---------
    costs : torch.Tensor
        Cost of giving estimate j to source i [B, K, K], i before j.

    Returns
    -------
    torch.Tensor
        Index of the estimate that each source is given [B, K].

    Example
    -------
    >>> best_permutation(torch.tensor([[[5.0, 1.0], [2.0, 5.0]]]))
    tensor([[1, 0]])
    """
    num_spks = costs.shape[1]
    if num_spks > MAX_EXHAUSTIVE:
        solved = [
            linear_sum_assignment(item)[1] for item in costs.detach().cpu()
        ]
        return torch.stack([torch.from_numpy(p) for p in solved]).to(
            costs.device
        )
    candidates = _all_permutations(num_spks, costs.device)
    sources = torch.arange(num_spks, device=costs.device)
    totals = costs[:, sources, candidates].sum(2)
    return candidates[totals.argmin(1)]


@cache
def _all_permutations(num_spks, device):
    """All permutations [K!, K]; made once, as a copy waits for the device."""
    with torch.inference_mode(False):
        return torch.tensor(list(permutations(range(num_spks))), device=device)


def permute_sources(estimates, permutation, dim=1):
    """Puts estimates into the order of the sources.

    Arguments
    ---------
    estimates : torch.Tensor
        Estimates with the batch first and the sources along ``dim``.
    permutation : torch.Tensor
        Index of the estimate of each source [B, K].
    dim : int
        Dimension of the sources.

    Returns
    -------
    torch.Tensor
        Estimates of the same shape, reordered along ``dim``.

    Example
    -------
    >>> permute_sources(torch.tensor([[7, 8]]), torch.tensor([[1, 0]]))
    tensor([[8, 7]])
    """
    shape = [1] * estimates.dim()
    shape[0], shape[dim] = permutation.shape
    return estimates.gather(dim, permutation.view(shape).expand_as(estimates))
