"""Pictures of embeddings and attractors.

Figure 1 of Cadoux, Uhlich, Ferras and Mitsufuji, "Closing the training/inference
gap for deep attractor networks".
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.nnet.attractors import (
    KMeansAttractors,
    OracleAttractors,
)
from speechbrain_kmdanet.nnet.loss.separation import (
    best_permutation,
    permute_sources,
)
from speechbrain_kmdanet.processing.bins import tiny
from speechbrain_kmdanet.utils.plots import (
    COLOURS,
    literal,
    new_figure,
    save_picture,
)

# Bins further below the loudest one are not shown: nobody hears them, and
# their embeddings are as good as untrained.
EMBEDDINGS_DB = 40.0
MARKERS = {
    "oracle": ("*", 260, "attractor from the ground truth"),
    "spherical": ("o", 90, "spherical k-means centroid"),
    "euclidean": ("s", 90, "Euclidean k-means centroid"),
    "attractor": ("*", 260, "attractor"),
}
MAX_DOTS = 8000  # more hide one another and make the file large
VISIBLE = 0.99  # share of the dots that the axes make room for


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
        Attractors [K, 2] by kind (oracle, spherical, euclidean; or attractor
        alone, where they were given), in the order of the sources.
    explained : torch.Tensor
        Share of the variance along both axes [2].
    errors : dict
        Distance of the centroids of k-means (spherical, euclidean) from the
        oracle attractors in the whole space, over the norm of these; mean of
        the talkers.
    """

    points: Tensor
    talkers: Tensor
    levels: Tensor
    origin: Tensor
    centres: dict[str, Tensor]
    explained: Tensor
    errors: dict[str, float]


def view_embeddings(
    embeddings: Tensor,
    energies: Tensor,
    sources: Tensor,
    energetic: float | None = None,
    iterations: int = 20,
    seed: int = 0,
    attractors: Tensor | None = None,
) -> EmbeddingView:
    """Projects the embeddings of one mixture on their first two components.

    The components are those of all bins, weighted by their energies as k-means
    weights them (Eq. 6).

    Arguments
    ---------
    embeddings : torch.Tensor
        Embeddings [N, D].
    energies : torch.Tensor
        Energies |X|² of the bins [N].
    sources : torch.Tensor
        Magnitudes of the sources, or their masks [K, N].
    energetic : float
        Share of the bins that the oracle attractors are made of (Eq. 1), which
        is what DANet is trained with. By default, they are what k-means would
        find if it knew the clusters: means weighted by energy (Eq. 6).
    iterations : int
        Iterations of k-means.
    seed : int
        Seed of the initialisation of k-means.
    attractors : torch.Tensor
        Attractors [K, D] to show alone, in the order of the sources.

    Returns
    -------
    EmbeddingView
        The bins, the attractors and how far these lie apart.

    Raises
    ------
    UserError
        If the shapes do not fit, or the mixture is silent.

    Example
    -------
    >>> view = view_embeddings(
    ...     torch.randn(500, 20), torch.ones(500), torch.rand(2, 500)
    ... )
    >>> view.points.shape, view.centres["spherical"].shape
    (torch.Size([500, 2]), torch.Size([2, 2]))
    """
    _check_shapes(embeddings, energies, sources)
    embeddings, energies, sources = (
        x.detach().cpu().double() for x in (embeddings, energies, sources)
    )
    centre, axes, explained = _principal_plane(embeddings, energies)

    def project(points: Tensor) -> Tensor:
        """Coordinates of points in the plane of the picture."""
        return (points - centre) @ axes

    errors: dict[str, float] = {}
    if attractors is not None:
        seen = {"attractor": attractors.cpu().double()}
    else:
        oracle = _oracle(embeddings, energies, sources, energetic)
        seen = {"oracle": oracle}
        for metric in ("spherical", "euclidean"):
            kmeans = KMeansAttractors(metric, iterations, seed=seed)
            found = kmeans(embeddings[None], energies[None], len(oracle))
            # Each centroid beside its oracle attractor.
            permutation = best_permutation(torch.cdist(oracle[None], found))
            seen[metric] = permute_sources(found, permutation)[0]
            distances = (seen[metric] - oracle).norm(dim=1)
            errors[metric] = float((distances / oracle.norm(dim=1)).mean())
    levels = 10 * (energies / energies.max()).log10()
    shown = levels > -EMBEDDINGS_DB
    return EmbeddingView(
        project(embeddings[shown]),
        sources[:, shown].argmax(0),
        levels[shown],
        project(torch.zeros_like(centre)),
        {kind: project(found) for kind, found in seen.items()},
        explained,
        errors,
    )


