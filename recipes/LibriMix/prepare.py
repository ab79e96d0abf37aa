#!/usr/bin/env python3
"""Gives LibriMix the layout of WSJ0-mix, by links to its folders."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from speechbrain_kmdanet.dataio.mixing import MODES
from speechbrain_kmdanet.dataio.wsj0mix import SAMPLE_RATES, mixture_folder
from speechbrain_kmdanet.errors import UserError, run_command

DESCRIPTION = """\
Gives the mixtures of Libri2Mix, Libri3Mix and so on, by default those without
noise (mix_clean), the layout that train.py reads,
OUTPUT/{2,3,4,5}speakers/wav{8,16}k/{min,max}/{tr,cv,tt}/{mix,s1,s2,s3},
all of them links to folders of LibriMix: no audio is copied or written."""

EPILOG = """\
example:
  python recipes/LibriMix/prepare.py /data/LibriMix /data/librimix-links
  cd recipes/WSJ0Mix/separation
  python train.py hparams/kmeans_danet_spherical.yaml \\
      --data_folder /data/librimix-links/2speakers
"""

TRAIN_SETS = ("train-100", "train-360")
NUM_SPKS = (2, 3, 4, 5)
MIXTURES = ("mix_clean", "mix_both")


def link_librimix(
    librimix: str | Path,
    output: str | Path,
    num_spks: Sequence[int] = (2,),
    train: str = "train-360",
    sample_rate: int = 8000,
    mix_mode: str = "min",
    mixture: str = "mix_clean",
) -> list[Path]:
    """Links the folders of LibriMix. Links that are there are left.

    Arguments
    ---------
    librimix : str
        Folder that holds Libri2Mix, Libri3Mix and so on.
    output : str
        Folder to make the links in.
    num_spks : sequence of int
        Numbers of talkers.
    train : str
        Training set, "train-100" or "train-360".
    sample_rate : int
        8000 or 16000 Hz.
    mix_mode : str
        "min" or "max".
    mixture : str
        "mix_clean", or "mix_both": with noise.

    Returns
    -------
    list of pathlib.Path
        Folder to train on for each number of talkers.

    Raises
    ------
    UserError
        If LibriMix lacks a folder, or something else is where a link should
        be; nothing has been linked then.
    """
    folders = [Path(output, f"{number}speakers") for number in num_spks]
    kind = sample_rate, mix_mode
    targets = {}
    for number, data_folder in zip(num_spks, folders):
        original = Path(librimix, f"Libri{number}Mix")
        for split, name in (("tr", train), ("cv", "dev"), ("tt", "test")):
            source = mixture_folder(original, *kind, name).resolve()
            folder = mixture_folder(data_folder, *kind, split)
            targets[folder / "mix"] = source / mixture
            for i in range(1, number + 1):
                targets[folder / f"s{i}"] = source / f"s{i}"
    for link, target in targets.items():
        if not target.is_dir():
            raise UserError(
                f"there is no folder {target}: LIBRIMIX must hold "
                "Libri2Mix/wav8k/min/{train-100,train-360,dev,test}/"
                "{mix_clean,s1,s2} or what the options ask for; generate it "
                f"with LibriMix's scripts (type {mixture})"
            )
        if os.path.lexists(link) and link.resolve() != target:
            raise UserError(
                f"{link} is there and does not lead to {target}: remove it, "
                "or choose another OUTPUT"
            )
    for link, target in targets.items():
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(target, target_is_directory=True)
    return folders


def run(arguments: list[str]) -> None:
    """Makes the links that the command line asks for."""
    parser = argparse.ArgumentParser(
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "librimix", metavar="LIBRIMIX", help="folder of Libri2Mix and so on"
    )
    parser.add_argument(
        "output", metavar="OUTPUT", help="folder to make the links in"
    )
    parser.add_argument(
        "--num_spks",
        type=int,
        nargs="+",
        choices=NUM_SPKS,
        default=[2],
        help="numbers of talkers (default: 2)",
    )
    parser.add_argument(
        "--train",
        choices=TRAIN_SETS,
        default="train-360",
        help="training set (default: train-360)",
    )
    parser.add_argument(
        "--sample_rate",
        type=int,
        choices=SAMPLE_RATES,
        default=8000,
        help="in Hz (default: 8000)",
    )
    parser.add_argument(
        "--mix_mode",
        choices=MODES,
        default="min",
        help="cut to the shortest source or padded (default: min)",
    )
    parser.add_argument(
        "--mixture",
        choices=MIXTURES,
        default="mix_clean",
        help="mix_both has noise; the sources are clean (default: mix_clean)",
    )
    options = parser.parse_args(arguments)
    for folder in link_librimix(**vars(options)):
        print(f"Train with --data_folder {folder.resolve()}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit status."""
    return run_command("prepare.py", run, arguments)


if __name__ == "__main__":
    sys.exit(main())
