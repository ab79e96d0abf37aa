"""Errors that are meant for a person, and the frame of every command."""

import errno
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn


class UserError(ValueError):
    """Something that the user can remedy; the message says what and how.

    Commands print it in one line, see :func:`run_command`. Everything else is
    a bug, and shows its traceback.
    """


class Stopped(SystemExit):
    """A signal asked this process to end.

    Arguments
    ---------
    number : int
        Number of the signal.

    Example
    -------
    >>> Stopped(signal.SIGTERM).code
    143
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


def stop(number: int, *_: object) -> NoReturn:
    """Ends what is being done as a signal asks for; also its handler.

    Arguments
    ---------
    number : int
        Number of the signal.
    *_ : object
        What else a handler is given.

    Raises
    ------
    KeyboardInterrupt
        For Ctrl-C.
    Stopped
        For all others.
    """
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Stopped(number)


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
        interrupted, 143 when terminated.

    Example
    -------
    >>> run_command("nothing", lambda arguments: None, [])
    0
    """
    try:
        with _handling_termination():
            run(list(sys.argv[1:] if arguments is None else arguments))
    except (KeyboardInterrupt, Stopped) as signalled:
        sys.stderr.write(f"{name}: the same command goes on from here\n")
        return getattr(signalled, "code", 128 + signal.SIGINT)
    except (UserError, OSError) as error:
        # Without a number, an OSError does not come from the system.
        if isinstance(error, OSError) and error.errno not in errno.errorcode:
            raise
        sys.stderr.write(f"{name}: error: {_one_line(error)}\n")
        return 2
    return 0


@contextmanager
def _handling_termination() -> Iterator[None]:
    """Has SIGTERM unwind this process, unless somebody else handles it."""
    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if ours:
        signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _one_line(error: Exception) -> str:
    """Message of an error, also of one that a data loader's worker met."""
    message = str(error)
    if message.startswith("Caught "):
        # PyTorch makes one text of the worker's traceback and its message.
        message = re.split(r"\n(?:\w+\.)*\w*Error: ", message)[-1]
    return one_line(message)


def one_line(text: object) -> str:
    """What stands in a message that is to be one line.

    Arguments
    ---------
    text : object
        A text, or what has one, as an error.

    Returns
    -------
    str
        Its words, with a space between them.

    Example
    -------
    >>> one_line("a\\n  b")
    'a b'
    """
    return " ".join(str(text).split())
