"""Speech of MiniMix's talkers, synthesised by espeak-ng.

The library comes with the package espeakng-loader and is called through
ctypes.
"""

import ctypes
import os
from collections.abc import Mapping
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from minimix_lists import Readings
from minimix_voices import Speaker
from scipy.signal import resample_poly

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.utils.jobs import in_new_process, parallel, write_whole

SAMPLE_RATE = 8000  # of the corpus, in Hz
SYNTHESIS_RATE = 22050  # of espeak-ng, in Hz
# 8000 / 22050 = 160 / 441. Taking another denominator d plays the voice at
# d / 441 times the speed, with its formants moved by that factor, as those of
# a shorter (d > 441) or longer vocal tract.
UPSAMPLING = 160
DOWNSAMPLING = 441

# From espeak-ng's speak_lib.h
AUDIO_OUTPUT_SYNCHRONOUS = 2
INITIALIZE_DONT_EXIT = 0x8000
CHARS_UTF8 = 1
POS_CHARACTER = 1
PARAMETERS = {"rate": 1, "volume": 2, "pitch": 3, "range": 4}
SEED = 1
VOLUME = 50  # at 100, the default, some voices clip
CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)

FRAME = SAMPLE_RATE // 100  # samples in the 10 ms frames of `trim`
SILENCE_DB = -40.0  # relative to the loudest frame
RMS = 0.05  # of the recordings; full scale is 1
MAX_PEAK = 0.9

MAX_DATA_PATH = 159  # bytes that espeak-ng has room for
MISSING_LOADER = (
    "espeak-ng is missing: install its library and voices with pip install "
    '"speechbrain_kmdanet[demo]" (or pip install espeakng-loader)'
)


def espeak_files() -> tuple[str, str]:
    """Locates espeak-ng in the package espeakng-loader.

    Returns
    -------
    library : str
        Path of the shared library.
    data : str
        Path of the folder of its voices.

    Raises
    ------
    UserError
        If espeakng-loader is not installed, or in too long a path.
    """
    try:
        import espeakng_loader  # here, as it is an optional requirement
    except ImportError as error:
        raise UserError(MISSING_LOADER) from error
    data = espeakng_loader.get_data_path()
    length = len(os.fsencode(data))
    if length > MAX_DATA_PATH:
        raise UserError(
            f"espeak-ng reads no voices from a path of {length} bytes, at "
            f"most {MAX_DATA_PATH}: install espeakng-loader into an "
            f"environment with a shorter path than {data}"
        )
    return espeakng_loader.get_library_path(), data


class Synthesiser:
    """espeak-ng, set to the voice of one talker.

    The library is one global state, and its sound depends on what it has
    said before: make one of these in a process, and have it say the same
    texts in the same order, to get the same samples again.

    Arguments
    ---------
    speaker : Speaker
        Whose voice it is.

    Raises
    ------
    UserError
        If espeak-ng is not installed, does not work, or does not know the
        voice.
    """

    def __init__(self, speaker: Speaker) -> None:
        library, data = espeak_files()
        self.espeak = ctypes.CDLL(library)
        rate = self.espeak.espeak_Initialize(
            AUDIO_OUTPUT_SYNCHRONOUS, 0, os.fsencode(data), INITIALIZE_DONT_EXIT
        )
        if rate != SYNTHESIS_RATE:
            raise UserError(
                f"espeak-ng does not start with its voices in {data}: "
                f"expected {SYNTHESIS_RATE} Hz, got {rate}"
            )
        # Breath is noise; by default, the time is the seed.
        self.espeak.espeak_ng_SetRandSeed(ctypes.c_long(SEED))
        self.tract = speaker.tract
        self.chunks: list[np.ndarray] = []
        self.callback = CALLBACK(self._receive)  # kept alive as long as we are
        self.espeak.espeak_SetSynthCallback(self.callback)
        voice = f"{speaker.accent}+{speaker.variant}"
        # espeak-ng itself does not mind if there is no such variant.
        variant = Path(data, "voices", "!v", speaker.variant)
        if (
            self.espeak.espeak_SetVoiceByName(voice.encode())
            or not variant.is_file()
        ):
            raise UserError(
                f"espeak-ng in {data} does not know the voice {voice}"
            )
        values = {
            # Playing faster by `tract` would speed the speech up, too.
            "rate": round(speaker.rate / speaker.tract),
            "volume": VOLUME,
            "pitch": speaker.pitch_parameter,
            "range": speaker.pitch_range,
        }
        for name, value in values.items():
            self.espeak.espeak_SetParameter(PARAMETERS[name], value, 0)

    def _receive(self, samples: Any, count: int, events: Any) -> int:
        """Takes what espeak-ng has synthesised; 0 means go on."""
        if samples and count > 0:
            self.chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def say(self, text: str) -> np.ndarray:
        """Synthesises a text.

        Arguments
        ---------
        text : str
            One sentence.

        Returns
        -------
        numpy.ndarray
            Its samples at 8 kHz without silence around them, shape [time].

        Raises
        ------
        UserError
            If espeak-ng says nothing.
        """
        self.chunks.clear()
        data = text.encode() + b"\0"
        size = ctypes.c_size_t(len(data))
        self.espeak.espeak_Synth(
            data, size, 0, POS_CHARACTER, 0, CHARS_UTF8, None, None
        )
        if not any(chunk.any() for chunk in self.chunks):
            raise UserError(f"espeak-ng says nothing for {text!r}")
        signal = resample_poly(
            np.concatenate(self.chunks).astype(np.float64),
            UPSAMPLING,
            round(DOWNSAMPLING * self.tract),
        )
        return trim(signal)


