"""Recordings of any length: each talker on one track, from beginning to end.

A recording is separated in windows that overlap. Then all windows together say
who is who (see :mod:`.tracks`), and the talkers of the windows are faded into
each other on their tracks. What was separated lies on the disk between: the
memory that is needed does not grow with the length.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import torch
from tqdm import tqdm

from speechbrain_kmdanet.dataio.recording import (
    Recording,
    read_blocks,
    warn_if_clipped,
)
from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.inference.batch import AUTO, check_rate, is_auto
from speechbrain_kmdanet.inference.separation import (
    AttractorSeparation,
    explain,
)
from speechbrain_kmdanet.inference.tracks import WindowTalkers, assign_tracks
from speechbrain_kmdanet.inference.turns import (
    FRAME,
    Turn,
    dominates,
    find_turns,
    frame_energies,
)
from speechbrain_kmdanet.inference.windows import (
    WindowStore,
    at_rate,
    correlations,
    cut,
    window_edges,
)
from speechbrain_kmdanet.lobes.models.masker import check_num_spks
from speechbrain_kmdanet.processing.bands import resample, restore_sources
from speechbrain_kmdanet.utils.jobs import write_whole

BATCH = 4  # windows at a time
PART = 10  # seconds that are written at a time
MARGIN = 1  # seconds around what is written, for filters
MOST = 4  # tracks, where talkers are counted
FAINT = 1e-4  # of the loudest talker's energy: nobody
LEAST_VOICE = 0.4  # seconds that a voice is known by
LARGE = 4e9  # bytes, from which on a WAV file has another header
# Suffix: format of libsndfile and kind of samples.
FORMATS = {
    "wav": ("WAV", None),
    "flac": ("FLAC", "PCM_16"),
    "opus": ("OGG", "OPUS"),
}
NARROW = ("PCM_16", "PCM_U8", "PCM_S8", "ULAW", "ALAW", "VORBIS", "OPUS")
OPUS_RATES = (8000, 12000, 16000, 24000, 48000)


@dataclass(frozen=True)
class SeparatedRecording:
    """A separated recording.

    Arguments
    ---------
    tracks : list of pathlib.Path
        One file a talker.
    background : pathlib.Path
        File of what is no talker's; None if it was not asked for.
    turns : list of Turn
        Who speaks when, in the order of the beginnings.
    seconds : float
        Length of the recording.
    """

    tracks: list[Path]
    background: Path | None
    turns: list[Turn]
    seconds: float


class _Options(NamedTuple):
    """How a recording is read and written."""

    path: str | bytes | Path
    channel: int | None
    num_spks: int | str
    sample_rate: int | None
    file_format: str


def separate_recording(
    separator: AttractorSeparation,
    path: str | bytes | Path,
    output_folder: str | Path,
    num_spks: int | str = AUTO,
    sample_rate: int | None = None,
    channel: int | None = None,
    file_format: str = "wav",
    background: bool = False,
    name: str | None = None,
    progress: bool = True,
) -> SeparatedRecording:
    """Separates a recording of any length into one file a talker.

    The tracks have the level, the rate and the length of the recording. They
    and the background, what is no talker's, sum to it. All files are written
    at the end, whole, or none.

    Arguments
    ---------
    separator : AttractorSeparation
        The separator.
    path : str, bytes or pathlib.Path
        Local file of any rate, length and number of channels.
    output_folder : str or pathlib.Path
        Where to write NAME_1.wav, NAME_2.wav and so on.
    num_spks : int or str
        Number of talkers in all, or "auto".
    sample_rate : int
        Rate of the tracks in Hz: that of the recording by default.
    channel : int
        Channel to separate, from 1 on; the mean of all by default.
    file_format : str
        "wav", "flac" or "opus". WAV files have 16 bits where the recording has
        no more, and 32-bit numbers otherwise.
    background : bool
        Whether to write the background, too: NAME_background.wav.
    name : str
        NAME; that of the recording without its suffix by default.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    SeparatedRecording
        The files, and who speaks when.

    Raises
    ------
    UserError
        If the recording cannot be used, or an argument does not fit; it names
        the recording.
    OSError
        If a file cannot be written.
    """
    options = _Options(path, channel, num_spks, sample_rate, file_format)
    name = name or Path(os.fsdecode(path)).stem
    bar = tqdm(desc=name, unit="s", disable=not progress, dynamic_ncols=True)
    try:
        with tempfile.TemporaryFile() as file, bar:
            store, talkers = _separate_windows(separator, options, file, bar)
            known = None if is_auto(num_spks) else int(num_spks)
            track_of = assign_tracks(talkers, known, MOST)
            count = 1 + max(max(tracks) for tracks in track_of)
            names = [str(1 + track) for track in range(count)]
            files = [
                Path(output_folder, f"{name}_{each}.{file_format}")
                for each in names + ["background"] * background
            ]
            with read_blocks(path, channel) as recording:
                seconds = recording.num_samples / recording.sample_rate
                turns = _write_tracks(
                    recording,
                    store,
                    separator.hparams.sample_rate,
                    track_of,
                    files,
                    options,
                    bar,
                )
    except UserError as error:
        raise explain(error, path) from error
    made = files[-1] if background else None
    return SeparatedRecording(files[:count], made, turns, seconds)


def _check(options: _Options, rate: int) -> int:
    """The rate of the tracks, if everything can be done as it is asked for."""
    if options.file_format not in FORMATS:
        raise UserError(
            f"file_format must be one of {', '.join(FORMATS)}, got "
            f"{options.file_format!r}"
        )
    if not is_auto(options.num_spks):
        check_num_spks(options.num_spks)
    wanted = options.sample_rate
    wanted = rate if wanted is None else check_rate(wanted)
    if options.file_format == "opus" and wanted not in OPUS_RATES:
        raise UserError(
            f"Opus has no {wanted} Hz: give a sample_rate of "
            f"{', '.join(map(str, OPUS_RATES))}, or another file_format"
        )
    return wanted


def _separate_windows(
    separator: AttractorSeparation, options: _Options, file: Any, bar: tqdm
) -> tuple[WindowStore, list[WindowTalkers]]:
    """The talkers of every window."""
    own_rate = separator.hparams.sample_rate
    with read_blocks(options.path, options.channel) as recording:
        rate = recording.sample_rate
        _check(options, rate)
        edges = window_edges(recording.num_samples, rate)
        bar.reset(total=round(2 * recording.num_samples / rate))
        store = WindowStore(file, [at_rate(x, rate, own_rate) for x in edges])
        talkers: list[WindowTalkers] = []
        waiting: list[np.ndarray] = []
        for index, window in enumerate(cut(recording.blocks(rate), edges)):
            waiting.append(resample(window, rate, own_rate))
            if len(waiting) == BATCH or index + 1 == len(edges):
                for sources in _separate(separator, waiting, options.num_spks):
                    talkers.append(_describe(separator, store, sources))
                    store.add(sources)
                bar.update(edges[index][1] // rate - bar.n)
                waiting = []
        warn_if_clipped(recording)
    loudest = max(window.peaks.max() for window in talkers)
    return store, [window.without(FAINT * loudest) for window in talkers]


def _separate(
    separator: AttractorSeparation,
    windows: Sequence[np.ndarray],
    num_spks: int | str,
) -> list[np.ndarray]:
    """The talkers [time, K] of windows, each with a number of its own."""
    lengths = [len(window) for window in windows]
    mix = np.zeros((len(windows), max(lengths)), np.float32)
    for row, window in zip(mix, windows):
        row[: len(window)] = window
    most = None if is_auto(num_spks) else int(num_spks)
    batch = torch.from_numpy(mix), torch.tensor(lengths) / max(lengths)
    if separator.can_count or most is None:
        sources, found = separator.separate_counted(*batch, most)
        counts = found.num_spks.tolist()
    else:
        sources = separator.separate_batch(batch[0], most, batch[1])
        counts = [sources.shape[2]] * len(windows)
    made = sources.double().cpu().numpy()
    return [
        each[:length, :count]
        for each, length, count in zip(made, lengths, counts)
    ]


def _describe(
    separator: AttractorSeparation, store: WindowStore, sources: np.ndarray
) -> WindowTalkers:
    """What is known of the talkers [time, K] of the next window."""
    rate = separator.hparams.sample_rate
    index = len(store.counts)
    agreement = np.zeros((0, sources.shape[1]))
    if index:
        shared = store.edges[index - 1][1] - store.edges[index][0]
        before = store.sources(index - 1)[-shared:]
        agreement = correlations(before, sources[:shared])
    energies = frame_energies(sources, rate)  # [frames, K]
    speaks = dominates(energies)
    voices = []
    for talker, frames in enumerate(speaks.T):
        heard = np.repeat(frames, round(FRAME * rate))[: len(sources)]
        spoken = sources[: len(heard), talker][heard]
        voices.append(
            separator.voice(torch.from_numpy(spoken).float())
            if frames.sum() * FRAME >= LEAST_VOICE
            else np.zeros(1)
        )
    return WindowTalkers(
        np.stack(np.broadcast_arrays(*voices)),
        speaks.sum(0) * FRAME,
        agreement,
        energies.max(0),
    )


def _write_tracks(
    recording: Recording,
    store: WindowStore,
    own_rate: int,
    track_of: list[list[int]],
    files: list[Path],
    options: _Options,
    bar: tqdm,
) -> list[Turn]:
    """Writes tracks, and the background if there is a file more than tracks."""
    rate = recording.sample_rate
    wanted = _check(options, rate)
    count = 1 + max(max(tracks) for tracks in track_of)
    total = recording.num_samples
    parts = [
        (begin, min(begin + PART * rate, total))
        for begin in range(0, total, PART * rate)
    ]
    wide = [
        (max(0, begin - MARGIN * rate), min(end + MARGIN * rate, total))
        for begin, end in parts
    ]
    energies = []
    with ExitStack() as stack:
        outputs = [
            stack.enter_context(_output(file, wanted, recording, options))
            for file in files
        ]
        for part, span, heard in zip(
            parts, wide, cut(recording.blocks(rate), wide)
        ):
            tracks = store.tracks(
                *at_rate(span, rate, own_rate), track_of, count
            )
            target = resample(heard, rate, wanted)
            if wanted != own_rate:
                mixture = resample(heard, rate, own_rate)
                tracks = restore_sources(
                    tracks, mixture, own_rate, target, wanted
                )
            first, last = at_rate(part, rate, wanted)
            start = at_rate(span, rate, wanted)[0]
            inner = slice(first - start, last - start)
            tracks, target = tracks[inner], target[inner]
            energies.append(frame_energies(tracks, wanted))
            left = target - sum(tracks.T)
            for output, track in zip(outputs, [*tracks.T, left]):
                output.write(track)
            bar.update((part[1] - part[0]) // rate)
    return find_turns(np.concatenate(energies))


@contextmanager
def _output(
    file: Path, sample_rate: int, recording: Recording, options: _Options
) -> Iterator[soundfile.SoundFile]:
    """A file of one track, whole or not there."""
    container, subtype = FORMATS[options.file_format]
    if subtype is None:
        narrow = recording.sound.subtype in NARROW
        subtype = "PCM_16" if narrow else "FLOAT"
        seconds = recording.num_samples / recording.sample_rate
        if seconds * sample_rate * (2 if narrow else 4) > LARGE:
            container = "RF64"
    with write_whole(file) as unfinished:
        with soundfile.SoundFile(
            unfinished, "w", sample_rate, 1, subtype, format=container
        ) as output:
            yield output
