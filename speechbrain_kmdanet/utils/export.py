"""Trained separators on disk: the folder that ``from_hparams`` loads.

Also what a training starts from: the weights of such a folder, or a checkpoint.
"""

import io
import os
import pickle
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ruamel.yaml
import torch
from ruamel.yaml.comments import CommentedMap, TaggedScalar
from speechbrain.utils import checkpoints
from speechbrain.utils.logger import get_logger
from torch import Tensor, nn

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.utils.jobs import write_whole
from speechbrain_kmdanet.utils.yaml_layers import (
    MODULES,
    NEW,
    REF,
    state_defaults,
    write_settings,
)

logger = get_logger(__name__)

ABOUT = "Separator for inference; load it with from_hparams."
# What a separator says once, and refers to where its modules need it.
NUMBERS = "sample_rate", "num_spks"
PRETRAINER = "!new:speechbrain.utils.parameter_transfer.Pretrainer"
MISFIT = "Error(s) in loading state_dict"
AS_TRAINED = "the model's options must be those of its training"
ZIP = b"PK\x03\x04"  # how torch.save begins a file, since PyTorch 1.6
SCRIPT = "constants.pkl"  # only TorchScript's files have it
# What reading a file may end in that was damaged, or made to do damage.
DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
)
# What DataParallel and torch.compile put in front of the names of weights.
WRAPPERS = re.compile(r"^(?:(?:module|_orig_mod)\.)+")


def _weights_file(folder: str | Path, name: str) -> str:
    """Where SpeechBrain's Pretrainer expects the weights of a module."""
    return os.path.join(folder, f"{name}.ckpt")


def write_tensors(tensors: Any, path: str | Path) -> None:
    """Writes what ``torch.load`` reads, whole or not at all.

    Arguments
    ---------
    tensors : object
        Tensors in containers, as a state_dict.
    path : str or pathlib.Path
        The file.

    Raises
    ------
    OSError
        If it cannot be written: of a full disk, ``torch.save`` itself makes a
        RuntimeError that does not say so.
    """
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    with write_whole(path) as unfinished:
        unfinished.write_bytes(buffer.getbuffer())


def write_pretrained(
    folder: str | Path,
    resolved_hparams: str | Path,
    modules: Mapping[str, nn.Module],
    half: bool = False,
) -> None:
    """Writes hyperparams.yaml and the weights of a separator.

    The YAML file is self-contained: it holds the modules alone, with every
    argument that they are made with, and loads the weights beside it.

    Arguments
    ---------
    folder : str or pathlib.Path
        Where to write; made if it is not there.
    resolved_hparams : str or pathlib.Path
        The settings of the training with references resolved, see
        :func:`~speechbrain_kmdanet.utils.yaml_layers.save_settings`; with the
        keys sample_rate, num_spks, encoder, masknet and decoder.
    modules : dict
        The trained modules encoder, masknet and decoder by name. Those
        without a state, as the STFT, need no file.
    half : bool
        Whether to store weights in half precision. One-dimensional tensors
        (biases, statistics) stay as they are.

    Raises
    ------
    UserError
        If a key is missing, or a weight is not finite as it would be stored.
    """
    text = Path(resolved_hparams).read_text(encoding="utf-8")
    experiment = ruamel.yaml.YAML().load(text)
    keys = *NUMBERS, *MODULES
    missing = [key for key in keys if key not in experiment]
    if missing:
        raise UserError(f"{resolved_hparams} lacks the keys {missing}")
    separator = CommentedMap({key: experiment[key] for key in keys})
    state_defaults(separator)
    separator["modules"] = {name: separator[name] for name in MODULES}
    states = {name: modules[name].state_dict() for name in MODULES}
    states = {name: state for name, state in states.items() if state}
    loadables = {name: separator[name] for name in states}
    separator["pretrainer"] = CommentedMap({"loadables": loadables})
    tag = ruamel.yaml.Tag(suffix=PRETRAINER)
    separator["pretrainer"].yaml_set_ctag(tag)
    states = {
        name: _as_stored(name, state, half) for name, state in states.items()
    }
    for name, state in states.items():
        write_tensors(state, _weights_file(folder, name))
    _write_hparams(separator, os.path.join(folder, "hyperparams.yaml"))


def _write_hparams(separator: CommentedMap, path: str | Path) -> None:
    """Writes a separator's YAML file, which says each of its numbers once."""
    for name in separator["modules"]:
        _refer(separator[name], separator)
    write_settings(separator, ABOUT, path)


def _refer(node: Any, separator: CommentedMap) -> None:
    """Puts references in the place of the numbers of a separator."""
    if not isinstance(node, CommentedMap):
        return
    for key, value in node.items():
        if key in NUMBERS and value == separator[key]:
            node[key] = TaggedScalar(f"<{key}>", tag=REF)
        _refer(value, separator)


def add_module(
    folder: str | Path,
    name: str,
    module: nn.Module,
    options: Mapping[str, Any],
) -> None:
    """Adds a module to a separator, or takes the place of one of its name.

    Arguments
    ---------
    folder : str or pathlib.Path
        Where the separator is.
    name : str
        Name of the module among those of the separator.
    module : nn.Module
        The trained module, of this package; its weights are stored in half
        precision.
    options : mapping
        Arguments that the module is made with: numbers, and lists of them.

    Raises
    ------
    UserError
        If a weight is not finite as it would be stored.
    """
    path = os.path.join(folder, "hyperparams.yaml")
    text = Path(path).read_text(encoding="utf-8")
    separator = ruamel.yaml.YAML().load(text)
    made = CommentedMap(options)
    kind = type(module)
    tag = f"{NEW}{kind.__module__}.{kind.__qualname__}"
    made.yaml_set_ctag(ruamel.yaml.Tag(suffix=tag))
    state_defaults(made)
    modules = separator.pop("modules")
    pretrainer = separator.pop("pretrainer")
    separator[name] = modules[name] = pretrainer["loadables"][name] = made
    separator["modules"], separator["pretrainer"] = modules, pretrainer
    state = _as_stored(name, module.state_dict(), half=True)
    write_tensors(state, _weights_file(folder, name))
    _write_hparams(separator, path)


