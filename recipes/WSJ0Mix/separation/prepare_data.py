"""Lists of the mixtures of a training, in the layout of WSJ0-mix; loaders."""

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataio import load_data_csv
from speechbrain.dataio.dataloader import SaveableDataLoader
from speechbrain.utils.distributed import run_on_main
from speechbrain.utils.logger import get_logger

from speechbrain_kmdanet.dataio.audio import (
    UnusableSource,
    list_recordings,
    read_header,
)
from speechbrain_kmdanet.dataio.batch_sampler import MixtureBatchSampler
from speechbrain_kmdanet.dataio.corpus import index_corpus, read_corpora
from speechbrain_kmdanet.dataio.mixture_dataset import MixtureDataset
from speechbrain_kmdanet.dataio.wsj0mix import SPLITS, mixture_folder
from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.utils.jobs import leave_signals, write_whole
from speechbrain_kmdanet.utils.yaml_layers import parse_overrides

logger = get_logger(__name__)

# A window of the STFT: there is nothing to cluster in less.
MIN_SECONDS = 0.064
HOURS = {"tr": 30, "cv": 10, "tt": 5}  # of wsj0-2mix


def list_wsj0mix(
    data_folder: str | Path | Sequence[str | Path],
    num_spks: int = 2,
    sample_rate: int = 8000,
    mix_mode: str = "min",
    splits: Sequence[str] = SPLITS,
    mixture_name: str = "mix",
    source_name: str = "s{}",
) -> dict[str, dict[str, dict[str, Any]]]:
    """Lists the mixtures: duration, mix_wav, s1_wav, s2_wav... by name.

    Mixtures of fewer sources than others have empty paths for those they lack.

    Arguments
    ---------
    data_folder : str or list of str
        Folder that holds wav8k/min/{tr,cv,tt}/{mix,s1,s2,...}, for example
        ".../wsj0-mix/2speakers", or several to be taken together. Instead of
        wav8k, a folder may hold lists tr.csv, cv.csv and tt.csv with the
        columns ID, mix_wav, s1_wav, s2_wav..., paths relative to the list, and
        duration in s: what has one is not looked at before it is needed.
    num_spks : int
        Number of sources per mixture in the folder. Each of several folders
        has a number of its own.
    sample_rate : int
        Sample rate in Hz, which chooses wav8k or wav16k.
    mix_mode : str
        "min" or "max".
    splits : sequence of str
        Splits to list.
    mixture_name, source_name : str
        Names of the folders of the mixtures, and of the sources with {} for
        their numbers.

    Returns
    -------
    dict
        The mixtures of each split, as data of a MixtureDataset.

    Raises
    ------
    UserError
        If a folder has another layout or number of sources, or files are
        missing or unreadable.
    """
    several = not isinstance(data_folder, (str, Path))
    roots: Any = data_folder if several else [data_folder]
    if not roots:
        raise UserError("data_folder must be a folder or several, got []")
    rows: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in splits}
    for root in roots:
        expected = None if several else num_spks
        for split in splits:
            folder = mixture_folder(root, sample_rate, mix_mode, split)
            listed = Path(root, f"{split}.csv")
            if listed.is_file() and not folder.is_dir():
                _add_listed(rows[split], listed, expected, sample_rate)
                continue
            parts = _find_parts(folder, mixture_name, source_name)
            expected = expected or len(parts) - 1
            if len(parts) - 1 != expected:
                raise UserError(
                    f"{folder} has {len(parts) - 1} sources "
                    f"({', '.join(parts[1:])}), expected num_spks={expected}: "
                    "give the number and the folder that belong together"
                )
            _add_rows(rows[split], folder, parts, sample_rate)
    for mixtures in rows.values():
        columns = max(mixtures.values(), key=len)
        for name, row in mixtures.items():
            mixtures[name] = {column: row.get(column, "") for column in columns}
    return rows


