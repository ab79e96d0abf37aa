"""What settings and options may be: checked before anything is made of them.

``schema.yaml`` beside the YAML files, a JSON Schema, says it for each key. What
is refused is told in one line, in the words of its titles.
"""

import dataclasses
import difflib
import inspect
import json
import pydoc
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import ruamel.yaml
import speechbrain as sb
import torch
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend
from ruamel.yaml.error import YAMLError

from speechbrain_kmdanet.errors import UserError, one_line

SCHEMA = "schema.yaml"
MAX_SHOWN = 80
# Stands for what has yet to be made or looked up.
_UNKNOWN = object()
# HyperPyYAML takes such a text for a tuple.
TUPLE = re.compile(r"\(.*\)", re.DOTALL)
# Of a command line, what YAML would read otherwise than as it stands: marks at
# the beginning, a mapping, a comment, blanks. Brackets, quotes and tags are
# meant.
MISREAD = re.compile(
    r"""(?![\[{"']|!\w+[: ])"""
    r"""(?:[!#&*|<=>%@`,\]}\s]|[-?:](?:\s|$)|.*(?:\s\#|:(?:\s|$)|\s$|[\0-\37]))""",
    re.DOTALL,
)
# SpeechBrain joins options by "=" and " ", and parts them at these.
JOINTS = {" ": "\ue000", "=": "\ue001", "\n": "\ue002"}
# Run options that SpeechBrain takes as they come, with their least values.
LEAST = {
    "debug_batches": 1,
    "grad_accumulation_factor": 1,
    "nonfinite_patience": 0,
    "optimizer_step_limit": 1,
    "profile_steps": 1,
    "profile_warmup": 0,
}
COMPILED = ("encoder", "masknet", "decoder")
CHOICES = {
    "compile_mode": ("default", "reduce-overhead", "max-autotune"),
    "distributed_backend": ("nccl", "gloo", "mpi"),
}


def _is_number(_: Any, value: Any) -> bool:
    """Whether a value is a finite number; True and False are none."""
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        # Also for integers that are no floating-point numbers
        and -sys.float_info.max <= value <= sys.float_info.max
    )


def _is_integer(_: Any, value: Any) -> bool:
    """Whether a value is an integer; 2.0 is none."""
    return _is_number(_, value) and isinstance(value, int)


def _is_list(_: Any, value: Any) -> bool:
    """Whether a value is a list, or a tuple of numbers as (1, 2)."""
    return isinstance(value, list) or (
        isinstance(value, tuple) and all(_is_number(_, x) for x in value)
    )


