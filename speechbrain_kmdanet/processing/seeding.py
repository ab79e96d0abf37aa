"""Where a clustering starts: points that are drawn as centroids.

Reference: D. Arthur and S. Vassilvitskii, "k-means++: the advantages of
careful seeding".
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from speechbrain_kmdanet.processing.bins import is_exporting, tiny, widest

INITS = ("kmeans++", "random")

# Points whose chances are added up before one of them is drawn: a cumulative
# sum over all points would cost as much as several iterations.
BLOCK = 256


class Problem(NamedTuple):
    """Points to be clustered."""

    points: Tensor  # [B, N, D]
    weights: Tensor  # of the points, not negative [B, N]
    norms: Tensor  # Euclidean norms of the points [B, N]
    spherical: bool  # whether centroids are directions (Algorithm 1), or means
    num_clusters: int  # K


def draw_centroids(problem: Problem, init: str, draws: Tensor) -> Tensor:
    """Draws initial centroids among the points.

    Arguments
    ---------
    problem : Problem
        The points.
    init : str
        "kmeans++" or "random".
    draws : torch.Tensor
        Uniform in [0, 1) [K], which all items share.

    Returns
    -------
    torch.Tensor
        Centroids [B, K, D].
    """
    points, weights = problem.points, problem.weights
    plus_plus = init == "kmeans++"
    # Chance of each point to be drawn next, up to a factor [B, N].
    chances = weights if plus_plus else (weights > 0).to(weights.dtype)
    fallback = chances
    nearest = None
    centroids: list[Tensor] = []
    for draw in draws:
        index = _sample(chances, fallback, draw)  # [B]
        index3 = index.view(-1, 1, 1).expand(-1, 1, points.shape[2])
        centroids.append(points.gather(1, index3))
        if len(centroids) == len(draws):
            break
        if plus_plus:
            distance = _distance(problem, centroids[-1])
            # Not a duplicate by rounding: the point drawn is at distance 0.
            distance.scatter_(1, index.unsqueeze(1), 0.0)
            if nearest is not None:
                torch.minimum(nearest, distance, out=distance)
            nearest = distance
            chances = weights * nearest
        else:
            chances = chances.scatter(1, index.unsqueeze(1), 0.0)
    return torch.cat(centroids, dim=1)


def _distance(problem: Problem, centroid: Tensor) -> Tensor:
    """Squared distance, or 1 − cosine, of the points to one centroid [B, N]."""
    points, _, norms, spherical, _ = problem
    # In this order: a row is far faster than a column. In place: fresh memory
    # costs more than the arithmetic.
    products = torch.bmm(centroid, points.transpose(1, 2)).squeeze(1)
    norm = torch.linalg.vector_norm(centroid, dim=2)
    if spherical:
        products.div_((norms * norm).clamp_min_(tiny(points)))
        return products.neg_().add_(1.0).clamp_min_(0.0)
    products.mul_(-2.0).add_(norm.square())
    return products.addcmul_(norms, norms).clamp_min_(0.0)


def _sample(chances: Tensor, fallback: Tensor, draw: Tensor) -> Tensor:
    """Draws one index per item [B] by the inverse of the cumulative chances.

    First a block of points, then a point of it. Where no chance is left (fewer
    distinct points than clusters), the fallback is used.
    """
    if is_exporting():  # of no known number of points, and blocks
        left = (chances > 0).any(1, keepdim=True)
        return _invert(torch.where(left, chances, fallback), draw)[0]
    sums = _sum_blocks(chances)
    left = (sums > 0).any(1, keepdim=True)
    sums = torch.where(left, sums, _sum_blocks(fallback))
    block, rest = _invert(sums, draw)
    places = torch.arange(BLOCK, device=chances.device)
    indices = block.unsqueeze(1) * BLOCK + places
    last = chances.shape[1] - 1
    within = indices.clamp_max(last)
    chosen = torch.where(
        left, chances.gather(1, within), fallback.gather(1, within)
    )
    index, _ = _invert(chosen * (indices <= last), rest)
    return (block * BLOCK + index).clamp_max(last)


def _sum_blocks(chances: Tensor) -> Tensor:
    """Sums over blocks of points; the last one may be shorter."""
    missing = -chances.shape[1] % BLOCK
    return pad(chances, (0, missing)).unflatten(1, (-1, BLOCK)).sum(2)


def _add_up(chances: Tensor) -> Tensor:
    """Cumulative sums along the rows."""
    if not chances.is_cuda:
        return chances.cumsum(1)
    step = 1  # There it is not deterministic.
    while step < chances.shape[1]:
        chances = chances + pad(chances[:, :-step], (step, 0))
        step *= 2
    return chances


def _invert(chances: Tensor, draw: Tensor) -> tuple[Tensor, Tensor]:
    """Where [B] cumulative chances pass a part of their total.

    And how far into the chance of that index this is, in [0, 1).
    """
    # In float64 the last of many stays reachable.
    chances = chances.to(widest(chances.device))
    cumulated = _add_up(chances)
    target = draw * cumulated[:, -1:]
    # As searchsorted, which not every runtime of an export has.
    index = (cumulated <= target).sum(1, keepdim=True)
    index = index.clamp_max(chances.shape[1] - 1)
    chance = chances.gather(1, index)
    rest = target - (cumulated.gather(1, index) - chance)
    below_one = 1.0 - torch.finfo(chance.dtype).eps
    inside = (rest / chance).nan_to_num(0.0).clamp(0.0, below_one)
    return index.squeeze(1), inside
