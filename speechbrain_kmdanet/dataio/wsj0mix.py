"""WSJ0-mix: its lists, the layout of its folders, and building it.

A list holds one mixture a line,

    path1 snr1 path2 snr2 [path3 snr3 ...]

with paths relative to the folder of the corpus and SNRs in dB. The mixtures
are built without MATLAB, as create_wav_2speakers.m and create_wav_3speakers.m
of MERL's create-speaker-mixtures do (Hershey et al., "Deep clustering:
discriminative embeddings for segmentation and separation", ICASSP 2016): the
active level (ITU-T P.56) of each source is normalised at 8 kHz, the SNRs are
applied, the sources are cut or padded to one length and added, and a common
gain takes the largest amplitude to 0.9. The result is

    {2,3}speakers/wav{8,16}k/{min,max}/{tr,cv,tt}/{mix,s1,s2,s3}/NAME.wav

Resampling uses another implementation of the same filter as MATLAB's, see
`resample`; files may differ in the last bit.
"""

import hashlib
import json
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import soundfile
from speechbrain.utils.logger import get_logger

from speechbrain_kmdanet.dataio.audio import (
    LEVEL_RATE,
    audio_suffixes,
    measure_sources,
    read_source,
)
from speechbrain_kmdanet.dataio.mixing import (
    MODES,
    PEAK,
    add_noise,
    mix_sources,
)
from speechbrain_kmdanet.dataio.mixture_files import (
    Survey,
    survey_mixtures,
    write_mixture,
)
from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.processing.bands import resample
from speechbrain_kmdanet.utils.jobs import digest, only_process, parallel

logger = get_logger(__name__)

SPLITS = ("tr", "cv", "tt")
SAMPLE_RATES = (8000, 16000)


def mixture_folder(
    data_folder: str | Path, sample_rate: int, mode: str, split: str
) -> Path:
    """Folder of the mixtures of a split: it holds mix, s1, s2 and so on.

    Arguments
    ---------
    data_folder : str or pathlib.Path
        Folder of the mixtures of one number of talkers, ".../2speakers".
    sample_rate : int
        Sample rate in Hz.
    mode : str
        "min" or "max".
    split : str
        "tr", "cv" or "tt".

    Returns
    -------
    pathlib.Path
        The folder.

    Example
    -------
    >>> mixture_folder("2speakers", 8000, "min", "tr").as_posix()
    '2speakers/wav8k/min/tr'
    """
    return Path(data_folder, f"wav{sample_rate // 1000}k", mode, split)


@dataclass(frozen=True)
class MixtureEntry:
    """One line of a mixture list.

    Arguments
    ---------
    paths : tuple of str
        The recordings, relative to the folder of the corpus.
    snrs : tuple of float
        The gain of each recording in dB, after its active level has been
        normalised.
    line : int
        Number of the line in its list, from 1; 0 if it comes from no list.

    Example
    -------
    >>> entry = MixtureEntry(("a/01to030v.wav", "b/029o.wav"), (1.2, -1.2))
    >>> entry.name
    '01to030v_1.2_029o_-1.2'
    """

    paths: tuple[str, ...]
    snrs: tuple[float, ...]
    line: int = field(default=0, compare=False)

    @property
    def name(self) -> str:
        """Name of the mixture's files without ".wav": stem1_snr1_stem2_..."""
        return "_".join(
            f"{PurePosixPath(path).stem}_{_format_snr(snr)}"
            for path, snr in zip(self.paths, self.snrs)
        )


def read_mixture_list(
    path: str | Path, num_spks: int | None = None
) -> list[MixtureEntry]:
    """Reads a mixture list. Blank lines are skipped.

    Arguments
    ---------
    path : str or pathlib.Path
        The list.
    num_spks : int, optional
        The number of recordings that every line must have. By default, that
        of the first line.

    Returns
    -------
    list of MixtureEntry
        The mixtures in the order of the list.

    Raises
    ------
    UserError
        If there is no such list, it is empty, a line is malformed, or two
        lines lead to the same file name.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"mixture list {path} does not exist: give the folder that holds "
            "the lists (mix_2_spk_tr.txt and so on), or fewer splits"
        )
    entries: dict[str, MixtureEntry] = {}
    # utf-8-sig: editors on Windows may put a byte order mark in front
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        where = f"mixture list {path}, line {number}"
        entry = _parse_line(line, number, where)
        num_spks = num_spks or len(entry.paths)
        if len(entry.paths) != num_spks:
            raise UserError(
                f"{where}: expected {num_spks} recordings as in the rest of "
                f"the list, got {len(entry.paths)}"
            )
        earlier = entries.setdefault(entry.name, entry)
        if earlier is not entry:
            raise UserError(
                f"{where}: would make the file {entry.name}.wav a second "
                f"time, after line {earlier.line}: change or remove one of "
                "them"
            )
    if not entries:
        raise UserError(f"mixture list {path} is empty")
    return list(entries.values())


def _parse_line(line: str, number: int, where: str) -> MixtureEntry:
    """Reads one line; `where` begins the errors."""
    fields = line.split()
    if len(fields) % 2:
        shown = line.strip()
        shown = shown if len(shown) <= 60 else shown[:60] + "..."
        raise UserError(
            f"{where}: expected pairs of a path and an SNR in dB (path1 snr1 "
            f"path2 snr2), got {len(fields)} fields: {shown!r}"
        )
    snrs = []
    for text in fields[1::2]:
        try:
            snrs.append(float(text))
        except ValueError:
            snrs.append(math.nan)
        if not math.isfinite(snrs[-1]):
            raise UserError(
                f"{where}: expected a finite number as SNR in dB, got {text!r}"
            )
    return MixtureEntry(tuple(fields[0::2]), tuple(snrs), number)


def _format_snr(snr: float) -> str:
    """Formats an SNR in dB as MATLAB's num2str does."""
    if snr == 0:
        return "0"  # also for -0.0
    # 4 significant digits more than the integer part's exponent, but at least
    # 5 and at most 16, without trailing zeros
    digits = math.floor(math.log10(abs(snr))) + 5
    return f"{snr:.{min(max(digits, 5), 16)}g}"


