"""Builds the mixtures of WSJ0-mix style lists, without MATLAB.

Follows create_wav_2speakers.m and create_wav_3speakers.m of MERL's
create-speaker-mixtures (Hershey et al., "Deep clustering: discriminative
embeddings for segmentation and separation", ICASSP 2016): the active level
(ITU-T P.56) of each source is normalised at 8 kHz, the SNRs are applied, the
sources are cut or padded to one length and added, and a common gain takes the
largest amplitude to 0.9. The result is

    {2,3}speakers/wav{8,16}k/{min,max}/{tr,cv,tt}/{mix,s1,s2,s3}/NAME.wav

Resampling uses another implementation of the same filter as MATLAB's, see
`resample`; files may differ in the last bit.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from speechbrain_kmdanet.dataio.mixing import (
    LEVEL_RATE,
    MODES,
    mix_sources,
    resample,
)
from speechbrain_kmdanet.dataio.mixture_lists import (
    MixtureEntry,
    read_mixture_list,
)
from speechbrain_kmdanet.dataio.source_files import measure_sources, read_source

logger = get_logger(__name__)

SAMPLE_RATES = (8000, 16000)


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
    targets: tuple  # of (sample_rate, mode, folder)


def build_mixtures(
    corpus_folder,
    lists_folder,
    output_folder,
    num_spks,
    splits=("tr", "cv", "tt"),
    sample_rates=(8000,),
    modes=("min",),
    workers=None,
    progress=True,
):
    """Builds the mixtures of `lists_folder/mix_{num_spks}_spk_{split}.txt`.

    All lists and all recordings are checked first; unless every one is good,
    nothing is written. Mixtures that are already there are skipped, so that
    an interrupted run goes on where it stopped.

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
        The numbers of speakers whose lists are built.
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

    Returns
    -------
    summary : BuildSummary
        The numbers of mixtures written and skipped.

    Raises
    ------
    FileNotFoundError
        If the corpus folder or a list does not exist.
    ValueError
        If an argument, a list or a recording is unusable.
    RuntimeError
        If a mixture cannot be written; it names the mixture.
    """
    corpus_folder = Path(corpus_folder)
    num_spks = _as_tuple(num_spks)
    sample_rates, modes = _as_tuple(sample_rates), _as_tuple(modes)
    _check_choices("sample_rates", sample_rates, SAMPLE_RATES)
    _check_choices("modes", modes, MODES)
    if workers is not None and workers < 1:
        raise ValueError(f"workers: expected 1 or more, got {workers}")
    if not corpus_folder.is_dir():
        raise FileNotFoundError(
            f"corpus_folder: expected the folder of the recordings, but "
            f"{corpus_folder} is no folder"
        )

    jobs, skipped = [], 0
    for count in num_spks:
        speakers_folder = Path(output_folder) / f"{count}speakers"
        for split in _as_tuple(splits):
            list_path = Path(lists_folder) / f"mix_{count}_spk_{split}.txt"
            targets = [
                (rate, mode, speakers_folder / _subfolder(rate, mode, split))
                for rate in sample_rates
                for mode in modes
            ]
            for entry in read_mixture_list(list_path, count):
                missing = tuple(
                    target
                    for target in targets
                    if not all(p.exists() for p in _files(entry, target[2]))
                )
                skipped += len(targets) - len(missing)
                if missing:
                    listed = f"{list_path.name} line {entry.line}"
                    jobs.append(_Job(entry, listed, missing))

    run = partial(_parallel, workers=workers, progress=progress)
    min_rate = max(LEVEL_RATE, *sample_rates)
    mentions = {}  # where each recording is listed first
    for job in jobs:
        for path in job.entry.paths:
            mentions.setdefault(path, job.listed)
    check = partial(run, description="Checking recordings")
    levels = measure_sources(corpus_folder, mentions, min_rate, check)
    tasks = [(job, [levels[path] for path in job.entry.paths]) for job in jobs]
    write = partial(_write_mixture, corpus_folder=corpus_folder)
    written = sum(run(write, tasks, description="Writing mixtures"))
    logger.info(f"{output_folder}: {written} mixtures written, {skipped} kept")
    return BuildSummary(written, skipped)


def _as_tuple(values):
    """Returns the distinct values of a sequence, or a single one, as tuple."""
    if isinstance(values, (str, int)):
        return (values,)
    return tuple(dict.fromkeys(values))


def _check_choices(argument, values, allowed):
    """Raises a ValueError unless there are values and all are allowed."""
    unknown = [value for value in values if value not in allowed]
    if unknown or not values:
        raise ValueError(
            f"{argument}: expected some of {allowed}, got {unknown or values}"
        )


def _subfolder(sample_rate, mode, split):
    """Returns for example "wav8k/min/tr"."""
    return Path(f"wav{sample_rate // 1000}k", mode, split)


def _files(entry, folder):
    """Returns the paths of a mixture's files: the sources, then the mixture.

    The order in which they are written, so that a mixture means completeness.
    """
    parts = [f"s{i + 1}" for i in range(len(entry.paths))] + ["mix"]
    return [folder / part / f"{entry.name}.wav" for part in parts]


def _parallel(function, tasks, description, workers, progress):
    """Returns the results of a function for all tasks, in their order.

    Arguments
    ---------
    function : callable
        A function of one task that can be pickled.
    tasks : list
        The tasks.
    description : str
        The label of the progress bar.
    workers : int or None
        Number of processes, None for the number of CPUs.
    progress : bool
        Whether to show the progress bar.

    Returns
    -------
    results : list
        One result for each task.
    """
    bar = partial(
        tqdm, total=len(tasks), desc=description, disable=not progress
    )
    workers = min(workers or os.cpu_count() or 1, len(tasks))
    if workers <= 1:
        return list(bar(map(function, tasks)))
    chunk = max(1, min(16, len(tasks) // (4 * workers)))
    with ProcessPoolExecutor(workers) as pool:
        return list(bar(pool.map(function, tasks, chunksize=chunk)))


def _write_mixture(task, corpus_folder):
    """Writes one mixture and its sources at the wanted rates and modes.

    Arguments
    ---------
    task : tuple
        A _Job and the active levels of its sources in units of power.
    corpus_folder : pathlib.Path
        The folder that the lists' paths are relative to.

    Returns
    -------
    written : int
        The number of mixtures written, one for each rate and mode.
    """
    (entry, listed, targets), levels = task
    try:
        recordings = [read_source(corpus_folder / p) for p in entry.paths]
        for rate, mode, folder in targets:
            sources = [resample(*recording, rate) for recording in recordings]
            mixture, sources = mix_sources(sources, entry.snrs, levels, mode)
            for path, signal in zip(_files(entry, folder), [*sources, mixture]):
                _save(path, signal, rate)
    except Exception as error:
        raise RuntimeError(
            f"mixture {entry.name} ({listed}) failed: {error}"
        ) from error
    return len(targets)


def _save(path, signal, sample_rate):
    """Writes a signal of shape [time] as 16-bit WAV, all of it or nothing."""
    samples = np.round(2**15 * signal).astype(np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not "*.wav", lest a leftover of an interrupted run counts as audio.
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        soundfile.write(
            unfinished, samples, sample_rate, "PCM_16", format="WAV"
        )
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
