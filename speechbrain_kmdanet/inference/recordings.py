"""Recordings of any length: each talker on one track, from beginning to end.

A recording is separated in windows that overlap. Then all windows together say
who is who (see :mod:`.tracks`), and the talkers of the windows are faded into
each other on their tracks. What was separated lies on the disk between: the
memory that is needed does not grow with the length.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import torch
from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from speechbrain_kmdanet.dataio.audio import as_path
from speechbrain_kmdanet.dataio.containers import sound_path
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
from speechbrain_kmdanet.inference.tracks import Stretch, assign_tracks
from speechbrain_kmdanet.inference.turns import (
    FRAME,
    LOUD,
    Turn,
    find_runs,
    find_turns,
    frame_energies,
    who_speaks,
)
from speechbrain_kmdanet.inference.windows import (
    Lane,
    WindowStore,
    at_rate,
    correlations,
    cut,
    window_edges,
)
from speechbrain_kmdanet.lobes.models.masker import check_num_spks
from speechbrain_kmdanet.processing.bands import resample, restore_sources
from speechbrain_kmdanet.utils.jobs import write_whole

logger = get_logger(__name__)

BATCH = 4  # windows at a time
PART = 10  # seconds that are written at a time
MARGIN = 1  # seconds around what is written, for filters
MOST = 4  # tracks, where talkers are counted
FAINT = 1e-4  # of the loudest talker's energy: nobody
LEAST_VOICE = 0.5  # seconds that a voice is known by
BREATH = 0.2  # seconds of silence within a stretch of speech, at most
LONGEST = 3.0  # seconds of a stretch
AGREEMENT = 0.7  # correlation of one talker in two windows, at least
LEAST_SHARED = 0.3  # seconds of speech in both
FADE = 0.01  # seconds, where a talker changes the track
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
    confidence : float
        How sure the numbers of talkers of its windows are, from 0 to 1, in
        the mean; None if the number was given.
    """

    tracks: list[Path]
    background: Path | None
    turns: list[Turn]
    seconds: float
    confidence: float | None


class _Options(NamedTuple):
    """How a recording is read and written."""

    path: str | bytes | Path
    channel: int | None
    num_spks: int | str
    sample_rate: int | None
    file_format: str
    exactly: bool = False  # in 32 bits, where tracks are beyond full scale


class _TooLoud(Exception):
    """Samples that the file would cut off."""


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
        no more and all tracks are below full scale, and 32-bit numbers
        otherwise. What of a track is beyond it, others cut off, with a warning.
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
    folder = Path(os.fsdecode(output_folder))
    name = name or as_path(path).stem
    if Path(name).name != name:
        raise UserError(
            f"name must be that of a file, not a path, got {name!r}"
        )
    bar = tqdm(desc=name, unit="s", disable=not progress, dynamic_ncols=True)
    try:
        with tempfile.TemporaryFile() as file, bar:
            store, said, sure = _separate_windows(separator, options, file, bar)
            rate = separator.hparams.sample_rate
            known = None if is_auto(num_spks) else int(num_spks)
            if len(store.counts) == 1:
                count = store.counts[0]
                lanes = [[Lane([], [talker]) for talker in range(count)]]
            else:
                track_of = assign_tracks(said, known, MOST)
                count = known or 1 + max(track_of, default=0)
                lanes = _make_lanes(store.counts, said, track_of, rate)
            names = [str(1 + track) for track in range(count)]
            files = [
                folder / f"{name}_{each}.{file_format}"
                for each in names + ["background"] * background
            ]
            make_tracks = partial(
                store.tracks, lanes=lanes, count=count, fade=FADE * rate
            )
            for each in (options, options._replace(exactly=True)):
                with (
                    suppress(_TooLoud),
                    read_blocks(path, channel) as recording,
                ):
                    turns = _write_tracks(
                        recording, make_tracks, rate, files, each, bar
                    )
                    break
            seconds = recording.num_samples / recording.sample_rate
    except UserError as error:
        raise explain(error, path) from error
    made = files[-1] if background else None
    confidence = round(float(np.mean(sure)), 3) if known is None else None
    return SeparatedRecording(files[:count], made, turns, seconds, confidence)


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
            f"Opus has no {wanted} Hz: give a rate of "
            f"{', '.join(map(str, OPUS_RATES))} Hz, or another format"
        )
    return wanted


