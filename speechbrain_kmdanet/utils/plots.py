"""Pictures: training, mixtures (also to hear), tracks, turns."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import soundfile
import torch
from torch import Tensor

from speechbrain_kmdanet.processing.stft import STFTEncoder
from speechbrain_kmdanet.utils.jobs import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Range of the spectrograms below their maximum.
SPECTROGRAM_DB = 60.0
NUMBER = r"([-+]?\d+\.?\d*(?:e[-+]?\d+)?)"
# Colours that colour-blind people can tell apart, one a talker.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9")


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
    figure = new_figure(10, 4)
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
    save_picture(figure, path)


def literal(text: str) -> str:
    """A text that Matplotlib shows as it stands, without formulas.

    Arguments
    ---------
    text : str
        Any text.

    Returns
    -------
    str
        What matplotlib shows as that.
    """
    return text.replace("$", r"\$")


def new_figure(width: float, height: float) -> "Figure":
    """Makes an empty figure.

    Arguments
    ---------
    width, height : float
        Its size in inches.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    # Not above: a training that draws nothing does without matplotlib.
    from matplotlib.figure import Figure

    return Figure((width, height), layout="constrained")


def save_picture(
    figure: "Figure", path: str | Path, dpi: int = 110, **options: Any
) -> None:
    """Writes a picture, whole or not at all.

    Arguments
    ---------
    figure : matplotlib.figure.Figure
        What is on it.
    path : str or pathlib.Path
        PNG file to write.
    dpi : int
        Dots per inch.
    **options : dict
        Others of matplotlib's savefig.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
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
    figure = new_figure(13, 2.6 * num_spks)
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
    figure.suptitle(literal(title))
    save_picture(figure, path)


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
    figure = new_figure(6 * columns, 2 * rows)
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
    save_picture(figure, path)


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
    figure = new_figure(8, 0.9 + 0.45 * num_spks)
    axes: Any = figure.subplots()
    for start, end, talker in turns:
        axes.barh(talker, end - start, left=start, color=COLOURS[talker])
    names = [f"talker {talker + 1}" for talker in range(num_spks)]
    axes.set_yticks(range(num_spks), names)
    axes.set(xlim=(0, seconds), ylim=(num_spks - 0.5, -0.5), xlabel="s")
    axes.grid(axis="x", alpha=0.3)
    save_picture(figure, path)
