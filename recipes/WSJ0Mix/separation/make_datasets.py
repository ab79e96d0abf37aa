"""Data sets of the recipe.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import os

from prepare_data import prepare_wsj0mix
from speechbrain.utils.distributed import run_on_main

from speechbrain_kmdanet.dataio.dynamic_mixing import (
    DynamicMixing,
    index_corpus,
)
from speechbrain_kmdanet.dataio.mixture_dataset import MixtureDataset


def make_datasets(hparams, test_only=False):
    """Training, validation and test sets.

    Arguments
    ---------
    hparams : dict
        Hyperparameters.
    test_only : bool
        Whether only the test set is wanted; the data of the others need not
        be there.

    Returns
    -------
    train, valid, test : torch.utils.data.Dataset
        The sets, of which the first two are None if they are not wanted.

    Raises
    ------
    ValueError
        If there is not enough data, or some cannot be used.
    """
    folder = hparams["save_folder"]
    names = {
        key: hparams[key] for key in ("num_spks", "sample_rate", "mix_mode")
    }
    splits = ["cv", "tt"]
    if test_only:
        splits = ["tt"]
    elif not hparams["dynamic_mixing"]:
        splits = ["tr", "cv", "tt"]
    run_on_main(
        prepare_wsj0mix,
        args=[hparams["data_folder"], folder],
        kwargs={"splits": splits, **names},
    )
    del names["mix_mode"]
    valid, test = (
        MixtureDataset.from_csv(os.path.join(folder, f"{split}.csv"), **names)
        if split in splits
        else None
        for split in ("cv", "tt")
    )
    if test_only:
        return None, None, test
    train = _make_train_set(hparams, names)
    options = hparams["train_loader_options"]
    step = options["batch_size"] * int(os.environ.get("WORLD_SIZE", 1))
    if options.get("drop_last") and len(train) < step:
        raise ValueError(
            f"there are {len(train)} training mixtures in an epoch, fewer than "
            f"the {step} of one step: use a smaller batch_size"
        )
    return train, valid, test


def _make_train_set(hparams, names):
    """Training mixtures: those of tr, or new ones in every epoch."""
    names = {
        "segment_seconds": hparams["segment_seconds"],
        "seed": hparams["seed"],
        **names,
    }
    folder, corpus = hparams["save_folder"], hparams["dynamic_mixing"]
    if not corpus:
        return MixtureDataset.from_csv(os.path.join(folder, "tr.csv"), **names)
    index_file = os.path.join(folder, "corpus.csv")
    # The other processes read what the first one has measured.
    run_on_main(index_corpus, args=[corpus, index_file])
    return DynamicMixing(
        corpus,
        index_corpus(corpus, index_file),
        epoch_size=hparams["epoch_size"],
        speeds=hparams["speeds"],
        **names,
    )
