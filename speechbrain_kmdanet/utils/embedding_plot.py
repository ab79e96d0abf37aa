"""Picture of the embeddings of a mixture in their principal plane.

Figure 1 of Cadoux, Uhlich, Ferras and Mitsufuji, "Closing the
training/inference gap for deep attractor networks".

Authors
 * The speechbrain_kmdanet developers 2026
"""

from typing import NamedTuple

import torch

from speechbrain_kmdanet.nnet.attractors import (
    KMeansAttractors,
    OracleAttractors,
)
from speechbrain_kmdanet.nnet.permutation import (
    best_permutation,
    permute_sources,
)

# Colours that colour-blind people can tell apart, one a talker.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9")
MARKERS = {
    "oracle": ("*", 260, "attractor from the ground truth"),
    "spherical": ("o", 90, "spherical k-means centroid"),
    "euclidean": ("s", 90, "Euclidean k-means centroid"),
}
# Bins further below the loudest one are not shown: nobody hears them, and
# their embeddings are as good as untrained.
RANGE_DB = 40.0
# More dots hide one another and make the file large.
MAX_DOTS = 8000
# Share of the dots that the axes make room for.
VISIBLE = 0.99


class EmbeddingView(NamedTuple):
    """Embeddings seen in their principal plane.

    Arguments
    ---------
    points : torch.Tensor
        Bins within 40 dB of the loudest one [M, 2]; their centre is (0, 0).
    talkers : torch.Tensor
        The dominant talker of each of these bins [M].
    levels : torch.Tensor
        Levels of these bins [M], in dB relative to the loudest one.
    origin : torch.Tensor
        Where the zero of the embedding space is seen [2].
    centres : dict
        Attractors [K, 2] by kind (oracle, spherical, euclidean), in the order
        of the sources.
    explained : torch.Tensor
        Share of the variance along both axes [2].
    errors : dict
        Distance of the centroids of k-means (spherical, euclidean) from the
        oracle attractors in the whole space, over the norm of these; mean of
        the talkers.
    """

    points: torch.Tensor
    talkers: torch.Tensor
    levels: torch.Tensor
    origin: torch.Tensor
    centres: dict
    explained: torch.Tensor
    errors: dict


def view_embeddings(
    embeddings, weights, sources, energetic=None, iterations=20, seed=0
):
    """Projects the embeddings of one mixture on their first two components.

    The components are those of all bins, weighted by their energies as k-means
    weights them (Eq. 6).

    Arguments
    ---------
    embeddings : torch.Tensor
        Embeddings [N, D].
    weights : torch.Tensor
        Energies |X|² of the bins [N].
    sources : torch.Tensor
        Magnitudes of the sources [K, N].
    energetic : float
        Share of the bins that the oracle attractors are made of (Eq. 1), which
        is what DANet is trained with. By default, they are what k-means would
        find if it knew the clusters: means weighted by energy (Eq. 6).
    iterations : int
        Iterations of k-means.
    seed : int
        Seed of the initialisation of k-means.

    Returns
    -------
    EmbeddingView
        The bins, the attractors and how far these lie apart.

    Raises
    ------
    ValueError
        If the shapes do not fit, or the mixture is silent.

    Example
    -------
    >>> view = view_embeddings(
    ...     torch.randn(500, 20), torch.ones(500), torch.rand(2, 500)
    ... )
    >>> view.points.shape, view.centres["spherical"].shape
    (torch.Size([500, 2]), torch.Size([2, 2]))
    """
    _check_shapes(embeddings, weights, sources)
    embeddings, weights, sources = (
        x.detach().cpu().double() for x in (embeddings, weights, sources)
    )
    centre, axes, explained = _principal_plane(embeddings, weights)

    def project(points):
        """Coordinates of points in the plane of the picture."""
        return (points - centre) @ axes

    attractors = {"oracle": _oracle(embeddings, weights, sources, energetic)}
    for metric in ("spherical", "euclidean"):
        attractors[metric] = _kmeans_in_order(
            embeddings, weights, attractors["oracle"], metric, iterations, seed
        )
    oracle = attractors["oracle"]
    lengths = torch.linalg.vector_norm(oracle, dim=1)
    errors = {
        kind: torch.linalg.vector_norm(found - oracle, dim=1) / lengths
        for kind, found in attractors.items()
        if kind != "oracle"
    }
    levels = 10 * (weights / weights.max()).log10()
    shown = levels > -RANGE_DB
    return EmbeddingView(
        project(embeddings[shown]),
        sources[:, shown].argmax(0),
        levels[shown],
        project(torch.zeros_like(centre)),
        {kind: project(found) for kind, found in attractors.items()},
        explained,
        {kind: float(error.mean()) for kind, error in errors.items()},
    )


