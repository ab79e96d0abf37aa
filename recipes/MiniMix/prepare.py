"""Prepares MiniMix: mixtures of synthetic talkers, made from nothing.

espeak-ng reads sentences with dozens of virtual voices; lists in the format
of WSJ0-mix say which recordings are mixed; and the mixtures come in the
layout of WSJ0-mix:

    OUTPUT/corpus/{tr,cv,tt}/SPEAKER/UTTERANCE.wav
    OUTPUT/corpus/speakers.csv
    OUTPUT/lists/mix_{2,3}_spk_{tr,cv,tt}.txt
    OUTPUT/{2,3}speakers/wav8k/min/{tr,cv,tt}/{mix,s1,s2,s3}/NAME.wav

It needs espeakng-loader: pip install "speechbrain_kmdanet[demo]"
"""

import argparse
import csv
import json
import logging
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minimix_lists import PITCH_RATIO, draw_mixtures, draw_texts
from minimix_synthesis import espeak_files, record_speakers
from minimix_voices import Speaker, draw_speakers

from speechbrain_kmdanet.errors import UserError, run_command
from speechbrain_kmdanet.utils.jobs import write_whole

logger = logging.getLogger(__name__)

VERSION = 1  # of what the same settings make
SPLITS = ("tr", "cv", "tt")
STATE_FILE = "minimix.json"
# The defaults of both the function and the command line
NUM_SPKS = (2, 3)
SPEAKERS = (32, 8, 8)
UTTERANCES = 20
MIXTURES = (400, 40, 40)
SEED = 1234


def prepare_minimix(
    output_folder: str | Path,
    num_spks: Sequence[int] = NUM_SPKS,
    speakers: Sequence[int] = SPEAKERS,
    utterances: int = UTTERANCES,
    mixtures: Sequence[int] = MIXTURES,
    seed: int = SEED,
    workers: int | None = None,
    progress: bool = True,
) -> dict[int, Path]:
    """Synthesises the corpus, draws the lists and builds the mixtures.

    The same arguments make the same set (with the same version of
    espeakng-loader), whatever the number of workers. A set that is finished
    is left alone; an interrupted one is continued.

    Arguments
    ---------
    output_folder : str or pathlib.Path
        The folder that everything is written in.
    num_spks : sequence of int
        The numbers of talkers to build mixtures of, 2 and 3.
    speakers : sequence of int
        The numbers of talkers in tr, cv and tt.
    utterances : int
        Sentences that each talker reads, or all of the split's if it has
        fewer (80, 20 and 20).
    mixtures : sequence of int
        The numbers of mixtures in tr, cv and tt.
    seed : int
        Seed of all draws.
    workers : int, optional
        Number of processes. By default, the number of CPUs.
    progress : bool
        Whether to show progress bars.

    Returns
    -------
    dict
        The folder of the mixtures (pathlib.Path) by number of talkers.

    Raises
    ------
    UserError
        If espeak-ng is not installed or does not work, an argument is out of
        range, or the folder holds another set.
    """
    output = Path(output_folder).absolute()
    num_spks = tuple(dict.fromkeys(num_spks))
    settings = {
        "version": VERSION,
        "speakers": list(speakers),
        "utterances": utterances,
        "mixtures": list(mixtures),
        "seed": seed,
    }
    _check(num_spks, settings, workers)
    folders = {count: output / f"{count}speakers" for count in num_spks}
    state = _read_state(output, settings)
    if set(num_spks) <= set(state["built"]) and all(
        folder.is_dir() for folder in folders.values()
    ):
        logger.info(f"{output} is there already, with the same settings")
        return folders

    espeak_files()  # raises if it is missing
    # Here, as the processes that synthesise import this file: without PyTorch.
    from speechbrain_kmdanet.dataio.wsj0mix import build_mixtures

    _write_state(output, state)
    cast = {
        split: draw_speakers(split, count, seed)
        for split, count in zip(SPLITS, speakers)
    }
    everyone = [speaker for split in SPLITS for speaker in cast[split]]
    readings = draw_texts(everyone, utterances, seed)
    corpus, lists = output / "corpus", output / "lists"
    with write_whole(corpus / "speakers.csv") as unfinished:
        with unfinished.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["speaker", *Speaker._fields[1:]])
            writer.writerows(everyone)
    record_speakers(corpus, readings, workers, progress)
    for count in PITCH_RATIO:
        for split, total in zip(SPLITS, mixtures):
            if len(cast[split]) < count:
                continue
            rng = random.Random(f"MiniMix lists {seed} {split} {count}")
            spoken = {speaker: readings[speaker] for speaker in cast[split]}
            lines = draw_mixtures(spoken, count, total, rng)
            path = lists / f"mix_{count}_spk_{split}.txt"
            with write_whole(path) as unfinished:
                unfinished.write_text("\n".join([*lines, ""]), "utf-8")
    build_mixtures(
        corpus, lists, output, num_spks, workers=workers, progress=progress
    )
    state["built"] = sorted({*state["built"], *num_spks})
    _write_state(output, state)
    return folders


