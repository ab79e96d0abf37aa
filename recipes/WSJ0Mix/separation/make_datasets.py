"""Data sets of the recipe, and their loaders.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import os
from collections import Counter

from prepare_data import prepare_wsj0mix
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataloader import SaveableDataLoader
from speechbrain.utils.distributed import run_on_main

from speechbrain_kmdanet.dataio.batch_sampler import MixtureBatchSampler
from speechbrain_kmdanet.dataio.dynamic_mixing import (
    DynamicMixing,
    index_corpus,
    read_index,
)
from speechbrain_kmdanet.dataio.mixture_dataset import MixtureDataset


def make_loaders(hparams, test_only=False):
    """Loaders of the training, validation and test sets.

    Processes share all of them; some may get a test mixture that another has
    too, so that all get as many.

    Arguments
    ---------
    hparams : dict
        Hyperparameters.
    test_only : bool
        Whether only the test set is wanted; the data of the others need not
        be there.

    Returns
    -------
    train, valid, test : SaveableDataLoader
        The loaders, of which the first two are None if they are not wanted.

    Raises
    ------
    ValueError
        If there is not enough data, or some cannot be used.
    """
    names = "train", "valid", "test"
    return tuple(
        None
        if dataset is None
        else _make_loader(dataset, **hparams[f"{name}_loader_options"])
        for name, dataset in zip(names, make_datasets(hparams, test_only))
    )


def make_datasets(hparams, test_only=False):
    """Training, validation and test sets, see :func:`make_loaders`.

    Arguments
    ---------
    hparams : dict
        Hyperparameters.
    test_only : bool
        Whether only the test set is wanted.

    Returns
    -------
    train, valid, test : torch.utils.data.Dataset
        The sets, of which the first two are None if they are not wanted.
    """
    folder, rate = hparams["save_folder"], hparams["sample_rate"]
    splits = ["tt"] if test_only else ["cv", "tt"]
    if not (test_only or hparams["dynamic_mixing"]):
        splits.insert(0, "tr")
    run_on_main(
        prepare_wsj0mix,
        args=[hparams["data_folder"], folder, hparams["num_spks"], rate],
        kwargs={"mix_mode": hparams["mix_mode"], "splits": splits},
    )
    files = {split: os.path.join(folder, f"{split}.csv") for split in splits}
    test = MixtureDataset.from_csv(files["tt"], sample_rate=rate)
    if test_only:
        return None, None, test
    valid = MixtureDataset.from_csv(files["cv"], sample_rate=rate)
    options = {
        "sample_rate": rate,
        "segment_seconds": hparams["segment_seconds"],
        "seed": hparams["seed"],
    }
    corpus = hparams["dynamic_mixing"]
    if not corpus:
        return MixtureDataset.from_csv(files["tr"], **options), valid, test
    index_file = os.path.join(folder, "corpus.csv")
    run_on_main(index_corpus, args=[corpus, index_file])
    train = DynamicMixing(
        corpus,
        read_index(index_file),
        num_spks=sorted(set(valid.num_spks)),
        epoch_size=hparams["epoch_size"],
        speeds=hparams["speeds"],
        **options,
    )
    return train, valid, test


def _make_loader(
    dataset,
    batch_size=1,
    shuffle=False,
    drop_last=False,
    **options,
):
    """Loader of batches that have one number of speakers each."""
    if options.get("persistent_workers"):
        raise ValueError(
            "persistent_workers must be False: such workers would make the "
            "mixtures of the first epoch in all epochs"
        )
    sampler = MixtureBatchSampler(
        dataset,
        batch_size,
        shuffle,
        drop_last,
        rank=int(os.environ.get("RANK", 0)),
        world_size=int(os.environ.get("WORLD_SIZE", 1)),
    )
    for num_spks, count in Counter(dataset.num_spks).items():
        if drop_last and count < sampler.step_size:
            raise ValueError(
                f"an epoch has {count} mixtures of {num_spks} speakers, fewer "
                f"than the {sampler.step_size} of one step: use a smaller "
                "batch_size"
            )
    return SaveableDataLoader(
        dataset, batch_sampler=sampler, collate_fn=PaddedBatch, **options
    )
