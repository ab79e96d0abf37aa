"""The arithmetic of WSJ0-mix: levels, SNRs, cutting and one common scale.

Follows create_wav_2speakers.m and create_wav_3speakers.m of MERL's
create-speaker-mixtures (Hershey et al., "Deep clustering: discriminative
embeddings for segmentation and separation", ICASSP 2016).
"""

import math
from collections.abc import Sequence

import numpy as np

from speechbrain_kmdanet.errors import UserError

PEAK = 0.9
MODES = ("min", "max")


def mix_sources(
    sources: Sequence[np.ndarray],
    snrs: Sequence[float],
    levels: Sequence[float],
    mode: str = "min",
) -> tuple[np.ndarray, np.ndarray]:
    """Mixes signals with given active levels at given SNRs.

    Each source is divided by the root of its level and scaled by its SNR;
    all are brought to one length and added; one gain then takes the largest
    amplitude among the mixture and the sources to 0.9.

    Arguments
    ---------
    sources : sequence of numpy.ndarray
        The signals, each of shape [time_i], all at one sample rate.
    snrs : sequence of float
        The gain of each source in dB.
    levels : sequence of float
        The active level of each source in units of power, see
        `active_speech_level`. WSJ0-mix measures it on the whole source at
        8 kHz, also for mixtures at 16 kHz.
    mode : str
        "min" cuts all sources to the shortest, "max" appends zeros up to the
        longest.

    Returns
    -------
    mixture : numpy.ndarray
        Sum of the scaled sources, shape [time].
    sources : numpy.ndarray
        The scaled sources, shape [num_spks, time].

    Raises
    ------
    UserError
        If the numbers of sources, SNRs and levels differ, a level is not
        positive, the mode is unknown, or nothing but silence remains.

    Example
    -------
    >>> sources = np.ones(4), -0.5 * np.ones(3)
    >>> mixture, scaled = mix_sources(sources, (0, 0), (1, 0.0625), "max")
    >>> mixture
    array([-0.45, -0.45, -0.45,  0.45])
    >>> scaled
    array([[ 0.45,  0.45,  0.45,  0.45],
           [-0.9 , -0.9 , -0.9 ,  0.  ]])
    """
    if mode not in MODES:
        raise UserError(f"mode: expected one of {MODES}, got {mode!r}")
    if not 0 < len(sources) == len(snrs) == len(levels):
        raise UserError(
            "sources, snrs, levels: expected as many of each, at least one, "
            f"got {len(sources)}, {len(snrs)}, {len(levels)}"
        )
    if not all(level > 0 for level in levels):
        raise UserError(
            "levels: expected positive active levels (0 is silence), got "
            f"{list(levels)}"
        )
    lengths = [len(source) for source in sources]
    length = min(lengths) if mode == "min" else max(lengths)
    scaled = np.zeros((len(sources), length))
    for row, source, snr, level in zip(scaled, sources, snrs, levels):
        kept = source[:length]
        row[: len(kept)] = kept * (10 ** (snr / 20) / math.sqrt(level))
    mixture = scaled.sum(axis=0)
    peak = max(np.abs(mixture).max(initial=0), np.abs(scaled).max(initial=0))
    if peak == 0:
        raise UserError("sources: expected sound, got silence only")
    return mixture * (PEAK / peak), scaled * (PEAK / peak)


def add_noise(mixture: np.ndarray, noise: np.ndarray, snr: float) -> np.ndarray:
    """Adds noise to a mixture at a ratio of their mean powers.

    Arguments
    ---------
    mixture : numpy.ndarray
        Mixture of talkers [L].
    noise : numpy.ndarray
        Noise [L], at any level; silence is none.
    snr : float
        Level of the mixture relative to the noise in dB.

    Returns
    -------
    numpy.ndarray
        Mixture with noise [L].

    Example
    -------
    >>> add_noise(np.array([1.0, -1.0]), np.array([5.0, 5.0]), snr=20.0)
    array([ 1.1, -0.9])
    """
    power = np.square(noise).mean()
    if power == 0:
        return mixture
    gain = math.sqrt(np.square(mixture).mean() / power) * 10 ** (-snr / 20)
    return mixture + gain * noise