def _check(
    num_spks: tuple[int, ...], settings: dict[str, Any], workers: int | None
) -> None:
    """Raises a UserError that names the first argument out of range."""
    allowed = tuple(PITCH_RATIO)
    if not num_spks or not set(num_spks) <= set(allowed):
        raise UserError(f"num_spks: expected some of {allowed}, got {num_spks}")
    for name, least in (("speakers", max(num_spks)), ("mixtures", 1)):
        counts = settings[name]
        if len(counts) != len(SPLITS) or min(counts) < least:
            raise UserError(
                f"{name}: expected {least} or more in each of tr, cv and tt, "
                f"got {counts}"
            )
    numbers = {"utterances": settings["utterances"], "workers": workers}
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise UserError(f"{name}: expected 1 or more, got {value}")


def _read_state(output: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Reads what the folder holds; checks that it may hold these settings."""
    path = output / STATE_FILE
    if not path.exists():
        for name in ("corpus", "lists", "2speakers", "3speakers"):
            if (output / name).exists():
                raise UserError(
                    f"output_folder: {output} holds {name}, but is not a "
                    f"MiniMix folder (no {STATE_FILE}): choose another folder"
                )
        return {"settings": settings, "built": []}
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        found = state["settings"]
        state["built"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is damaged: delete {output} or choose another folder"
        ) from error
    if found != settings:
        differences = ", ".join(
            f"{name} {found.get(name)} (asked for: {value})"
            for name, value in settings.items()
            if found.get(name) != value
        )
        raise UserError(
            f"output_folder: {output} holds a set with {differences}: delete "
            "it or choose another folder"
        )
    return state


def _write_state(output: Path, state: dict[str, Any]) -> None:
    """Writes the settings and what is built."""
    with write_whole(output / STATE_FILE) as unfinished:
        unfinished.write_text(json.dumps(state, indent=1) + "\n", "utf-8")


def run(arguments: list[str]) -> None:
    """Makes the set that the command line asks for."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(
        description="Makes MiniMix: 8 kHz mixtures of synthetic talkers in "
        "the layout of WSJ0-mix, to try a separator on in minutes. The same "
        "settings make the same set; an interrupted run is continued by the "
        "same command.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        epilog="Then train with --data_folder OUTPUT/2speakers.",
    )
    parser.add_argument(
        "output", metavar="OUTPUT", help="folder that everything is written in"
    )
    parser.add_argument(
        "--num_spks",
        type=int,
        nargs="+",
        choices=tuple(PITCH_RATIO),
        default=list(NUM_SPKS),
        help="talkers in a mixture; two numbers make two sets",
    )
    for name, default in (("speakers", SPEAKERS), ("mixtures", MIXTURES)):
        parser.add_argument(
            f"--{name}",
            type=int,
            nargs=3,
            metavar=("TR", "CV", "TT"),
            default=list(default),
            help=f"{name} for training, validation and test",
        )
    parser.add_argument(
        "--utterances",
        type=int,
        default=UTTERANCES,
        metavar="N",
        help="sentences that each talker reads, of 80, 20 and 20",
    )
    parser.add_argument("--seed", type=int, default=SEED, help="of all draws")
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        default=os.cpu_count(),
        help="processes at a time",
    )
    options = vars(parser.parse_args(arguments))
    for folder in prepare_minimix(options.pop("output"), **options).values():
        print(f"Train with --data_folder {folder}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit status."""
    return run_command("prepare.py", run, arguments)


if __name__ == "__main__":
    sys.exit(main())
