"""Corpora: folders of recordings, listed with their levels."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from speechbrain.utils.logger import get_logger

from speechbrain_kmdanet.dataio.audio import (
    audio_suffixes,
    is_compressed,
    measure_sources,
    read_header,
    read_piece,
)
from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.utils.jobs import write_whole

logger = get_logger(__name__)

# What a recording is known by: a file that was changed has another time.
STATE = ("bytes", "modified")
INDEX_FIELDS = (
    *("path", "speaker", "samples", "sample_rate", "level", "offset"),
    *STATE,
)
DECODED = ".pcm"  # beside the index: what was decoded, 16 bits
BYTES = np.dtype(np.int16).itemsize


def index_corpus(
    corpus_folder: str | Path,
    index_file: str | Path,
    workers: int | None = None,
) -> None:
    """Lists the recordings of a corpus with their active levels.

    Every recording is checked as it is measured. Compressed ones are decoded
    into a file beside the list, as decoding takes longer than mixing. A list
    that exists already is left as it is, unless the files have other names,
    sizes or times now. :func:`read_index` reads it.

    Arguments
    ---------
    corpus_folder : str
        Folder with one folder per talker, which holds that talker's files at
        any depth, in any format that libsndfile reads.
    index_file : str
        CSV file to write: path, speaker, samples, sample_rate, level, the
        offset in what was decoded, bytes, and the time of its last change.
    workers : int
        Number of processes that measure; the number of CPUs by default.

    Raises
    ------
    UserError
        If there are no recordings, or some cannot be used; they are named.
    """
    corpus_folder, index_file = Path(corpus_folder), Path(index_file)
    paths = sorted(
        str(path.relative_to(corpus_folder))
        for path in corpus_folder.glob("*/**/*")
        if path.suffix.lower() in audio_suffixes()
    )
    if not paths:
        raise UserError(
            f"there are no recordings in {corpus_folder}: dynamic mixing needs "
            "a folder with one folder of audio files per talker, or per kind "
            "of noise"
        )
    states = {path: file_state(corpus_folder / path) for path in paths}
    if _is_current(index_file, states):
        return
    logger.info(f"Measuring the levels of {len(paths)} recordings")
    mentions = dict.fromkeys(paths, "found in the corpus folder")
    levels = measure_sources(corpus_folder, mentions, workers=workers)
    rows, offset = [], 0
    speech = index_file.with_suffix(DECODED)
    with write_whole(speech) as unfinished, unfinished.open("wb") as decoded:
        for path in paths:
            row: dict[str, Any] = {"path": path, "speaker": Path(path).parts[0]}
            row |= zip(STATE, states[path])
            file = corpus_folder / path
            row["samples"], rate, _ = read_header(file)
            if is_compressed(file):
                signal, _ = soundfile.read(file, dtype="int16")
                signal.tofile(decoded)
                row |= {"samples": len(signal), "offset": offset}
                offset += len(signal)
            rows.append(row | {"sample_rate": rate, "level": levels[path]})
    with write_whole(index_file) as unfinished:
        with unfinished.open("w", newline="", encoding="utf-8") as table:
            writer = csv.DictWriter(table, INDEX_FIELDS, restval="")
            writer.writeheader()
            writer.writerows(rows)


def file_state(path: str | Path) -> tuple[int, int]:
    """What changes when a file is changed, or replaced by another.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.

    Returns
    -------
    int
        Its size in bytes.
    int
        The time of its last change in ns.
    """
    state = os.stat(path)
    return state.st_size, state.st_mtime_ns


def _is_current(index_file: Path, states: dict[str, tuple[int, int]]) -> bool:
    """Whether a list is that of these files, and what was decoded is there."""
    if not index_file.is_file():
        return False
    try:
        with index_file.open(newline="", encoding="utf-8") as file:
            listed = [
                (row["path"], tuple(int(row[name]) for name in STATE))
                for row in csv.DictReader(file)
            ]
        rows = read_index(index_file)
        decoded = sum(row["samples"] for row in rows if "decoded" in row)
        size = index_file.with_suffix(DECODED).stat().st_size
    except (OSError, csv.Error, KeyError, TypeError, ValueError):
        return False  # of another version, or damaged
    return listed == list(states.items()) and size == BYTES * decoded


def read_corpora(
    corpora: Sequence[str | Path], index_files: Sequence[str | Path]
) -> list[dict[str, Any]]:
    """Reads the lists of several corpora, each with talkers of its own.

    Arguments
    ---------
    corpora : sequence of str
        Their folders.
    index_files : sequence of str
        Their lists, see :func:`index_corpus`.

    Returns
    -------
    list of dict
        The recordings, with whole paths.
    """
    return [
        {
            **row,
            "path": str(Path(corpus, row["path"])),
            "speaker": (str(corpus), row["speaker"]),
        }
        for corpus, index_file in zip(corpora, index_files)
        for row in read_index(index_file)
    ]


def read_index(index_file: str | Path) -> list[dict[str, Any]]:
    """Reads the list of the recordings of a corpus.

    Arguments
    ---------
    index_file : str
        CSV file, see :func:`index_corpus`.

    Returns
    -------
    list of dict
        The recordings, sorted by path; those that were decoded say where.
    """
    decoded = str(Path(index_file).with_suffix(DECODED))
    with open(index_file, newline="", encoding="utf-8") as file:
        return [
            {
                "path": row["path"],
                "speaker": row["speaker"],
                "samples": int(row["samples"]),
                "sample_rate": int(row["sample_rate"]),
                "level": float(row["level"]),
            }
            | (
                {"decoded": decoded, "offset": int(row["offset"])}
                if row.get("offset")
                else {}
            )
            for row in csv.DictReader(file)
        ]


def read_part(
    corpus_folder: str | Path,
    recording: dict[str, Any],
    start: int,
    length: int,
) -> np.ndarray:
    """Reads a part of a recording.

    Arguments
    ---------
    corpus_folder : str
        Folder that the path of the recording is relative to.
    recording : dict
        The recording, see :func:`read_index`.
    start, length : int
        The part, in samples of the recording.

    Returns
    -------
    numpy.ndarray
        Its samples [length], float32.

    Raises
    ------
    UserError
        If the file cannot be read, or has changed since it was listed.
    """
    if "decoded" in recording:
        offset = BYTES * (recording["offset"] + start)
        with open(recording["decoded"], "rb") as file:
            file.seek(offset)
            samples = np.fromfile(file, np.int16, length)
        return samples.astype(np.float32) / 2**15
    path = Path(corpus_folder, recording["path"])
    samples, sample_rate = read_piece(path, start, length)
    if sample_rate != recording["sample_rate"]:
        raise UserError(
            f"{path} has {sample_rate} Hz, expected "
            f"{recording['sample_rate']} Hz as when its level was measured: "
            "delete corpus.csv in the save_folder"
        )
    return samples
