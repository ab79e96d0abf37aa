"""The search of k-means for the clusters: restarts and iterations, no gradient.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import torch
from torch.nn.utils.rnn import pad_sequence

from speechbrain_kmdanet.processing.kmeans_init import draw_centroids
from speechbrain_kmdanet.processing.lloyd import Lloyd, tiny, unit

# Shorter points have no direction; w/‖x‖ must stay finite (spherical).
MIN_NORM = 1e-12

# Numbers in the points of a group on the CPU: 24 MB. The caches help below, and
# malloc, which gives what is larger back to the system and takes it anew.
GROUP = 6 * 2**20


def search_clusters(
    x, weights, metric, iterations, negligible, initial_centroids, init, draws,
    with_inertia,
):  # fmt: skip
    """Assigns points to clusters.

    Arguments
    ---------
    x : torch.Tensor
        Points [B, N, D].
    weights : torch.Tensor
        Non-negative weights of the points [B, N].
    metric : str
        "euclidean" or "spherical".
    iterations : int
        Number of iterations L; the last one without its update.
    negligible : float
        Points lighter than this times the mean weight count in the last
        iteration only.
    initial_centroids : torch.Tensor
        Initial centroids [B, K, D]; None to draw them.
    init : str
        How to draw them, see :func:`draw_centroids`.
    draws : torch.Tensor
        Uniform draws in [0, 1), a row a restart [R, K], float64; None where
        initial centroids are given.
    with_inertia : bool
        Whether to compute the inertia, which several restarts need.

    Returns
    -------
    centroids : torch.Tensor
        Centroids to which the points were assigned [B, K, D].
    assignments : torch.Tensor
        Index of the cluster of each point [B, N], int64.
    inertia : torch.Tensor
        Weighted sum of the distances to the means of the clusters [B]; left
        out if it is not asked for.
    """
    found = [
        _search(
            x[items], weights[items], metric, iterations, negligible,
            None if initial_centroids is None else initial_centroids[items],
            init, draws, with_inertia,
        )
        for items in _groups(x)
    ]  # fmt: skip
    return found[0] if len(found) == 1 else tuple(map(torch.cat, zip(*found)))


def _groups(x):
    """Slices of the batch to be searched one after the other.

    On the CPU they take turns in the same memory, with an item a thread or
    several, and stop when they have converged.
    """
    batch, num_points, dimensions = x.shape
    size = batch
    if x.device.type == "cpu":
        size = max(1, GROUP // (num_points * dimensions))
        threads = torch.get_num_threads()
        if size > threads:
            size -= size % threads
    return [slice(i, i + size) for i in range(0, batch, size)]


def _search(
    x, weights, metric, iterations, negligible, initial_centroids, init, draws,
    with_inertia,
):  # fmt: skip
    """Assigns the points of a group, see :func:`search_clusters`."""
    spherical = metric == "spherical"
    norms = torch.linalg.vector_norm(x, dim=2)
    step_weights = weights
    if spherical:
        step_weights = weights / norms.clamp_min(MIN_NORM)
    if initial_centroids is None:
        num_clusters = draws.shape[1]
        starts = (
            draw_centroids(x, norms, weights, spherical, init, row)
            for row in draws
        )
        restarts = len(draws)
    else:
        num_clusters = initial_centroids.shape[1]
        starts, restarts = [initial_centroids], 1

    if negligible and iterations > 1:
        heavy = _heavy(weights, negligible)
        lloyd = Lloyd(
            *_keep(x, step_weights, heavy), num_clusters, spherical,
            restarts * iterations,
        )  # fmt: skip
        last = Lloyd(x, step_weights, num_clusters, spherical)
    else:
        last = lloyd = Lloyd(
            x, step_weights, num_clusters, spherical, restarts * iterations
        )
    best = None
    for centroids in starts:
        if spherical:
            centroids = unit(centroids)
        centroids = lloyd.run(centroids, iterations - 1)
        run = (centroids, last.assign(centroids))
        if with_inertia:
            run += (_inertia(last, weights, norms),)
        best = run if best is None else _lower_inertia(best, run)
    return best


def _heavy(weights, negligible):
    """Whether a weight [B, N] is at least that share of the mean positive one.

    The others hold at most that share of the weight. Points of weight 0, such
    as padding, do not change the mean.
    """
    counts = (weights > 0).sum(1, keepdim=True).clamp_min(1)
    return weights >= negligible * weights.sum(1, keepdim=True) / counts


def _keep(x, weights, kept):
    """The points, and their weights, that are kept.

    On the CPU copies, padded with weight 0 to the longest. Elsewhere their
    number would have to be waited for, and the others get weight 0 instead.
    """
    if x.device.type != "cpu":
        return x, weights * kept
    indices = pad_sequence(
        [row.nonzero().squeeze(1) for row in kept], batch_first=True
    )
    places = torch.arange(indices.shape[1])
    weights = weights.gather(1, indices) * (places < kept.sum(1, keepdim=True))
    firsts = torch.arange(len(x)).unsqueeze(1) * x.shape[1]
    rows = (firsts + indices).flatten()
    points = x.flatten(0, 1).index_select(0, rows)
    return points.unflatten(0, indices.shape), weights


def _inertia(lloyd, weights, norms):
    """Inertia [B] about the means of the last assignment.

    Euclidean: Σ w‖x‖² − Σ_l ‖s_l‖²/m_l; spherical: Σ w − Σ_l ‖s_l‖, where s_l
    and m_l are the sum and the mass of cluster l.
    """
    explained = torch.linalg.vector_norm(lloyd.sums(), dim=2)
    spread = weights.sum(1)
    if not lloyd.spherical:
        masses = lloyd.masses.sum(2)
        explained = explained.square() / masses.clamp_min(tiny(masses))
        spread = torch.linalg.vecdot(weights * norms, norms)
    return (spread - explained.sum(1)).clamp_min(0.0)


def _lower_inertia(one, other):
    """Keeps, item by item, the run with less inertia, which is the third."""
    better = other[2] < one[2]
    return tuple(
        torch.where(better.view(-1, *[1] * (a.dim() - 1)), b, a)
        for a, b in zip(one, other)
    )
