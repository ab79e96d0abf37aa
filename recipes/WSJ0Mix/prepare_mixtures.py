#!/usr/bin/env python3
"""Builds WSJ0-mix style mixtures from lists, without MATLAB."""

import argparse
import sys
from collections.abc import Sequence

from speechbrain_kmdanet.dataio.mixing import MODES
from speechbrain_kmdanet.dataio.wsj0mix import (
    SAMPLE_RATES,
    SPLITS,
    build_mixtures,
)
from speechbrain_kmdanet.errors import run_command

DESCRIPTION = """\
Builds the mixtures of WSJ0-mix style lists as MERL's MATLAB scripts do
(active speech level of ITU-T P.56, SNRs, common scaling), into
OUTPUT/{2,3}speakers/wav{8,16}k/{min,max}/{tr,cv,tt}/{mix,s1,s2,s3}/.

All recordings are checked before anything is written. An interrupted run
goes on where it stopped when the same command is given again."""

EPILOG = """\
example, wsj0-2mix and wsj0-3mix at 8 kHz:
  python recipes/WSJ0Mix/prepare_mixtures.py /data/wsj /data/wsj-lists \\
      /data/wsj0-mix --num_spks 2 3

The recordings are WAV or FLAC files of one channel. WSJ0 is delivered as
SPHERE (.wv1): convert each file with sph2pipe first, keeping the folders,
  sph2pipe -f wav wsj0/si_tr_s/01t/01to030v.wv1 wsj0/si_tr_s/01t/01to030v.wav
"""


def run(arguments: list[str]) -> None:
    """Builds what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "corpus", help="folder that the paths in the lists are relative to"
    )
    parser.add_argument(
        "lists", help="folder of mix_2_spk_tr.txt, mix_3_spk_cv.txt and so on"
    )
    parser.add_argument("output", help="folder to write to")
    parser.add_argument(
        "--num_spks",
        type=int,
        nargs="+",
        default=[2],
        metavar="N",
        help="numbers of talkers (default: 2)",
    )
    parser.add_argument(
        "--rates",
        type=int,
        nargs="+",
        default=[8000],
        choices=SAMPLE_RATES,
        help="sample rates in Hz (default: 8000)",
    )
    parser.add_argument(
        "--modes",
        nargs="+",
        default=["min"],
        choices=MODES,
        help="cut to the shortest source or pad to the longest (default: min)",
    )
    parser.add_argument(
        "--splits",
        nargs="+",
        default=SPLITS,
        metavar="SPLIT",
        help="lists to build (default: tr cv tt)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="number of processes (default: number of CPUs)",
    )
    parser.add_argument(
        "--noise",
        metavar="FOLDER",
        help="folder of sounds, one of which is added to each mixture",
    )
    parser.add_argument(
        "--noise_snr",
        type=float,
        default=15.0,
        metavar="DB",
        help="level of all talkers relative to the noise (default: 15)",
    )
    parser.add_argument(
        "--level_padding",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="silence after a recording whose level is measured: 0.35 is what "
        "later versions of VOICEBOX's activlev append (default: 0, as that of 2012)",
    )
    options = parser.parse_args(arguments)
    summary = build_mixtures(
        options.corpus,
        options.lists,
        options.output,
        options.num_spks,
        splits=options.splits,
        sample_rates=options.rates,
        modes=options.modes,
        workers=options.workers,
        noise_folder=options.noise,
        noise_snr=options.noise_snr,
        level_padding=options.level_padding,
    )
    print(
        f"{options.output}: {summary.written} mixtures written, "
        f"{summary.skipped} already there"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit status."""
    return run_command("prepare_mixtures.py", run, arguments)


if __name__ == "__main__":
    sys.exit(main())
