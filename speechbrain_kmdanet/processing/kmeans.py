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

import operator
from contextlib import nullcontext
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.processing.bins import (
    LEAST,
    MOST,
    at_least_float32,
    check_tensor,
    describe,
    full_precision,
    is_exporting,
    on_host,
    power_to_unity,
    tiny,
    widest,
)
from speechbrain_kmdanet.processing.lloyd import (
    Search,
    means,
    search_clusters,
    sum_points,
)
from speechbrain_kmdanet.processing.seeding import INITS, Problem

METRICS = ("euclidean", "spherical")

# What points have in common is taken away where it is so many times as large as
# their spread: it would cancel in their distances, and leave rounding.
FAR = 10.0

# Largest norm, and hardness of soft k-means, that do not overflow either.
HUGE = 2.0**60


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
        squared Euclidean distances, or one minus the cosine similarity;
        infinite if its type cannot hold it. None if it was not asked for.
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
    generator: torch.Generator | int | None = None,
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
        Non-negative weights of the points [B, N] (Eq. 6); 0 ignores a point,
        whatever it is. All ones by default.
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
    generator : torch.Generator or int
        Source of the random draws, or a seed, which gives the same ones on
        all devices; the global source by default.

    Returns
    -------
    KMeansResult
        Centroids [B, K, D], assignments [B, N] and inertia [B].

    Raises
    ------
    UserError
        If a shape, a count or a name does not fit, there are fewer points than
        clusters, or a value is NaN, infinite or a negative weight. Training on
        a GPU does not wait for values: there, such an item has NaN centroids.

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
    check_tensor("x", x, batch=None, points=None, dimensions=None)
    batch, points, dimensions = x.shape
    num_clusters = _count("num_clusters", num_clusters)
    iterations = _count("iterations", iterations)
    num_init = _count("num_init", num_init)
    if points < num_clusters:
        raise UserError(
            f"num_clusters={num_clusters} needs at least that many points, "
            f"got x of shape {tuple(x.shape)}"
        )
    if not isinstance(metric, str) or metric not in METRICS:
        raise UserError(
            f"metric must be one of {METRICS}, got {describe(metric)}"
        )
    if not isinstance(negligible, int | float) or not 0.0 <= negligible < 1.0:
        raise UserError(
            f"negligible must be in [0, 1), got {describe(negligible)}"
        )
    if not isinstance(init, str) or init not in INITS:
        raise UserError(f"init must be one of {INITS}, got {describe(init)}")
    if initial_centroids is None:
        with_inertia = with_inertia or num_init > 1
    else:
        num_init = 0  # nothing is drawn
    spherical = metric == "spherical"
    with full_precision(x.device):
        frame = _find_frame(
            x, weights, initial_centroids, num_clusters, centred=not spherical
        )
        problem = Problem(*frame[:3], spherical, num_clusters)
        draws = _draw(num_init, num_clusters, x.device, generator)
        search = Search(
            iterations, negligible, with_inertia, init, draws, frame.centroids
        )
        with torch.no_grad():
            centroids, assignments, inertia = search_clusters(problem, search)
        centroids = _means(frame.points, frame.weights, assignments, centroids)
        if inertia is not None:
            inertia = frame.leave_inertia(inertia, spherical)
    return KMeansResult(frame.leave(centroids), assignments, inertia)


class _Frame(NamedTuple):
    """A problem where it is solved: its points are there at scale · x − shift.

    Squares do not vanish or overflow there, and nothing cancels in distances.
    """

    points: Tensor  # [B, N, D]
    weights: Tensor  # [B, N]
    norms: Tensor  # of the points, without a gradient [B, N]
    centroids: Tensor | None  # that were given [B, K, D]
    scale: Tensor  # a power of two; NaN for an item that has no solution [B]
    shift: Tensor  # [B, 1, D], or 0
    weight_scale: Tensor  # of the weights, such a power, too [B]

    def leave(self, centroids: Tensor) -> Tensor:
        """Centroids [B, K, D] where the points were."""
        return (centroids + self.shift) / self.scale.view(-1, 1, 1)

    def leave_inertia(self, inertia: Tensor, spherical: bool) -> Tensor:
        """Inertia [B] of the points as they were."""
        found = inertia / self.weight_scale
        if not spherical:
            found = found / self.scale / self.scale  # Its square may vanish.
        return found.to(inertia.dtype)