class BuildSummary(NamedTuple):
    """What `build_mixtures` did.

    Arguments
    ---------
    written : int
        Mixtures written; each rate and mode counts.
    skipped : int
        Mixtures that were there already.
    """

    written: int
    skipped: int


class _Job(NamedTuple):
    """One line of a list and what remains to be written for it."""

    entry: MixtureEntry
    listed: str  # where: "mix_2_spk_tr.txt line 3"
    targets: list[tuple[int, str, Path]]  # sample rate, mode, folder


def build_mixtures(
    corpus_folder: str | Path,
    lists_folder: str | Path,
    output_folder: str | Path,
    num_spks: int | Sequence[int],
    splits: str | Sequence[str] = SPLITS,
    sample_rates: int | Sequence[int] = (8000,),
    modes: str | Sequence[str] = ("min",),
    workers: int | None = None,
    progress: bool = True,
    noise_folder: str | Path | None = None,
    noise_snr: float = 15.0,
    level_padding: float = 0.0,
) -> BuildSummary:
    """Builds the mixtures of `lists_folder/mix_{num_spks}_spk_{split}.txt`.

    All lists and all recordings are checked first; unless every one is good,
    nothing is written. Mixtures that are already there, whole and built from
    what they would be built from now, are skipped, so that an interrupted run
    goes on where it stopped. Those of an earlier list are removed.

    Arguments
    ---------
    corpus_folder : str or pathlib.Path
        The folder that the lists' paths are relative to. WAV or FLAC files of
        one channel at any sample rate that is not below the output's.
    lists_folder : str or pathlib.Path
        The folder of the lists.
    output_folder : str or pathlib.Path
        The folder that "2speakers" or "3speakers" is made in.
    num_spks : int or sequence of int
        The numbers of talkers whose lists are built.
    splits : sequence of str
        The splits whose lists are built.
    sample_rates : sequence of int
        Rates to write, 8000 and 16000 Hz.
    modes : sequence of str
        "min" cuts to the shortest source, "max" pads to the longest.
    workers : int, optional
        Number of processes. By default, the number of CPUs.
    progress : bool
        Whether to show progress bars.
    noise_folder : str or pathlib.Path, optional
        Folder of sounds, at any depth, one of which is added to each mixture,
        again and again where it is too short; the name of the mixture says
        which.
    noise_snr : float
        Level in dB of all talkers relative to the noise.
    level_padding : float
        Seconds of silence that follow a recording whose level is measured: none
        in VOICEBOX of 2012, 0.35 s in later versions.

    Returns
    -------
    BuildSummary
        The numbers of mixtures written and skipped.

    Raises
    ------
    UserError
        If an argument, a folder, a list or a recording is unusable, a folder
        has other mixtures, or a mixture cannot be written.
    """
    corpus_folder = Path(corpus_folder)
    sample_rates, modes = _as_tuple(sample_rates), _as_tuple(modes)
    _check_choices("sample_rates", sample_rates, SAMPLE_RATES)
    _check_choices("modes", modes, MODES)
    if workers is not None and workers < 1:
        raise UserError(f"workers: expected 1 or more, got {workers}")
    if not 0 <= level_padding < math.inf:
        raise UserError(
            f"level_padding: expected 0 s or more, got {level_padding!r}"
        )
    if not corpus_folder.is_dir():
        raise UserError(
            "corpus_folder: expected the folder of the recordings, but "
            f"{corpus_folder} is no folder"
        )
    sounds = _list_sounds(noise_folder) if noise_folder else []
    recordings: dict[str, Any] = dict(
        corpus_folder=corpus_folder, sounds=sounds, noise_snr=noise_snr
    )
    read = cache(digest)
    jobs, skipped = [], 0
    surveys: dict[Path, Survey] = {}
    with only_process(output_folder, "give another output_folder"):
        for count in _as_tuple(num_spks):
            data_folder = Path(output_folder, f"{count}speakers")
            for split in _as_tuple(splits):
                list_path = Path(lists_folder, f"mix_{count}_spk_{split}.txt")
                targets = [
                    (rate, mode, mixture_folder(data_folder, rate, mode, split))
                    for rate in sample_rates
                    for mode in modes
                ]
                entries = read_mixture_list(list_path, count)
                made_of = [
                    _identify(x, read, level_padding, **recordings)
                    for x in entries
                ]
                wanted = dict(zip([x.name for x in entries], made_of))
                for *_, folder in targets:
                    surveys[folder] = survey_mixtures(folder, count, wanted)
                for entry in entries:
                    missing = [
                        target
                        for target in targets
                        if entry.name not in surveys[target[2]].whole
                    ]
                    skipped += len(targets) - len(missing)
                    if missing:
                        listed = f"{list_path.name} line {entry.line}"
                        jobs.append(_Job(entry, listed, missing))

        mentions: dict[str, str] = {}  # where each recording is listed first
        for job in jobs:
            for path in job.entry.paths:
                mentions.setdefault(path, job.listed)
        rate = max(LEVEL_RATE, *sample_rates)
        levels = measure_sources(
            corpus_folder, mentions, rate, workers, progress, level_padding
        )
        for folder, survey in surveys.items():
            survey.clear(folder)
        tasks = [(x, [levels[y] for y in x.entry.paths]) for x in jobs]
        write = partial(_write_mixture, **recordings)
        written = sum(
            parallel(write, tasks, "Writing mixtures", workers, progress)
        )
    logger.info(f"{output_folder}: {written} mixtures written, {skipped} kept")
    return BuildSummary(written, skipped)


