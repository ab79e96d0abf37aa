#!/usr/bin/env python3
"""Measures how long, and how much memory, recordings of minutes and hours take.

python benchmarks/recordings.py
"""

import argparse
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import soundfile
import torch
from measure import parse_options, report

from speechbrain_kmdanet import EXAMPLE
from speechbrain_kmdanet.errors import run_command

MINUTES = [1, 10, 60]
HEADER = ["minutes", "seconds", "times real time", "peak memory (GB)", "tracks"]
KILOBYTES = 2**20  # in a gigabyte, as Linux counts


def write_recording(path: Path, minutes: float) -> None:
    """Writes the example recording again and again, until it is that long."""
    sound, rate = soundfile.read(EXAMPLE, dtype="int16")
    left = round(60 * minutes * rate)
    with soundfile.SoundFile(path, "w", rate, 1, "PCM_16") as file:
        while left > 0:
            file.write(sound[:left])
            left -= len(sound)


def measure_recording(path: Path, threads: int) -> tuple[float, float, int]:
    """Separates a recording in a process of its own.

    Arguments
    ---------
    path : pathlib.Path
        The recording.
    threads : int
        Threads of PyTorch.

    Returns
    -------
    tuple
        Seconds, gigabytes of the process at most, and number of tracks.
    """
    from speechbrain_kmdanet.inference.recordings import separate_recording
    from speechbrain_kmdanet.inference.separation import AttractorSeparation

    torch.set_num_threads(threads)
    separator = AttractorSeparation.from_hparams()
    began = time.perf_counter()
    made = separate_recording(separator, path, path.parent, progress=False)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KILOBYTES
    return seconds, peak, len(made.tracks)


def run(arguments: list[str]) -> None:
    """Measures and writes the table, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--minutes",
        type=float,
        nargs="+",
        default=MINUTES,
        help="lengths of the recordings (default: 1 10 60)",
    )
    options = parse_options(parser, 1, arguments)
    lines = []
    for minutes in options.minutes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "recording.wav")
            write_recording(path, minutes)
            # A new process for each: peaks of memory stay.
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                seconds, peak, tracks = pool.submit(
                    measure_recording, path, options.threads
                ).result()
        speed = 60 * minutes / seconds
        row = f"{minutes:g}", f"{seconds:.1f}", f"{speed:.1f}", f"{peak:.2f}"
        lines.append([*row, str(tracks)])
    notes = (
        "The packaged separator counts the talkers of the example recording, "
        "again and again, and writes their tracks."
    )
    report(
        options.results / "recordings.md",
        "Recordings of any length",
        [(HEADER, lines), notes],
    )


def main() -> int:
    """Runs the command line; returns the exit status."""
    return run_command("recordings.py", run)


if __name__ == "__main__":
    sys.exit(main())