def _find_frame(
    x: Tensor,
    weights: Tensor | None,
    centroids: Tensor | None,
    num_clusters: int | None,
    centred: bool,
) -> _Frame:
    """Checks a problem, and finds where to solve it: mostly where it is."""
    looks = _host_looks(x)
    x = at_least_float32(x)
    weights, weight_scale = _check_weights(weights, x, looks)
    norms = torch.linalg.vector_norm(x.detach(), dim=2)
    largest = norms.amax(1)
    if centroids is not None:
        centroids = _check_centroids(centroids, x, num_clusters, looks)
        largest = largest.maximum(centroids.detach().abs().amax((1, 2)))
    scale, shift = torch.ones_like(largest), norms.new_zeros(())
    radius, square = _moments(weights, norms)
    if not looks or not ((largest <= MOST) & (square >= LEAST**2)).all():
        scale = _find_scale(x.detach(), weights, centroids, looks)
        scale = torch.where(weight_scale.isnan(), torch.nan, scale)
        x = x * scale.view(-1, 1, 1)
        norms = torch.linalg.vector_norm(x.detach(), dim=2)
        # What has no weight may be anything, but would be NaN in sums.
        kept = (norms <= HUGE) | (weights > 0)
        x = torch.where(kept.unsqueeze(2), x, 0.0)
        norms = torch.where(kept, norms, 0.0)
        radius, square = _moments(weights, norms)
    # Far from the origin, all points have nearly the same norm.
    near = not centred or looks and (radius.square() < 0.99 * square).all()
    if not near:
        mean = torch.bmm(weights.detach().unsqueeze(1), x.detach())
        mean = mean / _total(weights).view(-1, 1, 1)  # [B, 1, D]
        common = mean.square().sum((1, 2))
        far = common > FAR**2 * (square - common)
        if not looks or far.any():
            shift = torch.where(far.view(-1, 1, 1), mean, 0.0)
            x = x - shift
            norms = torch.linalg.vector_norm(x.detach(), dim=2)
    if centroids is not None:
        centroids = centroids * scale.view(-1, 1, 1) - shift
    return _Frame(x, weights, norms, centroids, scale, shift, weight_scale)


def _host_looks(x: Tensor) -> bool:
    """Whether values may be looked at, to refuse them and to spare copies.

    A step of training on another device would have to wait for them.
    """
    training = torch.is_grad_enabled() and x.requires_grad
    return on_host(x) or not (training or is_exporting())


def _total(weights: Tensor) -> Tensor:
    """Sum of the weights of each item [B], by which can be divided."""
    return weights.detach().sum(1).clamp_min(tiny(weights))


