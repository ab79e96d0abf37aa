"""Reading recordings of a corpus, with a clear reason where one is unusable.

Decoders are lenient: a WAV file that was cut short reads without an error, and
NaN samples or a second channel show up much later, if at all. Here a file is
either good or refused with the reason and what to do about it.

Authors
 * The speechbrain_kmdanet developers 2026
"""

from functools import partial
from pathlib import Path

import numpy as np
import soundfile

from speechbrain_kmdanet.dataio.active_level import active_speech_level
from speechbrain_kmdanet.dataio.mixing import LEVEL_RATE, resample

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


class UnusableSource(ValueError):
    """A recording that cannot be used.

    Arguments
    ---------
    reason : str
        What is wrong with the file, without its name.
    remedy : str
        What to do about it.
    """

    def __init__(self, reason, remedy):
        super().__init__(reason, remedy)
        self.reason, self.remedy = reason, remedy

    def __str__(self):
        return f"{self.reason} ({self.remedy})"


def read_source(path):
    """Reads a recording of one channel, WAV or FLAC.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.

    Returns
    -------
    signal : numpy.ndarray
        The samples, shape [time], float64, full scale 1.
    sample_rate : int
        Its rate in Hz.

    Raises
    ------
    UnusableSource
        As `read_recording`, and if the file has not one channel.
    """
    signal, sample_rate = read_recording(path)
    if signal.shape[1] != 1:
        raise UnusableSource(f"has {signal.shape[1]} channels", DOWNMIX)
    return signal[:, 0], sample_rate


def read_recording(path):
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
        reason = getattr(error, "error_string", str(error)).strip(". ")
        raise UnusableSource(f"unreadable: {reason}", RESTORE) from error
    if len(signal) < expected:
        reason = f"truncated, {expected - len(signal)} samples missing"
        raise UnusableSource(reason, RESTORE)
    if len(signal) == 0:
        raise UnusableSource("empty", RESTORE)
    if not np.isfinite(signal).all():
        raise UnusableSource("has NaN or infinite samples", RESTORE)
    return signal, sample_rate


def measure_source(path, min_sample_rate=LEVEL_RATE):
    """Checks a recording and measures its level as WSJ0-mix does, at 8 kHz.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.
    min_sample_rate : int
        The lowest sample rate accepted, in Hz.

    Returns
    -------
    level : float
        The active speech level in units of power, greater than 0.

    Raises
    ------
    UnusableSource
        As `read_source`, and if the recording is silent, shorter than 0.1 s
        or of too low a rate.
    """
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
    level = active_speech_level(
        resample(signal, sample_rate, LEVEL_RATE), LEVEL_RATE
    )
    if not level > 0:
        raise UnusableSource("silent", REMOVE)
    return level


def measure_sources(
    corpus_folder, mentions, min_sample_rate=LEVEL_RATE, run=map
):
    """Checks recordings and measures their levels, see `measure_source`.

    Arguments
    ---------
    corpus_folder : str or pathlib.Path
        The folder that the recordings' paths are relative to.
    mentions : dict
        Where each recording is listed ("mix_2_spk_tr.txt line 3"), by path.
    min_sample_rate : int
        The lowest sample rate accepted, in Hz.
    run : callable
        Like `map`; for example one that uses several processes.

    Returns
    -------
    levels : dict
        The active speech level in units of power by path.

    Raises
    ------
    ValueError
        If recordings are unusable; it names the first ones, where they are
        listed, and the remedies.
    """
    paths = list(mentions)
    measure = partial(
        _measure_or_problem,
        corpus_folder=Path(corpus_folder),
        min_sample_rate=min_sample_rate,
    )
    levels = dict(zip(paths, run(measure, paths)))
    problems = {
        path: level
        for path, level in levels.items()
        if isinstance(level, UnusableSource)
    }
    if not problems:
        return levels
    named = [
        f"{path} ({mentions[path]}): {problem.reason}"
        for path, problem in list(problems.items())[:NAMED_PROBLEMS]
    ]
    if len(problems) > NAMED_PROBLEMS:
        named.append(f"and {len(problems) - NAMED_PROBLEMS} more")
    remedies = dict.fromkeys(problem.remedy for problem in problems.values())
    raise ValueError(
        f"{len(problems)} of {len(paths)} recordings in {corpus_folder} "
        f"cannot be used, nothing was written: {'; '.join(named)}. "
        f"Remedy: {'; '.join(remedies)}."
    )


def _measure_or_problem(path, corpus_folder, min_sample_rate):
    """Returns a recording's active level, or the UnusableSource error."""
    try:
        return measure_source(corpus_folder / path, min_sample_rate)
    except UnusableSource as problem:
        return problem


def _wav_bytes_missing(file, start, file_size):
    """Returns how many bytes of audio a WAV file promises but lacks.

    0 for other formats and for sizes that the writer did not know. libsndfile
    does not report this: it takes the frames that are there.

    Arguments
    ---------
    file : binary file
        The file, behind its first 12 bytes.
    start : bytes
        Those 12 bytes.
    file_size : int
        Size of the file in bytes.
    """
    if start[:4] not in (b"RIFF", b"RIFX") or start[8:] != b"WAVE":
        return 0
    order = "little" if start[:4] == b"RIFF" else "big"
    while len(header := file.read(8)) == 8:
        size = int.from_bytes(header[4:], order)
        if header[:4] == b"data":
            known = size < UNKNOWN_SIZE
            return max(0, file.tell() + size - file_size) if known else 0
        file.seek(size + size % 2, 1)  # chunks begin at even positions
    return 0
