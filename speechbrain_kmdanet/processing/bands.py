"""Sample rates, and sources of recordings of which a model does not hear all.

A model at 8 kHz hears up to 4 kHz. What a recording has beyond is shared out
among the sources by who speaks in the upper half of what the model hears: there
sibilants are, whose energy goes on above.
"""

import math

import numpy as np
from scipy.ndimage import uniform_filter1d
from scipy.signal import resample_poly

from speechbrain_kmdanet.errors import UserError

SMOOTHING = 0.048  # seconds over which energies are compared
NOTHING = 1e-8  # of the energy of a mixture: rounding
QUIET = 1e-4  # of the energy of a whole band, where the upper half is silent


def resample(
    signal: np.ndarray, sample_rate: int, new_sample_rate: int
) -> np.ndarray:
    """Changes the sample rate of a signal.

    MATLAB's `resample`, which MERL's scripts use, differs negligibly: both
    filter with a sinc of the same length under the same Kaiser window
    (beta 5), and MATLAB's versions without normalisation of its sum have
    another constant gain, which the normalisation of the level cancels.

    Arguments
    ---------
    signal : numpy.ndarray
        The samples, shape [time] or [time, channels].
    sample_rate : int
        Their rate in Hz.
    new_sample_rate : int
        The wanted rate in Hz.

    Returns
    -------
    numpy.ndarray
        The samples at the new rate; ceil(time * new_sample_rate /
        sample_rate) of them.

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


def restore_band(
    sources: np.ndarray,
    sample_rate: int,
    recording: np.ndarray,
    recording_rate: int,
) -> np.ndarray:
    """Brings sources to the rate of a recording, which they add up to then.

    Arguments
    ---------
    sources : numpy.ndarray
        Sources at the rate of a model [time, K], all of them.
    sample_rate : int
        That rate in Hz.
    recording : numpy.ndarray
        The recording that they were separated from [time'], at its own rate.
    recording_rate : int
        That rate in Hz.

    Returns
    -------
    numpy.ndarray
        Sources at the rate of the recording [time', K], which sum to it.

    Raises
    ------
    UserError
        If the sources are not as long as the recording at their rate.

    Example
    -------
    >>> recording = np.random.default_rng(0).standard_normal(441)
    >>> sources = np.zeros((80, 2))
    >>> restored = restore_band(sources, 8000, recording, 44100)
    >>> np.allclose(restored.sum(1), recording)
    True
    """
    expected = -(-len(recording) * sample_rate // recording_rate)
    if len(sources) != expected:
        raise UserError(
            f"sources must have {expected} samples at {sample_rate} Hz, as the "
            f"recording has {len(recording)} at {recording_rate} Hz, got "
            f"{len(sources)}"
        )
    back = resample(sources, sample_rate, recording_rate)[: len(recording)]
    rest = recording - sum(back.T)  # [time']
    shares = _upper_shares(sources, sample_rate)  # [time, K]
    at = np.arange(len(recording)) * (sample_rate / recording_rate)
    own = np.arange(len(sources))
    for talker in range(sources.shape[1]):
        back[:, talker] += rest * np.interp(at, own, shares[:, talker])
    return back


def restore_sources(
    sources: np.ndarray,
    mixture: np.ndarray,
    sample_rate: int,
    recording: np.ndarray,
    recording_rate: int,
) -> np.ndarray:
    """The same where sources leave something to nobody, such as noise.

    What the sources leave of the mixture takes part as one of them would.

    Arguments
    ---------
    sources : numpy.ndarray
        Sources at the rate of a model [time, K].
    mixture : numpy.ndarray
        What the model heard [time].
    sample_rate : int
        That rate in Hz.
    recording : numpy.ndarray
        The recording [time'] at its own rate.
    recording_rate : int
        That rate in Hz.

    Returns
    -------
    numpy.ndarray
        Sources at the rate of the recording [time', K]; they sum to it if
        those at the rate of the model sum to the mixture.
    """
    left = mixture - sum(sources.T)
    if (left**2).sum() <= NOTHING * (mixture**2).sum():
        return restore_band(sources, sample_rate, recording, recording_rate)
    every = np.column_stack([sources, left])
    return restore_band(every, sample_rate, recording, recording_rate)[:, :-1]


def _upper_shares(sources: np.ndarray, sample_rate: int) -> np.ndarray:
    """Shares of the energy in the upper half of the band [time, K], sum 1."""
    length = max(1, round(SMOOTHING * sample_rate))
    # The difference to the sample before tilts to the upper half.
    upper = np.diff(sources, axis=0, prepend=0.0) ** 2 + QUIET * sources**2
    upper = uniform_filter1d(upper, length, axis=0, mode="constant")
    # Where all are silent, all alike; rounding of the filter goes below 0.
    upper = np.maximum(upper, 0.0) + 1e-12 * upper.max(initial=1e-30)
    shares: np.ndarray = upper / sum(upper.T)[:, None]
    return shares
