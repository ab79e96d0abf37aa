"""Batches of mixtures that all have one number of talkers."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from speechbrain_kmdanet.dataio.mixture_dataset import (
    DynamicMixing,
    MixtureDataset,
)


class MixtureBatchSampler(Sampler[list[int]]):
    """Draws the batches of an epoch, each of one number of talkers.

    The order is a function of the seed and the epoch of the data set, so that
    a training can go on anywhere in an epoch. Several processes share each
    batch out: together they see the batches of a single process whose
    batch_size is as large as theirs taken together, and equally many each.

    Arguments
    ---------
    dataset : MixtureDataset or DynamicMixing
        Mixtures, with the attributes num_spks (the number of talkers of each
        item), seed and epoch.
    batch_size : int
        Mixtures in a batch of one process.
    shuffle : bool
        Whether to shuffle mixtures and batches. If not, those of the fewest
        talkers come first.
    drop_last : bool
        Whether to leave out the mixtures that fill no batch. If not, some may
        be repeated so that all processes get as many.
    rank : int
        Number of this process.
    world_size : int
        Number of processes.

    Example
    -------
    >>> from types import SimpleNamespace
    >>> dataset = SimpleNamespace(num_spks=[2, 3, 2, 2, 3], seed=0, epoch=1)
    >>> list(MixtureBatchSampler(dataset, batch_size=2))
    [[0, 2], [3], [1, 4]]
    """

    def __init__(
        self,
        dataset: MixtureDataset | DynamicMixing,
        batch_size: int = 1,
        shuffle: bool = False,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.dataset = dataset
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.rank = rank
        self.world_size = world_size
        self.step_size = batch_size * world_size  # mixtures of all processes

    def __len__(self) -> int:
        """Number of batches of each process."""
        missing = 0 if self.drop_last else self.step_size - 1
        sizes = Counter(self.dataset.num_spks).values()
        return sum((size + missing) // self.step_size for size in sizes)

    def __iter__(self) -> Iterator[list[int]]:
        """Yields the indices of the mixtures of each batch."""
        rng = np.random.default_rng((self.dataset.seed, self.dataset.epoch))
        num_spks = np.array(self.dataset.num_spks)
        batches = []
        for number in np.unique(num_spks):
            group = np.flatnonzero(num_spks == number)
            if self.shuffle:
                group = rng.permutation(group)
            end = len(group)
            if self.drop_last:
                end -= end % self.step_size
            batches += [
                group[start : start + self.step_size]
                for start in range(0, end, self.step_size)
            ]
        if self.shuffle:
            rng.shuffle(batches)
        for batch in batches:
            share = -(-len(batch) // self.world_size)
            batch = np.resize(batch, share * self.world_size)
            yield batch[self.rank :: self.world_size].tolist()
