"""Examples of separated mixtures, to listen to and to look at.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import os

import soundfile

from speechbrain_kmdanet.utils.plots import plot_separation


def write_example(folder, mixture, sources, estimates, sample_rate, title=""):
    """Writes a mixture, its sources and estimates as audio and a picture.

    All files have one common gain, so that their levels can be compared, and
    none is clipped.

    Arguments
    ---------
    folder : str
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
    os.makedirs(folder, exist_ok=True)
    signals = {"mixture": mixture}
    for index in range(sources.shape[1]):
        signals[f"source{index + 1}"] = sources[:, index]
        signals[f"estimate{index + 1}"] = estimates[:, index]
    peak = max(float(signal.abs().max()) for signal in signals.values())
    gain = min(1.0, 0.99 / peak) if peak > 0 else 1.0
    for name, signal in signals.items():
        path = os.path.join(folder, f"{name}.wav")
        soundfile.write(path, (gain * signal).numpy(), sample_rate)
    plot_separation(
        mixture, sources, estimates, sample_rate,
        os.path.join(folder, "spectrograms.png"), title,
    )  # fmt: skip
