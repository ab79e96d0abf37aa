"""Lists the mixtures of a folder in the layout of WSJ0-mix as CSV files."""

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import soundfile
from speechbrain.utils.logger import get_logger

from speechbrain_kmdanet.dataio.wsj0mix import SPLITS, mixture_folder
from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.utils.jobs import write_whole
from speechbrain_kmdanet.utils.yaml_layers import parse_overrides

logger = get_logger(__name__)

# A window of the STFT: there is nothing to cluster in less.
MIN_SECONDS = 0.064


def prepare_wsj0mix(
    data_folder: str | Path | Sequence[str | Path],
    save_folder: str | Path,
    num_spks: int = 2,
    sample_rate: int = 8000,
    mix_mode: str = "min",
    splits: Sequence[str] = SPLITS,
) -> dict[str, str]:
    """Writes one CSV file per split: ID, duration, mix_wav, s1_wav, s2_wav...

    Mixtures of fewer sources than others have empty cells for those they lack.

    Arguments
    ---------
    data_folder : str or list of str
        Folder that holds wav8k/min/{tr,cv,tt}/{mix,s1,s2,...}, for example
        ".../wsj0-mix/2speakers", or several to be taken together.
    save_folder : str
        Where to write tr.csv, cv.csv and tt.csv.
    num_spks : int
        Number of sources per mixture in the folder. Each of several folders
        has a number of its own.
    sample_rate : int
        Sample rate in Hz, which chooses wav8k or wav16k.
    mix_mode : str
        "min" or "max".
    splits : sequence of str
        Splits to list.

    Returns
    -------
    dict
        Path of the CSV file by split.

    Raises
    ------
    UserError
        If a folder has another layout or number of sources, or files are
        missing or unreadable.
    """
    several = not isinstance(data_folder, (str, Path))
    roots: Any = data_folder if several else [data_folder]
    rows: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in splits}
    for root in roots:
        expected = None if several else num_spks
        for split in splits:
            folder = mixture_folder(root, sample_rate, mix_mode, split)
            parts = _find_parts(folder)
            expected = expected or len(parts) - 1
            if len(parts) - 1 != expected:
                raise UserError(
                    f"{folder} has {len(parts) - 1} sources "
                    f"({', '.join(parts[1:])}), expected num_spks={expected}: "
                    "give the number and the folder that belong together"
                )
            _add_rows(rows[split], folder, parts, sample_rate)
    csv_files = {split: f"{save_folder}/{split}.csv" for split in splits}
    for split, csv_file in csv_files.items():
        _write_csv(csv_file, list(rows[split].values()))
    return csv_files


def name_mixtures(overrides: str) -> str:
    """Names the results after the folders of data, if there are several.

    Arguments
    ---------
    overrides : str
        YAML of the settings that the command line gives.

    Returns
    -------
    str
        The same with the key mixtures, for example "2speakers+3speakers".
    """
    given = parse_overrides(overrides)
    folders = given.get("data_folder")
    if not isinstance(folders, list) or "mixtures" in given:
        return overrides
    name = "+".join(Path(folder).name for folder in folders)
    return f"{overrides}\nmixtures: {json.dumps(name)}"


def _find_parts(folder: Path) -> list[str]:
    """Names of the folders of a split: mix, s1, s2..., without a gap."""
    numbers = (re.fullmatch(r"s(\d+)", path.name) for path in folder.glob("s*"))
    last = max([2, *(int(number[1]) for number in numbers if number)])
    parts = ["mix", *(f"s{i + 1}" for i in range(last))]
    for part in parts:
        if not (folder / part).is_dir():
            raise UserError(
                f"there is no folder {folder / part}: data_folder must have "
                "the layout of WSJ0-mix, wav8k/min/{tr,cv,tt}/{mix,s1,s2,...} "
                "(or wav16k, max); prepare_mixtures.py builds it"
            )
    return parts


def _add_rows(
    rows: dict[str, dict[str, Any]],
    folder: Path,
    parts: list[str],
    sample_rate: int,
) -> None:
    """Adds the mixtures of one split of a folder by name, sorted."""
    names = sorted(path.name for path in (folder / "mix").glob("*.wav"))
    if not names:
        raise UserError(f"there are no WAV files in {folder / 'mix'}")
    for part in parts[1:]:
        there = {path.name for path in (folder / part).glob("*.wav")}
        missing = [name for name in names if name not in there]
        if missing:
            raise UserError(
                f"{len(missing)} of {len(names)} mixtures lack their source "
                f"in {folder / part}, the first is {missing[0]}: build the "
                "mixtures again"
            )
    for name in names:
        mixture, key = folder / "mix" / name, name.removesuffix(".wav")
        if key in rows:
            raise UserError(
                f"{mixture} has the name of {rows[key]['mix_wav']}: several "
                "folders of data_folder must hold mixtures of different names"
            )
        rows[key] = {
            "ID": key,
            "duration": _duration(mixture, sample_rate),
            **{f"{part}_wav": str(folder / part / name) for part in parts},
        }


def _write_csv(csv_file: str, rows: list[dict[str, Any]]) -> None:
    """Writes the mixtures of one split."""
    with write_whole(csv_file) as unfinished:
        with unfinished.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, max(rows, key=len), restval="")
            writer.writeheader()
            writer.writerows(rows)
    logger.info(f"{csv_file}: {len(rows)} mixtures")


def _duration(path: Path, sample_rate: int) -> float:
    """Duration in seconds from the header, which must fit."""
    try:
        info = soundfile.info(str(path))
    except soundfile.SoundFileError as error:
        raise UserError(
            f"{path} cannot be read ({error}): build this mixture again"
        ) from error
    if info.samplerate != sample_rate or info.channels != 1:
        raise UserError(
            f"{path} has {info.channels} channel(s) at {info.samplerate} Hz, "
            f"expected one at sample_rate={sample_rate} Hz: build the mixtures "
            "again, or change sample_rate"
        )
    if info.frames < MIN_SECONDS * sample_rate:
        raise UserError(
            f"{path} is too short, {info.frames} samples (expected at least "
            f"{1000 * MIN_SECONDS:g} ms): remove this mixture and its sources"
        )
    return info.frames / info.samplerate
