"""Reading recordings, with a clear reason where one is unusable.

Decoders are lenient: a WAV file that was cut short reads without an error, and
NaN samples or a second channel show up much later, if at all. Here a file is
either good or refused with the reason and what to do about it.
"""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
from scipy.signal import resample_poly

from speechbrain_kmdanet.dataio.active_level import active_speech_level
from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.utils.jobs import parallel

LEVEL_RATE = 8000  # Hz; the level is measured here whatever rate is written
COMPRESSED = (".ogg", ".oga", ".opus", ".mp3")
MIN_SECONDS = 0.1  # shorter ones hold no speech whose level could be measured
SPHERE_SUFFIXES = (".wv1", ".WV1", ".wv2", ".WV2", ".sph", ".SPH")
# Programs that write to a pipe do not know the size and fill in 0, or the
# largest number that fits (SoX: a little less than 2^31).
UNKNOWN_SIZE = 0x7FFFF000
UNKNOWN_FRAMES = 2**40  # libsndfile: 2^63 - 1 for a FLAC made in a pipe
NAMED_PROBLEMS = 5  # files named in an error, the rest are counted

CONVERT = (
    "convert SPHERE files to WAV first, each with 'sph2pipe -f wav IN.wv1 "
    "OUT.wav' (sph2pipe is free, from the LDC)"
)
LOCATE = "check the corpus folder, to which the lists' paths are relative"
RESTORE = "copy these files from the corpus again or remove their lines"
REWRITE = "decode and encode these files again, not through a pipe"
REMOVE = "remove the lines of these files"
DOWNMIX = "convert these files to one channel"
LOWER_RATE = "ask for a lower output rate, recordings are not upsampled"


class UnusableSource(UserError):
    """A recording that cannot be used.

    Whoever reads the file adds its name: a data loader's worker, whose errors
    are made again from their text alone, must raise a plain UserError.

    Arguments
    ---------
    reason : str
        What is wrong with the file, without its name.
    remedy : str
        What to do about it.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason, remedy)
        self.reason, self.remedy = reason, remedy

    def __str__(self) -> str:
        return f"{self.reason} ({self.remedy})"


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
        The samples, shape [time].
    sample_rate : int
        Their rate in Hz.
    new_sample_rate : int
        The wanted rate in Hz.

    Returns
    -------
    numpy.ndarray
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


def read_source(path: str | Path) -> tuple[np.ndarray, int]:
    """Reads a recording of one channel [time], see :func:`read_recording`."""
    signal, sample_rate = read_recording(path)
    if signal.shape[1] != 1:
        raise UnusableSource(f"has {signal.shape[1]} channels", DOWNMIX)
    return signal[:, 0], sample_rate


def read_recording(path: str | Path) -> tuple[np.ndarray, int]:
    """Reads a recording of any number of channels, WAV or FLAC.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.

    Returns
    -------
    signal : numpy.ndarray
        The samples, shape [time, channels], float64, full scale 1.
    sample_rate : int
        Its rate in Hz.

    Raises
    ------
    UnusableSource
        If the file is missing, SPHERE, unreadable, truncated, of unknown
        length, empty, or has samples that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        for suffix in SPHERE_SUFFIXES:
            if path.with_suffix(suffix).is_file():
                name = path.with_suffix(suffix).name
                raise UnusableSource(f"missing, only {name} is there", CONVERT)
        raise UnusableSource("missing", LOCATE)
    try:
        with path.open("rb") as file:
            start = file.read(12)
            cut = _wav_bytes_missing(file, start, path.stat().st_size)
        if start.startswith(b"NIST_1A"):
            raise UnusableSource("a SPHERE file", CONVERT)
        if cut:
            raise UnusableSource(f"truncated, {cut} bytes missing", RESTORE)
        with soundfile.SoundFile(path) as sound:
            expected, sample_rate = sound.frames, sound.samplerate
            if expected >= UNKNOWN_FRAMES:
                raise UnusableSource("of unknown length", REWRITE)
            signal = sound.read(dtype="float64", always_2d=True)
    except (OSError, TypeError, soundfile.SoundFileError) as error:
        # TypeError: soundfile wants to be told what is in a headerless .raw.
        reason = f"unreadable: {_reason(error)}"
        raise UnusableSource(reason, RESTORE) from error
    if len(signal) < expected:
        reason = f"truncated, {expected - len(signal)} samples missing"
        raise UnusableSource(reason, RESTORE)
    if len(signal) == 0:
        raise UnusableSource("empty", RESTORE)
    if not np.isfinite(signal).all():
        raise UnusableSource("has NaN or infinite samples", RESTORE)
    return signal, sample_rate


def _reason(error: Exception) -> str:
    """What libsndfile, or the system, says."""
    return getattr(error, "error_string", str(error)).strip(". ")


def _wav_bytes_missing(file: BinaryIO, start: bytes, file_size: int) -> int:
    """Bytes of audio that a WAV file promises but lacks, after its `start`.

    libsndfile does not report this: it takes the frames that are there. 0 for
    other formats and for sizes that the writer did not know.
    """
    if start[:4] not in (b"RIFF", b"RIFX") or start[8:] != b"WAVE":
        return 0
    little = start[:4] == b"RIFF"
    while len(header := file.read(8)) == 8:
        size = int.from_bytes(header[4:], "little" if little else "big")
        if header[:4] == b"data":
            known = size < UNKNOWN_SIZE
            return max(0, file.tell() + size - file_size) if known else 0
        file.seek(size + size % 2, 1)  # chunks begin at even positions
    return 0


