"""What the networks about talkers are trained on: corpora, and speech of one."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset

from speechbrain_kmdanet.dataio.corpus import (
    index_corpus,
    read_corpora,
    read_part,
)
from speechbrain_kmdanet.dataio.mixture_dataset import DynamicMixing
from speechbrain_kmdanet.processing.bands import resample

RATE = 8000  # Hz
NUM_SPKS = [1, 2, 3, 4]
SHARES = [0.2, 0.3, 0.3, 0.2]
# How talkers speak: the least share of the time that each speaks in, the share
# of the mixtures with noise, and that of the batches that are so: all the time,
# for most of it, or in turns.
SPEAKING = (1.0, 0.15, 0.5), (0.4, 0.25, 0.25), (0.1, 0.25, 0.25)
SECONDS = 2.0, 8.0  # of mixtures
MIXTURE_SPEEDS = 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15
VOICE_SECONDS = 1.0, 3.0  # of a talker's speech
SPEEDS = 1.0, 0.9, 1.1  # a voice at another speed is another voice

Recordings = list[dict[str, Any]]


def read_recordings(
    folders: Sequence[str], name: str, save_folder: str | Path
) -> Recordings:
    """The recordings of folders with one folder a talker, or kind of sound.

    Arguments
    ---------
    folders : sequence of str
        The folders.
    name : str
        What they are, for the names of their lists.
    save_folder : str or pathlib.Path
        Where lists, and what was decoded, are kept.

    Returns
    -------
    list of dict
        The recordings, with whole paths.
    """
    lists = [
        Path(save_folder, f"{name}{i or ''}.csv") for i in range(len(folders))
    ]
    for folder, index_file in zip(folders, lists):
        index_file.parent.mkdir(parents=True, exist_ok=True)
        index_corpus(folder, index_file)
    return read_corpora(folders, lists)


class CountedMixtures(IterableDataset[tuple[torch.Tensor, torch.Tensor]]):
    """Batches of mixtures [B, L] with their numbers of talkers less one [B].

    Arguments
    ---------
    speech, noise : list of dict
        The recordings.
    batch_size : int
        Mixtures in a batch, all of one length.
    seed : int
        Seed of all draws.
    """

    def __init__(
        self, speech: Recordings, noise: Recordings, batch_size: int, seed: int
    ) -> None:
        corpora = sorted({recording["speaker"][0] for recording in speech})
        self.sets = [
            [
                DynamicMixing(
                    corpus,
                    [x for x in speech if x["speaker"][0] == corpus],
                    num_spks=NUM_SPKS,
                    shares=SHARES,
                    by_length=0.5,
                    overlap=overlap,
                    noise=noise,
                    noise_snr=(5, 30),
                    noise_share=noisy,
                    speeds=MIXTURE_SPEEDS,
                    sample_rate=RATE,
                    epoch_size=10**6,
                    seed=seed + offset,
                )
                for corpus in corpora
            ]
            for offset, (overlap, noisy, _) in enumerate(SPEAKING)
        ]
        self.batch_size = batch_size
        self.seed = seed

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        rng = np.random.default_rng(self.seed)
        shares = [share for _, _, share in SPEAKING]
        index = 0
        while True:
            seconds = float(rng.uniform(*SECONDS))
            sets = self.sets[rng.choice(len(SPEAKING), p=shares)]
            items = []
            for _ in range(self.batch_size):
                chosen = sets[rng.integers(len(sets))]
                chosen.segment_seconds = seconds
                items.append(chosen[index % len(chosen)])
                index += 1
            mixtures = torch.stack([item["mixture"] for item in items])
            counts = [item["sources"].shape[1] for item in items]
            yield mixtures, torch.tensor(counts) - 1


class Voices(IterableDataset[tuple[torch.Tensor, torch.Tensor]]):
    """Batches of speech [B, L] of one talker each, with who it is [B].

    As what a separator makes, it has leaks of others, what masks do to speech,
    noise and gaps; and other microphones, so that a microphone is not taken
    for a voice.

    Arguments
    ---------
    speech, noise : list of dict
        The recordings.
    batch_size : int
        Items in a batch, all of one length.
    seed : int
        Seed of all draws.
    """

    def __init__(
        self, speech: Recordings, noise: Recordings, batch_size: int, seed: int
    ) -> None:
        self.talkers: dict[Any, Recordings] = {}
        for recording in speech:
            self.talkers.setdefault(recording["speaker"], []).append(recording)
        self.names = sorted(self.talkers)
        self.num_voices = len(SPEEDS) * len(self.names)
        self.noise = noise
        self.batch_size = batch_size
        self.seed = seed

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        rng = np.random.default_rng(self.seed)
        chances = np.sqrt([len(self.talkers[name]) for name in self.names])
        chances /= chances.sum()
        while True:
            length = round(10 * rng.uniform(*VOICE_SECONDS)) * RATE // 10
            talkers = rng.choice(len(self.names), self.batch_size, p=chances)
            speeds = rng.integers(len(SPEEDS), size=self.batch_size)
            speech = [
                self._draw(self.names[talker], SPEEDS[speed], length, rng)
                for talker, speed in zip(talkers, speeds)
            ]
            yield (
                torch.from_numpy(np.stack(speech).astype(np.float32)),
                torch.from_numpy(talkers * len(SPEEDS) + speeds),
            )

    def corpus_of(self, label: int) -> str:
        """The corpus that a voice is of.

        Arguments
        ---------
        label : int
            The voice.

        Returns
        -------
        str
            Its folder.
        """
        return str(self.names[label // len(SPEEDS)][0])

    def _draw(
        self, name: Any, speed: float, length: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Speech of a talker [L]."""
        own = self.talkers[name]
        x = self._segment(own, length, rng, speed)
        if len(own) > 1 and rng.uniform() < 0.3:
            cut = rng.integers(length)
            other_part = self._segment(own, length, rng, speed)[cut:]
            x = np.concatenate([x[:cut], other_part])
        if rng.uniform() < 0.6:
            x = _equalise(x, rng)
        if rng.uniform() < 0.6:
            other = self.names[rng.integers(len(self.names))]
            leak = self._segment(self.talkers[other], length, rng)
            if rng.uniform() < 0.5:
                start, end = np.sort(rng.integers(0, length, 2))
                leak[:start] = leak[end:] = 0.0
            if rng.uniform() < 0.5:
                x = _masked(x, leak * 10 ** (rng.uniform(-6, 6) / 20), rng)
            else:
                x = x + leak * 10 ** (-rng.uniform(6, 25) / 20)
        if self.noise and rng.uniform() < 0.4:
            sound = self._segment(self.noise, length, rng)
            x = x + sound * 10 ** (-rng.uniform(10, 30) / 20)
        if rng.uniform() < 0.3:
            x[rng.integers(length // 4, length) :] = 0.0
        return x

    def _segment(
        self,
        recordings: Recordings,
        length: int,
        rng: np.random.Generator,
        speed: float = 1.0,
    ) -> np.ndarray:
        """A part of one of the recordings [L], level 1."""
        recording = recordings[rng.integers(len(recordings))]
        # Read as if sampled at another rate: resampling changes the speed.
        rate = round(recording["sample_rate"] * speed)
        needed = -(-length * rate // RATE)
        start = int(rng.integers(max(1, recording["samples"] - needed + 1)))
        part = start, min(needed, recording["samples"])
        x = resample(read_part("/", recording, *part), rate, RATE)
        level = np.sqrt(np.float32(recording["level"]))
        segment: np.ndarray = np.resize(x, length) / level
        return segment


def _masked(
    x: np.ndarray, other: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """What masks, not always right, let through of two talkers [L]."""
    window = torch.hann_window(512)
    both = torch.from_numpy(np.stack([x, other]).astype(np.float32))
    spectra = torch.stft(both, 512, 128, window=window, return_complex=True)
    powers = spectra.abs() ** rng.uniform(0.5, 2.0)
    mask = powers[0] / powers.sum(0).clamp_min(1e-12)
    least = rng.uniform(0.0, 0.2)  # of the other, everywhere
    made = spectra.sum(0) * (least + (1 - least) * mask)
    return torch.istft(made, 512, 128, window=window, length=len(x)).numpy()


def _equalise(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same speech by another microphone [L]."""
    spectrum = np.fft.rfft(x)
    at = np.linspace(0, 1, len(spectrum))
    gains = np.interp(at, np.linspace(0, 1, 6), rng.normal(0.0, 3.0, 6))
    return np.fft.irfft(spectrum * 10 ** (gains / 20), len(x))
