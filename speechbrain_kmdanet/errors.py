"""Errors that are meant for a person, and the frame of every command."""

import errno
import re
import sys
from collections.abc import Callable, Sequence


class UserError(ValueError):
    """Something that the user can remedy; the message says what and how.

    Commands print it in one line, see :func:`run_command`. Everything else is
    a bug, and shows its traceback.
    """


def run_command(
    name: str,
    run: Callable[[list[str]], None],
    arguments: Sequence[str] | None = None,
) -> int:
    """Runs a command line: one line for what the user can remedy.

    Arguments
    ---------
    name : str
        Name of the program.
    run : callable
        What it does with its arguments.
    arguments : sequence of str
        Command line without the name; that of the process by default.

    Returns
    -------
    int
        Exit status: 0 if all is well, 2 for an error of the user, 130 when
        interrupted.

    Example
    -------
    >>> run_command("nothing", lambda arguments: None, [])
    0
    """
    try:
        run(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:
        sys.stderr.write(f"{name}: the same command goes on from here\n")
        return 130
    except (UserError, OSError) as error:
        # Without a number, an OSError does not come from the system.
        if isinstance(error, OSError) and error.errno not in errno.errorcode:
            raise
        sys.stderr.write(f"{name}: error: {_one_line(error)}\n")
        return 2
    return 0


def _one_line(error: Exception) -> str:
    """Message of an error, also of one that a data loader's worker met."""
    message = str(error)
    if message.startswith("Caught "):
        # PyTorch makes one text of the worker's traceback and its message.
        message = re.split(r"\n(?:\w+\.)*\w*Error: ", message)[-1]
    return " ".join(message.split())
