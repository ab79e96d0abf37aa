"""Settings in layers: YAML files over one another, each key declared once.

A file is flat and begins with ``layers: [...]``, the files under it, relative
to its own folder. They are merged mapping by mapping, later ones over earlier
ones, recursively and each once; the file itself lies on top. A name may contain
``<key>``, whose value chooses the layer: ``<trunk>.yaml``. What values may be is
said by ``schema.yaml``, where there is one beside a file.
"""

import inspect
import io
import pydoc
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import ruamel.yaml
from hyperpyyaml import load_hyperpyyaml, resolve_references
from hyperpyyaml.core import recursive_update
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import YAMLError

from speechbrain_kmdanet.errors import UserError, one_line
from speechbrain_kmdanet.utils.jobs import write_whole
from speechbrain_kmdanet.utils.schema import check_settings, find_schemas
from speechbrain_kmdanet.utils.settings import check_arguments, show, suggest

LAYERS = "layers"
NEW, REF = "!new:", "!ref"
REMEDY = "check its layers, and what chooses them (--trunk)"
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
        If a file is no YAML, a key of the overrides is unknown or misspelt,
        one has to be given, or a value is not what it may be.
    """
    resolved = _resolve(path, overrides)
    try:
        return load_hyperpyyaml(resolved)
    except (
        *(AssertionError, YAMLError, RuntimeError),
        ImportError,
    ) as error:
        # So libraries refuse sizes, and so does the memory.
        if type(error) is RuntimeError and "allocate" not in str(error):
            raise
        text = one_line(error)
        raise UserError(
            f"{path}: what it describes cannot be made: {text}"
        ) from error


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
    text, yaml = io.StringIO(), ruamel.yaml.YAML()
    # The end of a long value on a line of its own may look like a comment.
    yaml.width = 1 << 20
    yaml.dump(settings, text)
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
    return _merge(path, parse_overrides(overrides))[0]


def _merge(
    path: str | Path, given: dict[str, Any]
) -> tuple[CommentedMap, list[Path]]:
    """What a file and its layers say, and the files."""
    merged, files = CommentedMap(), [Path(path)]
    for settings in _files(Path(path), given, files):
        _update(merged, settings)
    return merged, files


def parse_overrides(overrides: Overrides) -> dict[str, Any]:
    """Values by key of what a command line gives.

    Arguments
    ---------
    overrides : str or dict
        Values, also as YAML.

    Returns
    -------
    dict
        The values.

    Raises
    ------
    UserError
        If they cannot be understood.
    """
    if not isinstance(overrides, str):
        return dict(overrides or {})
    try:
        values = ruamel.yaml.YAML().load(overrides) or {}
    except DuplicateKeyError as error:
        key = re.search(r'key "([^"]*)"', str(error))
        raise UserError(f"--{key and key[1]} is given twice") from error
    except (YAMLError, ValueError, RecursionError) as error:
        text = one_line(getattr(error, "problem", error))
        raise UserError(
            f"an option has a value that cannot be understood ({text}): check "
            "brackets and quotes"
        ) from error
    if not isinstance(values, dict):
        _refuse("options", "values by key", values)
    return dict(values)


def _refuse(name: str, expected: str, got: Any) -> NoReturn:
    """Raises the error of something of the wrong kind."""
    raise UserError(f"{name} must be {expected}, got {show(got)}")


def _load(path: Path) -> CommentedMap:
    """The keys of a YAML file."""
    try:
        settings = ruamel.yaml.YAML().load(path.read_text(encoding="utf-8"))
    except (YAMLError, ValueError, RecursionError) as error:
        text = one_line(error).replace('"<unicode string>"', "it")
        raise UserError(f"{path} is no YAML file: {text}") from error
    if not isinstance(settings, CommentedMap):
        raise UserError(f"{path} has no settings: give a YAML file of keys")
    return settings


def _files(
    path: Path, chosen: dict[str, Any], seen: list[Path], above: tuple = ()
) -> Iterator[CommentedMap]:
    """The settings of a file's layers, then its own, each file once."""
    settings = _load(path)
    # What lies on top chooses the layers, too.
    chosen = {**settings, **chosen}
    names = settings.pop(LAYERS, [])
    if not isinstance(names, list):
        _refuse(f"{LAYERS} of {path}", "a list of files", names)
    for layer in [_find_layer(path, name, chosen) for name in names]:
        if layer in (path.resolve(), *above):
            raise UserError(
                f"{path} has the layer {layer}, which it lies under"
            )
        if layer not in seen:
            seen.append(layer)
            yield from _files(layer, chosen, seen, (*above, path.resolve()))
    yield settings


def _find_layer(path: Path, name: Any, chosen: dict[str, Any]) -> Path:
    """The file of a layer, from the folder of the file that names it.

    One that was chosen by a key may also be seen from where the user is.
    """
    if not isinstance(name, str):
        _refuse(f"a layer of {path}", "the name of a file", name)
    for key in re.findall(r"<(\w+)>", name):
        value = chosen.get(key)
        if not isinstance(value, str) or not value:
            _refuse(key, f"a name, as it chooses a layer of {path}", value)
        name = name.replace(f"<{key}>", value.removesuffix(".yaml"))
    for folder in (path.parent, Path()):
        layer = (folder / name).resolve()
        if layer.is_file():
            return layer
    raise UserError(
        f"{path} has the layer {name}, but there is no file "
        f"{(path.parent / name).resolve()}"
    )


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
    """The text of all layers, with overrides put in and references resolved.

    It is checked on the way: first what was given, then what it makes with the
    files, then what follows from both.
    """
    given = parse_overrides(overrides)
    settings, files = _merge(path, given)
    schemas = find_schemas(files)
    for name in given:
        if name not in settings:
            raise UserError(
                f"the YAML file has no key {name}: check --{name}"
                f"{suggest(name, settings)}"
            )
    _check(given, schemas)
    for name, value in given.items():
        if isinstance(value, Mapping) and isinstance(settings[name], Mapping):
            recursive_update(settings[name], value)
        else:
            settings[name] = value
    _check(settings, schemas)
    stream = io.StringIO()
    try:
        ruamel.yaml.YAML().dump(settings, stream)
        stream.seek(0)
        # One pass leaves what refers to an expression further down.
        resolved = resolve_references(resolve_references(stream))
        settings = ruamel.yaml.YAML().load(resolved)
        _check(settings, schemas)
        check_arguments(settings)
        resolved.seek(0)
        return resolved
    except UserError:
        raise
    except (YAMLError, ArithmeticError, KeyError, ValueError) as error:
        text = one_line(error)
        key = re.search(r"'(\w+)' is a !PLACEHOLDER", text)
        if key and key[1] in MODULES:
            text = f"no layer of {path} makes the {key[1]}: {REMEDY}"
        elif key:
            text = f"{key[1]} must be given: --{key[1]} VALUE"
        key = re.search(r'reference "(\w+)" is not valid', text)
        if key:
            text = f"no layer of {path} has the key {key[1]}: {REMEDY}"
        raise UserError(text) from error


def _check(settings: Mapping[str, Any], schemas: list[Path]) -> None:
    """Refuses settings that a schema does not allow."""
    for schema in schemas:
        check_settings(settings, schema)


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
