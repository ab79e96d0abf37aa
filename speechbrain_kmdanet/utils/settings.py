"""What options may be, and what YAML files may make: checked before it is."""

import dataclasses
import difflib
import inspect
import json
import pydoc
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

import speechbrain as sb
import torch

from speechbrain_kmdanet.errors import UserError, one_line

MAX_SHOWN = 80
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


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; True and False are none.

    Arguments
    ---------
    value : object
        Any value.

    Returns
    -------
    bool
        Whether it is one.

    Example
    -------
    >>> [is_number(x) for x in (1, 0.5, True, "1", float("inf"), 10**400)]
    [True, True, False, False, False, False]
    """
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        # Also for integers that are no floating-point numbers
        and -sys.float_info.max <= value <= sys.float_info.max
    )


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
    kind, _, place = str(read_tag(node) or "").partition(":")
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


def read_tag(node: Any) -> str | None:
    """What is to be made of a value, by its tag.

    Arguments
    ---------
    node : object
        What ruamel.yaml has read.

    Returns
    -------
    str
        The tag, as "!new:torch.nn.ReLU"; None if there is none.
    """
    return getattr(getattr(node, "tag", None), "value", None)


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
    if not is_number(run_opts.get("max_grad_norm", 0.0)):
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