def _identify(
    entry: MixtureEntry,
    read: Callable[[Path], str | None],
    level_padding: float,
    corpus_folder: Path,
    sounds: Sequence[Path],
    noise_snr: float,
) -> str:
    """What a mixture is built from, as a few digits; `read` is of a file."""
    files = [corpus_folder / path for path in entry.paths]
    noise: list[Any] = []
    if sounds:
        files.append(_choose_sound(entry, sounds))
        noise = [files[-1].name, noise_snr]
    made_of = [entry.paths, entry.snrs, [*map(read, files)], noise]
    text = json.dumps(made_of + [level_padding] * bool(level_padding))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _list_sounds(folder: str | Path) -> list[Path]:
    """The recordings in a folder."""
    suffixes = audio_suffixes()
    paths = sorted(Path(folder).rglob("*"))
    sounds = [path for path in paths if path.suffix.lower() in suffixes]
    if not sounds:
        raise UserError(f"noise_folder: there are no recordings in {folder}")
    return sounds


def _choose_sound(entry: MixtureEntry, sounds: Sequence[Path]) -> Path:
    """The noise of a mixture; its name says which."""
    return sounds[zlib.crc32(entry.name.encode()) % len(sounds)]


def _as_tuple(values: Any) -> tuple:
    """The distinct values of a sequence, or a single one."""
    if isinstance(values, (str, int)):
        return (values,)
    return tuple(dict.fromkeys(values))


def _check_choices(argument: str, values: tuple, allowed: tuple) -> None:
    """Raises a UserError unless there are values and all are allowed."""
    unknown = [value for value in values if value not in allowed]
    if unknown or not values:
        raise UserError(
            f"{argument}: expected some of {allowed}, got {unknown or values}"
        )


def _write_mixture(
    task: tuple[_Job, list[float]],
    corpus_folder: Path,
    sounds: Sequence[Path],
    noise_snr: float,
) -> int:
    """Writes a mixture at all rates and modes, given its sources' levels."""
    (entry, listed, targets), levels = task
    try:
        recordings = [read_source(corpus_folder / p) for p in entry.paths]
        for rate, mode, folder in targets:
            sources = [resample(*recording, rate) for recording in recordings]
            mixture, scaled = mix_sources(sources, entry.snrs, levels, mode)
            if sounds:
                sound = _choose_sound(entry, sounds)
                noise = resample(*read_source(sound), rate)
                noise = np.resize(noise, mixture.shape)
                mixture = add_noise(mixture, noise, noise_snr)
                # Noise may take the peak beyond full scale.
                gain = min(1.0, PEAK / np.abs(mixture).max())
                mixture, scaled = gain * mixture, gain * scaled
            write_mixture(folder, entry.name, mixture, scaled, rate)
    except (UserError, OSError, soundfile.SoundFileError) as error:
        raise UserError(
            f"mixture {entry.name} ({listed}) failed: {error}"
        ) from error
    return len(targets)
