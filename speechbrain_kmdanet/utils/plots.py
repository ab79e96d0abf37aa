"""Pictures: training, mixtures (also to hear), tracks, turns, embeddings.

The last are Figure 1 of Cadoux, Uhlich, Ferras and Mitsufuji, "Closing the
training/inference gap for deep attractor networks".
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import soundfile
import torch
from matplotlib.figure import Figure
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
from speechbrain_kmdanet.processing.stft import STFTEncoder
from speechbrain_kmdanet.utils.jobs import write_whole

# Range of the spectrograms below their maximum.
SPECTROGRAM_DB = 60.0
# Bins further below the loudest one are not shown: nobody hears them, and
# their embeddings are as good as untrained.
EMBEDDINGS_DB = 40.0
NUMBER = r"([-+]?\d+\.?\d*(?:e[-+]?\d+)?)"
# Colours that colour-blind people can tell apart, one a talker.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9")
MARKERS = {
    "oracle": ("*", 260, "attractor from the ground truth"),
    "spherical": ("o", 90, "spherical k-means centroid"),
    "euclidean": ("s", 90, "Euclidean k-means centroid"),
    "attractor": ("*", 260, "attractor"),
}
MAX_DOTS = 8000  # more hide one another and make the file large
VISIBLE = 0.99  # share of the dots that the axes make room for


def plot_training_curves(train_log: str | Path, path: str | Path) -> None:
    """Draws loss and SI-SDR improvement over the epochs.

    Arguments
    ---------
    train_log : str or pathlib.Path
        File written by SpeechBrain's FileTrainLogger.
    path : str or pathlib.Path
        PNG to write.
    """
    curves: dict[str, list[tuple[int, float]]] = {
        name: [] for name in ("train loss", "valid loss", "valid si_sdri")
    }
    for line in Path(train_log).read_text(encoding="utf-8").splitlines():
        epoch = re.search(r"epoch: (\d+)", line)
        for name, points in curves.items():
            value = re.search(f"{name}: {NUMBER}", line)
            if epoch and value:
                points.append((int(epoch[1]), float(value[1])))
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    for name, points in curves.items():
        if points:
            axis = axes[int(name == "valid si_sdri")]
            axis.plot(*zip(*points), marker=".", label=name)
    axes[0].set(title="Loss", xlabel="epoch")
    axes[0].legend()
    axes[1].set(title="SI-SDR improvement, validation", xlabel="epoch")
    axes[1].set_ylabel("dB")
    for axis in axes:
        axis.grid(alpha=0.3)
    _save(figure, path)


def _literal(text: str) -> str:
    """A text that Matplotlib shows as it stands, without formulas."""
    return text.replace("$", r"\$")


def _save(
    figure: Figure, path: str | Path, dpi: int = 110, **options: Any
) -> None:
    """Writes a picture, whole or not at all."""
    with write_whole(path) as unfinished:
        figure.savefig(unfinished, dpi=dpi, format="png", **options)


def write_example(
    folder: str | Path,
    mixture: Tensor,
    sources: Tensor,
    estimates: Tensor,
    sample_rate: int,
    title: str = "",
) -> None:
    """Writes a mixture, its sources and estimates as audio and a picture.

    All files have one common gain, so that their levels can be compared, and
    none is clipped.

    Arguments
    ---------
    folder : str or pathlib.Path
        Where to write; made if it is not there.
    mixture : torch.Tensor
        Mixture [L].
    sources : torch.Tensor
        True sources [L, K].
    estimates : torch.Tensor
        Estimated sources in the same order [L, K].
    sample_rate : int
        Sample rate in Hz.
    title : str
        Title of the picture.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    signals = {"mixture": mixture}
    for index in range(sources.shape[1]):
        signals[f"source{index + 1}"] = sources[:, index]
        signals[f"estimate{index + 1}"] = estimates[:, index]
    peak = max(float(signal.abs().max()) for signal in signals.values())
    gain = min(1.0, 0.99 / peak) if peak > 0 else 1.0
    for name, signal in signals.items():
        samples = (gain * signal).numpy()
        with write_whole(folder / f"{name}.wav") as path:
            soundfile.write(path, samples, sample_rate, format="WAV")
    path = folder / "spectrograms.png"
    plot_separation(mixture, sources, estimates, sample_rate, path, title)


