"""Initialisation of k-means: which points the centroids start from.

Reference: D. Arthur and S. Vassilvitskii, "k-means++: the advantages of
careful seeding".

Authors
 * The speechbrain_kmdanet developers 2026
"""

import torch

# Points whose chances are added up before one of them is drawn: a cumulative
# sum over all points would cost as much as several iterations.
BLOCK = 256

INITS = ("kmeans++", "random")


def draw_centroids(points, norms, weights, spherical, init, draws):
    """Draws initial centroids among the points of positive weight.

    Arguments
    ---------
    points : torch.Tensor
        Points [B, N, D].
    norms : torch.Tensor
        Their Euclidean norms [B, N].
    weights : torch.Tensor
        Non-negative weights of the points [B, N].
    spherical : bool
        Whether the distance is one minus the cosine; the squared Euclidean
        one otherwise.
    init : str
        "kmeans++": the chance of a point is its weight times its distance to
        the nearest centroid drawn before; "random": all points of positive
        weight have the same, once.
    draws : torch.Tensor
        Uniform draws in [0, 1), one a centroid [K], float64. All items of the
        batch share them: an item starts alike alone and in any batch.

    Returns
    -------
    torch.Tensor
        Centroids [B, K, D], points all of them.
    """
    plus_plus = init == "kmeans++"
    # Chance of each point to be drawn next, up to a factor [B, N].
    chances = weights if plus_plus else (weights > 0).to(weights.dtype)
    fallback = chances
    nearest = None
    centroids = []
    for draw in draws:
        index = _sample(chances, fallback, draw)
        index3 = index.view(-1, 1, 1).expand(-1, 1, points.shape[2])
        centroid = points.gather(1, index3)
        centroids.append(centroid)
        if len(centroids) == len(draws):
            break
        if plus_plus:
            distance = _distance(points, norms, centroid, spherical)
            # Not a duplicate by rounding: the point drawn is at distance 0.
            distance.scatter_(1, index.unsqueeze(1), 0.0)
            if nearest is not None:
                torch.minimum(nearest, distance, out=distance)
            nearest = distance
            chances = weights * nearest
        else:
            chances = chances.scatter(1, index.unsqueeze(1), 0.0)
    return torch.cat(centroids, dim=1)


def _distance(points, norms, centroid, spherical):
    """Squared distance, or 1 − cosine, of the points to one centroid [B, N]."""
    # In this order: a row is far faster than a column. In place: fresh memory
    # costs more than the arithmetic.
    products = torch.bmm(centroid, points.transpose(1, 2)).squeeze(1)
    norm = torch.linalg.vector_norm(centroid, dim=2)
    if spherical:
        least = torch.finfo(points.dtype).tiny
        products.div_((norms * norm).clamp_min_(least))
        return products.neg_().add_(1.0).clamp_min_(0.0)
    products.mul_(-2.0).add_(norm.square())
    return products.addcmul_(norms, norms).clamp_min_(0.0)


def _sample(chances, fallback, draw):
    """Draws one index per item [B] by the inverse of the cumulative chances.

    First a block of points is drawn, then a point of the block. Where no
    chance is left (fewer distinct points than clusters), the fallback is used.
    """
    sums = _sum_blocks(chances)
    left = (sums > 0).any(1, keepdim=True)
    sums = torch.where(left, sums, _sum_blocks(fallback))
    block, share = _invert(sums, draw)
    places = torch.arange(BLOCK, device=chances.device)
    indices = block.unsqueeze(1) * BLOCK + places
    last = chances.shape[1] - 1
    within = indices.clamp_max(last)
    chosen = torch.where(
        left, chances.gather(1, within), fallback.gather(1, within)
    )
    index, _ = _invert(chosen * (indices <= last), share)
    return (block * BLOCK + index).clamp_max(last)


def _sum_blocks(chances):
    """Sums over blocks of points; the last one may be shorter."""
    split = chances.shape[1] - chances.shape[1] % BLOCK
    sums = chances[:, :split].unflatten(1, (-1, BLOCK)).sum(2)
    if split < chances.shape[1]:
        rest = chances[:, split:].sum(1, keepdim=True)
        sums = torch.cat([sums, rest], dim=1)
    return sums


def _invert(chances, draw):
    """Index [B] at which the cumulative chances pass a share of their total.

    Returns also how far into the chance of that index this is, in [0, 1).
    """
    # float64: the last of many must stay reachable.
    cumulated = chances.double().cumsum(1)
    target = draw * cumulated[:, -1:]
    index = torch.searchsorted(cumulated, target, right=True)
    index = index.clamp_max(chances.shape[1] - 1)
    chance = chances.gather(1, index).double()
    rest = target - (cumulated.gather(1, index) - chance)
    below_one = 1.0 - torch.finfo(chance.dtype).eps
    share = (rest / chance).nan_to_num(0.0).clamp(0.0, below_one)
    return index.squeeze(1), share