def write_list(
    save_folder: str | Path, split: str, rows: dict[str, dict[str, Any]]
) -> None:
    """Writes the mixtures of a split as a CSV file.

    Arguments
    ---------
    save_folder : str or pathlib.Path
        Where to write tr.csv, cv.csv or tt.csv.
    split : str
        The split.
    rows : dict
        Its mixtures, see :func:`list_wsj0mix`.
    """
    csv_file = Path(save_folder, f"{split}.csv")
    with write_whole(csv_file) as unfinished:
        with unfinished.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["ID", *next(iter(rows.values()))])
            writer.writeheader()
            writer.writerows({"ID": name, **row} for name, row in rows.items())
    hours = sum(row["duration"] for row in rows.values()) / 3600
    known, about = HOURS.get(split), f"{len(rows)} mixtures, {hours:.1f} h"
    if known and abs(hours - known) > 0.05 * known:
        about += f" (wsj0-2mix: {known} h)"
    logger.info(f"{csv_file}: {about}")


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


def _add_listed(
    rows: dict[str, dict[str, Any]],
    csv_file: Path,
    expected: int | None,
    sample_rate: int,
) -> None:
    """Adds the mixtures of a list, the paths of which may be relative to it."""
    try:
        listed = load_data_csv(csv_file)
    except (KeyError, ValueError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{csv_file} is no list of mixtures ({error}): give one with the "
            "columns ID, mix_wav, s1_wav, s2_wav... and duration"
        ) from error
    if not listed:
        raise UserError(f"there are no mixtures in {csv_file}")
    for name, row in listed.items():
        found = {
            key: str(csv_file.parent / value)
            for key, value in row.items()
            if value and (key == "mix_wav" or re.fullmatch(r"s\d+_wav", key))
        }
        sources = [f"s{i}_wav" for i in range(1, len(found))]
        columns = ["mix_wav", *sources]
        if set(found) != set(columns) or len(sources) != (
            expected or len(sources)
        ):
            raise UserError(
                f"{csv_file}: the mixture {name} has "
                f"{', '.join(sorted(found)) or 'no paths'}, expected mix_wav "
                f"and sources from s1_wav on, of num_spks={expected or 'any'}"
            )
        duration = row.get("duration")
        if not duration:
            duration = _duration(Path(found["mix_wav"]), sample_rate)
        _add_row(rows, name, duration, {key: found[key] for key in columns})


def _add_row(
    rows: dict[str, dict[str, Any]],
    name: str,
    duration: float,
    paths: dict[str, str],
) -> None:
    """Adds one mixture, whose name must be its own."""
    if name in rows:
        raise UserError(
            f"{paths['mix_wav']} has the name of {rows[name]['mix_wav']}: "
            "several folders of data_folder must hold mixtures of different "
            "names"
        )
    rows[name] = {"duration": duration, **paths}


def _find_parts(folder: Path, mixture: str, source: str) -> list[str]:
    """Names of the folders of a split: mix, s1, s2..., without a gap."""
    pattern = re.escape(source).replace(re.escape("{}"), r"(\d+)")
    names = folder.glob(source.replace("{}", "*"))
    numbers = (re.fullmatch(pattern, path.name) for path in names)
    last = max([2, *(int(number[1]) for number in numbers if number)])
    parts = [mixture, *(source.format(i + 1) for i in range(last))]
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
    found = {part: list_recordings(folder / part) for part in parts}
    mixtures = found[parts[0]]
    if not mixtures:
        raise UserError(f"there are no recordings in {folder / parts[0]}")
    for part, files in found.items():
        missing = [path for name, path in mixtures.items() if name not in files]
        if missing:
            raise UserError(
                f"{len(missing)} of {len(mixtures)} mixtures lack their source "
                f"in {folder / part}, the first is {missing[0].name}: build "
                "the mixtures again"
            )
    for name, mixture in mixtures.items():
        columns = ["mix_wav", *(f"s{i}_wav" for i in range(1, len(parts)))]
        paths = [str(found[part][name]) for part in parts]
        duration = _duration(mixture, sample_rate)
        _add_row(rows, name, duration, dict(zip(columns, paths)))