_Validator = extend(
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine_many(
        {"number": _is_number, "integer": _is_integer, "array": _is_list}
    ),
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
    for error in _Validator(read_schema(schema)).iter_errors(values):
        raise UserError(_describe(error))


def check_arguments(node: Any, name: str = "") -> None:
    """Refuses descriptions of objects that name no class, or no argument of it.

    Arguments
    ---------
    node : object
        What ruamel.yaml reads, with all that is in it; references resolved.
    name : str
        Its key.

    Raises
    ------
    UserError
        If a class is not there, or has no such argument.
    """
    kind, _, place = str(_tag(node) or "").partition(":")
    if kind in ("!new", "!name", "!apply"):
        try:
            made = pydoc.locate(place)
        except pydoc.ErrorDuringImport as error:
            made, reason = None, f" ({error.value})"
        else:
            reason = ""
        if kind == "!new" and not (made is None or inspect.isclass(made)):
            made, reason = None, ", which is a class"
        if made is None:
            raise UserError(
                f"{name}: there is no {place}{reason}: check its name, and "
                "that it is installed"
            )
        if isinstance(node, Mapping):
            _check_keywords(made, node, f"{name}: {place}")
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(node, Mapping):
        items = node.items()
    elif isinstance(node, list):
        items = enumerate(node)
    for key, value in items:
        check_arguments(value, f"{name}[{key}]" if name else str(key))


def _check_keywords(made: Any, given: Mapping[str, Any], name: str) -> None:
    """Refuses keywords that a callable does not take."""
    try:
        parameters = inspect.signature(made).parameters
    except (TypeError, ValueError):  # It does not say.
        return
    kinds = {x.kind for x in parameters.values()}
    takes_any = inspect.Parameter.VAR_KEYWORD in kinds
    unknown = [
        key
        for key in given
        if key not in parameters and not (takes_any and isinstance(key, str))
    ]
    if unknown:
        raise UserError(
            f"{name} has no argument {show(unknown[0])}"
            f"{suggest(unknown[0], parameters)}"
        )


def suggest(key: str, keys: Iterable[str]) -> str:
    """The nearest of some keys, as the end of a message.

    Arguments
    ---------
    key : str
        One that does not exist.
    keys : iterable of str
        Those that do.

    Returns
    -------
    str
        A question in brackets, or nothing.

    Example
    -------
    >>> suggest("btach_size", ["batch_size", "band_size"])
    ' (did you mean batch_size?)'
    """
    near = difflib.get_close_matches(str(key), list(keys), 1, 0.7)
    return f" (did you mean {near[0]}?)" if near else ""


def positive(kind: type) -> Callable[[str], Any]:
    """Type of an option of argparse: a positive number.

    Arguments
    ---------
    kind : type
        int or float.

    Returns
    -------
    callable
        Makes such a number of a text.

    Example
    -------
    >>> positive(int)("3")
    3
    """

    def parse(text: str) -> Any:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise ValueError
        return value

    parse.__name__ = f"positive {kind.__name__}"
    return parse


def show(value: Any) -> str:
    """A value in a message: short, in one line.

    Arguments
    ---------
    value : object
        The value.

    Returns
    -------
    str
        The beginning of what Python shows.

    Example
    -------
    >>> show("a")
    "'a'"
    """
    try:
        text = one_line(repr(value))
    except ValueError:  # Python shows no integer of thousands of digits.
        text = "an integer of thousands of digits"
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _tag(node: Any) -> str | None:
    """Tag of what ruamel.yaml reads: what is to be made of it, if anything."""
    return getattr(getattr(node, "tag", None), "value", None)


def _plain(node: Any) -> Any:
    """A value without what has a tag, as that is not known yet."""
    tag = _tag(node)
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


def _describe(error: ValidationError) -> str:
    """What is wrong with a value, in one line."""
    key, *inside = error.absolute_path
    name = f"{key}{''.join(f'[{part}]' for part in inside)}"
    schema: Any = error.schema
    if error.validator == "additionalProperties":
        known = schema["properties"]
        unknown = next(x for x in error.instance if x not in known)
        return f"{name} has no key {show(unknown)}{suggest(unknown, known)}"
    return f"{name} must be {_expected(error)}, got {show(error.instance)}"


def _expected(error: ValidationError) -> str:
    """What a value would have to be."""
    schema: Any = error.schema
    if "title" in schema:
        return schema["title"]
    if error.validator == "anyOf":
        return " or ".join(map(_expected, error.context))
    if "enum" in schema:
        return f"one of {tuple(schema['enum'])}"
    return schema["type"]


def parse_command(arguments: Sequence[str]) -> tuple[str, Any, str]:
    """Parses the command line of a training.

    As :func:`speechbrain.parse_arguments`, but what is no option is refused,
    a value is taken as it stands, whatever is in it, and the options for
    SpeechBrain itself are checked.

    Arguments
    ---------
    arguments : sequence of str
        Command line without the name of the program.

    Returns
    -------
    hparams_file : str
        YAML file.
    run_opts : RunOptions
        Options for SpeechBrain.
    overrides : str
        YAML of the settings that are given.

    Raises
    ------
    UserError
        If an option cannot be.
    """
    hparams_file, run_opts, _ = sb.parse_arguments(list(arguments))
    *_, joined = sb.parse_arguments([_protect(word) for word in arguments])
    lines = [_line(option) for option in joined.split("\n") if option]
    return hparams_file, check_run_opts(run_opts), "\n".join(lines)


def _protect(word: str) -> str:
    """A word in which SpeechBrain finds no joints but that of an option."""
    name, equals, value = word.partition("=")
    if not (word.startswith("--") and equals):
        name, equals, value = "", "", word
    return f"{name}{equals}{value.translate({ord(x): y for x, y in JOINTS.items()})}"


def _restore(word: str) -> str:
    """What a protected word was."""
    return word.translate({ord(x): joint for joint, x in JOINTS.items()})


def _line(option: str) -> str:
    """YAML of one option, as SpeechBrain writes it."""
    key, colon, words = option.partition(":")
    value, *more = map(_restore, words.removeprefix(" ").split(" "))
    if more or not colon or key.strip(" ") != key:
        stray = more[0] if more else _restore(option.split(" ")[0])
        raise UserError(
            f"{show(stray)} is no option: expected --KEY VALUE, with quotes "
            "around a value with spaces"
        )
    return as_yaml(key, value)


def as_yaml(key: str, value: str) -> str:
    """A setting as YAML, of the words of a command line.

    Arguments
    ---------
    key : str
        Name of the setting.
    value : str
        Its value, which is YAML only if it looks as if it were meant so.

    Returns
    -------
    str
        A line of YAML.

    Example
    -------
    >>> as_yaml("lr", "0.1"), as_yaml("output_folder", "a: #1")
    ('lr: 0.1', 'output_folder: "a: #1"')
    """
    if MISREAD.match(value):
        return f"{key}: {json.dumps(value, ensure_ascii=False)}"
    return f"{key}: {' '.join(value.splitlines())}"


def check_run_opts(run_opts: Any) -> Any:
    """Refuses options for SpeechBrain that it would trip over.

    Arguments
    ---------
    run_opts : RunOptions
        The options.

    Returns
    -------
    RunOptions
        The options, numbers as numbers.

    Raises
    ------
    UserError
        If a number is out of range, a name is unknown, or this machine has no
        such device.
    """
    limit = run_opts.get("optimizer_step_limit")
    if isinstance(limit, str):
        # SpeechBrain leaves it a text.
        if not re.fullmatch(r"\d{1,18}", limit):
            _refuse("optimizer_step_limit", "a positive integer", limit)
        run_opts = dataclasses.replace(
            run_opts, optimizer_step_limit=int(limit)
        )
    for key, least in LEAST.items():
        value = run_opts.get(key)
        if value is not None and value < least:
            kind = "a positive integer" if least else "0 or a positive integer"
            _refuse(key, kind, value)
    if not _is_number(None, run_opts.get("max_grad_norm", 0.0)):
        _refuse("max_grad_norm", "a number", run_opts["max_grad_norm"])
    for key, choices in CHOICES.items():
        if run_opts.get(key, choices[0]) not in choices:
            _refuse(key, f"one of {choices}", run_opts[key])
    if run_opts.get("jit") or run_opts.get("jit_module_keys"):
        _refuse("jit", "left out, as --compile is what works", True)
    unknown = set(run_opts.get("compile_module_keys") or ()) - set(COMPILED)
    if unknown:
        _refuse("compile_module_keys", f"among {COMPILED}", min(unknown))
    device = _check_device(run_opts.get("device"))
    for key in ("precision", "eval_precision"):
        if run_opts.get(key) == "fp16" and device == "cpu":
            _refuse(key, "fp32 or bf16 on a CPU", "fp16")
    if run_opts.get("auto_mix_prec") and device == "cpu":
        _refuse("auto_mix_prec", "left out on a CPU", True)
    return run_opts


def _check_device(name: str | None) -> str:
    """The kind of a device, which must be there."""
    if name is None:
        return sb.utils.distributed.infer_device().partition(":")[0]
    try:
        device = torch.device(name)
    except RuntimeError:
        _refuse("device", "cpu, cuda, cuda:0, cuda:1, ... or mps", name)
    kind = device.type
    if kind == "cpu":
        return kind
    module = getattr(torch.backends if kind == "mps" else torch, kind, None)
    count = 0
    if module is not None and module.is_available():
        count = getattr(module, "device_count", lambda: 1)()
    if (device.index or 0) >= count:
        raise UserError(
            f"device {name} is not there: this machine has {count} {kind} "
            "devices for this PyTorch; --device cpu always works"
        )
    return kind


def _refuse(key: str, expected: str, got: Any) -> NoReturn:
    """Raises the error of an option that cannot be."""
    raise UserError(f"{key} must be {expected}, got {show(got)}")