def _separate_windows(
    separator: AttractorSeparation, options: _Options, file: Any, bar: tqdm
) -> tuple[WindowStore, list[Stretch], list[float]]:
    """The talkers of every window, what they say, how sure their number is."""
    own_rate = separator.hparams.sample_rate
    with read_blocks(options.path, options.channel) as recording:
        rate = recording.sample_rate
        _check(options, rate)
        edges = window_edges(recording.num_samples, rate)
        bar.reset(total=round(2 * recording.num_samples / rate))
        store = WindowStore(file, [at_rate(x, rate, own_rate) for x in edges])
        said: list[Stretch] = []
        waiting: list[np.ndarray] = []
        sure: list[float] = []
        for index, window in enumerate(cut(recording.blocks(rate), edges)):
            waiting.append(resample(window, rate, own_rate))
            if len(waiting) == BATCH or index + 1 == len(edges):
                exactly = len(edges) == 1 and not is_auto(options.num_spks)
                for sources, confidence in _separate(
                    separator, waiting, options.num_spks, exactly
                ):
                    sure.append(confidence)
                    said += _listen(separator, store, sources, said)
                    store.add(sources)
                bar.update(edges[index][1] // rate - bar.n)
                waiting = []
        warn_if_clipped(recording)
    loudest = max((stretch.peak for stretch in said), default=0.0)
    silence = np.zeros(1)
    said = [
        x if x.peak > FAINT * loudest else replace(x, voice=silence * x.voice)
        for x in said
    ]
    return store, said, sure


def _separate(
    separator: AttractorSeparation,
    windows: Sequence[np.ndarray],
    num_spks: int | str,
    exactly: bool,
) -> list[tuple[np.ndarray, float]]:
    """The talkers [time, K] of windows, and how sure their number is.

    Where a number is given, there are exactly, or at most, so many in each.
    """
    lengths = [len(window) for window in windows]
    mix = np.zeros((len(windows), max(lengths)), np.float32)
    for row, window in zip(mix, windows):
        row[: len(window)] = window
    most = None if is_auto(num_spks) else int(num_spks)
    batch = torch.from_numpy(mix), torch.tensor(lengths) / max(lengths)
    if most is None or separator.can_count and not exactly:
        sources, found = separator.separate_counted(*batch, most)
        counts, sure = found.num_spks.tolist(), found.confidence.tolist()
    else:
        sources = separator.separate_batch(batch[0], most, batch[1])
        counts, sure = [sources.shape[2]] * len(windows), [1.0] * len(windows)
    made = sources.double().cpu().numpy()
    return [
        (each[:length, :count], confidence)
        for each, length, count, confidence in zip(made, lengths, counts, sure)
    ]


def _listen(
    separator: AttractorSeparation,
    store: WindowStore,
    sources: np.ndarray,
    said: Sequence[Stretch],
) -> list[Stretch]:
    """What the talkers [time, K] of the next window say, between pauses."""
    rate = separator.hparams.sample_rate
    index = len(store.counts)
    first = store.edges[index][0] / rate
    # What is known of the time that the window before shares with this one.
    before: list[tuple[int, Stretch]] = []
    for number in range(len(said) - 1, -1, -1):
        if said[number].window < index - 1:
            break
        before.append((number, said[number]))
    agreement, shared = np.zeros((0, 0)), first
    if index:
        samples = store.edges[index - 1][1] - store.edges[index][0]
        last = store.sources(index - 1)[-samples:]
        agreement = correlations(last, sources[:samples])
        shared = first + samples / rate
    energies = frame_energies(sources, rate)  # [frames, K]
    loud = np.quantile(energies.max(1), LOUD)
    found = []
    for talker, active in enumerate(who_speaks(energies, loud).T):
        for begin, end in find_runs(active, BREATH, LONGEST):
            part = slice(round(begin * FRAME * rate), round(end * FRAME * rate))
            known = (end - begin) * FRAME >= LEAST_VOICE
            start, stop = first + begin * FRAME, first + end * FRAME
            same = [
                number
                for number, x in before
                if min(x.end, stop, shared) - max(x.start, start) > LEAST_SHARED
                and agreement[x.talker, talker] > AGREEMENT
            ]
            found.append(
                Stretch(
                    index,
                    talker,
                    start,
                    stop,
                    separator.voice(
                        torch.from_numpy(sources[part, talker]).float()
                    )
                    if known
                    else np.zeros(separator.voice_size),
                    float(energies[begin:end, talker].max()),
                    max(same, default=-1),
                )
            )
    return found


def _make_lanes(
    counts: Sequence[int],
    said: Sequence[Stretch],
    track_of: Sequence[int],
    rate: int,
) -> list[list[Lane]]:
    """On which tracks the talkers of all windows are; changes in pauses."""
    lanes = [[Lane([], []) for _ in range(count)] for count in counts]
    before: dict[tuple[int, int], Stretch] = {}
    for stretch, track in zip(said, track_of):
        key = stretch.window, stretch.talker
        lane = lanes[stretch.window][stretch.talker]
        if key in before:
            middle = (before[key].end + stretch.start) / 2
            lane.changes.append(middle * rate)
        lane.tracks.append(track)
        before[key] = stretch
    for row in lanes:
        for lane in row:
            if not lane.tracks:  # silence
                lane.tracks.append(0)
    return lanes


def _write_tracks(
    recording: Recording,
    make_tracks: Callable[[int, int], np.ndarray],
    own_rate: int,
    files: list[Path],
    options: _Options,
    bar: tqdm,
) -> list[Turn]:
    """Writes tracks, and the background if there is a file more than tracks.

    Raises _TooLoud where WAV files need more than 16 bits.
    """
    rate = recording.sample_rate
    wanted = _check(options, rate)
    total = recording.num_samples
    parts = [
        (begin, min(begin + PART * rate, total))
        for begin in range(0, total, PART * rate)
    ]
    wide = [
        (max(0, begin - MARGIN * rate), min(end + MARGIN * rate, total))
        for begin, end in parts
    ]
    energies, cut_off = [], False
    with ExitStack() as stack:
        outputs = [
            stack.enter_context(_output(file, wanted, recording, options))
            for file in files
        ]
        for part, span, heard in zip(
            parts, wide, cut(recording.blocks(rate), wide)
        ):
            tracks = make_tracks(*at_rate(span, rate, own_rate))
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
                if output.subtype != "FLOAT" and np.abs(track).max() > 1.0:
                    if options.file_format == "wav":
                        raise _TooLoud
                    cut_off = True
                output.write(track)
            bar.update((total + part[1]) // rate - bar.n)
    if cut_off:
        logger.warning(
            f"{recording.name} is so loud that tracks go beyond full scale, "
            f"where {options.file_format} cuts them off: have WAV files "
            "written, or lower its level"
        )
    turns = find_turns(np.concatenate(energies))
    seconds = round(total / rate, 3)
    return [turn._replace(end=min(turn.end, seconds)) for turn in turns]


@contextmanager
def _output(
    file: Path, sample_rate: int, recording: Recording, options: _Options
) -> Iterator[soundfile.SoundFile]:
    """A file of one track, whole or not there."""
    container, subtype = FORMATS[options.file_format]
    if subtype is None:
        narrow = recording.sound.subtype in NARROW and not options.exactly
        subtype = "PCM_16" if narrow else "FLOAT"
        seconds = recording.num_samples / recording.sample_rate
        if seconds * sample_rate * (2 if narrow else 4) > LARGE:
            container = "RF64"
    with write_whole(file) as unfinished:
        with soundfile.SoundFile(
            sound_path(unfinished),
            "w",
            sample_rate,
            1,
            subtype,
            format=container,
        ) as output:
            yield output
