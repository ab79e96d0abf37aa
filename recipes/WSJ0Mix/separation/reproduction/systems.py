"""Which settings the YAML files of the systems have.

Authors
 * The speechbrain_kmdanet developers 2026
"""

from functools import cache
from pathlib import Path

import ruamel.yaml

RECIPE = Path(__file__).resolve().parents[1]
HPARAMS = RECIPE / "hparams"
DEFAULTS = HPARAMS / "defaults"
LOSS = "loss"


def system_file(system):
    """YAML file of a system.

    Arguments
    ---------
    system : str
        Its name.

    Returns
    -------
    pathlib.Path
        Path of the file.
    """
    return HPARAMS / f"{system}.yaml"


@cache
def _read(path):
    """Top-level keys and values of a YAML file."""
    return dict(ruamel.yaml.YAML().load(path.read_text(encoding="utf-8")))


def read_keys(system):
    """Top-level settings of a system, with those of its defaults.

    Arguments
    ---------
    system : str
        Its name.

    Returns
    -------
    dict
        Values as they are written in the files.
    """
    own = dict(_read(system_file(system)))
    merged = {}
    for name in own.pop("defaults", ()):
        merged.update(_read(DEFAULTS / name))
    return {**merged, **own}


def has_trunk(system):
    """Whether a system has the common trunk, the embedding network.

    Arguments
    ---------
    system : str
        Its name.

    Returns
    -------
    bool
        Whether its file takes in the settings of the trunk.
    """
    return "spectral.yaml" in _read(system_file(system)).get("defaults", ())


def select_overrides(system, overrides):
    """Chooses those overrides of all systems that one of them can take.

    A setting goes to the systems that have it. The loss, and the sizes of the
    network, are left alone in systems that have their own. What no system
    knows is an option of SpeechBrain's, for all.

    Arguments
    ---------
    system : str
        Name of the system.
    overrides : dict
        Values by name.

    Returns
    -------
    dict
        Those for this system.
    """
    common = set(_read(DEFAULTS / "training.yaml")) - {LOSS}
    own = {
        LOSS,
        *(key for path in DEFAULTS.glob("*.yaml") for key in _read(path)),
    } - common
    own &= set(_read(system_file(system)))
    names = [path.stem for path in HPARAMS.glob("*.yaml")]
    known = {key for name in names for key in read_keys(name)}
    keys = set(read_keys(system)) - own
    return {
        key: value
        for key, value in overrides.items()
        if key in keys or key not in known
    }