def plot_embeddings(
    view: EmbeddingView, path: str | Path, title: str = "", seed: int = 0
) -> None:
    """Draws the bins by dominant talker, louder ones larger; and attractors.

    Arguments
    ---------
    view : EmbeddingView
        What to draw, see :func:`view_embeddings`.
    path : str or pathlib.Path
        PNG to write.
    title : str
        Title of the picture.
    seed : int
        Seed of the choice of the bins that are drawn, if there are many.
    """
    figure = new_figure(8, 7)
    axes: Any = figure.subplots()
    # In random order: the talker drawn last would hide the others.
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(view.points), generator=generator)[:MAX_DOTS]
    colours = [COLOURS[talker % len(COLOURS)] for talker in view.talkers[order]]
    sizes = 1 + 24 * (1 + view.levels[order] / EMBEDDINGS_DB).square().numpy()
    dots = view.points[order].T.numpy()
    axes.scatter(*dots, c=colours, s=sizes, alpha=0.5, linewidths=0)
    talkers = range(len(next(iter(view.centres.values()))))
    palette = [COLOURS[talker % len(COLOURS)] for talker in talkers]
    for talker, colour in zip(talkers, palette):
        label = f"bins of talker {talker + 1}"
        axes.scatter([], [], c=colour, s=25, label=label)
    edge = {"edgecolors": "black", "linewidths": 1.3, "zorder": 3}
    for kind in view.centres:
        marker, size, label = MARKERS[kind]
        shape = {"marker": marker, "s": size, **edge}
        axes.scatter(*view.centres[kind].T.numpy(), c=palette, **shape)
        axes.scatter([], [], c="white", label=label, **shape)
    cross = {"c": "black", "marker": "+", "s": 150, "linewidths": 2}
    label = "zero of the embedding space"
    axes.scatter(*view.origin.numpy(), zorder=2.5, label=label, **cross)
    low, high = _limits(view)
    first, second = (f"{100 * x:.0f} % of the variance" for x in view.explained)
    axes.set(
        title=literal(title),
        xlabel=f"first principal component ({first})",
        ylabel=f"second principal component ({second})",
        xlim=(low[0], high[0]),
        ylim=(low[1], high[1]),
        aspect="equal",
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="best", framealpha=0.9)
    save_picture(figure, path, dpi=120, bbox_inches="tight")


def _check_shapes(
    embeddings: Tensor, energies: Tensor, sources: Tensor
) -> None:
    """Refuses what is not one mixture, and silence."""
    if embeddings.dim() != 2 or embeddings.shape[1] < 2:
        raise UserError(
            "embeddings must have shape [bins, dimensions] with at least 2 "
            f"dimensions, got {tuple(embeddings.shape)}"
        )
    bins = len(embeddings)
    if energies.shape != (bins,) or sources.shape[1:] != (bins,):
        raise UserError(
            f"energies [bins] and sources [talkers, bins] must have {bins} "
            f"bins as the embeddings, got {tuple(energies.shape)} and "
            f"{tuple(sources.shape)}"
        )
    if not energies.sum() > 0:
        raise UserError("energies must have a positive sum, got silence")


def _oracle(
    embeddings: Tensor,
    energies: Tensor,
    sources: Tensor,
    energetic: float | None,
) -> Tensor:
    """Oracle attractors [K, D], by Eq. 1 or by Eq. 6."""
    num_spks = len(sources)
    if energetic is not None:
        return OracleAttractors(energetic)(
            embeddings[None], energies[None], num_spks, sources[None]
        )[0]
    dominant = torch.nn.functional.one_hot(sources.argmax(0), num_spks)
    masses = dominant.T * energies
    totals = masses.sum(1, keepdim=True).clamp_min(tiny(masses))
    return masses @ embeddings / totals


def _principal_plane(
    points: Tensor, energies: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted mean [D] and first two components [D, 2], their variances."""
    shares = energies.unsqueeze(1) / energies.sum()
    centre = (shares * points).sum(0)
    spread = points - centre
    variances, axes = torch.linalg.eigh(spread.T @ (shares * spread))
    axes = axes[:, [-1, -2]]
    # The sign is arbitrary: let the largest entry be positive.
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    total = variances.sum().clamp_min(tiny(points))
    return centre, axes * largest.sign(), variances[[-1, -2]] / total


def _limits(view: EmbeddingView) -> tuple[list[float], list[float]]:
    """Corners of the picture: all attractors are in it, and most bins."""
    margin = (1 - VISIBLE) / 2
    quantiles = torch.tensor([margin, 1 - margin], dtype=view.points.dtype)
    corners = view.points.quantile(quantiles, dim=0)
    inside = torch.cat([corners, view.origin[None], *view.centres.values()])
    low, high = inside.amin(0), inside.amax(0)
    room = 0.05 * (high - low).max().clamp_min(1e-6)
    return (low - room).tolist(), (high + room).tolist()
