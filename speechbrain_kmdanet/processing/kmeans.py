"""Weighted k-means, hard and soft, as pure, batched functions.

They are made to sit inside a training graph. The hard assignment has no
gradient, so of L unfolded iterations only the last centroid update carries
one: the iterations before it run without autograd, which gives exactly the
gradients of the full unfolding at a memory and a backward cost that do not
depend on L.

References: C. Cadoux, S. Uhlich, M. Ferras and Y. Mitsufuji, "Closing the
training/inference gap for deep attractor networks" (Algorithm 1, Eq. 6); Isik,
Le Roux, Chen, Watanabe and Hershey, "Single-channel multi-speaker separation
using deep clustering" (soft k-means).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.processing.bins import at_least_float32
from speechbrain_kmdanet.processing.lloyd import (
    INITS,
    Search,
    means,
    search_clusters,
    sum_points,
)

METRICS = ("euclidean", "spherical")


class KMeansResult(NamedTuple):
    """What :func:`kmeans` returns.

    Arguments
    ---------
    centroids : torch.Tensor
        Cluster means [B, K, D]; carries the gradient of the last update.
    assignments : torch.Tensor
        Index of the cluster of each point [B, N], int64.
    inertia : torch.Tensor
        Weighted sum of the distances of the points to their centroids [B]:
        squared Euclidean distances, or one minus the cosine similarity. None
        if it was not asked for.
    """

    centroids: Tensor
    assignments: Tensor
    inertia: Tensor | None


def kmeans(
    x: Tensor,
    num_clusters: int,
    *,
    weights: Tensor | None = None,
    metric: str = "euclidean",
    iterations: int = 20,
    init: str = "kmeans++",
    num_init: int = 1,
    initial_centroids: Tensor | None = None,
    negligible: float = 0.0,
    with_inertia: bool = True,
    generator: torch.Generator | None = None,
) -> KMeansResult:
    """Clusters each item of a batch of point sets.

    ``iterations=L`` means L assignments, each followed by an update; the
    returned centroids and assignments belong to the L-th. An empty cluster
    keeps its previous centroid, without a gradient. The random draws of the
    initialisation are shared by the items of the batch, so that an item is
    clustered alike alone and in any batch, padded with points of weight 0 or
    not.

    Arguments
    ---------
    x : torch.Tensor
        Points [B, N, D]. Half precision is clustered in float32.
    num_clusters : int
        Number of clusters K.
    weights : torch.Tensor
        Non-negative weights of the points [B, N] (Eq. 6); 0 ignores a point.
        All ones by default.
    metric : str
        "euclidean", or "spherical": the cosine assignment and unit-norm
        centroids of Algorithm 1 while iterating, and final centroids that are
        means of the unnormalised points.
    iterations : int
        Number of iterations L, at least 1.
    init : str
        "kmeans++" (weighted), or "random": distinct points, drawn uniformly
        among those of positive weight.
    num_init : int
        Number of restarts; each item keeps the one of lowest inertia.
    initial_centroids : torch.Tensor
        Initial centroids [B, K, D], instead of a drawn initialisation.
    negligible : float
        Points lighter than this times the mean of the positive weights, which
        together hold at most this part of the weight, count in the last
        iteration only, as all points do: the others cost less time. 0 for
        Algorithm 1 as it stands.
    with_inertia : bool
        Whether to compute the inertia, which restarts do in any case.
    generator : torch.Generator
        Source of the random draws; the global one by default.

    Returns
    -------
    KMeansResult
        Centroids [B, K, D], assignments [B, N] and inertia [B].

    Raises
    ------
    UserError
        If a shape, a count or a name does not fit, or there are fewer points
        than clusters.

    Example
    -------
    >>> x = torch.tensor([[[0.0, 0.0], [0.0, 1.0], [9.0, 0.0], [9.0, 1.0]]])
    >>> result = kmeans(x, 2, initial_centroids=x[:, [0, 2]])
    >>> result.centroids
    tensor([[[0.0000, 0.5000],
             [9.0000, 0.5000]]])
    >>> result.assignments, result.inertia
    (tensor([[0, 0, 1, 1]]), tensor([1.0000]))
    """
    if x.dim() != 3 or not x.is_floating_point():
        raise UserError(
            "x must be a floating-point tensor [batch, points, dimensions], "
            f"got {x.dtype} of shape {tuple(x.shape)}"
        )
    _check_weights(weights, x)
    for name, value in (
        ("num_clusters", num_clusters),
        ("iterations", iterations),
        ("num_init", num_init),
    ):
        _check_count(name, value)
    if x.shape[1] < num_clusters:
        raise UserError(
            f"num_clusters={num_clusters} needs at least that many points, "
            f"got x of shape {tuple(x.shape)}"
        )
    if metric not in METRICS:
        raise UserError(f"metric must be one of {METRICS}, got {metric!r}")
    if not 0.0 <= negligible < 1.0:
        raise UserError(f"negligible must be in [0, 1), got {negligible!r}")
    if init not in INITS:
        raise UserError(f"init must be one of {INITS}, got {init!r}")
    with torch.autocast(x.device.type, enabled=False):
        x = at_least_float32(x)
        if weights is None:
            weights = x.new_ones(()).expand(x.shape[:2])
        weights = weights.to(x.dtype)
        if initial_centroids is None:
            with_inertia = with_inertia or num_init > 1
        else:
            num_init = 0  # nothing is drawn
            expected = (x.shape[0], num_clusters, x.shape[2])
            if tuple(initial_centroids.shape) != expected:
                raise UserError(
                    f"initial_centroids must have shape {expected}, got "
                    f"{tuple(initial_centroids.shape)}"
                )
            initial_centroids = initial_centroids.to(x.dtype)
        draws = _draw(num_init, num_clusters, x.device, generator)
        search = Search(
            iterations, negligible, with_inertia, init, draws, initial_centroids
        )
        with torch.no_grad():
            centroids, assignments, inertia = search_clusters(
                x, weights, metric == "spherical", num_clusters, search
            )
        centroids = _means(x, weights, assignments, centroids)
    return KMeansResult(centroids, assignments, inertia)


def _check_weights(weights: Tensor | None, x: Tensor) -> None:
    """Refuses weights that do not belong to the points."""
    if weights is not None and weights.shape != x.shape[:2]:
        raise UserError(
            f"weights must have shape {tuple(x.shape[:2])} to fit x of shape "
            f"{tuple(x.shape)}, got {tuple(weights.shape)}"
        )


def _check_count(name: str, value: int) -> None:
    """Refuses what is no integer from 1 on."""
    if not isinstance(value, int) or value < 1:
        raise UserError(f"{name} must be an integer >= 1, got {value!r}")


def _draw(
    num_init: int,
    num_clusters: int,
    device: torch.device,
    generator: torch.Generator | None,
) -> Tensor:
    """Uniform draws in [0, 1) for all restarts [R, K], on a device."""
    source = device if generator is None else generator.device
    return torch.rand(
        (num_init, num_clusters),
        dtype=torch.float64,
        device=source,
        generator=generator,
    ).to(device)


def _means(
    points: Tensor,
    weights: Tensor,
    assignments: Tensor,
    centroids: Tensor,
) -> Tensor:
    """Weighted means of the clusters [B, K, D] (Eq. 6), with their gradient."""
    clusters = torch.arange(centroids.shape[1], device=centroids.device)
    masses = points.new_empty(len(points), len(clusters), points.shape[1])
    torch.eq(assignments.unsqueeze(1), clusters.view(-1, 1), out=masses)
    masses.mul_(weights.unsqueeze(1))  # [B, K, N]
    return means(
        sum_points(masses, points), masses.sum(2, keepdim=True), centroids
    )


class SoftKMeansResult(NamedTuple):
    """What :func:`soft_kmeans` returns.

    Arguments
    ---------
    centroids : torch.Tensor
        Cluster means [B, K, D].
    memberships : torch.Tensor
        How much of each point is in each cluster [B, K, N]; sums to one over
        the clusters.
    """

    centroids: Tensor
    memberships: Tensor


def soft_kmeans(
    x: Tensor,
    initial_centroids: Tensor,
    weights: Tensor | None = None,
    alpha: float = 5.0,
    iterations: int = 5,
) -> SoftKMeansResult:
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
    UserError
        If a shape or a number does not fit.

    Example
    -------
    >>> x = torch.tensor([[[0.0], [1.0], [9.0]]])
    >>> result = soft_kmeans(x, initial_centroids=x[:, ::2])
    >>> result.centroids.flatten(), result.memberships.round(decimals=3)
    (tensor([0.5000, 9.0000]), tensor([[[1., 1., 0.],
             [0., 0., 1.]]]))
    """
    centroids = initial_centroids
    if centroids.dim() != 3 or centroids[:, 0].shape != x[:, 0].shape:
        raise UserError(
            "initial_centroids [B, K, D] must fit x [B, N, D] of shape "
            f"{tuple(x.shape)}, got {tuple(centroids.shape)}"
        )
    _check_weights(weights, x)
    if not alpha > 0:
        raise UserError(f"alpha must be positive, got {alpha!r}")
    _check_count("iterations", iterations)
    with torch.autocast(x.device.type, enabled=False):
        x = at_least_float32(x)
        if weights is None:
            weights = x.new_ones(x.shape[:2])
        weights = weights.to(x.dtype).unsqueeze(1)  # [B, 1, N]
        centroids = centroids.to(x.dtype)
        for _ in range(iterations):
            masses = _memberships(x, centroids, alpha) * weights  # [B, K, N]
            sums = sum_points(masses, x)  # [B, K, D]
            centroids = means(sums, masses.sum(2, keepdim=True), centroids)
        return SoftKMeansResult(centroids, _memberships(x, centroids, alpha))


def _memberships(x: Tensor, centroids: Tensor, alpha: float) -> Tensor:
    """Softmax of −α ‖x − μ‖² [B, K, N]; ‖x‖² is the same in all clusters."""
    products = torch.bmm(centroids, x.transpose(1, 2))
    squares = centroids.square().sum(2, keepdim=True)
    return (alpha * (2.0 * products - squares)).softmax(dim=1)
