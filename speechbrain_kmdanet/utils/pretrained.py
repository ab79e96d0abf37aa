"""Writes a trained separator as a folder that ``from_hparams`` loads.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import os
from io import StringIO

import ruamel.yaml
import torch

HEADER = "# Separator for inference; load it with from_hparams.\n"
MODULES = "encoder", "masknet", "decoder"


def weights_file(folder, name):
    """Path of the weights of a module in the folder of a separator.

    Arguments
    ---------
    folder : str
        Folder of the separator.
    name : str
        Name of the module: encoder, masknet or decoder.

    Returns
    -------
    str
        Path, as SpeechBrain's Pretrainer expects it.
    """
    return os.path.join(folder, f"{name}.ckpt")


def write_pretrained(folder, resolved_hparams, modules, half=False):
    """Writes hyperparams.yaml and the weights of a separator.

    The YAML file is self-contained: it holds the model alone, all references
    resolved, and loads the weights that lie beside it.

    Arguments
    ---------
    folder : str
        Where to write; made if it is not there.
    resolved_hparams : str
        The hyperparams.yaml that SpeechBrain saved in the output folder, with
        the keys sample_rate, num_spks and model.
    modules : dict
        The trained modules encoder, masknet and decoder by name. Those
        without a state, as the STFT, need no file.
    half : bool
        Whether to store weights in half precision. One-dimensional tensors
        (biases, statistics) stay as they are.

    Raises
    ------
    ValueError
        If a key is missing.
    """
    yaml = ruamel.yaml.YAML()
    with open(resolved_hparams, encoding="utf-8") as file:
        experiment = yaml.load(file)
    keys = "sample_rate", "num_spks", "model"
    missing = [key for key in keys if key not in experiment]
    if missing:
        raise ValueError(f"{resolved_hparams} lacks the keys {missing}")
    separator = ruamel.yaml.comments.CommentedMap(
        {key: experiment[key] for key in keys}
    )
    model = experiment["model"]
    separator["modules"] = {name: model[name] for name in MODULES}
    states = {name: modules[name].state_dict() for name in MODULES}
    states = {name: state for name, state in states.items() if state}
    pretrainer = ruamel.yaml.comments.CommentedMap(
        {"loadables": {name: model[name] for name in states}}
    )
    pretrainer.yaml_set_ctag(
        ruamel.yaml.Tag(
            suffix="!new:speechbrain.utils.parameter_transfer.Pretrainer"
        )
    )
    separator["pretrainer"] = pretrainer
    os.makedirs(folder, exist_ok=True)
    text = StringIO()
    yaml.dump(separator, text)
    path = os.path.join(folder, "hyperparams.yaml")
    with open(path, "w", encoding="utf-8") as file:
        file.write(HEADER)
        # Comments of the experiment end up in odd places here.
        file.writelines(
            line
            for line in text.getvalue().splitlines(keepends=True)
            if line.strip() and not line.lstrip().startswith("#")
        )
    for name, state in states.items():
        state = {
            key: value.half() if half and value.dim() > 1 else value
            for key, value in state.items()
        }
        state = {key: value.cpu() for key, value in state.items()}
        torch.save(state, weights_file(folder, name))
