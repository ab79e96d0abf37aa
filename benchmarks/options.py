"""Options that all benchmarks have.

Authors
 * The speechbrain_kmdanet developers 2026
"""

from pathlib import Path

import torch

RESULTS = Path(__file__).resolve().parents[1] / "results"


def parse_options(parser, repeats):
    """Adds the common options, parses the command line and sets the threads.

    Arguments
    ---------
    parser : argparse.ArgumentParser
        Parser with the options of its own.
    repeats : int
        Number of rounds by default.

    Returns
    -------
    argparse.Namespace
        The options.
    """
    add = parser.add_argument
    add(
        "--repeats", type=int, default=repeats,
        help=f"rounds of each (default: {repeats})",
    )  # fmt: skip
    add("--threads", type=int, default=2, help="of PyTorch (default: 2)")
    add(
        "--results", type=Path, default=RESULTS, metavar="RESULTS",
        help="where to write (default: results/ of the repository)",
    )  # fmt: skip
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    return options