def plot_embeddings(view, path, title="", seed=0):
    """Draws the bins by dominant talker, louder ones larger; and attractors.

    Arguments
    ---------
    view : EmbeddingView
        What to draw, see :func:`view_embeddings`.
    path : str
        PNG to write.
    title : str
        Title of the picture.
    seed : int
        Seed of the choice of the bins that are drawn, if there are many.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.subplots()
    # In random order: the talker drawn last would hide the others.
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(view.points), generator=generator)[:MAX_DOTS]
    colours = [COLOURS[talker % len(COLOURS)] for talker in view.talkers[order]]
    sizes = 1 + 24 * (1 + view.levels[order] / RANGE_DB).square().numpy()
    axes.scatter(
        *view.points[order].T.numpy(), c=colours, s=sizes, alpha=0.5,
        linewidths=0,
    )  # fmt: skip
    talkers = range(len(view.centres["oracle"]))
    palette = [COLOURS[talker % len(COLOURS)] for talker in talkers]
    for talker, colour in zip(talkers, palette):
        label = f"bins of talker {talker + 1}"
        axes.scatter([], [], c=colour, s=25, label=label)
    edge = {"edgecolors": "black", "linewidths": 1.3, "zorder": 3}
    for kind, (marker, size, label) in MARKERS.items():
        shape = {"marker": marker, "s": size, **edge}
        axes.scatter(*view.centres[kind].T.numpy(), c=palette, **shape)
        axes.scatter([], [], c="white", label=label, **shape)
    axes.scatter(
        *view.origin.numpy(), c="black", marker="+", s=150, linewidths=2,
        zorder=2.5, label="zero of the embedding space",
    )  # fmt: skip
    low, high = _limits(view)
    shares = [
        f"{100 * share:.0f} % of the variance" for share in view.explained
    ]
    axes.set(
        title=title,
        xlabel=f"first principal component ({shares[0]})",
        ylabel=f"second principal component ({shares[1]})",
        xlim=(low[0], high[0]),
        ylim=(low[1], high[1]),
        aspect="equal",
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="best", framealpha=0.9)
    figure.savefig(path, dpi=120, bbox_inches="tight")


def _check_shapes(embeddings, weights, sources):
    """Refuses what is not one mixture, and silence."""
    if embeddings.dim() != 2 or embeddings.shape[1] < 2:
        raise ValueError(
            "embeddings must have shape [bins, dimensions] with at least 2 "
            f"dimensions, got {tuple(embeddings.shape)}"
        )
    bins = len(embeddings)
    if weights.shape != (bins,) or sources.shape[1:] != (bins,):
        raise ValueError(
            f"weights [bins] and sources [talkers, bins] must have {bins} bins "
            f"as the embeddings, got {tuple(weights.shape)} and "
            f"{tuple(sources.shape)}"
        )
    if not weights.sum() > 0:
        raise ValueError("weights must have a positive sum, got silence")


def _oracle(embeddings, weights, sources, energetic):
    """Oracle attractors [K, D], by Eq. 1 or by Eq. 6."""
    num_spks = len(sources)
    if energetic is not None:
        return OracleAttractors(energetic)(
            embeddings[None], weights[None], num_spks, sources[None]
        )[0]
    dominant = torch.nn.functional.one_hot(sources.argmax(0), num_spks)
    masses = dominant.T * weights
    tiny = torch.finfo(masses.dtype).tiny
    return masses @ embeddings / masses.sum(1, keepdim=True).clamp_min(tiny)


def _kmeans_in_order(embeddings, weights, oracle, metric, iterations, seed):
    """Centroids [K, D] of k-means, each beside its oracle attractor."""
    estimator = KMeansAttractors(metric, iterations, seed=seed)
    centroids = estimator(embeddings[None], weights[None], len(oracle))
    permutation = best_permutation(torch.cdist(oracle[None], centroids))
    return permute_sources(centroids, permutation)[0]


def _limits(view):
    """Corners of the picture: all attractors are in it, and most bins."""
    margin = (1 - VISIBLE) / 2
    quantiles = torch.tensor([margin, 1 - margin], dtype=view.points.dtype)
    corners = view.points.quantile(quantiles, dim=0)
    inside = torch.cat([corners, view.origin[None], *view.centres.values()])
    low, high = inside.amin(0), inside.amax(0)
    room = 0.05 * (high - low).max().clamp_min(1e-6)
    return (low - room).tolist(), (high + room).tolist()


def _principal_plane(points, weights):
    """Weighted mean [D] and first two components [D, 2], their variances."""
    weights = weights.unsqueeze(1) / weights.sum()
    centre = (weights * points).sum(0)
    spread = points - centre
    variances, axes = torch.linalg.eigh(spread.T @ (weights * spread))
    axes = axes[:, [-1, -2]]
    # The sign is arbitrary: let the largest entry be positive.
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    total = variances.sum().clamp_min(torch.finfo(points.dtype).tiny)
    return centre, axes * largest.sign(), variances[[-1, -2]] / total
