"""Tells the errors that a user can remedy from bugs.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import re
import traceback
from pathlib import Path

import hyperpyyaml
from ruamel.yaml.error import YAMLError
from soundfile import SoundFileError

import speechbrain_kmdanet

# Whoever raises a ValueError here means the user, and says what to do.
OURS = (
    Path(speechbrain_kmdanet.__file__).resolve().parent,
    Path(__file__).resolve().parent,
)
HYPERPYYAML = Path(hyperpyyaml.__file__).resolve().parent


def user_message(error):
    """Message of an error of the user.

    Arguments
    ---------
    error : Exception
        The error, also one that a worker of a data loader met.

    Returns
    -------
    str or None
        One line; None if the error is a bug, whose traceback is wanted.
    """
    kind, message, raised_in = _unwrap(error)
    message = " ".join(message.split())
    # Without a number, an OSError does not come from the system.
    if issubclass(kind, OSError) and "[Errno" in message:
        return message
    if issubclass(kind, (YAMLError, SoundFileError)):
        return message
    if issubclass(kind, ValueError) and _is_in(raised_in, *OURS):
        return message
    if _is_in(raised_in, HYPERPYYAML):
        return _explain_yaml(kind, message)
    return None


def _unwrap(error):
    """Type and message of an error, and the file that raised it."""
    # PyTorch makes one text of the error of a worker and its traceback.
    text = str(error.args[0]) if error.args else ""
    wrapped = re.match(r"Caught (\w+) in DataLoader worker process", text)
    if not wrapped:
        frames = traceback.extract_tb(error.__traceback__)
        return type(error), str(error), frames[-1].filename if frames else ""
    before, _, message = re.split(rf"\n((?:\w+\.)*{wrapped[1]}): ", text)[-3:]
    files = re.findall(r'\n  File "(.+?)", line', before)
    return type(error), message, files[-1] if files else ""


def _is_in(path, *folders):
    """Whether a file is in one of the folders."""
    parents = Path(path).resolve().parents
    return any(folder in parents for folder in folders)


def _explain_yaml(kind, message):
    """Says for the command line what hyperpyyaml says for YAML."""
    key = re.search(r"'(\w+)' is a !PLACEHOLDER", message)
    if key:
        return f"{key[1]} must be given: --{key[1]} VALUE"
    key = re.search(r"Override '(\w+)' not found", message)
    if key:
        return f"the YAML file has no key {key[1]}: check --{key[1]}"
    return message if issubclass(kind, ValueError) else None