def _duration(path: Path, sample_rate: int) -> float:
    """Duration in seconds from the header, which must fit."""
    try:
        frames, rate, channels = read_header(path)
    except UnusableSource as problem:
        raise UserError(
            f"{path} cannot be read ({problem.reason}): build this mixture "
            "again"
        ) from problem
    if rate != sample_rate or channels != 1:
        raise UserError(
            f"{path} has {channels} channel(s) at {rate} Hz, expected one at "
            f"sample_rate={sample_rate} Hz: build the mixtures again, or change "
            "sample_rate"
        )
    if frames < MIN_SECONDS * sample_rate:
        raise UserError(
            f"{path} is too short, {frames} samples (expected at least "
            f"{1000 * MIN_SECONDS:g} ms): remove this mixture and its sources"
        )
    return frames / rate


def read_recordings(
    folders: Any, name: str, save_folder: str
) -> tuple[list[Any], list[dict[str, Any]]]:
    """Reads what folders of recordings hold; lists of them are saved.

    Arguments
    ---------
    folders : str or list of str
        One folder, several, or None.
    name : str
        Name of the lists.
    save_folder : str
        Where the lists are.

    Returns
    -------
    folders : list of str
        The folders.
    recordings : list of dict
        Their recordings, see :func:`.dataio.corpus.read_corpora`.
    """
    folders = folders or []
    if not isinstance(folders, list):
        folders = [folders]
    index_files = [
        os.path.join(save_folder, f"{name}{number or ''}.csv")
        for number in range(len(folders))
    ]
    for folder, index_file in zip(folders, index_files):
        run_on_main(index_corpus, args=[folder, index_file])
    return folders, read_corpora(folders, index_files)


def make_loader(
    dataset: Any,
    batch_size: int = 1,
    shuffle: bool = False,
    drop_last: bool = False,
    **options: Any,
) -> SaveableDataLoader:
    """Makes a loader of batches that have one number of talkers each.

    Processes share all of them; some may get a test mixture that another has
    too, so that all get as many.

    Arguments
    ---------
    dataset : MixtureDataset or DynamicMixing
        The mixtures.
    batch_size : int
        Mixtures in a batch.
    shuffle : bool
        Whether they come in another order in each epoch.
    drop_last : bool
        Whether a batch that is not full is left out.
    **options : dict
        Further options of PyTorch's loader.

    Returns
    -------
    SaveableDataLoader
        The loader.

    Raises
    ------
    UserError
        If there are fewer mixtures than in a step, or workers would persist.
    """
    if options.get("persistent_workers"):
        raise UserError(
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
            raise UserError(
                f"an epoch has {count} mixtures of {num_spks} talkers, fewer "
                f"than the {sampler.step_size} of one step: use a smaller "
                "batch_size"
            )
    # A GPU takes batches from pinned memory without waiting.
    options = {"pin_memory": torch.cuda.is_available(), **options}
    return SaveableDataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=PaddedBatch,
        worker_init_fn=leave_signals(),
        **options,
    )


def describe_data(dataset: Any) -> list[list[Any]]:
    """What a data set is made of, wherever it lies.

    Arguments
    ---------
    dataset : MixtureDataset or DynamicMixing
        The data set.

    Returns
    -------
    list of list
        Name and length of each mixture, or of each recording, with its level.
    """
    if isinstance(dataset, MixtureDataset):
        rows = [[name, x["duration"]] for name, x in dataset.data.items()]
    else:
        rows = [
            # Other processors compute other last digits.
            [Path(x["path"]).name, x["samples"], f"{x['level']:.4g}"]
            for recordings in (*dataset.speakers, dataset.noise)
            for x in recordings
        ]
    return sorted(rows)
