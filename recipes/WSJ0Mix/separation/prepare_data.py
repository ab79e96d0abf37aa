"""Lists the mixtures of a folder in the layout of WSJ0-mix as CSV files.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import csv
import os
from pathlib import Path

import soundfile
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)

# A window of the STFT: there is nothing to cluster in less.
MIN_SECONDS = 0.064


def prepare_wsj0mix(
    data_folder,
    save_folder,
    num_spks=2,
    sample_rate=8000,
    mix_mode="min",
    splits=("tr", "cv", "tt"),
):
    """Writes one CSV file per split: ID, duration, mix_wav, s1_wav, s2_wav...

    Arguments
    ---------
    data_folder : str
        Folder that holds wav8k/min/{tr,cv,tt}/{mix,s1,s2,...}, for example
        ".../wsj0-mix/2speakers".
    save_folder : str
        Where to write tr.csv, cv.csv and tt.csv.
    num_spks : int
        Number of sources per mixture.
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
    ValueError
        If the folder has another layout, or files are missing or unreadable.
    """
    root = Path(data_folder) / f"wav{sample_rate // 1000}k" / mix_mode
    parts = ["mix", *[f"s{i + 1}" for i in range(num_spks)]]
    csv_files = {}
    for split in splits:
        folder = root / split
        for part in parts:
            if not (folder / part).is_dir():
                raise ValueError(
                    f"there is no folder {folder / part}: data_folder must "
                    "have the layout of WSJ0-mix, "
                    f"wav{sample_rate // 1000}k/{mix_mode}/{split}/"
                    f"{{{','.join(parts)}}}, for num_spks={num_spks}; "
                    "prepare_mixtures.py builds it"
                )
        csv_files[split] = os.path.join(save_folder, f"{split}.csv")
        _write_csv(csv_files[split], folder, parts, sample_rate)
    return csv_files


def _write_csv(csv_file, folder, parts, sample_rate):
    """Lists the mixtures of one split, sorted by name."""
    names = sorted(path.name for path in (folder / "mix").glob("*.wav"))
    if not names:
        raise ValueError(f"there are no WAV files in {folder / 'mix'}")
    for part in parts[1:]:
        there = {path.name for path in (folder / part).glob("*.wav")}
        missing = [name for name in names if name not in there]
        if missing:
            raise ValueError(
                f"{len(missing)} of {len(names)} mixtures lack their source "
                f"in {folder / part}, the first is {missing[0]}: build the "
                "mixtures again"
            )
    os.makedirs(os.path.dirname(csv_file), exist_ok=True)
    with open(csv_file, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["ID", "duration", *[f"{p}_wav" for p in parts]])
        for name in names:
            duration = _duration(folder / "mix" / name, sample_rate)
            paths = [str(folder / part / name) for part in parts]
            writer.writerow([name[: -len(".wav")], duration, *paths])
    logger.info(f"{csv_file}: {len(names)} mixtures")


def _duration(path, sample_rate):
    """Duration in seconds from the header, which must fit."""
    try:
        info = soundfile.info(str(path))
    except soundfile.SoundFileError as error:
        raise ValueError(
            f"{path} cannot be read ({error}): build this mixture again"
        ) from error
    if info.samplerate != sample_rate or info.channels != 1:
        raise ValueError(
            f"{path} has {info.channels} channel(s) at {info.samplerate} Hz, "
            f"expected one at sample_rate={sample_rate} Hz: build the mixtures "
            "again, or change sample_rate"
        )
    if info.frames < MIN_SECONDS * sample_rate:
        raise ValueError(
            f"{path} is too short, {info.frames} samples (expected at least "
            f"{1000 * MIN_SECONDS:g} ms): remove this mixture and its sources"
        )
    return info.frames / info.samplerate
