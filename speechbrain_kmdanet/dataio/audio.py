"""Reading recordings, with a clear reason where one is unusable.

Decoders are lenient: files of most containers that were cut short read without
an error, and NaN samples or a second channel show up much later, if at all. Here
a file is good, or refused with the reason and what to do about it. Only PAF, PVF,
IRCAM, SD2, XI and MP3 files of simple encoders do not say how long they are.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import soundfile

from speechbrain_kmdanet.dataio import containers
from speechbrain_kmdanet.dataio.active_level import active_speech_level
from speechbrain_kmdanet.errors import UserError, one_line
from speechbrain_kmdanet.processing.bands import resample
from speechbrain_kmdanet.utils.jobs import parallel

LEVEL_RATE = 8000  # Hz; the level is measured here whatever rate is written
RATES = (1000, 1_000_000)  # Hz; the filters that resample others do not end
LOST = ("PAF", "SDS")  # libsndfile seeks wrongly in them
MIN_SECONDS = 0.1  # shorter ones hold no speech whose level could be measured
SPHERE_SUFFIXES = (".wv1", ".WV1", ".wv2", ".WV2", ".sph", ".SPH")
UNKNOWN_FRAMES = 2**40  # libsndfile: 2^63 - 1 for a FLAC made in a pipe
NAMED_PROBLEMS = 5  # files named in an error, the rest are counted
NAMED_LETTERS = 200  # of a path in an error
CONVERT = (
    "convert SPHERE files to WAV first, each with 'sph2pipe -f wav IN.wv1 "
    "OUT.wav' (sph2pipe is free, from the LDC)"
)
LOCATE = "check the corpus folder, to which the lists' paths are relative"
RESTORE = "copy these files from the corpus again or remove their lines"
REPLACE = f"{RESTORE}: they are damaged, cut short or no audio"
REWRITE = "decode and encode these files again, not through a pipe"
REMOVE = "remove the lines of these files"
DOWNMIX = "convert these files to one channel"
LOWER_RATE = "ask for a lower output rate, recordings are not upsampled"

SPECIAL = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe (FIFO)",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


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


def read_source(path: str | bytes | Path) -> tuple[np.ndarray, int]:
    """Reads a recording of one channel [time], see :func:`read_recording`."""
    signal, sample_rate = read_recording(path)
    if signal.shape[1] != 1:
        raise UnusableSource(f"has {signal.shape[1]} channels", DOWNMIX)
    return signal[:, 0], sample_rate


def read_recording(path: str | bytes | Path) -> tuple[np.ndarray, int]:
    """Reads a recording of any number of channels, whatever libsndfile reads.

    Arguments
    ---------
    path : str, bytes or pathlib.Path
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
        If there is no file, or it is SPHERE, unreadable, truncated, of unknown
        length, empty, of an odd rate, or has samples that are not finite.
    """
    with open_recording(as_path(path)) as sound, readable():
        # With a number of samples: some codecs cannot seek to find the end.
        signal = sound.read(sound.frames, "float64", always_2d=True)
        missing, sample_rate = sound.frames - len(signal), sound.samplerate
    if missing > 0:
        raise UnusableSource(f"truncated, {missing} samples missing", RESTORE)
    if len(signal) == 0:
        raise UnusableSource("empty", RESTORE)
    if not np.isfinite(signal).all():
        raise UnusableSource("has NaN or infinite samples", RESTORE)
    return signal, sample_rate


def read_header(path: str | bytes | Path) -> tuple[int, int, int]:
    """Reads the header of a recording; raises as :func:`read_recording`.

    Arguments
    ---------
    path : str, bytes or pathlib.Path
        The file.

    Returns
    -------
    tuple of int
        Samples of a channel, their rate in Hz, and the number of channels.
    """
    with open_recording(as_path(path)) as sound:
        return sound.frames, sound.samplerate, sound.channels


def as_path(path: object) -> Path:
    """Takes a path as people give it.

    Arguments
    ---------
    path : str, bytes or os.PathLike
        The path of a file.

    Returns
    -------
    pathlib.Path
        The same.

    Raises
    ------
    UserError
        If it is something else, or empty.
    """
    try:
        text = os.fsdecode(path)  # type: ignore[arg-type]
    except TypeError:
        text = ""
    if not text:
        known = isinstance(path, (str, bytes))
        got = "an empty one" if known else type(path).__name__
        raise UserError(
            f"path must be the path of a file (str, bytes or Path), got {got}: "
            "write samples to a file first"
        )
    return Path(text)


def name_path(path: str | Path) -> str:
    """Writes a path so that it can stand in one line of any encoding.

    Arguments
    ---------
    path : str or pathlib.Path
        The path; its name may be undecodable, or very long.

    Returns
    -------
    str
        The path, shortened in the middle.

    Example
    -------
    >>> print(name_path("a.wav"), name_path("a\\nb.wav"))
    a.wav 'a\\nb.wav'
    """
    text = str(path)
    if not text.isprintable():
        text = ascii(text)
    if len(text) <= NAMED_LETTERS:
        return text
    half = NAMED_LETTERS // 2
    return f"{text[:half]}...{text[-half:]}"


def open_recording(path: Path) -> soundfile.SoundFile:
    """Opens a recording that is whole, as far as its header tells.

    Arguments
    ---------
    path : pathlib.Path
        The file.

    Returns
    -------
    soundfile.SoundFile
        The opened file; what reads it is in :func:`readable`.

    Raises
    ------
    UnusableSource
        As :func:`read_recording`.
    """
    _check_kind(path)
    with readable(), ExitStack() as undo:
        with path.open("rb") as file:
            start = file.read(7)
            file.seek(0)
            cut = containers.find_cut(file, path.stat().st_size)
        if start == b"NIST_1A":
            raise UnusableSource("a SPHERE file", CONVERT)
        if cut:
            raise UnusableSource(f"truncated, {cut}", RESTORE)
        sound = undo.enter_context(_Forward(containers.sound_path(path)))
        if sound.frames >= UNKNOWN_FRAMES:
            raise UnusableSource("of unknown length", REWRITE)
        if containers.noted_as_cut(sound):
            raise UnusableSource("truncated", RESTORE)
        if not RATES[0] <= sound.samplerate <= RATES[1]:
            reason = f"has {sound.samplerate} Hz, expected {RATES[0]} to"
            raise UnusableSource(f"{reason} {RATES[1]} Hz", RESTORE)
        undo.pop_all()
        return sound


@contextmanager
def readable() -> Iterator[None]:
    """Says of what a decoder does not read that it is unusable.

    Raises
    ------
    UnusableSource
        Instead of what the decoder raises.
    """
    try:
        yield
    except (OSError, TypeError, MemoryError, soundfile.SoundFileError) as error:
        # TypeError: soundfile wants to be told what is in a headerless .raw.
        reason = f"unreadable: {_reason(error)}"
        raise UnusableSource(reason, REPLACE) from error


def _check_kind(path: str | Path) -> None:
    """Refuses what is no file; to open a FIFO would wait for its writer."""
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        for suffix in SPHERE_SUFFIXES:
            other = Path(path).with_suffix(suffix)
            if other.is_file():
                reason = f"missing, only {other.name} is there"
                raise UnusableSource(reason, CONVERT) from None
        raise UnusableSource("missing", LOCATE) from None
    except (OSError, ValueError) as error:  # ValueError: a zero in the name
        reason = f"no usable path: {_reason(error)}"
        raise UnusableSource(reason, LOCATE) from error
    if kind != stat.S_IFREG:
        what = SPECIAL.get(kind, "something special")
        raise UnusableSource(f"{what}, no file", LOCATE)


class _Forward(soundfile.SoundFile):
    """A recording that is read from its beginning to its end.

    After each read, soundfile seeks to where it is already: the decoders of
    MPEG, Opus and Vorbis forget the frames before, which they go on from.
    """

    def seekable(self) -> bool:
        """Whether it may be sought in."""
        return not _forgets(self) and super().seekable()


def _forgets(sound: soundfile.SoundFile) -> bool:
    """Whether a decoder needs what is before a sample to make it."""
    return sound.format == "OGG" or sound.subtype.startswith("MPEG")


def _reason(error: Exception) -> str:
    """What libsndfile, or the system, says."""
    text = getattr(error, "error_string", None)
    text = text or getattr(error, "strerror", None) or str(error)
    return one_line(text).strip(". ")


def audio_suffixes() -> set[str]:
    """Endings of the files that libsndfile reads, in lower case.

    Returns
    -------
    set of str
        For example ".wav".
    """
    # Names of formats are endings, but for these; nobody reads headerless ones.
    formats = {f".{name.lower()}" for name in soundfile.available_formats()}
    return (formats | {".opus", ".oga", ".aif", ".aifc"}) - {".raw"}


def list_recordings(folder: str | Path) -> dict[str, Path]:
    """Lists the recordings in a folder, of any format, but hidden files.

    Arguments
    ---------
    folder : str or pathlib.Path
        The folder.

    Returns
    -------
    dict
        The files by their names without ending, sorted.

    Raises
    ------
    UserError
        If two files differ in their ending alone.
    """
    found: dict[str, Path] = {}
    suffixes = audio_suffixes()
    for path in sorted(Path(folder).glob("*")):
        if path.suffix.lower() in suffixes and not path.name.startswith("."):
            if found.setdefault(path.stem, path) != path:
                raise UserError(
                    f"{folder} has two recordings {name_path(path.stem)}, "
                    f"{found[path.stem].suffix} and {path.suffix}: remove one"
                )
    return found


def is_compressed(path: str | Path) -> bool:
    """Whether a part of a recording is found by decoding what is before it.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.

    Returns
    -------
    bool
        True for Ogg, Opus and MP3, whatever the name of the file.
    """
    with open_recording(as_path(path)) as sound:
        return _forgets(sound)


def read_piece(
    path: str | Path, start: int, length: int
) -> tuple[np.ndarray, int]:
    """Reads a part of a recording of one channel that was checked before.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.
    start, length : int
        The first sample, and the number of samples.

    Returns
    -------
    signal : numpy.ndarray
        The samples [length], float32, full scale 1.
    sample_rate : int
        Their rate in Hz.

    Raises
    ------
    UserError
        If it cannot be read, or is not as long any more.
    """
    try:
        _check_kind(path)
        with soundfile.SoundFile(containers.sound_path(path)) as sound:
            lost = sound.format in LOST or _forgets(sound)
            seekable = sound.seekable() and not lost
            begin = min(start, sound.frames) if seekable else 0
            if begin:
                sound.seek(begin)
            signal = sound.read(start - begin + length, "float32")
            signal, sample_rate = signal[start - begin :], sound.samplerate
        reason = f"expected {[length]} samples, got {list(signal.shape)}"
    except UnusableSource as problem:
        signal, reason = None, problem.reason
    except (OSError, TypeError, soundfile.SoundFileError) as error:
        signal, reason = None, _reason(error)
    if signal is None or signal.shape != (length,):
        raise UserError(
            f"Error opening '{name_path(path)}': {reason}: copy it from the "
            "corpus again"
        )
    return signal, sample_rate


def measure_sources(
    corpus_folder: str | Path,
    mentions: Mapping[str, str],
    min_sample_rate: int = LEVEL_RATE,
    workers: int | None = None,
    progress: bool = True,
    padding: float = 0.0,
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
    padding : float
        Seconds of silence that follow, see :func:`.active_speech_level`.

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
        padding=padding,
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
    path: str, corpus_folder: Path, min_sample_rate: int, padding: float
) -> float | UnusableSource:
    """Measures a recording; returns the error if it is unusable."""
    try:
        return _measure_source(corpus_folder / path, min_sample_rate, padding)
    except UnusableSource as problem:
        return problem


def _measure_source(path: Path, min_sample_rate: int, padding: float) -> float:
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
    level = active_speech_level(signal, LEVEL_RATE, padding)
    if not level > 0:
        raise UnusableSource("silent", REMOVE)
    return level
