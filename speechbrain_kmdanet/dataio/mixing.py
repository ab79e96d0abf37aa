"""The arithmetic of WSJ0-mix: levels, SNRs, cutting and one common scale.

Follows create_wav_2speakers.m and create_wav_3speakers.m of MERL's
create-speaker-mixtures (Hershey et al., "Deep clustering: discriminative
embeddings for segmentation and separation", ICASSP 2016).

Authors
 * The speechbrain_kmdanet developers 2026
"""

import math

import numpy as np
from scipy.signal import resample_poly

LEVEL_RATE = 8000  # Hz; the level is measured here whatever rate is written
PEAK = 0.9
MODES = ("min", "max")


def resample(signal, sample_rate, new_sample_rate):
    """Changes the sample rate of a signal.

    MATLAB's `resample`, which MERL's scripts use, differs negligibly: both
    filter with a sinc of the same length under the same Kaiser window
    (beta 5), and MATLAB's versions without normalisation of its sum have
    another constant gain, which the normalisation of the level cancels.

    Arguments
    ---------
    signal : numpy.ndarray
        The samples, shape [time].
    sample_rate : int
        Their rate in Hz.
    new_sample_rate : int
        The wanted rate in Hz.

    Returns
    -------
    signal : numpy.ndarray
        The samples at the new rate, shape
        [ceil(time * new_sample_rate / sample_rate)].

    Example
    -------
    >>> resample(np.ones(101), 16000, 8000).shape
    (51,)
    """
    if sample_rate == new_sample_rate:
        return signal
    divisor = math.gcd(sample_rate, new_sample_rate)
    return resample_poly(
        signal, new_sample_rate // divisor, sample_rate // divisor
    )


def mix_sources(sources, snrs, levels, mode="min"):
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
    ValueError
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
        raise ValueError(f"mode: expected one of {MODES}, got {mode!r}")
    if not 0 < len(sources) == len(snrs) == len(levels):
        raise ValueError(
            "sources, snrs, levels: expected as many of each, at least one, "
            f"got {len(sources)}, {len(snrs)}, {len(levels)}"
        )
    if not all(level > 0 for level in levels):
        raise ValueError(
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
        raise ValueError("sources: expected sound, got silence only")
    return mixture * (PEAK / peak), scaled * (PEAK / peak)