def trim(signal: np.ndarray) -> np.ndarray:
    """Cuts the silence at both ends off, up to one frame (10 ms) of it.

    Arguments
    ---------
    signal : numpy.ndarray
        The samples, shape [time], at least a frame and not all zero.

    Returns
    -------
    numpy.ndarray
        The part between the first and the last frame that is not silent.
    """
    frames = signal[: len(signal) // FRAME * FRAME].reshape(-1, FRAME)
    power = (frames**2).mean(axis=1)
    active = np.flatnonzero(power > power.max() * 10 ** (SILENCE_DB / 10))
    first, last = max(active[0] - 1, 0), active[-1] + 2
    return signal[first * FRAME : last * FRAME]


def record_speaker(speaker: Speaker, texts: Mapping[Path, str]) -> None:
    """Synthesises and saves all the recordings of a talker.

    To be called in a process of its own, see `Synthesiser`.

    Arguments
    ---------
    speaker : Speaker
        The talker.
    texts : dict
        What to say, by the path of the WAV file.
    """
    synthesiser = Synthesiser(speaker)
    for path, text in texts.items():
        signal = synthesiser.say(text)
        signal *= min(
            RMS / np.sqrt((signal**2).mean()), MAX_PEAK / abs(signal).max()
        )
        with write_whole(path) as unfinished:
            soundfile.write(
                unfinished, signal, SAMPLE_RATE, "PCM_16", format="WAV"
            )


def record_speakers(
    corpus: Path,
    readings: Readings,
    workers: int | None = None,
    progress: bool = True,
) -> None:
    """Records the talkers that are not complete yet.

    Arguments
    ---------
    corpus : pathlib.Path
        The folder of the corpus.
    readings : dict
        By Speaker, a dict of what is said by the path of the recording.
    workers : int, optional
        Number of processes at a time. By default, the number of CPUs.
    progress : bool
        Whether to show a progress bar.

    Raises
    ------
    UserError
        If espeak-ng does not work or crashes.
    """
    tasks = []
    for speaker, spoken in readings.items():
        texts = {corpus / path: text for path, text in spoken.items()}
        if not all(path.exists() for path in texts):
            tasks.append((speaker, texts))
    title = "Synthesising speakers"
    parallel(_record_apart, tasks, title, workers, progress, threads=True)


def _record_apart(task: tuple[Speaker, dict[Path, str]]) -> None:
    """Calls `record_speaker` in a process that is new and ends with it."""
    speaker, texts = task
    preload = "scipy.signal", "soundfile"
    try:
        in_new_process(record_speaker, speaker, texts, preload=preload)
    except BrokenExecutor as error:
        raise UserError(
            f"espeak-ng crashed at speaker {speaker.name} "
            f"({speaker.accent}+{speaker.variant})"
        ) from error
