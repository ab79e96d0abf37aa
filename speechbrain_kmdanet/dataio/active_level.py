"""Active speech level: the power of speech while somebody is speaking.

The long-term power of a recording depends on how much silence is around the
words. ITU-T Recommendation P.56 (method B) measures the power over the
active part only: wherever the envelope of the signal, with a hangover that
bridges short pauses, lies above a threshold 15.9 dB below the level itself.

WSJ0-mix is defined by the level that VOICEBOX's `activlev` of 2012 returns with
its default options, and this file computes the same number. Later versions
append 0.35 s of zeros, so that what is held at the end counts, too: `padding`
says how much. It differs from the
letter of P.56 in its input filters, in 3 dB steps of the threshold, and in
quantising the envelope before the hangover.
"""

import math

import numpy as np
from scipy.ndimage import maximum_filter1d
from scipy.signal import cheby2, sosfilt

from speechbrain_kmdanet.errors import UserError

ENVELOPE_SECONDS = 0.03  # time constant of each of the two smoothing filters
HANGOVER_SECONDS = 0.2
MARGIN_DB = 15.9
NUM_BINS = 20
BIN_DB = 10 * math.log10(2)  # the bins are octaves of the squared envelope

FILTER_ORDER = 5
STOPBAND_DB = 50.0
EDGE_DB = 0.25  # attenuation at the edge of the pass band
HIGH_PASS_HZ = 200.0
LOW_PASS_HZ = 5500.0
LOW_PASS_MIN_RATE = 14000  # below this rate there is nothing to cut off


def active_speech_level(
    signal: np.ndarray, sample_rate: int, padding: float = 0.0
) -> float:
    """Returns the active speech level of a signal (ITU-T P.56, method B).

    Arguments
    ---------
    signal : numpy.ndarray
        The samples, shape [time]. Any scale.
    sample_rate : int
        The sample rate in Hz, more than 400.
    padding : float
        Seconds of silence that follow the signal.

    Returns
    -------
    float
        The active level in units of power (the squared unit of `signal`);
        0.0 for a silent or empty signal. `signal / sqrt(level)` has an
        active level of 0 dB.

    Raises
    ------
    UserError
        If the signal is not one-dimensional and finite, the sample rate is
        too low for the 200 Hz high-pass filter, or the padding negative.

    Example
    -------
    >>> time = np.arange(16000) / 8000
    >>> tone = np.sin(2 * np.pi * 1000 * time)  # power 0.5
    >>> pause = np.zeros(16000)
    >>> round(active_speech_level(np.concatenate([tone, pause]), 8000), 2)
    0.44
    """
    signal = np.asarray(signal, dtype=np.float64)
    if signal.ndim != 1:
        raise UserError(
            "signal: expected the shape [time] of one channel, got "
            f"{list(signal.shape)}"
        )
    if not np.isfinite(signal).all():
        raise UserError("signal: expected finite samples, got NaN or Inf")
    if sample_rate <= 2 * HIGH_PASS_HZ:
        raise UserError(
            f"sample_rate: expected more than {2 * HIGH_PASS_HZ:g} Hz, got "
            f"{sample_rate}"
        )
    if not 0 <= padding < math.inf:
        raise UserError(f"padding: expected 0 s or more, got {padding!r}")
    if signal.size == 0:
        return 0.0

    signal = np.pad(signal, (0, math.ceil(padding * sample_rate)))
    speech = _band_limit(signal, sample_rate)
    energy = float(speech @ speech)
    exponents = _envelope_exponents(speech, sample_rate)
    if energy == 0.0 or exponents is None:
        return 0.0

    top = int(exponents.max()) + 1
    counts = np.bincount(
        np.minimum(top - exponents, NUM_BINS), minlength=NUM_BINS + 1
    )[1:]
    occupancy = np.cumsum(counts)  # samples above the lower edge of each bin
    level_db = 10 * np.log10(energy / occupancy)
    threshold_db = BIN_DB * (top - np.arange(1, NUM_BINS + 1) - 1)
    return float(10 ** (_level_at_margin(level_db, threshold_db) / 10))


def _edge_ratio() -> float:
    """Ratio of the pass band's edge to the stop band's in the analog domain."""
    # A Chebyshev II high-pass filter has the squared gain
    # 1 / (1 + 1 / (e^2 T(w / w_stop)^2)) with e^-2 = 10^(stopband / 10) - 1.
    # Solving for the w at which it is -0.25 dB gives w / w_stop.
    attenuated = 10 ** (STOPBAND_DB / 10) - 1
    passed = 10 ** (EDGE_DB / 10) - 1
    chebyshev = math.sqrt(attenuated / passed)
    return math.cosh(math.acosh(chebyshev) / FILTER_ORDER)


def _band_limit(signal: np.ndarray, sample_rate: int) -> np.ndarray:
    """Applies the input filters; `signal` and the result are [time]."""

    def design(edge_hz: float, kind: str) -> np.ndarray:
        """Second-order sections of the filter with an edge in Hz."""
        # cheby2 takes the stop band's edge, we know the pass band's:
        # their ratio is that of the prewarped (analog) frequencies.
        warped = math.tan(math.pi * edge_hz / sample_rate)
        ratio = _edge_ratio()
        warped = warped / ratio if kind == "highpass" else warped * ratio
        stop = 2 / math.pi * math.atan(warped)  # 1 is the Nyquist frequency
        return cheby2(FILTER_ORDER, STOPBAND_DB, stop, kind, output="sos")

    sections = design(HIGH_PASS_HZ, "highpass")
    if sample_rate >= LOW_PASS_MIN_RATE:
        low_pass = design(LOW_PASS_HZ, "lowpass")
        sections = np.concatenate([sections, low_pass])
    return sosfilt(sections, signal)


def _envelope_exponents(
    speech: np.ndarray, sample_rate: int
) -> np.ndarray | None:
    """Exponents with 2^(e-1) <= envelope^2 < 2^e, held [time]; None if all 0."""
    pole = math.exp(-1 / (sample_rate * ENVELOPE_SECONDS))
    smoothing = [[(1 - pole) ** 2, 0, 0, 1, -2 * pole, pole**2]]
    envelope = sosfilt(smoothing, np.abs(speech))
    fractions, exponents = np.frexp(envelope * envelope)
    lowest = np.iinfo(exponents.dtype).min // 2  # headroom for differences
    exponents[fractions == 0] = lowest
    hangover = math.ceil(HANGOVER_SECONDS * sample_rate) + 1
    exponents = maximum_filter1d(
        exponents,
        size=hangover,
        mode="constant",
        cval=lowest,
        origin=(hangover - 1) // 2,  # a window that ends at the sample
    )
    return None if exponents.max() == lowest else exponents


def _level_at_margin(level_db: np.ndarray, threshold_db: np.ndarray) -> float:
    """Interpolates the level [bins] where it is 15.9 dB above its threshold."""
    excess = level_db - threshold_db - MARGIN_DB
    crossings = np.flatnonzero((excess[:-1] < 0) & (excess[1:] >= 0))
    if crossings.size == 0:  # never reached, or always exceeded
        return level_db[-1] if excess[-1] <= 0 else level_db[0]
    j = crossings[0]
    fraction = excess[j] / (excess[j] - excess[j + 1])
    return level_db[j] + fraction * (level_db[j + 1] - level_db[j])
