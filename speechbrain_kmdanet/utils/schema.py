"""What settings may be: checked before anything is made of them.

``schema.yaml`` beside the YAML files, a JSON Schema, says it for each key. What
is refused is told in one line, in the words of its titles.
"""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ruamel.yaml
from ruamel.yaml.error import YAMLError

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.utils.settings import (
    is_number,
    read_tag,
    show,
    suggest,
)

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

SCHEMA = "schema.yaml"
# Stands for what has yet to be made or looked up.
_UNKNOWN = object()
# HyperPyYAML takes such a text for a tuple.
TUPLE = re.compile(r"\(.*\)", re.DOTALL)


def _is_integer(_: Any, value: Any) -> bool:
    """Whether a value is an integer; 2.0 is none."""
    return is_number(value) and isinstance(value, int)


def _is_list(_: Any, value: Any) -> bool:
    """Whether a value is a list, or a tuple of numbers as (1, 2)."""
    return isinstance(value, list) or (
        isinstance(value, tuple) and all(is_number(x) for x in value)
    )


@cache
def read_schema(path: Path) -> dict[str, Any]:
    """Reads a schema of settings.

    Arguments
    ---------
    path : pathlib.Path
        YAML file.

    Returns
    -------
    dict
        The JSON Schema.
    """
    return ruamel.yaml.YAML(typ="safe").load(path.read_text(encoding="utf-8"))


@cache
def _validator(schema: Path) -> Any:
    """What checks settings by a schema."""
    # Not above: without a schema, nobody needs the library.
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    types = {
        "number": lambda _, value: is_number(value),
        "integer": _is_integer,
        "array": _is_list,
    }
    checker = Draft202012Validator.TYPE_CHECKER.redefine_many(types)
    kind = extend(Draft202012Validator, type_checker=checker)
    return kind(read_schema(schema))


def find_schemas(files: Iterable[Path]) -> list[Path]:
    """Finds the schemas that lie beside some files.

    Arguments
    ---------
    files : iterable of pathlib.Path
        YAML files.

    Returns
    -------
    list of pathlib.Path
        The schemas, each once.
    """
    beside = dict.fromkeys(path.resolve().parent / SCHEMA for path in files)
    return [path for path in beside if path.is_file()]


def check_settings(settings: Mapping[str, Any], schema: Path) -> None:
    """Refuses settings that are not what they may be.

    Keys that the schema does not know, and what has yet to be made or looked
    up (``!new:``, ``!ref``), are not checked.

    Arguments
    ---------
    settings : dict
        Values by key, as ruamel.yaml reads them.
    schema : pathlib.Path
        YAML file of the schema.

    Raises
    ------
    UserError
        If a value has another kind or range.
    """
    values = _plain(settings)
    for error in _validator(schema).iter_errors(values):
        raise UserError(_describe(error))


def _plain(node: Any) -> Any:
    """A value without what has a tag, as that is not known yet."""
    tag = read_tag(node)
    text = getattr(node, "value", None) if tag == "!tuple" else node
    if isinstance(text, str) and TUPLE.fullmatch(text):
        # As HyperPyYAML does; what it cannot read is no tuple of numbers.
        try:
            return tuple(ruamel.yaml.YAML(typ="safe").load(f"[{text[1:-1]}]"))
        except YAMLError:
            return (text,)
    if tag:
        return _UNKNOWN
    if isinstance(node, Mapping):
        known = {str(key): _plain(value) for key, value in node.items()}
        return {key: x for key, x in known.items() if x is not _UNKNOWN}
    if isinstance(node, list):
        items = [_plain(item) for item in node]
        return _UNKNOWN if any(x is _UNKNOWN for x in items) else items
    return node


def _describe(error: "ValidationError") -> str:
    """What is wrong with a value, in one line."""
    key, *inside = error.absolute_path
    name = f"{key}{''.join(f'[{part}]' for part in inside)}"
    schema: Any = error.schema
    if error.validator == "additionalProperties":
        known = schema["properties"]
        unknown = next(x for x in error.instance if x not in known)
        return f"{name} has no key {show(unknown)}{suggest(unknown, known)}"
    return f"{name} must be {_expected(error)}, got {show(error.instance)}"


def _expected(error: "ValidationError") -> str:
    """What a value would have to be."""
    schema: Any = error.schema
    if "title" in schema:
        return schema["title"]
    if error.validator == "anyOf":
        return " or ".join(map(_expected, error.context))
    if "enum" in schema:
        return f"one of {tuple(schema['enum'])}"
    return schema["type"]
