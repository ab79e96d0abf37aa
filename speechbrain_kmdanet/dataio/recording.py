"""Recordings of any length, block by block: one channel, or the mean of all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
from speechbrain.utils.logger import get_logger

from speechbrain_kmdanet.dataio.audio import (
    RESTORE,
    UnusableSource,
    as_path,
    name_path,
    open_recording,
    readable,
)
from speechbrain_kmdanet.errors import UserError

logger = get_logger(__name__)

FULL_SCALE = 0.99  # 8-bit files only reach 127/128
CLIPPED_RUN = 3  # equal samples in a row: rarely chance at full scale
CANCELLED = 0.1  # of the power that the mean of independent channels has
ROUNDING = 1e-13  # of the power, in the difference of two sums
BLOCK = 1 << 18  # samples


class Recording:
    """A recording that is being read, from its beginning to its end.

    Arguments
    ---------
    sound : soundfile.SoundFile
        The opened file.
    name : str
        Its name, for warnings.
    channel : int
        The channel to read, from 1 on; the mean of all by default.

    Raises
    ------
    UnusableSource
        If it is empty.
    UserError
        If there is no such channel.
    """

    def __init__(
        self, sound: soundfile.SoundFile, name: str, channel: int | None = None
    ) -> None:
        self.sound = sound
        self.name = name
        self.num_samples = sound.frames
        self.sample_rate = sound.samplerate
        self.num_channels = sound.channels
        if not self.num_samples:
            raise UnusableSource("empty", RESTORE)
        if channel is not None and channel not in range(1, sound.channels + 1):
            raise UserError(
                f"channel must be from 1 to {sound.channels}, the channels "
                f"that it has, got {channel!r}"
            )
        self.channel = channel
        self.clipped = False
        # Of each channel, and of their mean: sums of samples and of squares.
        self._sums = np.zeros((2, sound.channels + 1))
        self._before = np.zeros((0, sound.channels))

    def blocks(self, length: int = BLOCK) -> Iterator[np.ndarray]:
        """All of it.

        Arguments
        ---------
        length : int
            Number of samples of a block.

        Yields
        ------
        numpy.ndarray
            Samples [length], float64, full scale 1; the last block may be
            shorter.

        Raises
        ------
        UnusableSource
            If the file is truncated, or has samples that are not finite, or
            channels that cancel each other.
        """
        left = self.num_samples
        while left:
            # With a number: some codecs cannot seek to find the end.
            wanted = min(length, left)
            with readable():
                signal = self.sound.read(wanted, "float64", always_2d=True)
            left -= len(signal)
            if not np.isfinite(signal).all():
                raise UnusableSource("has NaN or infinite samples", RESTORE)
            if len(signal) < wanted:
                missing = wanted - len(signal) + left
                raise UnusableSource(
                    f"truncated, {missing} samples missing", RESTORE
                )
            self._note(signal)
            yield self._one_channel(signal)
        if self.channel is None:
            self._check_channels()

    def _one_channel(self, signal: np.ndarray) -> np.ndarray:
        """The channel that was asked for [time], or the mean of all."""
        if self.channel is None:
            return _mean(signal)
        return signal[:, self.channel - 1]

    def _note(self, signal: np.ndarray) -> None:
        """Takes a part [time, channels] into what is known of the whole."""
        with np.errstate(over="ignore", invalid="ignore"):
            for sums, each in zip(self._sums.T, [*signal.T, _mean(signal)]):
                sums += each.sum(), each @ each
        if not self.clipped:
            # A run may have begun in the part before.
            joined = np.concatenate([self._before, signal])
            self.clipped = _is_clipped(joined)
        self._before = signal[-CLIPPED_RUN + 1 :]

    def _check_channels(self) -> None:
        """Refuses channels whose mean is next to nothing."""
        count = self.num_channels
        if count == 1:
            return
        with np.errstate(over="ignore", invalid="ignore"):
            means, squares = self._sums / self.num_samples
            variances = squares - np.square(means)
            power = variances[:-1].mean()
            least = CANCELLED * power / count
            # Constants vary by rounding alone.
            rounding = ROUNDING * squares[:-1].mean()
            if power > rounding and variances[-1] < least:
                raise UserError(
                    f"its {count} channels cancel each other when they are "
                    "averaged, some have the opposite sign of others: give one "
                    "channel, or turn their signs"
                )


def _mean(signal: np.ndarray) -> np.ndarray:
    """Mean of the channels [time]; by channels, which is much faster."""
    total: np.ndarray = sum(signal.T) / signal.shape[1]
    return total


def warn_if_clipped(recording: Recording) -> None:
    """Says that a recording which was read is clipped, if it is.

    Arguments
    ---------
    recording : Recording
        The recording.
    """
    if recording.clipped:
        logger.warning(
            f"{recording.name} is clipped (runs of samples at full scale): "
            "expect a worse separation there, or record it again at a lower "
            "level"
        )


@contextmanager
def read_blocks(
    path: str | bytes | Path, channel: int | None = None
) -> Iterator[Recording]:
    """Opens a recording, whatever libsndfile reads.

    Arguments
    ---------
    path : str, bytes or pathlib.Path
        The file.
    channel : int
        The channel to read, from 1 on; the mean of all by default.

    Yields
    ------
    Recording
        The recording, whose blocks are read once.

    Raises
    ------
    UnusableSource
        If there is no file, or it is SPHERE, unreadable, truncated, empty, of
        unknown length or of an odd rate.
    """
    path = as_path(path)
    with open_recording(path) as sound:
        yield Recording(sound, name_path(path), channel)


def _is_clipped(signal: np.ndarray) -> bool:
    """Whether a signal [time, channels] has runs of full-scale samples."""
    loud = np.abs(signal) >= FULL_SCALE
    if not loud.any():
        return False
    held = loud[1:] & (signal[1:] == signal[:-1])
    runs = np.lib.stride_tricks.sliding_window_view
    return len(held) >= CLIPPED_RUN - 1 and bool(
        runs(held, CLIPPED_RUN - 1, axis=0).all(axis=-1).any()
    )
