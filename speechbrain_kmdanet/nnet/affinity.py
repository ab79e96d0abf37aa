"""Affinity loss: embeddings of one talker together, of others apart.

References: Hershey, Chen, Le Roux and Watanabe, "Deep clustering:
discriminative embeddings for segmentation and separation" (Eq. 1 to 3); Wang,
Le Roux and Hershey, "Alternative objective functions for deep clustering"
(weights).

Authors
 * The speechbrain_kmdanet developers 2026
"""

import torch


def affinity_loss(embeddings, memberships, weights):
    """Weighted mean squared error of the affinities of all pairs of bins.

    That of bins i and j, v_i·v_j, should be 1 if one talker dominates both and
    0 otherwise. The mean over the N × N pairs, weighted by w_i w_j, comes from
    products of D and K columns: ‖VᵀWV‖² − 2 ‖VᵀWY‖² + ‖YᵀWY‖², Σw = 1.

    Arguments
    ---------
    embeddings : torch.Tensor
        Embeddings V of unit norm [B, N, D]. Half precision is taken to
        float32.
    memberships : torch.Tensor
        One-hot dominant talker Y of each bin [B, N, K].
    weights : torch.Tensor
        Non-negative weights w of the bins [B, N], on any scale: their
        magnitudes (the magnitude ratio of Wang et al.) or energies; 0 in
        the padding.

    Returns
    -------
    torch.Tensor
        Loss of each item [B], at most 1 for embeddings in one orthant; 0 if
        all weights are.

    Raises
    ------
    ValueError
        If the shapes do not fit.

    Example
    -------
    >>> talkers = torch.eye(2).unsqueeze(0)  # one bin each
    >>> affinity_loss(talkers, talkers, torch.ones(1, 2))
    tensor([0.])
    >>> # with one embedding for both, the two mixed pairs of four are wrong
    >>> affinity_loss(torch.ones(1, 2, 1), talkers, torch.ones(1, 2))
    tensor([0.5000])
    """
    bins = embeddings.shape[:2]
    if memberships.shape[:2] != bins or weights.shape != bins:
        raise ValueError(
            f"memberships [B, N, K] and weights [B, N] must have the bins of "
            f"embeddings of shape {tuple(embeddings.shape)}, got "
            f"{tuple(memberships.shape)} and {tuple(weights.shape)}"
        )
    with torch.autocast(embeddings.device.type, enabled=False):
        if embeddings.dtype in (torch.float16, torch.bfloat16):
            embeddings = embeddings.float()
        memberships = memberships.to(embeddings.dtype)
        weights = weights.to(embeddings.dtype).unsqueeze(2)
        total = weights.sum(1, keepdim=True)
        weights = weights / total.clamp_min(torch.finfo(total.dtype).tiny)
        columns = embeddings.transpose(1, 2)
        weighted = weights * memberships
        return (
            _energy(columns @ (weights * embeddings))
            - 2.0 * _energy(columns @ weighted)
            + _energy(memberships.transpose(1, 2) @ weighted)
        )


def _energy(matrices):
    """Squared Frobenius norms [B]."""
    return matrices.square().sum((1, 2))
