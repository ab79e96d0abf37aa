"""Weighted soft k-means, unfolded: a differentiable function.

Reference: Isik, Le Roux, Chen, Watanabe and Hershey, "Single-channel
multi-speaker separation using deep clustering" (end-to-end training).

Authors
 * The speechbrain_kmdanet developers 2026
"""

from typing import NamedTuple

import torch

from speechbrain_kmdanet.processing.lloyd import means, sum_points


class SoftKMeansResult(NamedTuple):
    """What :func:`soft_kmeans` returns.

    Arguments
    ---------
    centroids : torch.Tensor
        Cluster means [B, K, D].
    memberships : torch.Tensor
        Share of each cluster in each point [B, K, N]; they sum to one over
        the clusters.
    """

    centroids: torch.Tensor
    memberships: torch.Tensor


def soft_kmeans(x, initial_centroids, weights=None, alpha=5.0, iterations=5):
    """Clusters each item of a batch of point sets softly.

    A point belongs to all clusters, by γ = softmax(−α ‖x − μ‖²) over them; a
    centroid is the mean μ = Σ γ w x / Σ γ w. ``iterations=L`` means L such
    updates, and the memberships are those about the last centroids. The
    gradient goes through all of it.

    Arguments
    ---------
    x : torch.Tensor
        Points [B, N, D]. Half precision is clustered in float32.
    initial_centroids : torch.Tensor
        Initial centroids [B, K, D], for example those of hard k-means.
    weights : torch.Tensor
        Non-negative weights w of the points [B, N]; 0 ignores a point. All
        ones by default.
    alpha : float
        Hardness α > 0: the larger, the nearer to hard k-means.
    iterations : int
        Number of iterations L, at least 1.

    Returns
    -------
    SoftKMeansResult
        Centroids [B, K, D] and memberships [B, K, N].

    Raises
    ------
    ValueError
        If a shape or a number does not fit.

    Example
    -------
    >>> x = torch.tensor([[[0.0], [1.0], [9.0]]])
    >>> result = soft_kmeans(x, initial_centroids=x[:, ::2])
    >>> result.centroids.flatten(), result.memberships.round(decimals=3)
    (tensor([0.5000, 9.0000]), tensor([[[1., 1., 0.],
             [0., 0., 1.]]]))
    """
    _check_arguments(x, initial_centroids, weights, alpha, iterations)
    with torch.autocast(x.device.type, enabled=False):
        if x.dtype in (torch.float16, torch.bfloat16):
            x = x.float()
        if weights is None:
            weights = x.new_ones(x.shape[:2])
        weights = weights.to(x.dtype).unsqueeze(1)
        centroids = initial_centroids.to(x.dtype)
        for _ in range(iterations):
            memberships = _memberships(x, centroids, alpha)
            masses = memberships * weights
            centroids = means(
                sum_points(masses, x), masses.sum(2, keepdim=True), centroids
            )
        return SoftKMeansResult(centroids, _memberships(x, centroids, alpha))


def _check_arguments(x, centroids, weights, alpha, iterations):
    """Refuses arguments that do not fit, naming the offending one."""
    if centroids.dim() != 3 or centroids[:, 0].shape != x[:, 0].shape:
        raise ValueError(
            "initial_centroids [B, K, D] must fit x [B, N, D] of shape "
            f"{tuple(x.shape)}, got {tuple(centroids.shape)}"
        )
    if weights is not None and weights.shape != x.shape[:2]:
        raise ValueError(
            f"weights must have shape {tuple(x.shape[:2])} to fit x of shape "
            f"{tuple(x.shape)}, got {tuple(weights.shape)}"
        )
    if not alpha > 0:
        raise ValueError(f"alpha must be positive, got {alpha!r}")
    if not isinstance(iterations, int) or iterations < 1:
        raise ValueError(
            f"iterations must be an integer >= 1, got {iterations!r}"
        )


def _memberships(x, centroids, alpha):
    """Softmax of −α ‖x − μ‖² [B, K, N]; ‖x‖² is the same in all clusters."""
    products = torch.bmm(centroids, x.transpose(1, 2))
    squares = centroids.square().sum(2, keepdim=True)
    return (alpha * (2.0 * products - squares)).softmax(dim=1)