def _moments(weights: Tensor, norms: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted means of the norms, and of their squares [B]."""
    total = _total(weights)
    moments = weights.detach() * norms
    first = moments.sum(1) / total
    # In place: fresh memory costs more than the arithmetic.
    return first, moments.mul_(norms).sum(1) / total


def _check_weights(
    weights: Tensor | None, x: Tensor, looks: bool
) -> tuple[Tensor, Tensor]:
    """Weights [B, N] in the type of x, and by what they are scaled [B]."""
    if weights is None:
        ones = x.new_ones(len(x))
        return ones[:1].expand(x.shape[:2]), ones
    check_tensor(
        "weights", weights, "real", x.device, batch=len(x), points=x.shape[1]
    )
    if not weights.is_floating_point():
        weights = weights.to(x.dtype)
    weights = at_least_float32(weights)
    low, high = weights.detach().amin(1), weights.detach().amax(1)
    scale = torch.where(low >= 0, power_to_unity(high), torch.nan)
    if not looks or not (scale == 1.0).all():
        if looks and scale.isnan().any():
            wrong = torch.where(low >= 0, high, low)[scale.isnan()]
            raise UserError(
                "weights must be finite and not negative, got "
                f"{float(wrong[0])}"
            )
        weights = weights * scale.unsqueeze(1)
    return weights.to(x.dtype), scale


def _check_centroids(
    centroids: Tensor, x: Tensor, num_clusters: int | None, looks: bool
) -> Tensor:
    """Initial centroids in the type of x, if they belong to it."""
    check_tensor(
        "initial_centroids",
        centroids,
        "real",
        x.device,
        batch=len(x),
        clusters=num_clusters,
        dimensions=x.shape[2],
    )
    centroids = centroids.to(x.dtype)
    if looks and not centroids.isfinite().all():
        raise UserError("initial_centroids must be finite, got inf or nan")
    return centroids


def _find_scale(
    x: Tensor, weights: Tensor, centroids: Tensor | None, looks: bool
) -> Tensor:
    """By what to scale each item [B]: 1 where it is neither huge nor tiny."""
    peak = torch.where(weights > 0, x.abs().amax(2), 0.0).amax(1)
    if looks and not peak.isfinite().all():
        item = int(peak.isfinite().long().argmin())
        raise UserError(
            f"x must be finite, got {float(peak[item])} in item {item} of the "
            "batch: leave such points out by weights of 0"
        )
    if centroids is not None:
        peak = peak.maximum(centroids.detach().abs().amax((1, 2)))
    return power_to_unity(peak)


def _count(name: str, value: int) -> int:
    """An integer from 1 on."""
    try:
        count = operator.index(value)
    except TypeError:
        count = 0
    if count < 1 or isinstance(value, bool):
        raise UserError(
            f"{name} must be an integer >= 1, got {describe(value)}"
        )
    return count


def _draw(
    num_init: int,
    num_clusters: int,
    device: torch.device,
    generator: torch.Generator | int | None,
) -> Tensor:
    """Uniform draws in [0, 1) for all restarts [R, K], on a device."""
    if not isinstance(generator, torch.Generator | int | None):
        raise UserError(
            "generator must be a torch.Generator or a seed, got "
            f"{describe(generator)}"
        )
    size = num_init, num_clusters
    if isinstance(generator, int):
        draws = _draw_seeded(size, generator)
    else:
        source = device if generator is None else generator.device
        draws = torch.rand(
            size, dtype=widest(source), device=source, generator=generator
        )
    return draws.to(device, widest(device), non_blocking=True)


def _draw_seeded(size: tuple[int, int], seed: int) -> Tensor:
    """Draws [R, K] of a seed: constants of an export, which has no generator."""
    with _disable_current_modes() if is_exporting() else nullcontext():
        generator = torch.Generator().manual_seed(seed)
        return torch.rand(size, dtype=torch.float64, generator=generator)


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
        Non-negative weights w of the points [B, N]; 0 ignores a point,
        whatever it is. All ones by default.
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
        If a shape or a number does not fit, see also :func:`kmeans`.

    Example
    -------
    >>> x = torch.tensor([[[0.0], [1.0], [9.0]]])
    >>> result = soft_kmeans(x, initial_centroids=x[:, ::2])
    >>> result.centroids.flatten(), result.memberships.round(decimals=3)
    (tensor([0.5000, 9.0000]), tensor([[[1., 1., 0.],
             [0., 0., 1.]]]))
    """
    check_tensor("x", x, batch=None, points=None, dimensions=None)
    if initial_centroids is None:
        raise UserError("initial_centroids must be a tensor, got None")
    if not isinstance(alpha, int | float) or not 0.0 < alpha <= HUGE:
        raise UserError(
            f"alpha must be positive and at most {HUGE:.0e}, got "
            f"{describe(alpha)}"
        )
    iterations = _count("iterations", iterations)
    with full_precision(x.device):
        frame = _find_frame(x, weights, initial_centroids, None, centred=True)
        x, centroids = frame.points, cast(Tensor, frame.centroids)
        weights = frame.weights.unsqueeze(1)  # [B, 1, N]
        scale = frame.scale.view(-1, 1, 1)
        hardness = (alpha / scale / scale).clamp_max(HUGE)
        for _ in range(iterations):
            masses = _memberships(x, centroids, hardness) * weights  # [B, K, N]
            sums = sum_points(masses, x)  # [B, K, D]
            centroids = means(sums, masses.sum(2, keepdim=True), centroids)
        memberships = _memberships(x, centroids, hardness)
        return SoftKMeansResult(frame.leave(centroids), memberships)


def _memberships(x: Tensor, centroids: Tensor, alpha: Tensor) -> Tensor:
    """Softmax of −α ‖x − μ‖² [B, K, N]; ‖x‖² is the same in all clusters."""
    products = torch.bmm(centroids, x.transpose(1, 2))
    squares = centroids.square().sum(2, keepdim=True)
    return (alpha * (2.0 * products - squares)).softmax(dim=1)
