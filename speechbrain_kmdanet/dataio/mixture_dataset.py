"""Data sets of mixtures: listed in the layout of WSJ0-mix, or made anew.

Dynamic mixing makes new mixtures of the training talkers in every epoch. A
mixture is a pure function of the seed, the epoch and its index. A resumed
run, and a run of several processes, therefore sees exactly the mixtures of an
uninterrupted single one, whatever the number of loader workers.
"""

import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speechbrain.dataio.dataio import load_data_csv
from speechbrain.dataio.dataset import DynamicItemDataset
from torch.utils.data import Dataset

from speechbrain_kmdanet.dataio.audio import UnusableSource, read_source
from speechbrain_kmdanet.dataio.corpus import read_part
from speechbrain_kmdanet.dataio.mixing import add_noise, mix_sources
from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.processing.bands import resample

FADE_SECONDS = 0.01  # around a turn, so that it does not click


class MixtureDataset(DynamicItemDataset):
    """Mixtures and their sources, listed in a CSV file.

    Items are id, mixture [L] and sources [L, K], where K is the number of
    sources in the item's row, listed for all items in the attribute num_spks.
    With a segment length, an item is a random segment of its mixture, which is
    a function of the seed, the attribute epoch and the id alone.

    Arguments
    ---------
    data : dict
        Rows of the CSV by id, see SpeechBrain's DynamicItemDataset, with the
        paths mix_wav, s1_wav, s2_wav, ..., the last of which may be empty;
        use :meth:`from_csv`.
    sample_rate : int
        Sample rate in Hz that the files must have.
    segment_seconds : float
        Length of the segments in seconds; whole mixtures by default.
    seed : int
        Seed of the choice of segments.
    speeds : sequence of float
        Factors of speed, one of which is drawn for each source of a segment.
    random_shift : bool
        Whether the sources of a segment are shifted in time against each
        other, round its ends.
    """

    def __init__(
        self,
        data: dict[str, dict[str, Any]],
        sample_rate: int = 8000,
        segment_seconds: float | None = None,
        seed: int = 1234,
        speeds: Sequence[float] = (1.0,),
        random_shift: bool = False,
    ) -> None:
        self.sample_rate = sample_rate
        self.segment_seconds = segment_seconds
        self.seed = seed
        self.speeds = tuple(speeds)
        self.random_shift = random_shift
        self.epoch = 0
        columns = next(iter(data.values()), {})
        wavs = [name for name in columns if re.fullmatch(r"s\d+_wav", name)]
        self.num_spks = [
            sum(row[wav] != "" for wav in wavs) for row in data.values()
        ]
        item = {
            "func": self._read,
            "takes": ["id", "mix_wav", *wavs],
            "provides": ["mixture", "sources"],
        }
        super().__init__(data, [item], ["id", "mixture", "sources"])

    @classmethod
    def from_csv(
        cls, csv_path: str | Path, **arguments: Any
    ) -> "MixtureDataset":
        """Reads the list of the mixtures.

        Arguments
        ---------
        csv_path : str
            CSV file, see prepare_data.py of the recipe.
        **arguments : dict
            Arguments of the constructor but the first.

        Returns
        -------
        MixtureDataset
            The data set.
        """
        return cls(load_data_csv(csv_path), **arguments)

    def _read(self, id: str, *paths: str) -> Iterator[torch.Tensor]:
        """Reads a mixture and its sources, or a segment of them."""
        signals = [self._read_file(path) for path in paths if path]
        lengths = {len(signal) for signal in signals}
        if len(lengths) > 1:
            raise UserError(
                f"the mixture {paths[0]} and its sources differ in length "
                f"({sorted(lengths)} samples): build this mixture again"
            )
        together = np.stack(signals, axis=1).astype(np.float32)
        if self.segment_seconds is not None:
            length = round(self.segment_seconds * self.sample_rate)
            key = self.seed, self.epoch, zlib.crc32(id.encode())
            rng = np.random.default_rng(key)
            # At the highest speed, a segment takes so many samples.
            needed = -(-length * round(max(self.speeds) * 100) // 100)
            room = max(0, len(together) - needed)
            start = rng.integers(room + 1)
            together = self._vary(together[start : start + needed], rng)
            together = together[:length]
        tensor = torch.from_numpy(together)  # [L, 1 + K]
        yield tensor[:, 0].contiguous()
        yield tensor[:, 1:].contiguous()

    def _vary(
        self, together: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Changes speeds and times of the sources of a segment [L, 1 + K].

        What of the mixture is no source's, as noise, stays as it is.
        """
        if self.speeds == (1.0,) and not self.random_shift:
            return together
        mixture, *sources = together.T
        rest = mixture - np.sum(sources, 0)
        for i, source in enumerate(sources):
            speed = self.speeds[rng.integers(len(self.speeds))]
            rate = round(self.sample_rate * speed)
            sources[i] = resample(source, rate, self.sample_rate)
            if self.random_shift:
                shift = int(rng.integers(len(sources[i])))
                sources[i] = np.roll(sources[i], shift)
        length = min(map(len, [rest, *sources]))
        cut = np.stack([signal[:length] for signal in [rest, *sources]], 1)
        cut[:, 0] = cut.sum(1)
        return cut.astype(np.float32)

    def _read_file(self, path: str) -> np.ndarray:
        """Reads one file [L], or says what is wrong with it."""
        try:
            signal, sample_rate = read_source(path)
        except UnusableSource as problem:
            raise UserError(f"{path}: {problem}") from problem
        if sample_rate != self.sample_rate:
            raise UserError(
                f"{path} has {sample_rate} Hz, expected sample_rate="
                f"{self.sample_rate} Hz: build the mixtures at that rate"
            )
        return signal


class DynamicMixing(Dataset[dict[str, Any]]):
    """Data set of mixtures that are made when they are asked for.

    Each source is a run of recordings of one talker, laid end to end from a
    random start, as long as the segment; each recording has the same active
    level before the gains of WSJ0-mix are applied. The attribute epoch chooses
    the epoch that the mixtures belong to.

    Arguments
    ---------
    corpus_folder : str
        Folder that paths of recordings are relative to.
    recordings : list of dict
        The recordings, see :func:`read_index` and :func:`read_corpora`.
    num_spks : int or sequence of int
        Number of talkers in a mixture; several take turns. The attribute
        num_spks lists that of each mixture.
    shares : sequence of float
        Share of the mixtures of each number; equal ones by default.
    by_length : float
        Talkers are drawn by how much they say, to this power: 0 for all
        alike, 1 for all seconds of speech alike.
    overlap : float
        Least share of a mixture that each talker speaks in, from a random
        moment on, as in a conversation; 1 for all of it.
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
    max_gain : float
        WSJ0-mix draws the gain of its first source in dB from 0 to this, and
        gives the second one the opposite gain, others 0.
    noise : list of dict
        Recordings, with whole paths, of what is no speech; none by default.
        The mixture is then that of the sources and of one of these.
    noise_snr : pair of float
        Lowest and highest level in dB of all talkers relative to the noise.
    noise_share : float
        Share of the mixtures that have noise.

    Raises
    ------
    UserError
        If there are fewer talkers than in a mixture, or a setting is out of
        its range.
    """

    def __init__(
        self,
        corpus_folder: str | Path,
        recordings: Sequence[dict[str, Any]],
        num_spks: int | Sequence[int] = 2,
        sample_rate: int = 8000,
        segment_seconds: float = 4.0,
        epoch_size: int = 10000,
        seed: int = 1234,
        speeds: Sequence[float] = (1.0,),
        shares: Sequence[float] | None = None,
        by_length: float = 0.0,
        overlap: float = 1.0,
        max_gain: float = 2.5,
        noise: Sequence[dict[str, Any]] = (),
        noise_snr: Sequence[float] = (10.0, 30.0),
        noise_share: float = 1.0,
    ) -> None:
        if not 0 < overlap <= 1:
            raise UserError(f"overlap must be in (0, 1], got {overlap!r}")
        if len(noise_snr) != 2 or not noise_snr[0] <= noise_snr[1]:
            raise UserError(
                "noise_snr must be two levels in dB, the lower one first, got "
                f"{list(noise_snr)}"
            )
        if not 0 <= noise_share <= 1:
            raise UserError(
                f"noise_share must be from 0 to 1, got {noise_share!r}"
            )
        if max_gain < 0:
            raise UserError(f"max_gain must be 0 or more, got {max_gain!r}")
        self.overlap = overlap
        self.max_gain = max_gain
        self.noise = list(noise)
        self.noise_snr = tuple(noise_snr)
        self.noise_share = noise_share
        self.corpus_folder = Path(corpus_folder)
        numbers = np.atleast_1d(num_spks)
        self.num_spks = _take_turns(numbers, shares, epoch_size)
        self.sample_rate = sample_rate
        self.segment_seconds = segment_seconds
        self.seed = seed
        self.speeds = tuple(speeds)
        self.epoch = 0
        by_speaker: dict[str, list[dict[str, Any]]] = {}
        for recording in recordings:
            by_speaker.setdefault(recording["speaker"], []).append(recording)
        self.speakers = list(by_speaker.values())
        self.chances = None
        if by_length:
            spoken = [sum(x["samples"] for x in its) for its in self.speakers]
            chances = np.power(spoken, float(by_length))
            self.chances = chances / chances.sum()
        if len(self.speakers) < max(numbers):
            raise UserError(
                f"mixtures of num_spks={max(numbers)} need as many talkers, "
                f"but {corpus_folder} has {len(self.speakers)}"
            )

    def __len__(self) -> int:
        return len(self.num_spks)

    def __getitem__(self, index: int) -> dict[str, Any]:
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
        chosen = rng.choice(
            len(self.speakers), num_spks, replace=False, p=self.chances
        )
        gain = rng.uniform(0.0, self.max_gain)
        snrs = [gain, -gain, *[0.0] * num_spks][:num_spks]
        signals = [self._source(self.speakers[i], length, rng) for i in chosen]
        if self.overlap < 1:
            signals = [signal * self._turn(length, rng) for signal in signals]
        mixture, sources = mix_sources(signals, snrs, [1.0] * num_spks)
        if self.noise and rng.uniform() < self.noise_share:
            noise = self._source(self.noise, length, rng)
            low, high = self.noise_snr
            mixture = add_noise(mixture, noise, rng.uniform(low, high))
        return {
            "id": f"{self.epoch}-{index}",
            "mixture": torch.from_numpy(mixture.astype(np.float32)),
            "sources": torch.from_numpy(sources.T.astype(np.float32)),
        }

    def _turn(self, length: int, rng: np.random.Generator) -> np.ndarray:
        """When a talker speaks [length]: 1 then, 0 before and after."""
        spoken = round(length * rng.uniform(self.overlap, 1.0))
        start = int(rng.integers(length - spoken + 1))
        turn = np.zeros(length, np.float32)
        turn[start : start + spoken] = 1.0
        fade = round(FADE_SECONDS * self.sample_rate)
        # Centred: a turn that reaches an end of the mixture does not fade there.
        padded = np.pad(turn, fade, mode="edge")
        return np.convolve(padded, np.full(2 * fade + 1, 1 / (2 * fade + 1)))[
            2 * fade : 2 * fade + length
        ]

    def _source(
        self,
        recordings: list[dict[str, Any]],
        length: int,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Lays a talker's recordings end to end [length], level 1."""
        pieces: list[np.ndarray] = []
        missing = length
        # One speed a source: a voice must not change within a mixture.
        speed = self.speeds[rng.integers(len(self.speeds))]
        while missing > 0:
            recording = recordings[rng.integers(len(recordings))]
            # Read as if sampled at another rate: resampling changes the speed.
            rate = round(recording["sample_rate"] * speed)
            needed = -(-missing * rate // self.sample_rate)
            total = recording["samples"]
            # The first piece starts anywhere, the others at their beginning.
            start = 0 if pieces else int(rng.integers(total * 3 // 4))
            part = start, min(needed, total - start)
            samples = read_part(self.corpus_folder, recording, *part)
            samples = samples / np.sqrt(np.float32(recording["level"]))
            piece = resample(samples, rate, self.sample_rate)[:missing]
            pieces.append(piece)
            missing -= len(piece)
        return np.concatenate(pieces)


def _take_turns(
    numbers: np.ndarray, shares: Sequence[float] | None, count: int
) -> list[int]:
    """Numbers of talkers, as near to their shares as can be at any time."""
    if shares is None:
        return np.resize(numbers, count).tolist()
    wanted = np.asarray(shares, dtype=float)
    if wanted.shape != numbers.shape or not (wanted > 0).all():
        raise UserError(
            f"shares must be positive, one for each of num_spks="
            f"{numbers.tolist()}, got {list(shares)}"
        )
    wanted = wanted / wanted.sum()
    had = np.zeros(len(numbers))
    turns = []
    for turn in range(1, count + 1):
        # Equal shares in the order of the numbers, whatever the rounding.
        chosen = int(np.argmax((turn * wanted - had).round(9)))
        had[chosen] += 1
        turns.append(int(numbers[chosen]))
    return turns
