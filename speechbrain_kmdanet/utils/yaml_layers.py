"""Settings in layers: YAML files over one another, each key declared once.

A file is flat and begins with ``layers: [...]``, the files under it, relative
to its own folder. They are merged mapping by mapping, later ones over earlier
ones, recursively and each once; the file itself lies on top. A name may contain
``<key>``, whose value chooses the layer: ``<trunk>.yaml``.
"""

import inspect
import io
import os
import pydoc
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ruamel.yaml
from hyperpyyaml import load_hyperpyyaml, resolve_references
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.utils.jobs import write_whole

LAYERS = "layers"
NEW = "!new:"
PLAIN = (bool, int, float, str, type(None))
# A separator is these, and what they refer to.
MODULES = ("encoder", "masknet", "decoder")

Overrides = str | Mapping[str, Any] | None


def load_settings(
    path: str | Path, overrides: Overrides = None
) -> dict[str, Any]:
    """Makes the hyperparameters, with the objects that they describe.

    Arguments
    ---------
    path : str or pathlib.Path
        YAML file.
    overrides : str or dict
        Values that replace those of the files, also as YAML.

    Returns
    -------
    dict
        Hyperparameters.

    Raises
    ------
    UserError
        If a file is no YAML, a key of the overrides is unknown, or one has to
        be given.
    """
    return load_hyperpyyaml(_resolve(path, overrides))


def save_settings(
    path: str | Path, overrides: Overrides, copy: str | Path
) -> None:
    """Writes what :func:`load_settings` reads, all of it in one file.

    Every argument of the modules of a separator is written out: a default that
    changes later does not change the separator.

    Arguments
    ---------
    path : str or pathlib.Path
        YAML file.
    overrides : str or dict
        Values that replace those of the files.
    copy : str or pathlib.Path
        YAML file to write.
    """
    settings = ruamel.yaml.YAML().load(_resolve(path, overrides))
    for name in MODULES:
        state_defaults(settings.get(name))
    write_settings(settings, f"{Path(path).name}, with all its layers", copy)


def write_settings(
    settings: CommentedMap, about: str, path: str | Path
) -> None:
    """Writes settings, without the comments of the files they come from.

    Arguments
    ---------
    settings : CommentedMap
        Values by key.
    about : str
        What they are, for the first line.
    path : str or pathlib.Path
        YAML file to write.
    """
    text = io.StringIO()
    ruamel.yaml.YAML().dump(settings, text)
    lines = text.getvalue().splitlines()
    # After merging, comments end up in odd places.
    kept = [x for x in lines if x.strip() and not x.lstrip().startswith("#")]
    with write_whole(path) as unfinished:
        unfinished.write_text("\n".join([f"# {about}", *kept, ""]), "utf-8")


def read_layers(path: str | Path, overrides: Overrides = None) -> CommentedMap:
    """Merges a file with its layers; nothing is made or resolved.

    Arguments
    ---------
    path : str or pathlib.Path
        YAML file.
    overrides : str or dict
        Values by key, of which those that choose layers count.

    Returns
    -------
    CommentedMap
        Values by key, as they are written in the files.

    Raises
    ------
    UserError
        If a layer does not exist.
    """
    chosen: Any = overrides or {}
    if isinstance(chosen, str):
        chosen = ruamel.yaml.YAML().load(chosen) or {}
    merged = CommentedMap()
    for settings in _files(Path(path), dict(chosen), {}):
        _update(merged, settings)
    return merged


def _files(
    path: Path, chosen: dict[str, Any], seen: dict[Path, None]
) -> Iterator[CommentedMap]:
    """The settings of a file's layers, then its own, each file once."""
    settings = ruamel.yaml.YAML().load(path.read_text(encoding="utf-8"))
    if not isinstance(settings, CommentedMap):
        raise UserError(f"{path} has no settings: give a YAML file of keys")
    # What lies on top chooses the layers, too.
    chosen = {**settings, **chosen}
    for name in settings.pop(LAYERS, ()):
        name = re.sub(r"<(\w+)>", lambda key: str(chosen[key[1]]), name)
        layer = Path(os.path.normpath(path.parent / name))
        if not layer.is_file():
            raise UserError(
                f"{path} has the layer {name}, but there is no file {layer}"
            )
        if layer not in seen:
            seen[layer] = None
            yield from _files(layer, chosen, seen)
    yield settings


def _update(settings: CommentedMap, others: CommentedMap) -> None:
    """Puts other settings over some, mapping by mapping.

    A mapping that makes something else replaces the one under it.
    """
    for key, value in others.items():
        under = settings.get(key)
        both = isinstance(value, CommentedMap) and isinstance(
            under, CommentedMap
        )
        if both and value.tag.value in (None, under.tag.value):
            _update(under, value)
        else:
            settings[key] = value


def _resolve(path: str | Path, overrides: Overrides) -> io.StringIO:
    """The text of all layers, with overrides put in and references resolved."""
    stream = io.StringIO()
    try:
        ruamel.yaml.YAML().dump(read_layers(path, overrides), stream)
        stream.seek(0)
        resolved = resolve_references(stream, overrides, True)
        # One pass leaves what refers to an expression further down.
        return resolve_references(resolved)
    except UserError:
        raise
    except (YAMLError, KeyError, ValueError) as error:
        text = " ".join(str(error).split())
        key = re.search(r"'(\w+)' is a !PLACEHOLDER", text)
        if key:
            text = f"{key[1]} must be given: --{key[1]} VALUE"
        key = re.search(r"Override '(\w+)' not found", text)
        if key:
            text = f"the YAML file has no key {key[1]}: check --{key[1]}"
        raise UserError(text) from error


def state_defaults(node: Any) -> None:
    """Writes out the arguments that objects are made with by default.

    Arguments
    ---------
    node : object
        What describes an object, ``!new:...``, with all that is in it;
        changed in place.
    """
    if not isinstance(node, CommentedMap):
        return
    tag = str(node.tag.value or "")
    if tag.startswith(NEW):
        made = pydoc.locate(tag.removeprefix(NEW))
        parameters = inspect.signature(made).parameters  # type: ignore[arg-type]
        for name, parameter in parameters.items():
            # What YAML cannot say is no setting; empty stands for none.
            if isinstance(parameter.default, PLAIN):
                node.setdefault(name, parameter.default)
    for value in node.values():
        state_defaults(value)
