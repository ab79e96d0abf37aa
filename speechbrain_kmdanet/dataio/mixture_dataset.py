"""Mixtures in the layout of WSJ0-mix as a SpeechBrain data set.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import re
import zlib

import numpy as np
import torch
from speechbrain.dataio.dataset import DynamicItemDataset

from speechbrain_kmdanet.dataio.source_files import UnusableSource, read_source


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
    """

    def __init__(
        self,
        data,
        sample_rate=8000,
        segment_seconds=None,
        seed=1234,
    ):
        self.sample_rate = sample_rate
        self.segment_seconds = segment_seconds
        self.seed = seed
        self.epoch = 0
        columns = next(iter(data.values()), ())
        wavs = [name for name in columns if re.fullmatch(r"s\d+_wav", name)]
        self.num_spks = [
            sum(row[wav] != "" for wav in wavs) for row in data.values()
        ]
        super().__init__(
            data,
            dynamic_items=[
                {
                    "func": self._read,
                    "takes": ["id", "mix_wav", *wavs],
                    "provides": ["mixture", "sources"],
                }
            ],
            output_keys=["id", "mixture", "sources"],
        )

    @classmethod
    def from_csv(cls, csv_path, **arguments):
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
        from speechbrain.dataio.dataio import load_data_csv

        return cls(load_data_csv(csv_path), **arguments)

    def _read(self, id, *paths):
        """Reads a mixture and its sources, or a segment of them."""
        signals = [self._read_file(path) for path in paths if path]
        lengths = {len(signal) for signal in signals}
        if len(lengths) > 1:
            raise ValueError(
                f"the mixture {paths[0]} and its sources differ in length "
                f"({sorted(lengths)} samples): build this mixture again"
            )
        signals = np.stack(signals, axis=1).astype(np.float32)
        if self.segment_seconds is not None:
            length = round(self.segment_seconds * self.sample_rate)
            key = self.seed, self.epoch, zlib.crc32(id.encode())
            room = max(0, len(signals) - length)
            start = np.random.default_rng(key).integers(room + 1)
            signals = signals[start : start + length]
        signals = torch.from_numpy(signals)
        yield signals[:, 0].contiguous()
        yield signals[:, 1:].contiguous()

    def _read_file(self, path):
        """Reads one file [L], or says what is wrong with it."""
        try:
            signal, sample_rate = read_source(path)
        except UnusableSource as problem:
            raise ValueError(f"{path}: {problem}") from problem
        if sample_rate != self.sample_rate:
            raise ValueError(
                f"{path} has {sample_rate} Hz, expected sample_rate="
                f"{self.sample_rate} Hz: build the mixtures at that rate"
            )
        return signal
