"""Weighted Euclidean and spherical k-means as a pure, batched function.

The function is made to sit inside a training graph: the hard assignment has no
gradient, so of L unfolded iterations only the last centroid update carries
one. The iterations before it run without autograd, which gives exactly the
gradients of the full unfolding at a memory and a backward cost that do not
depend on L.

Reference: C. Cadoux, S. Uhlich, M. Ferras and Y. Mitsufuji, "Closing the
training/inference gap for deep attractor networks" (Algorithm 1, Eq. 6).

Authors
 * The speechbrain_kmdanet developers 2026
"""

from typing import NamedTuple

import torch

from speechbrain_kmdanet.processing.kmeans_init import INITS
from speechbrain_kmdanet.processing.kmeans_search import search_clusters
from speechbrain_kmdanet.processing.lloyd import means, sum_points

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

    centroids: torch.Tensor
    assignments: torch.Tensor
    inertia: torch.Tensor | None


def kmeans(
    x,
    num_clusters,
    *,
    weights=None,
    metric="euclidean",
    iterations=20,
    init="kmeans++",
    num_init=1,
    initial_centroids=None,
    negligible=0.0,
    with_inertia=True,
    generator=None,
):
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
        together hold at most this share of the weight, count in the last
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
    ValueError
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
    _check_arguments(
        x, num_clusters, weights, metric, iterations, init, num_init, negligible
    )
    with torch.autocast(x.device.type, enabled=False):
        if x.dtype in (torch.float16, torch.bfloat16):
            x = x.float()
        if weights is None:
            weights = x.new_ones(()).expand(x.shape[:2])
        weights = weights.to(x.dtype)
        draws = None
        if initial_centroids is None:
            draws = _draw(num_init, num_clusters, x.device, generator)
            with_inertia = with_inertia or num_init > 1
        else:
            _check_initial_centroids(initial_centroids, x, num_clusters)
            initial_centroids = initial_centroids.to(x.dtype)
        with torch.no_grad():
            centroids, assignments, *inertia = search_clusters(
                x, weights, metric, iterations, negligible, initial_centroids,
                init, draws, with_inertia,
            )  # fmt: skip
        centroids = _means(x, weights, assignments, centroids)
    return KMeansResult(centroids, assignments, inertia[0] if inertia else None)


def _check_arguments(
    x, num_clusters, weights, metric, iterations, init, num_init, negligible
):
    """Refuses arguments that do not fit, naming the offending one."""
    if x.dim() != 3 or not x.is_floating_point():
        raise ValueError(
            "x must be a floating-point tensor [batch, points, dimensions], "
            f"got {x.dtype} of shape {tuple(x.shape)}"
        )
    if weights is not None and weights.shape != x.shape[:2]:
        raise ValueError(
            f"weights must have shape {tuple(x.shape[:2])} to fit x of shape "
            f"{tuple(x.shape)}, got {tuple(weights.shape)}"
        )
    for name, value in (
        ("num_clusters", num_clusters),
        ("iterations", iterations),
        ("num_init", num_init),
    ):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
    if x.shape[1] < num_clusters:
        raise ValueError(
            f"num_clusters={num_clusters} needs at least that many points, "
            f"got x of shape {tuple(x.shape)}"
        )
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {METRICS}, got {metric!r}")
    if not 0.0 <= negligible < 1.0:
        raise ValueError(f"negligible must be in [0, 1), got {negligible!r}")
    if init not in INITS:
        raise ValueError(f"init must be one of {INITS}, got {init!r}")


def _check_initial_centroids(initial_centroids, x, num_clusters):
    """Refuses initial centroids of another shape than [B, K, D]."""
    expected = (x.shape[0], num_clusters, x.shape[2])
    if tuple(initial_centroids.shape) != expected:
        raise ValueError(
            f"initial_centroids must have shape {expected}, got "
            f"{tuple(initial_centroids.shape)}"
        )


def _draw(num_init, num_clusters, device, generator):
    """Uniform draws in [0, 1) for all restarts [R, K], on a device."""
    source = device if generator is None else generator.device
    return torch.rand(
        num_init, num_clusters, dtype=torch.float64, device=source,
        generator=generator,
    ).to(device)  # fmt: skip


def _means(points, weights, assignments, centroids):
    """Weighted means of the clusters [B, K, D] (Eq. 6), with their gradient."""
    clusters = torch.arange(centroids.shape[1], device=centroids.device)
    masses = points.new_empty(len(points), len(clusters), points.shape[1])
    torch.eq(assignments.unsqueeze(1), clusters.view(-1, 1), out=masses)
    masses.mul_(weights.unsqueeze(1))
    return means(
        sum_points(masses, points), masses.sum(2, keepdim=True), centroids
    )