def plot_separation(
    mixture: Tensor,
    sources: Tensor,
    estimates: Tensor,
    sample_rate: int,
    path: str | Path,
    title: str = "",
) -> None:
    """Draws the spectrograms into the PNG path, see :func:`write_example`."""
    num_spks = sources.shape[1]
    waveforms = torch.cat([mixture.unsqueeze(1), sources, estimates], dim=1)
    levels, style = _spectrograms(waveforms, sample_rate)
    figure = Figure(figsize=(13, 2.6 * num_spks), layout="constrained")
    axes = figure.subplots(num_spks, 3, sharex=True, sharey=True, squeeze=False)
    for row in range(num_spks):
        panels = {
            "mixture": 0,
            f"source {row + 1}": 1 + row,
            f"estimate {row + 1}": 1 + num_spks + row,
        }
        for axis, (name, index) in zip(axes[row], panels.items()):
            if name == "mixture" and row:
                axis.set_axis_off()
                continue
            axis.imshow(levels[index].numpy(), **style)
            axis.set_title(name)
        axes[row, 0].set_ylabel("kHz")
    for axis in axes[-1]:
        axis.set_xlabel("s")
    figure.suptitle(_literal(title))
    _save(figure, path)


def _spectrograms(
    waveforms: Tensor, sample_rate: int
) -> tuple[Tensor, dict[str, Any]]:
    """Levels [J, F, T] in dB of signals [L, J], and how they are shown."""
    n_fft = sample_rate * 64 // 1000
    encoder = STFTEncoder(n_fft, n_fft // 4)
    levels = encoder(waveforms.T).abs().clamp_min(1e-8).log10() * 20
    top = float(levels[0].max())
    extent = (0.0, len(waveforms) / sample_rate, 0.0, sample_rate / 2000)
    style = {"origin": "lower", "aspect": "auto", "extent": extent}
    levels_db = {"cmap": "magma", "vmin": top - SPECTROGRAM_DB, "vmax": top}
    return levels, style | levels_db


def plot_tracks(
    mixture: Tensor,
    tracks: Tensor,
    sample_rate: int,
    path: str | Path,
    masks: Tensor | None = None,
    mask_rate: int | None = None,
) -> None:
    """Draws spectrograms of a recording and its tracks, masks beside them.

    Arguments
    ---------
    mixture : torch.Tensor
        The recording [L].
    tracks : torch.Tensor
        Its tracks [L, K].
    sample_rate : int
        Sample rate in Hz.
    path : str or pathlib.Path
        PNG to write.
    masks : torch.Tensor
        Masks of the tracks [K, F, T], from 0 to 1; none by default.
    mask_rate : int
        Sample rate of the masks in Hz; sample_rate by default.
    """
    waveforms = torch.cat([mixture.unsqueeze(1), tracks], dim=1)
    levels, style = _spectrograms(waveforms, sample_rate)
    rows, columns = len(levels), 1 if masks is None else 2
    figure = Figure((6 * columns, 2 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, squeeze=False)
    for row, level in enumerate(levels):
        axes[row, 0].imshow(level.numpy(), **style)
        name = f"talker {row}" if row else "mixture"
        axes[row, 0].set(title=name, ylabel="kHz")
    if masks is not None:
        axes[0, 1].set_axis_off()
        high = (mask_rate or sample_rate) / 2000
        style["extent"] = (*style["extent"][:3], high)
        style |= {"cmap": "viridis", "vmin": 0.0, "vmax": 1.0}
        for row, mask in enumerate(masks, 1):
            axes[row, 1].imshow(mask.numpy(), **style)
            axes[row, 1].set_title(f"mask of talker {row}")
    for axis in axes[-1]:
        axis.set_xlabel("s")
    _save(figure, path)


def plot_turns(
    turns: Iterable[tuple[float, float, int]],
    num_spks: int,
    seconds: float,
    path: str | Path,
) -> None:
    """Draws who speaks when.

    Arguments
    ---------
    turns : iterable of tuple
        Begin and end in seconds, and number of the talker, from 0 on.
    num_spks : int
        Number of talkers, up to 5.
    seconds : float
        Length of the recording.
    path : str or pathlib.Path
        PNG to write.
    """
    figure = Figure((8, 0.9 + 0.45 * num_spks), layout="constrained")
    axes: Any = figure.subplots()
    for start, end, talker in turns:
        axes.barh(talker, end - start, left=start, color=COLOURS[talker])
    names = [f"talker {talker + 1}" for talker in range(num_spks)]
    axes.set_yticks(range(num_spks), names)
    axes.set(xlim=(0, seconds), ylim=(num_spks - 0.5, -0.5), xlabel="s")
    axes.grid(axis="x", alpha=0.3)
    _save(figure, path)


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
    figure = Figure(figsize=(8, 7), layout="constrained")
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
        title=_literal(title),
        xlabel=f"first principal component ({first})",
        ylabel=f"second principal component ({second})",
        xlim=(low[0], high[0]),
        ylim=(low[1], high[1]),
        aspect="equal",
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="best", framealpha=0.9)
    _save(figure, path, dpi=120, bbox_inches="tight")


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
