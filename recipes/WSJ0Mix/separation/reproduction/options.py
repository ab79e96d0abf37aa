"""The command line of reproduce.py.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import argparse
from pathlib import Path

from reproduction.methods import BY_NAME, TRAIN_ON
from reproduction.systems import RECIPE
from reproduction.tables import REFERENCE

TABLES = ("table1", "table2", "table3", "figure1")
DESCRIPTION = """\
Redoes the tables and the figure of the paper on data in the layout of wsj0-mix:
trains with train.py what is missing, evaluates it, and writes the paper's
figures beside ours (Markdown and CSV).

  table1   the same DANet with Euclidean and spherical k-means at inference
  table2   spherical k-means DANet with L = 1, 3, 5, 10 and 20 iterations in
           training: SI-SDRi, and minutes of an epoch
  table3   all systems, trained on 2, on 3, and on 2 and 3 speakers, tested on
           2 and on 3
  figure1  the embeddings of a mixture with the attractors of the ground truth
           and those of both kinds of k-means
  all      one after the other

First it says which runs that takes and what they cost. A run is made once: what
is done with the same settings is not repeated, not for another table either.
The same command goes on after an interruption, and --systems and --train_on do
table3 piece by piece."""

EPILOG = """\
Settings for train.py in all runs follow a --:

  python reproduce.py table3 --data_folder ROOT --hours 5 \\
      --dynamic_mixing CORPUS --systems danet oracle_ratio --train_on 2 \\
      -- --hidden_size 256 --batch_size 8

They go to the systems that have them; a loss or network of a system's own stays
as it is. Folders of runs with other settings are left alone: give --runs.

systems:
"""


def parse_arguments(arguments):
    """Parses the command line.

    Arguments
    ---------
    arguments : list of str
        The command line without the name of the program.

    Returns
    -------
    argparse.Namespace
        The options; overrides is what follows "--", values by name.
    """
    parser = argparse.ArgumentParser(
        prog="reproduce.py",
        description=DESCRIPTION,
        epilog=EPILOG
        + "\n".join(f"  {x.name:28}{x.label}" for x in BY_NAME.values()),
        usage="%(prog)s TABLE --data_folder ROOT [options] [-- --KEY VALUE ...]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_options(parser)
    split = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser.parse_args(arguments[:split])
    if options.epoch_size and not options.dynamic_mixing:
        parser.error("--epoch_size goes with --dynamic_mixing")
    options.overrides = _parse_overrides(parser, arguments[split + 1 :])
    options.name = options.name or options.data_folder.absolute().name
    if options.runs is None:
        hours = f"{options.hours:g}h" if options.hours else "full"
        folder = RECIPE / "results" / "reproduce"
        options.runs = folder / f"{options.name}_{hours}"
    return options


def _add_options(parser):
    """Adds the options to the parser."""
    add = parser.add_argument
    add("table", choices=[*TABLES, "all"], metavar="TABLE", help="see above")
    add(
        "--data_folder", required=True, type=Path, metavar="ROOT",
        help="holds 2speakers/ and, for 3 speakers, 3speakers/",
    )  # fmt: skip
    add(
        "--hours", type=_positive(float), metavar="H",
        help="hours of mixtures that each training sees (default: the numbers "
        "of epochs in the YAML files, which are the paper's)",
    )  # fmt: skip
    add(
        "--dynamic_mixing", type=Path, metavar="CORPUS",
        help="train on new mixtures in every epoch, of this folder with one "
        "folder of recordings per speaker, instead of tr",
    )  # fmt: skip
    add(
        "--epoch_size", type=_positive(int), metavar="N",
        help="mixtures in an epoch of dynamic mixing (default: a 14th of the "
        "hours, at most 20000)",
    )  # fmt: skip
    add(
        "--seeds", type=int, nargs="+", default=[1234], metavar="SEED",
        help="each training is made with each of these (default: 1234)",
    )  # fmt: skip
    add(
        "--systems", nargs="+", choices=BY_NAME, metavar="SYSTEM",
        help="run these of table3 (default: all), or draw this one in figure1 "
        f"(default: {REFERENCE}); listed below",
    )  # fmt: skip
    add(
        "--train_on", nargs="+", choices=TRAIN_ON,
        help="train the systems of table3 on these numbers of speakers "
        "(default: all that ROOT has)",
    )  # fmt: skip
    add(
        "--separator", type=Path, metavar="FOLDER",
        help="figure1: the separator, instead of training one",
    )  # fmt: skip
    add("--mixture", metavar="NAME", help="figure1: a mixture of tt")
    add(
        "--name", help="name of the data in the tables and of their files "
        "(default: the last part of ROOT)",
    )  # fmt: skip
    add(
        "--runs", type=Path, metavar="FOLDER",
        help="where the runs go (default: results/reproduce/NAME_HOURS beside "
        "reproduce.py)",
    )  # fmt: skip
    add(
        "--results", type=Path, metavar="FOLDER",
        default=RECIPE.parents[2] / "results",
        help="where the tables go (default: results/ of the repository)",
    )  # fmt: skip
    add("--dry_run", action="store_true", help="say what it costs, and stop")


def _positive(kind):
    """Type of an option: a positive number."""

    def parse(text):
        value = kind(text)
        if not 0 < value < float("inf"):
            raise ValueError
        return value

    parse.__name__ = f"positive {kind.__name__}"
    return parse


def _parse_overrides(parser, words):
    """Values by name of what follows "--"; None for those without a value."""
    overrides, name = {}, None
    for word in words:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            overrides[name] = value if equals else None
        elif name is None or overrides[name] is not None:
            parser.error(f"expected --KEY VALUE behind --, got {word!r}")
        else:
            overrides[name] = word
    return overrides