def audio_suffixes() -> set[str]:
    """Endings of the files that libsndfile reads, in lower case.

    Returns
    -------
    set of str
        For example ".wav".
    """
    # Names of formats, which are endings but for these; headerless ones are
    # no recordings that somebody could read.
    formats = {f".{name.lower()}" for name in soundfile.available_formats()}
    return (formats | {".opus", ".oga", ".aif", ".aifc"}) - {".raw"}


def is_compressed(path: str | Path) -> bool:
    """Whether the samples of a recording are found by decoding it from afar.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.

    Returns
    -------
    bool
        True for Ogg, Opus and MP3.
    """
    return Path(path).suffix.lower() in COMPRESSED


def read_piece(
    path: str | Path, start: int, length: int
) -> tuple[np.ndarray, int]:
    """Reads a part of a recording of one channel that was checked before.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.
    start : int
        The first sample.
    length : int
        The number of samples.

    Returns
    -------
    signal : numpy.ndarray
        The samples, shape [length], float32, full scale 1.
    sample_rate : int
        Their rate in Hz.

    Raises
    ------
    UserError
        If it cannot be read, or is not as long any more.
    """
    try:
        signal, sample_rate = soundfile.read(
            path, frames=length, start=start, dtype="float32"
        )
        reason = f"expected {[length]} samples, got {list(signal.shape)}"
    except (OSError, TypeError, soundfile.SoundFileError) as error:
        signal, reason = None, _reason(error)
    if signal is None or signal.shape != (length,):
        raise UserError(
            f"Error opening '{path}': {reason}: copy it from the corpus again"
        )
    return signal, sample_rate


def measure_sources(
    corpus_folder: str | Path,
    mentions: Mapping[str, str],
    min_sample_rate: int = LEVEL_RATE,
    workers: int | None = None,
    progress: bool = True,
) -> dict[str, float]:
    """Checks recordings and measures their levels as WSJ0-mix does, at 8 kHz.

    Arguments
    ---------
    corpus_folder : str or pathlib.Path
        The folder that the recordings' paths are relative to.
    mentions : dict
        Where each recording is listed ("mix_2_spk_tr.txt line 3"), by path.
    min_sample_rate : int
        The lowest sample rate accepted, in Hz.
    workers : int, optional
        Number of processes. By default, the number of CPUs.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    dict
        The active speech level in units of power by path.

    Raises
    ------
    UserError
        If recordings are unusable for `read_source`, silent, shorter than
        0.1 s or of too low a rate; it names the first ones, where they are
        listed, and the remedies.
    """
    paths = list(mentions)
    measure = partial(
        _measure_or_problem,
        corpus_folder=Path(corpus_folder),
        min_sample_rate=min_sample_rate,
    )
    found = parallel(measure, paths, "Checking recordings", workers, progress)
    levels: dict[str, float] = {}
    problems: dict[str, UnusableSource] = {}
    for path, result in zip(paths, found):
        if isinstance(result, UnusableSource):
            problems[path] = result
        else:
            levels[path] = result
    if not problems:
        return levels
    named = [
        f"{path} ({mentions[path]}): {problem.reason}"
        for path, problem in list(problems.items())[:NAMED_PROBLEMS]
    ]
    if len(problems) > NAMED_PROBLEMS:
        named.append(f"and {len(problems) - NAMED_PROBLEMS} more")
    remedies = dict.fromkeys(problem.remedy for problem in problems.values())
    raise UserError(
        f"{len(problems)} of {len(paths)} recordings in {corpus_folder} "
        f"cannot be used, nothing was written: {'; '.join(named)}. "
        f"Remedy: {'; '.join(remedies)}."
    )


def _measure_or_problem(
    path: str, corpus_folder: Path, min_sample_rate: int
) -> float | UnusableSource:
    """Measures a recording; returns the error if it is unusable."""
    try:
        return _measure_source(corpus_folder / path, min_sample_rate)
    except UnusableSource as problem:
        return problem


def _measure_source(path: Path, min_sample_rate: int) -> float:
    """Checks a recording and measures its level as WSJ0-mix does, at 8 kHz."""
    signal, sample_rate = read_source(path)
    if sample_rate < min_sample_rate:
        raise UnusableSource(
            f"has {sample_rate} Hz, expected at least {min_sample_rate} Hz",
            LOWER_RATE,
        )
    if len(signal) < MIN_SECONDS * sample_rate:
        raise UnusableSource(
            f"too short, {len(signal)} samples ({MIN_SECONDS:g} s at least)",
            REMOVE,
        )
    # A constant is as silent as zeros: there is no sound in it.
    if np.ptp(signal) == 0:
        raise UnusableSource("silent", REMOVE)
    signal = resample(signal, sample_rate, LEVEL_RATE)
    level = active_speech_level(signal, LEVEL_RATE)
    if not level > 0:
        raise UnusableSource("silent", REMOVE)
    return level
