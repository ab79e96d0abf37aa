"""Pictures: training curves and spectrograms of separated mixtures.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import re

import torch

from speechbrain_kmdanet.processing.stft import STFTEncoder

# Range of the spectrograms below their maximum.
RANGE_DB = 60.0
NUMBER = r"([-+]?\d+\.?\d*(?:e[-+]?\d+)?)"


def _figure(*args, **kwargs):
    """New figure that no window is opened for, and its axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(*args, **kwargs)


def _save(figure, path):
    """Writes and closes a figure."""
    from matplotlib import pyplot

    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def plot_training_curves(train_log, path):
    """Draws loss and SI-SDR improvement over the epochs.

    Arguments
    ---------
    train_log : str
        File written by SpeechBrain's FileTrainLogger.
    path : str
        PNG to write.
    """
    curves = {"train loss": [], "valid loss": [], "valid si_sdri": []}
    with open(train_log, encoding="utf-8") as file:
        for line in file:
            epoch = re.search(r"epoch: (\d+)", line)
            for name, points in curves.items():
                value = re.search(f"{name}: {NUMBER}", line)
                if epoch and value:
                    points.append((int(epoch[1]), float(value[1])))
    figure, axes = _figure(1, 2, figsize=(10, 4), layout="constrained")
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


def plot_separation(mixture, sources, estimates, sample_rate, path, title=""):
    """Draws the spectrograms of a mixture, its sources and the estimates.

    Arguments
    ---------
    mixture : torch.Tensor
        Mixture [L].
    sources : torch.Tensor
        True sources [L, K].
    estimates : torch.Tensor
        Estimated sources in the same order [L, K].
    sample_rate : int
        Sample rate in Hz.
    path : str
        PNG to write.
    title : str
        Title of the picture.
    """
    num_spks = sources.shape[1]
    n_fft = sample_rate * 64 // 1000
    encoder = STFTEncoder(n_fft, n_fft // 4)
    waveforms = torch.cat([mixture.unsqueeze(1), sources, estimates], dim=1)
    levels = encoder(waveforms.T).abs().clamp_min(1e-8).log10() * 20
    top = float(levels[0].max())
    seconds = len(mixture) / sample_rate
    figure, axes = _figure(
        num_spks, 3, figsize=(13, 2.6 * num_spks), layout="constrained",
        sharex=True, sharey=True, squeeze=False,
    )  # fmt: skip
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
            axis.imshow(
                levels[index].numpy(),
                origin="lower", aspect="auto", cmap="magma",
                vmin=top - RANGE_DB, vmax=top,
                extent=(0.0, seconds, 0.0, sample_rate / 2000),
            )  # fmt: skip
            axis.set_title(name)
        axes[row, 0].set_ylabel("kHz")
    for axis in axes[-1]:
        axis.set_xlabel("s")
    figure.suptitle(title)
    _save(figure, path)
