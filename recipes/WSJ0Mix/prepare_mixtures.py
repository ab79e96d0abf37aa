#!/usr/bin/env python3
"""Builds WSJ0-mix style mixtures from lists, without MATLAB.

Example
-------
> python recipes/WSJ0Mix/prepare_mixtures.py CORPUS LISTS OUTPUT \
    --num_spks 2 3 --rates 8000 --modes min --splits tr cv tt

Authors
 * The speechbrain_kmdanet developers 2026
"""

import argparse
import sys

from speechbrain_kmdanet.dataio.build_mixtures import build_mixtures

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


def parse_arguments(arguments=None):
    """Parses the command line.

    Arguments
    ---------
    arguments : list of str, optional
        The arguments. By default, those of the process.

    Returns
    -------
    options : argparse.Namespace
        The options.
    """
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
        help="numbers of speakers (default: 2)",
    )
    parser.add_argument(
        "--rates",
        type=int,
        nargs="+",
        default=[8000],
        choices=[8000, 16000],
        help="sample rates in Hz (default: 8000)",
    )
    parser.add_argument(
        "--modes",
        nargs="+",
        default=["min"],
        choices=["min", "max"],
        help="cut to the shortest source or pad to the longest (default: min)",
    )
    parser.add_argument(
        "--splits",
        nargs="+",
        default=["tr", "cv", "tt"],
        metavar="SPLIT",
        help="lists to build (default: tr cv tt)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="number of processes (default: number of CPUs)",
    )
    return parser.parse_args(arguments)


def main(arguments=None):
    """Runs the command line, see `parse_arguments`.

    Returns
    -------
    exit_code : int
        0 if all is well, 2 for a user's error, 130 when interrupted.
    """
    options = parse_arguments(arguments)
    try:
        summary = build_mixtures(
            options.corpus,
            options.lists,
            options.output,
            options.num_spks,
            splits=options.splits,
            sample_rates=options.rates,
            modes=options.modes,
            workers=options.workers,
        )
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "interrupted; the same command goes on from here", file=sys.stderr
        )
        return 130
    print(
        f"{options.output}: {summary.written} mixtures written, "
        f"{summary.skipped} already there"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
