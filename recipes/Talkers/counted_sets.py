"""Mixtures of known numbers of talkers, in the layout of WSJ0-mix."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from speechbrain_kmdanet.dataio.audio import read_source
from speechbrain_kmdanet.dataio.wsj0mix import mixture_folder
from speechbrain_kmdanet.errors import UserError

RATE = 8000  # Hz


class Counted(NamedTuple):
    """A mixture, or a talker alone.

    Arguments
    ---------
    mixture : torch.Tensor
        The mixture [L].
    sources : torch.Tensor
        What it is of [L, K].
    """

    mixture: torch.Tensor
    sources: torch.Tensor


def read_counted(
    folders: Sequence[str], split: str, most: int | None = None
) -> Iterator[Counted]:
    """Mixtures of folders; of those of two, the first talker alone, too.

    Arguments
    ---------
    folders : sequence of str
        Data folders in the layout of WSJ0-mix.
    split : str
        "cv" or "tt".
    most : int
        Mixtures of a folder, evenly drawn; all by default.

    Yields
    ------
    Counted
        The mixtures.

    Raises
    ------
    UserError
        If a folder holds none.
    """
    for root in folders:
        folder = mixture_folder(Path(root), RATE, "min", split)
        names = sorted(path.name for path in (folder / "mix").glob("*.wav"))
        if not names:
            raise UserError(
                f"there are no mixtures in {folder / 'mix'}: give folders as "
                "prepare_mixtures.py builds them"
            )
        chosen = np.linspace(
            0, len(names) - 1, min(len(names), most or len(names))
        )
        parts = len([*folder.glob("s[1-9]*")])
        for name in (names[round(x)] for x in chosen):
            paths = [folder / f"s{i + 1}" / name for i in range(parts)]
            signals = [
                read_source(x)[0] for x in (folder / "mix" / name, *paths)
            ]
            together = torch.from_numpy(np.stack(signals, 1)).float()
            yield Counted(together[:, 0], together[:, 1:])
            if parts == 2:
                yield Counted(together[:, 1], together[:, 1:2])
