"""Dynamic mixing: new mixtures of the training speakers in every epoch.

A mixture is a pure function of the seed, the epoch and its index. A resumed
run, and a run of several processes, therefore sees exactly the mixtures of an
uninterrupted single one, whatever the number of loader workers.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import csv
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import soundfile
import torch
from speechbrain.utils.logger import get_logger
from torch.utils.data import Dataset
from tqdm import tqdm

from speechbrain_kmdanet.dataio.mixing import mix_sources, resample
from speechbrain_kmdanet.dataio.source_files import measure_sources

logger = get_logger(__name__)

SUFFIXES = (".wav", ".flac")
# WSJ0-mix draws the gain of its first source in dB from [0, 2.5) and gives
# the second one the opposite gain, others 0.
MAX_GAIN_DB = 2.5
INDEX_FIELDS = ("path", "speaker", "samples", "sample_rate", "level")


def index_corpus(corpus_folder, index_file, workers=None):
    """Lists the recordings of a corpus with their active levels.

    Every recording is checked as it is measured. A list that exists already
    and fits the files is left as it is. :func:`read_index` reads it.

    Arguments
    ---------
    corpus_folder : str
        Folder with one folder per speaker, which holds that speaker's WAV or
        FLAC files at any depth.
    index_file : str
        CSV file to write: path, speaker, samples, sample_rate, level.
    workers : int
        Number of processes that measure; the number of CPUs by default.

    Raises
    ------
    ValueError
        If there are no recordings, or some cannot be used; they are named.
    """
    corpus_folder, index_file = Path(corpus_folder), Path(index_file)
    paths = sorted(
        str(path.relative_to(corpus_folder))
        for path in corpus_folder.glob("*/**/*")
        if path.suffix.lower() in SUFFIXES
    )
    if not paths:
        raise ValueError(
            f"there are no recordings in {corpus_folder}: dynamic mixing needs "
            "a folder with one folder of WAV or FLAC files per speaker"
        )
    if index_file.is_file():
        if [row["path"] for row in read_index(index_file)] == paths:
            return
    logger.info(f"Measuring the levels of {len(paths)} recordings")
    with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
        levels = measure_sources(
            corpus_folder,
            dict.fromkeys(paths, "found in the corpus folder"),
            run=lambda function, tasks: tqdm(
                pool.map(function, tasks, chunksize=16),
                "Levels",
                len(tasks),
                dynamic_ncols=True,
            ),
        )
    rows = []
    for path in paths:
        info = soundfile.info(corpus_folder / path)
        speaker = Path(path).parts[0]
        values = path, speaker, info.frames, info.samplerate, levels[path]
        rows.append(dict(zip(INDEX_FIELDS, values)))
    index_file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = index_file.with_suffix(".tmp")
    with unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, INDEX_FIELDS)
        writer.writeheader()
        writer.writerows(rows)
    os.replace(unfinished, index_file)


def read_index(index_file):
    """Reads the list of the recordings of a corpus.

    Arguments
    ---------
    index_file : str
        CSV file, see :func:`index_corpus`.

    Returns
    -------
    list of dict
        The recordings, sorted by path.
    """
    with open(index_file, newline="", encoding="utf-8") as file:
        return [
            {
                **row,
                "samples": int(row["samples"]),
                "sample_rate": int(row["sample_rate"]),
                "level": float(row["level"]),
            }
            for row in csv.DictReader(file)
        ]


class DynamicMixing(Dataset):
    """Data set of mixtures that are made when they are asked for.

    Each source is a run of recordings of one speaker, laid end to end from a
    random start, as long as the segment; each recording has the same active
    level before the gains of WSJ0-mix are applied. The attribute epoch chooses
    the epoch that the mixtures belong to.

    Arguments
    ---------
    corpus_folder : str
        Folder with one folder per speaker.
    recordings : list of dict
        The recordings, see :func:`read_index`.
    num_spks : int or sequence of int
        Number of speakers in a mixture; several take turns. The attribute
        num_spks lists that of each mixture.
    sample_rate : int
        Sample rate of the mixtures in Hz; recordings are resampled to it.
    segment_seconds : float
        Length of the mixtures in seconds.
    epoch_size : int
        Number of mixtures in an epoch.
    seed : int
        Seed of all random draws.
    speeds : sequence of float
        Factors of speed, one of which is drawn for each source: speed
        perturbation. No perturbation by default.

    Raises
    ------
    ValueError
        If there are fewer speakers than in a mixture.
    """

    def __init__(
        self,
        corpus_folder,
        recordings,
        num_spks=2,
        sample_rate=8000,
        segment_seconds=4.0,
        epoch_size=10000,
        seed=1234,
        speeds=(1.0,),
    ):
        self.corpus_folder = Path(corpus_folder)
        numbers = np.atleast_1d(num_spks)
        self.num_spks = np.resize(numbers, epoch_size).tolist()
        self.sample_rate = sample_rate
        self.segment_seconds = segment_seconds
        self.seed = seed
        self.speeds = tuple(speeds)
        self.epoch = 0
        by_speaker = {}
        for recording in recordings:
            by_speaker.setdefault(recording["speaker"], []).append(recording)
        self.speakers = list(by_speaker.values())
        if len(self.speakers) < max(numbers):
            raise ValueError(
                f"mixtures of num_spks={max(numbers)} need as many speakers, but "
                f"{corpus_folder} has {len(self.speakers)}"
            )

    def __len__(self):
        return len(self.num_spks)

    def __getitem__(self, index):
        """Makes one mixture.

        Arguments
        ---------
        index : int
            Index of the mixture in the epoch.

        Returns
        -------
        dict
            id, mixture [L] and sources [L, K].
        """
        rng = np.random.default_rng((self.seed, self.epoch, int(index)))
        length = round(self.segment_seconds * self.sample_rate)
        num_spks = self.num_spks[index]
        chosen = rng.choice(len(self.speakers), num_spks, replace=False)
        gain = rng.uniform(0.0, MAX_GAIN_DB)
        snrs = [gain, -gain, *[0.0] * num_spks][:num_spks]
        sources = [self._source(self.speakers[i], length, rng) for i in chosen]
        mixture, sources = mix_sources(sources, snrs, [1.0] * len(sources))
        return {
            "id": f"{self.epoch}-{index}",
            "mixture": torch.from_numpy(mixture.astype(np.float32)),
            "sources": torch.from_numpy(sources.T.astype(np.float32)),
        }

    def _source(self, recordings, length, rng):
        """Lays a speaker's recordings end to end [length], level 1."""
        pieces, missing = [], length
        # One speed a source: a voice must not change within a mixture.
        speed = self.speeds[rng.integers(len(self.speeds))]
        while missing > 0:
            recording = recordings[rng.integers(len(recordings))]
            # Read as if sampled at another rate: resampling changes the speed.
            rate = round(recording["sample_rate"] * speed)
            needed = -(-missing * rate // self.sample_rate)
            # The first piece starts anywhere, the others at their beginning.
            start = 0 if pieces else rng.integers(recording["samples"] * 3 // 4)
            path = self.corpus_folder / recording["path"]
            samples, sample_rate = soundfile.read(
                path,
                frames=int(min(needed, recording["samples"] - start)),
                start=int(start),
                dtype="float32",
            )
            if sample_rate != recording["sample_rate"]:
                raise ValueError(
                    f"{path} has {sample_rate} Hz, expected "
                    f"{recording['sample_rate']} Hz as when its level was "
                    "measured: delete corpus.csv in the save_folder"
                )
            samples = samples / np.sqrt(np.float32(recording["level"]))
            piece = resample(samples, rate, self.sample_rate)[:missing]
            pieces.append(piece)
            missing -= len(piece)
        return np.concatenate(pieces)
