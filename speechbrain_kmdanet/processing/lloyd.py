"""The engine of k-means: Lloyd iterations, and what is searched.

An iteration reads the points twice, in two thin matrix products, and writes
nothing of their size: it costs the memory traffic of that. Nothing here has a
gradient, but :func:`means` and :func:`sum_points`.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from speechbrain_kmdanet.processing.bins import (
    is_exporting,
    on_host,
    tiny,
    valid_mask,
)
from speechbrain_kmdanet.processing.seeding import Problem, draw_centroids

# On the CPU both products run twice as fast along the points as across them. A
# copy in that order takes the time that some five iterations gain by it.
COPY_FROM = 8

# Points from which the sums over a single item are worth several threads.
SPLIT_FROM = 8192

# Shorter points have no direction; w/‖x‖ must stay finite (spherical).
MIN_NORM = 1e-12

# Numbers in the points of a group on the CPU: 24 MB. The caches help below, and
# malloc, which gives what is larger back to the system and takes it anew.
GROUP = 6 * 2**20

# Part of Σ w‖x‖² below which an inertia is summed up point by point: what the
# clusters leave of all that would be mostly rounding.
TIGHT = 1e-3


class Search(NamedTuple):
    """How the clusters are searched, see :func:`kmeans`."""

    iterations: int  # L; the last one is without its update
    negligible: float
    with_inertia: bool  # which several restarts need
    init: str
    draws: Tensor  # uniform in [0, 1), a row a restart [R, K], float64
    initial_centroids: Tensor | None  # [B, K, D]; then no restart draws any


class Found(NamedTuple):
    """What an iteration, or a search, has found."""

    # Moved ones, or in the last iteration those that points are assigned to.
    centroids: Tensor  # [B, K, D]
    # None if it was not asked for:
    labels: Tensor = None  # type: ignore[assignment]  # nearest [B, N], int64
    inertia: Tensor = None  # type: ignore[assignment]  # [B]


def search_clusters(problem: Problem, search: Search) -> Found:
    """Assigns points to clusters, see :class:`Problem` and :class:`Search`."""
    found = []
    for items in _groups(problem.points):
        points, weights, norms = (x[items] for x in problem[:3])
        group = Problem(points, weights, norms, *problem[3:])
        given = search.initial_centroids
        found.append(
            _search(group, search, None if given is None else given[items])
        )
    if len(found) == 1:
        return found[0]
    return Found(*(torch.cat(x) for x in zip(*found) if x[0] is not None))


def _groups(points: Tensor) -> list[slice]:
    """Slices of the batch to be searched one after the other.

    On the CPU they take turns in the same memory, an item a thread or several.
    """
    batch, num_points, dimensions = points.shape
    size = batch
    if on_host(points):
        size = max(1, GROUP // (num_points * dimensions))
        threads = torch.get_num_threads()
        if size > threads:
            size -= size % threads
    return [slice(i, i + size) for i in range(0, batch, size)]


def _search(problem: Problem, search: Search, given: Tensor | None) -> Found:
    """Assigns the points of a group; of several starts, the best counts."""
    before = search.iterations - 1
    starts = [] if given is None else [given]
    starts += [
        draw_centroids(problem, search.init, row) for row in search.draws
    ]
    expected = len(starts) * search.iterations
    if search.negligible and before:
        heavy = _heavy(problem.weights, search.negligible)
        lloyd = Lloyd(_keep(problem, heavy), expected)
        last = Lloyd(problem)
    else:
        last = lloyd = Lloyd(problem, expected)
    best = None
    for centroids in starts:
        if problem.spherical:
            centroids = _unit(centroids)
        for _ in range(before):
            moved = lloyd.step(centroids).centroids
            # Elsewhere the comparison would wait for the device.
            if on_host(moved) and torch.equal(moved, centroids):
                break
            centroids = moved
        run = last.step(centroids, True, search.with_inertia)
        best = run if best is None else _lower_inertia(best, run)
    return best  # type: ignore[return-value]


def _heavy(weights: Tensor, negligible: float) -> Tensor:
    """Whether a weight [B, N] is at least that times the mean positive one.

    The others hold at most that part of the weight.
    """
    counts = (weights > 0).sum(1, keepdim=True).clamp_min(1)
    return weights >= negligible * weights.sum(1, keepdim=True) / counts


def _keep(problem: Problem, kept: Tensor) -> Problem:
    """The points that are kept [B, N].

    On the CPU copies, padded with weight 0. Elsewhere their number would have
    to be waited for: the others get weight 0 instead.
    """
    points, weights, norms = problem.points, problem.weights, problem.norms
    kind = problem.spherical, problem.num_clusters
    if not on_host(points):
        return Problem(points, weights * kept, norms, *kind)
    indices = pad_sequence(
        [row.nonzero().squeeze(1) for row in kept], batch_first=True
    )
    valid = valid_mask(kept.sum(1), indices.shape[1])
    firsts = torch.arange(len(points)).unsqueeze(1) * points.shape[1]
    rows = (firsts + indices).flatten()
    points = points.flatten(0, 1).index_select(0, rows)
    return Problem(
        points.unflatten(0, indices.shape),
        weights.gather(1, indices) * valid,
        norms.gather(1, indices),
        *kind,
    )


def _lower_inertia(one: Found, other: Found) -> Found:
    """Keeps, item by item, the run with less inertia."""
    better = other.inertia < one.inertia  # [B]
    return Found(
        *(
            torch.where(better.view(-1, *[1] * (a.dim() - 1)), b, a)
            for a, b in zip(one, other)
        )
    )


class Lloyd:
    """Iterations over one set of points.

    Arguments
    ---------
    problem : Problem
        The points.
    iterations : int
        How many iterations to expect, which decides about the order in memory.
    """

    def __init__(self, problem: Problem, iterations: int = 1) -> None:
        points, weights, self._norms, self._spherical, num_clusters = problem
        batch, num_points, _ = points.shape
        self._transposed = points.transpose(1, 2)  # [B, D, N]
        if on_host(points) and iterations >= COPY_FROM:
            self._transposed = _copy_by_dimension(points)
        self._given = weights
        if self._spherical:
            # x̄ᵀc compares like xᵀc, and Σ w x̄ is Σ (w/‖x‖) x: the unit
            # points of Algorithm 1 are never stored.
            weights = weights / self._norms.clamp_min(MIN_NORM)
        self._weights = weights.unsqueeze(1)
        # Taken once: fresh pages cost more than the arithmetic.
        self._masses = points.new_empty(batch, num_clusters, num_points)
        # Two clusters need one number a point, the side of a hyperplane.
        self._pair = num_clusters == 2 and not is_exporting()
        self._scores = self._masses
        self._threshold = points.new_zeros(batch, 1, 1)
        if self._pair:
            self._scores = points.new_empty(batch, 1, num_points)

    def step(
        self,
        centroids: Tensor,
        last: bool = False,
        with_inertia: bool = False,
    ) -> Found:
        """One iteration: an assignment, followed by an update.

        Arguments
        ---------
        centroids : torch.Tensor
            Centroids [B, K, D].
        last : bool
            Whether to return the assignment, instead of making the update.
        with_inertia : bool
            Whether to compute the inertia of that assignment, too.

        Returns
        -------
        Found
            Means of the clusters, of norm one for the spherical metric (a
            cluster without weight keeps its centroid); or the centroids, and
            the labels of the points.
        """
        self._score(centroids)
        if not last:
            return Found(self._update(self._sums(), centroids))
        # The labels first: the sums are made where the scores were.
        labels = self._labels()
        if not with_inertia:
            return Found(centroids, labels)
        return Found(centroids, labels, self._inertia(self._sums()))

    def _score(self, centroids: Tensor) -> None:
        """How near each centroid is; of two, how much nearer the second is."""
        directions = centroids.diff(dim=1) if self._pair else centroids
        # An export takes what is written to for another size.
        room = None if is_exporting() else self._scores
        self._scores = torch.bmm(directions, self._transposed, out=room)
        if not self._spherical:
            offsets = 0.5 * centroids.square().sum(2, keepdim=True)
            if self._pair:
                self._threshold = offsets.diff(dim=1)
            else:
                self._scores -= offsets

    def _labels(self) -> Tensor:
        """Nearest centroid of each point [B, N]."""
        if self._pair:
            second = torch.empty_like(self._scores, dtype=torch.int64)
            torch.gt(self._scores, self._threshold, out=second)
            return second.squeeze(1)
        return self._scores.max(1).indices

    def _sums(self) -> Tensor:
        """Weighted sums of the clusters' points [B, K, D]; and the masses."""
        if self._pair:
            first, second = self._masses.split(1, dim=1)
            torch.gt(self._scores, self._threshold, out=second)
            second.mul_(self._weights)
            torch.sub(self._weights, second, out=first)
        else:
            members = _first_largest(self._scores)
            self._masses.copy_(members).mul_(self._weights)
        return sum_points(self._masses, self._transposed.transpose(1, 2))

    def _update(self, sums: Tensor, centroids: Tensor) -> Tensor:
        """Centroids of the clusters [B, K, D]."""
        if self._spherical:
            norms = torch.linalg.vector_norm(sums, dim=2, keepdim=True)
            return torch.where(norms > 0, _unit(sums), centroids)
        return means(sums, self._masses.sum(2, keepdim=True), centroids)

    def _inertia(self, sums: Tensor) -> Tensor:
        """Inertia [B] about the means, of the sums s_l and the masses m_l.

        Euclidean: Σ w‖x‖² − Σ_l ‖s_l‖²/m_l; spherical: Σ w − Σ_l ‖s_l‖.
        """
        explained = torch.linalg.vector_norm(sums, dim=2)  # [B, K]
        spread = self._given.sum(1)  # [B]
        if not self._spherical:
            masses = self._masses.sum(2)
            explained = explained.square() / masses.clamp_min(tiny(masses))
            weighted = self._given * self._norms
            spread = torch.linalg.vecdot(weighted, self._norms)
        inertia = spread - explained.sum(1)
        tight = inertia < TIGHT * spread
        if on_host(tight) and not tight.any():
            return inertia
        return torch.where(tight, self._sum_distances(sums), inertia)

    def _sum_distances(self, sums: Tensor) -> Tensor:
        """The same inertia [B], where it is too small for a difference.

        Spherical: 1 − cos = ‖x̄ − c̄‖²/2, and 1 for a point without direction.
        """
        points, masses = self._transposed.transpose(1, 2), self._masses
        if self._spherical:
            norms = self._norms.clamp_min(MIN_NORM)
            points, masses = points / norms.unsqueeze(2), masses / 2
            centres, masses = _unit(sums), masses * norms.unsqueeze(1)
        else:
            totals = masses.sum(2, keepdim=True)
            centres = sums / totals.clamp_min(tiny(totals))
        direct = "donot_use_mm_for_euclid_dist"
        squares = torch.cdist(centres, points, compute_mode=direct).square()
        if self._spherical:
            squares += (self._norms < MIN_NORM).unsqueeze(1)
        return (masses * squares).sum((1, 2))


