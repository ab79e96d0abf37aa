"""Reads the settings of a system: its YAML file and the defaults it names.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import io
import os

import ruamel.yaml
from hyperpyyaml import load_hyperpyyaml, resolve_references

DEFAULTS = "defaults"


def load_settings(path, overrides=None):
    """Makes the hyperparameters, with the objects that they describe.

    Arguments
    ---------
    path : str
        YAML file of a system. Its key `defaults` lists files of the folder of
        that name beside it, whose keys are taken where the system has none.
    overrides : str or dict
        Values that replace those of the files.

    Returns
    -------
    dict
        Hyperparameters.

    Raises
    ------
    ValueError
        If a key of the overrides is unknown, or one has to be given.
    """
    return load_hyperpyyaml(_merged(path), overrides)


def save_settings(path, overrides, copy):
    """Writes what :func:`load_settings` reads, all of it in one file.

    Arguments
    ---------
    path : str
        YAML file of a system.
    overrides : str or dict
        Values that replace those of the files.
    copy : str
        YAML file to write.
    """
    with open(copy, "w", encoding="utf-8") as file:
        file.write(f"# {os.path.abspath(path)}, with all that it takes in\n")
        file.write(resolve_references(_merged(path), overrides).read())


def _merged(path):
    """Stream of the file of a system with its defaults taken in."""
    yaml = ruamel.yaml.YAML()
    with open(path, encoding="utf-8") as file:
        system = yaml.load(file)
    merged = ruamel.yaml.comments.CommentedMap()
    for name in system.pop(DEFAULTS, ()):
        defaults = os.path.join(os.path.dirname(path), DEFAULTS, name)
        with open(defaults, encoding="utf-8") as file:
            _update(merged, yaml.load(file))
    _update(merged, system)
    stream = io.StringIO()
    yaml.dump(merged, stream)
    stream.seek(0)
    # hyperpyyaml looks for included files beside the file of this name.
    stream.name = path
    return stream


def _update(settings, others):
    """Puts other settings over some, mapping by mapping."""
    for key, value in others.items():
        if isinstance(value, dict) and isinstance(settings.get(key), dict):
            _update(settings[key], value)
            if value.tag.value:
                settings[key].yaml_set_ctag(value.tag)
        else:
            settings[key] = value
