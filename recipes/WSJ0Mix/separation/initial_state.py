"""What a run starts from: given weights, or a checkpoint.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import os
import pickle
import zipfile
from contextlib import contextmanager

import torch

from speechbrain_kmdanet.utils.pretrained import weights_file

MISFIT = "Error(s) in loading state_dict"


def load_weights(modules, path):
    """Loads the weights of a pretrained separator.

    Arguments
    ---------
    modules : dict
        The modules encoder, masknet and decoder by name.
    path : str
        A pretrained folder, or the file of the masknet's weights.

    Raises
    ------
    OSError
        If there is no such file.
    ValueError
        If it holds no weights, or those of another model.
    """
    names = [name for name, module in modules.items() if module.state_dict()]
    files = {"masknet": path}
    if os.path.isdir(path):
        files = {name: weights_file(path, name) for name in names}
    elif len(names) > 1:
        raise ValueError(
            f"initial_weights must be a pretrained folder, as {', '.join(names)} "
            f"of this system have weights, got the file {path}"
        )
    for name, file in files.items():
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
        except (EOFError, RuntimeError, pickle.UnpicklingError) as error:
            raise ValueError(
                f"initial_weights: {file} holds no weights; give a pretrained "
                "folder, or the masknet.ckpt in it"
            ) from error
        with must_fit(f"initial_weights: {file}"):
            modules[name].load_state_dict(state)


@contextmanager
def must_fit(what):
    """Turns PyTorch's list of what does not fit a model into one line.

    Arguments
    ---------
    what : str
        What is loaded.

    Raises
    ------
    ValueError
        If it does not fit.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error.args[0]) if error.args else ""
        if MISFIT not in text:
            raise
        first = (text.splitlines() + [""])[1].strip().split(": ")[0]
        raise ValueError(
            f"{what} does not fit the model ({first}): give the model's "
            "options as in its training"
        ) from error


def is_finished(checkpoint):
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