def _as_stored(
    name: str, state: Mapping[str, Tensor], half: bool
) -> dict[str, Tensor]:
    """Weights as a file has them, if all are finite."""
    stored = {}
    for key, value in state.items():
        if half and value.is_floating_point() and value.dim() > 1:
            value = value.half()
        if not value.isfinite().all():
            raise UserError(
                f"{key} of the {name} is not finite, nothing is written: "
                "lower lr, or set half_weights to False if its values are "
                "too large for half precision"
            )
        stored[key] = value.cpu()
    return stored


def load_weights(modules: Mapping[str, nn.Module], path: str | Path) -> None:
    """Loads the weights of a pretrained separator.

    Arguments
    ---------
    modules : dict
        The modules encoder, masknet and decoder by name.
    path : str or pathlib.Path
        A pretrained folder, or the file of the masknet's weights.

    Raises
    ------
    OSError
        If there is no such file.
    UserError
        If it holds no weights, or those of another model.
    """
    names = [name for name, module in modules.items() if module.state_dict()]
    files = {"masknet": str(path)}
    if os.path.isdir(path):
        files = {name: _weights_file(path, name) for name in names}
    elif len(names) > 1:
        raise UserError(
            f"initial_weights must be a pretrained folder, as {', '.join(names)} "
            f"of this system have weights, got the file {path}"
        )
    for name, file in files.items():
        try:
            load_state(modules[name], file)
        except UserError as error:
            raise UserError(f"initial_weights: {error}") from error


def load_state(module: nn.Module, path: str | Path) -> None:
    """Loads the weights of a module from a file: all of them, or none counts.

    The file cannot run anything. What DataParallel and torch.compile put in
    front of the names is understood.

    Arguments
    ---------
    module : nn.Module
        The module.
    path : str or pathlib.Path
        File of its weights.

    Raises
    ------
    OSError
        If there is no such file.
    UserError
        If it is damaged or holds no weights, those of another module, or some
        that are not finite.

    Example
    -------
    >>> from tempfile import TemporaryDirectory
    >>> trained, module = nn.Linear(1, 1), nn.Linear(1, 1)
    >>> with TemporaryDirectory() as folder:
    ...     file = os.path.join(folder, "module.ckpt")
    ...     torch.save(trained.state_dict(), file)
    ...     load_state(module, file)
    >>> torch.equal(module.weight, trained.weight)
    True
    """
    own = module.state_dict()
    state = _read_state(path)
    if state.keys() != own.keys():
        bare = {WRAPPERS.sub("", name): value for name, value in state.items()}
        # Of two of one name, none is known to be meant.
        state = bare if len(bare) == len(state) else state
    for name in own.keys() & state.keys():
        kinds = own[name].dtype, state[name].dtype
        if kinds[0].is_floating_point != kinds[1].is_floating_point:
            raise UserError(
                f"{path} does not fit the model ({name} is {kinds[1]}, "
                f"expected {kinds[0]}): {AS_TRAINED}"
            )
    with must_fit(str(path)):
        module.load_state_dict(state)
    for name, value in module.state_dict().items():
        if not value.isfinite().all():
            raise UserError(
                f"{path} has NaN or infinite weights ({name}): its training "
                "diverged, take the weights of an earlier epoch"
            )


def _read_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors by name in a file; nothing in it is run."""
    start, state = b"", None
    # A pipe would be waited for.
    if os.path.isfile(path) or not os.path.exists(path):
        with open(path, "rb") as file:
            start = file.read(len(ZIP))
    try:
        # PyTorch before 2.6 runs TorchScript in spite of weights_only. Which
        # records it would take, only its own reader knows; which, though,
        # compares no checksums.
        if (
            start == ZIP
            and not zipfile.ZipFile(path).testzip()
            and SCRIPT
            not in torch._C.PyTorchFileReader(str(path)).get_all_records()
        ):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGE as error:
        logger.debug(f"{path}: {error}")
    if not isinstance(state, dict) or not all(
        isinstance(name, str)
        and isinstance(value, Tensor)
        and value.layout == torch.strided
        for name, value in state.items()
    ):
        raise UserError(
            f"{path} holds no weights, or is damaged: expected tensors by "
            "name, as in the masknet.ckpt that train.py writes"
        )
    # New names of parts of SpeechBrain's, in versions that have any.
    rename = getattr(checkpoints, "hook_on_loading_state_dict_checkpoint", dict)
    return rename(dict(state))


@contextmanager
def must_fit(what: str) -> Iterator[None]:
    """Turns PyTorch's list of what does not fit a model into one line.

    Arguments
    ---------
    what : str
        What is loaded.

    Raises
    ------
    UserError
        If it does not fit.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error.args[0]) if error.args else ""
        if MISFIT not in text:
            raise
        # The second line has the first misfit, and its name.
        line = (text.splitlines() + [""])[1].strip()
        first = re.findall(r'^[^:]*(?:: "[^"]*")?', line)[0]
        raise UserError(
            f"{what} does not fit the model ({first}): {AS_TRAINED}"
        ) from error
