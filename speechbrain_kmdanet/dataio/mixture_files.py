"""Mixtures on the disk: their files, and which of them are whole and current.

The folder of a split holds mix, s1, s2 and so on, and notes what each mixture
was built from. So an interrupted build goes on where it stopped, and what has
changed is built again.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.utils.jobs import write_whole

# Beside the mixtures of a split: what each was built from, by name.
RECORD = "built_from.json"
HEADER = 44  # bytes of a WAV file before its samples


class Survey(NamedTuple):
    """What is in the folder of a split, and what shall be.

    Arguments
    ---------
    wanted : dict
        What the mixtures shall be built from, by name.
    whole : set of str
        Names of those that are there.
    stale : list of pathlib.Path
        Files of others.
    """

    wanted: Mapping[str, str]
    whole: set[str]
    stale: list[Path]

    def clear(self, folder: Path) -> None:
        """Removes what is stale; then all that is there is as recorded.

        Arguments
        ---------
        folder : pathlib.Path
            The folder of the split.
        """
        for path in self.stale:
            path.unlink()
        with write_whole(folder / RECORD) as unfinished:
            unfinished.write_text(json.dumps(self.wanted, indent=0) + "\n")


def survey_mixtures(
    folder: Path, num_spks: int, wanted: Mapping[str, str]
) -> Survey:
    """Compares the mixtures in a folder with those that are wanted.

    Arguments
    ---------
    folder : pathlib.Path
        The folder of a split.
    num_spks : int
        Talkers of a mixture.
    wanted : dict
        What the mixtures shall be built from, by name.

    Returns
    -------
    Survey
        What is there already.

    Raises
    ------
    UserError
        If there are mixtures that nobody knows.
    """
    try:
        recorded = dict(json.loads((folder / RECORD).read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        recorded = {}  # Nothing is known about these mixtures.
    found: dict[str, list[Path]] = {}
    for part in _parts(num_spks):
        for path in sorted((folder / part).glob("*.wav")):
            found.setdefault(path.stem, []).append(path)
    foreign = [x for x in found if x not in wanted and x not in recorded]
    if foreign:
        raise UserError(
            f"{folder} has {len(foreign)} mixtures that are in no list, as "
            f"{found[foreign[0]][0]}, and would be trained on: remove them, or "
            "give another output_folder"
        )
    whole = {
        name
        for name, paths in found.items()
        if recorded.get(name, "") == wanted.get(name)
        if len(paths) == num_spks + 1 and _are_whole(paths)
    }
    stale = [path for name in found.keys() - whole for path in found[name]]
    return Survey(wanted, whole, stale)


def write_mixture(
    folder: Path,
    name: str,
    mixture: np.ndarray,
    sources: np.ndarray,
    sample_rate: int,
) -> None:
    """Writes a mixture and its sources as WAV files of 16 bits.

    Arguments
    ---------
    folder : pathlib.Path
        The folder of the split.
    name : str
        Name of the mixture.
    mixture : numpy.ndarray
        Mixture [time], full scale 1.
    sources : numpy.ndarray
        Its sources [num_spks, time].
    sample_rate : int
        Their rate in Hz.
    """
    for part, signal in zip(_parts(len(sources)), [*sources, mixture]):
        samples = np.round(2**15 * signal).astype(np.int16)
        with write_whole(folder / part / f"{name}.wav") as unfinished:
            soundfile.write(
                unfinished, samples, sample_rate, "PCM_16", format="WAV"
            )


def _parts(num_spks: int) -> list[str]:
    """Folders of a split."""
    return [f"s{i + 1}" for i in range(num_spks)] + ["mix"]


def _are_whole(paths: Sequence[Path]) -> bool:
    """Whether files are all of one length, which is what their headers say."""
    sizes = {path.stat().st_size for path in paths}
    for path in paths:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(HEADER)[HEADER - 4 :], "little")
        sizes.add(HEADER + size)
    return len(sizes) == 1 and max(sizes) > HEADER
