"""Trained separators on disk: the folder that ``from_hparams`` loads.

Also what a training starts from: the weights of such a folder, or a checkpoint.
"""

import os
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import ruamel.yaml
import torch
from ruamel.yaml.comments import CommentedMap
from speechbrain.utils.checkpoints import Checkpoint
from torch import nn

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.utils.jobs import write_whole
from speechbrain_kmdanet.utils.yaml_layers import (
    MODULES,
    state_defaults,
    write_settings,
)

ABOUT = "Separator for inference; load it with from_hparams."
PRETRAINER = "!new:speechbrain.utils.parameter_transfer.Pretrainer"
MISFIT = "Error(s) in loading state_dict"


def _weights_file(folder: str | Path, name: str) -> str:
    """Where SpeechBrain's Pretrainer expects the weights of a module."""
    return os.path.join(folder, f"{name}.ckpt")


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
        If a key is missing.
    """
    text = Path(resolved_hparams).read_text(encoding="utf-8")
    experiment = ruamel.yaml.YAML().load(text)
    keys = "sample_rate", "num_spks", *MODULES
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
    os.makedirs(folder, exist_ok=True)
    for name, state in states.items():
        state = {
            key: value.half() if half and value.dim() > 1 else value
            for key, value in state.items()
        }
        state = {key: value.cpu() for key, value in state.items()}
        with write_whole(_weights_file(folder, name)) as unfinished:
            torch.save(state, unfinished)
    write_settings(separator, ABOUT, os.path.join(folder, "hyperparams.yaml"))


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
            state = torch.load(file, map_location="cpu", weights_only=True)
        except (EOFError, RuntimeError, pickle.UnpicklingError) as error:
            raise UserError(
                f"initial_weights: {file} holds no weights; give a pretrained "
                "folder, or the masknet.ckpt in it"
            ) from error
        with must_fit(f"initial_weights: {file}"):
            modules[name].load_state_dict(state)


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
        first = (text.splitlines() + [""])[1].strip().split(": ")[0]
        raise UserError(
            f"{what} does not fit the model ({first}): give the model's "
            "options as in its training"
        ) from error


def is_finished(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint is complete: a killed run may leave a part of one.

    Arguments
    ---------
    checkpoint : speechbrain.utils.checkpoints.Checkpoint
        Checkpoint.

    Returns
    -------
    bool
        Whether its last file, the optimizer's, is complete.
    """
    return zipfile.is_zipfile(checkpoint.path / "optimizer.ckpt")
