#!/usr/bin/env python3
"""Lists of mixtures of four talkers, of lists of mixtures of two.

    python four_talkers.py LISTS OUTPUT

Two lines with four different talkers become one, with their SNRs:
OUTPUT/mix_4_spk_cv.txt and mix_4_spk_tt.txt, for prepare_mixtures.py.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from speechbrain_kmdanet.errors import UserError, run_command


def pair_lines(lines: Sequence[str]) -> list[str]:
    """Joins lines of two talkers each that have no talker in common.

    Arguments
    ---------
    lines : sequence of str
        Lines "PATH SNR PATH SNR"; the folder of a path is the talker.

    Returns
    -------
    list of str
        Lines of four talkers; each line given is in one of them at most.

    Example
    -------
    >>> pair_lines(["a/1 1 b/1 -1", "b/2 0 c/1 0", "c/2 2 d/1 -2"])
    ['a/1 1 b/1 -1 c/2 2 d/1 -2']
    """
    waiting: list[tuple[str, set[Path]]] = []
    pairs = []
    for line in lines:
        talkers = {Path(path).parent for path in line.split()[::2]}
        for other in waiting:
            if not talkers & other[1]:
                pairs.append(f"{other[0]} {line}")
                waiting.remove(other)
                break
        else:
            waiting.append((line, talkers))
    return pairs


def run(arguments: list[str]) -> None:
    """Writes the lists, as the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("lists", type=Path, help="with mix_2_spk_cv.txt, ...")
    parser.add_argument("output", type=Path, help="folder to write to")
    options = parser.parse_args(arguments)
    for split in ("cv", "tt"):
        file = options.lists / f"mix_2_spk_{split}.txt"
        if not file.is_file():
            raise UserError(f"there is no {file}: give a folder of lists")
        lines = pair_lines(file.read_text().splitlines())
        options.output.mkdir(parents=True, exist_ok=True)
        written = options.output / f"mix_4_spk_{split}.txt"
        written.write_text("".join(f"{line}\n" for line in lines))
        sys.stdout.write(f"{written}: {len(lines)} mixtures\n")


def main() -> int:
    """Runs the command line; returns the exit status."""
    return run_command("four_talkers.py", run)


if __name__ == "__main__":
    sys.exit(main())