def _copy_by_dimension(points: Tensor) -> Tensor:
    """Points [B, D, N] in memory: the coordinates one after the other."""
    # The values of a strided copy, up to four times faster.
    dimensions = points.shape[2]
    identity = torch.eye(dimensions, dtype=points.dtype, device=points.device)
    return torch.bmm(
        identity.expand(len(points), -1, -1), points.transpose(1, 2)
    )


def _first_largest(scores: Tensor) -> Tensor:
    """Which cluster has the highest score, the first of equals [B, K, N]."""
    members = scores == scores.amax(1, keepdim=True)
    taken = members[:, 0]
    for cluster in members.unbind(1)[1:]:
        cluster &= ~taken
        taken = taken | cluster
    return members


def means(sums: Tensor, masses: Tensor, centroids: Tensor) -> Tensor:
    """Means of clusters; one without weight keeps its centroid.

    Arguments
    ---------
    sums : torch.Tensor
        Weighted sums of the points [B, K, D].
    masses : torch.Tensor
        Sums of the weights [B, K, 1].
    centroids : torch.Tensor
        Previous centroids [B, K, D].

    Returns
    -------
    torch.Tensor
        Means [B, K, D].
    """
    least = tiny(masses)
    found = sums / masses.clamp_min(least)
    # A subnormal mass would not divide: it counts as none.
    return torch.where(masses >= least, found, centroids)


def sum_points(masses: Tensor, points: Tensor) -> Tensor:
    """Weighted sums of the points of clusters.

    On the CPU, of a single item each thread has a part.

    Arguments
    ---------
    masses : torch.Tensor
        Weights of the points in the clusters [B, K, N].
    points : torch.Tensor
        Points [B, N, D].

    Returns
    -------
    torch.Tensor
        Sums [B, K, D].
    """
    batch, num_points, _ = points.shape
    parts = 1
    if on_host(points) and batch == 1 and num_points >= SPLIT_FROM:
        parts = torch.get_num_threads()
    if parts == 1:
        return torch.bmm(masses, points)
    split = num_points - num_points % parts
    products = torch.bmm(
        masses[0, :, :split].unflatten(1, (parts, -1)).transpose(0, 1),
        points[0, :split].unflatten(0, (parts, -1)),
    ).sum(0, keepdim=True)
    if split < num_points:
        products = products.baddbmm(masses[..., split:], points[:, split:])
    return products


def _unit(vectors: Tensor) -> Tensor:
    """Vectors [..., D] at unit norm; zero stays zero."""
    norms = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / norms.clamp_min(tiny(vectors))
