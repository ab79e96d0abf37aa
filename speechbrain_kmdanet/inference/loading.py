"""Loading a separator without running what is in its folder.

SpeechBrain's loader makes, calls and fetches whatever the YAML file names.
Here the file is read by a loader that knows plain values and the modules of a
separator, and nothing else; only with ``trust=True`` by SpeechBrain's.
"""

import inspect
import io
import math
import os
import pydoc
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

from hyperpyyaml import load_hyperpyyaml
from hyperpyyaml.core import recursive_update
from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from speechbrain.utils.fetching import FetchFrom, FetchSource, fetch
from speechbrain.utils.parameter_transfer import Pretrainer
from torch import nn

from speechbrain_kmdanet.errors import UserError, one_line
from speechbrain_kmdanet.utils.export import PRETRAINER, load_state
from speechbrain_kmdanet.utils.yaml_layers import NEW, REF

# Where the modules of separators are defined.
PLACES = re.compile(
    r"speechbrain_kmdanet\.(?:processing|nnet|lobes)(?:\.\w+)+"
    r"|speechbrain\.lobes\.models\.(?:conv_tasnet|dual_path|resepformer)"
)
PLAIN = {
    f"tag:yaml.org,2002:{kind}"
    for kind in ("bool", "float", "int", "map", "null", "seq", "str")
}
KEY = re.compile(r"<(\w+)>")  # that a reference names
# HyperPyYAML reads such texts with a loader that runs what is in them.
TUPLE = re.compile(r"\(.*\)", re.DOTALL)
MAX_BYTES, MAX_NODES = 1 << 14, 10_000  # ours: 2 kB, 100 nodes
EXPECTED = "expected the folder 'pretrained' that train.py writes"
TRUST = "trust=True loads it, if you trust who made it"
HUB, WEB = "hf://", ("https://", "http://")
FETCH_OPTIONS = set(inspect.signature(fetch).parameters) - {
    "filename",
    "source",
    "save_filename",
}
# What making a module may end in, if it is given the wrong values.
MISUSE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
# What reading a file may end in that describes no separator.
NO_SEPARATOR = (
    ImportError,
    KeyError,
    RecursionError,
    TypeError,
    ValueError,
    YAMLError,
)

# Separators that come with this package, and the one that is meant by none.
PACKAGED = Path(__file__).parents[1] / "pretrained"
DEFAULT, NAMES = "kmeans_wide", "*/hyperparams.yaml"

Source: TypeAlias = str | Path | FetchSource | None
Overrides: TypeAlias = str | Mapping[str, Any] | None


def load_separator(
    source: Source,
    hparams_file: str,
    modules: Iterable[str],
    numbers: Iterable[str],
    trust: bool = False,
    overrides: Overrides = None,
    overrides_must_match: bool = True,
    **fetch_options: Any,
) -> dict[str, Any]:
    """Makes the modules of a separator and loads their weights.

    Arguments
    ---------
    source : str, pathlib.Path or FetchSource
        Where it is; None for the packaged one, see :meth:`.AttractorSeparation.from_hparams`.
    hparams_file : str
        Name of the hyperparameters file in it.
    modules : iterable of str
        Names of the modules that it must have.
    numbers : iterable of str
        Names of the positive integers that it must have.
    trust : bool
        Whether the file may make, call and fetch what it wants.
    overrides : str or dict
        Values that replace those of the file, also as YAML.
    overrides_must_match : bool
        Whether only values that are in the file may be replaced.
    **fetch_options : dict
        Further arguments of SpeechBrain's fetch, e.g. savedir.

    Returns
    -------
    dict
        The hyperparameters; the modules by name are its "modules".

    Raises
    ------
    UserError
        If there is no separator, or not one that can be loaded.
    """
    source = resolve_source(source)
    locate = partial(_fetch, source, fetch_options)
    if isinstance(source, Path):
        locate = partial(_find_inside, source, trust)
    path = locate(hparams_file)
    _check_kind(path)
    read = _read_trusted if trust else partial(_read, numbers)
    try:
        hparams = read(path, overrides, overrides_must_match)
    except NO_SEPARATOR as error:
        raise UserError(f"{path}: {one_line(error)}") from error
    _check(path, hparams, modules, numbers)
    if trust:
        _load_as_told(hparams["pretrainer"], source, fetch_options)
    else:
        loadables = _check_loadables(path, hparams)
        for name, module in loadables.items():
            load_state(module, locate(f"{name}.ckpt"))
    return hparams


def resolve_source(source: Source) -> Path | str | FetchSource:
    """Says where a separator is.

    Arguments
    ---------
    source : str, pathlib.Path or FetchSource
        Where it is, see :meth:`.AttractorSeparation.from_hparams`.

    Returns
    -------
    pathlib.Path, str or FetchSource
        A local folder as Path, also that of a packaged separator; what was
        asked for from elsewhere as it is.

    Raises
    ------
    UserError
        If there is no such folder.

    Example
    -------
    >>> resolve_source(Path.cwd()) == Path.cwd()
    True
    """
    if source is None:
        if not (PACKAGED / DEFAULT).is_dir():
            raise UserError(
                "no separator is packaged here: give source, the folder of one "
                f"or '{HUB}ORGANISATION/NAME'"
            )
        return PACKAGED / DEFAULT
    if isinstance(source, FetchSource):
        kind, place = source
        return source if kind != FetchFrom.LOCAL else resolve_source(place)
    if not isinstance(source, (str, Path)):
        raise UserError(f"source must be the path of a folder, got {source!r}")
    if isinstance(source, str) and source.startswith(HUB):
        return FetchSource(FetchFrom.HUGGING_FACE, source.removeprefix(HUB))
    if isinstance(source, str) and source.startswith(WEB):
        return source
    if os.path.isdir(source):
        return Path(source)
    packaged = {path.parent.name: path.parent for path in PACKAGED.glob(NAMES)}
    if str(source) in packaged:
        return packaged[str(source)]
    raise UserError(
        f"source={str(source)!r} is not a folder, seen from {Path.cwd()}; one "
        f"on Hugging Face is '{HUB}ORGANISATION/NAME', packaged is "
        f"{', '.join(sorted(packaged))}"
    )


def _find_inside(folder: Path, trust: bool, name: str) -> Path:
    """A file of a folder, which must not lead out of it."""
    path = folder / name
    inside = Path(os.path.realpath(path)).is_relative_to(
        os.path.realpath(folder)
    )
    if not (inside or trust):
        raise UserError(f"{path} lies outside of {folder}: {TRUST}")
    if not path.is_file():
        raise UserError(f"{folder} holds no {name}: {EXPECTED}")
    return path


def _fetch(source: Any, options: dict[str, Any], name: str) -> Path:
    """A file from elsewhere."""
    try:
        return Path(fetch(name, source, **options))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        place = source.path if isinstance(source, FetchSource) else source
        raise UserError(
            f"{name} of {place} could not be fetched ({reason[0]})"
        ) from error


def _check_kind(path: Path) -> None:
    """Refuses the hyperparameters of a training, which have the same name."""
    text = path.read_text(encoding="utf-8", errors="replace")
    if not re.search(r"^pretrainer\s*:", text, re.MULTILINE):
        raise UserError(f"{path} has no key 'pretrainer': {EXPECTED}")


class _Constructor(SafeConstructor):
    """Makes plain values, and the modules of separators."""

    def make(self, name: str, node: Node) -> Any:
        """An object of the class of a name, from its arguments."""
        arguments: list[Any] = []
        options: dict[str, Any] = {}
        if isinstance(node, MappingNode):
            options = self.construct_mapping(node, deep=True)
        elif isinstance(node, SequenceNode):
            arguments = self.construct_sequence(node, deep=True)
        try:
            return _find_class(node)(*arguments, **options)
        except MISUSE as error:
            raise UserError(f"cannot make {name}: {error}") from error


_Constructor.add_multi_constructor(NEW, _Constructor.make)


def _find_class(node: Node) -> type:
    """The class that a tag names, if a separator may need it."""
    tag, line = str(node.tag), f"line {node.start_mark.line + 1}"
    place, _, name = tag.removeprefix(NEW).rpartition(".")
    if tag == PRETRAINER:
        return Pretrainer
    if tag.startswith(NEW) and PLACES.fullmatch(place):
        found = pydoc.locate(f"{place}.{name}")
        if found is None:
            raise UserError(
                f"{line}: there is no {place}.{name} in this version: export "
                "the separator anew"
            )
        # Not what a module has merely imported.
        if (
            isinstance(found, type)
            and issubclass(found, nn.Module)
            and found.__module__ == place
        ):
            return found
    raise UserError(
        f"{line}: {tag!r} is no module of a separator and could run "
        f"anything: {TRUST}"
    )


def find_untrusted(source: Source) -> list[str]:
    """Lists what a local separator could run, which is why it is refused.

    Arguments
    ---------
    source : str or pathlib.Path
        The folder of a separator, or the name of a packaged one.

    Returns
    -------
    list of str
        A tag of its YAML file each, with its line: none if it is safe.

    Raises
    ------
    UserError
        If there is no separator.
    """
    folder = resolve_source(source)
    if not isinstance(folder, Path):
        raise UserError(f"source={source!r} is no local folder: fetch it first")
    path = _find_inside(folder, True, "hyperparams.yaml")
    _check_kind(path)
    try:
        root = YAML(typ="safe", pure=True).compose(
            path.read_text(encoding="utf-8")
        )
    except (ValueError, YAMLError) as error:
        raise UserError(f"{path}: {one_line(error)}") from error
    found: dict[int, str] = {}
    for node in _walk(_resolve(root)):
        try:
            _check_tag(node)
        except UserError:
            found[node.start_mark.line] = (
                f"line {node.start_mark.line + 1}: {node.tag}"
            )
    return [found[line] for line in sorted(found)]


def _check_tag(node: Node) -> None:
    """Refuses what makes something else than plain values and modules."""
    if isinstance(node, ScalarNode) and TUPLE.fullmatch(node.value):
        node.tag = "!tuple"
    if node.tag not in PLAIN:
        _find_class(node)


def _count(node: Node, counts: dict[Node, float]) -> float:
    """Nodes of a file with its aliases written out; refuses other tags."""
    if node not in counts:
        # An alias inside of what it stands for never ends.
        counts[node] = math.inf
        _check_tag(node)
        under: Iterable[Node] = ()
        if isinstance(node, MappingNode):
            under = chain.from_iterable(node.value)
        elif isinstance(node, SequenceNode):
            under = node.value
        counts[node] = 1 + sum(_count(each, counts) for each in under)
    return counts[node]


def _resolve(root: Node) -> Node:
    """Puts the plain values that references name in their place."""
    values = {}
    if isinstance(root, MappingNode):
        values = {
            key.value: value
            for key, value in root.value
            if isinstance(value, ScalarNode) and value.tag in PLAIN
        }
    for node in _walk(root):
        if node.tag == REF and isinstance(node, ScalarNode):
            key = KEY.fullmatch(node.value)
            if key and key[1] in values:
                node.tag = values[key[1]].tag
                node.value = values[key[1]].value
    return root


def _walk(root: Node) -> Iterator[Node]:
    """All nodes, each once."""
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if isinstance(node, tuple):
            waiting += node
        elif node not in seen:
            seen.add(node)
            yield node
            waiting += [] if isinstance(node, ScalarNode) else node.value


def _compose(yaml: YAML, text: str) -> Node:
    """The nodes of a text that describes a separator, checked."""
    node = _resolve(yaml.compose(text))
    if not isinstance(node, MappingNode) or node.tag not in PLAIN:
        raise UserError(f"it has no values by key: {EXPECTED}")
    if _count(node, {}) > MAX_NODES:
        raise UserError(f"its aliases make it too large: {EXPECTED}")
    return node


def _read(
    numbers: Iterable[str], path: Path, overrides: Overrides, must_match: bool
) -> dict:
    """The hyperparameters of a file that need not be trusted."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Constructor
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"more than {MAX_BYTES} bytes: {EXPECTED}")
    text = path.read_text(encoding="utf-8")
    node = _compose(yaml, text)
    if overrides:
        node = _compose(yaml, _override(text, overrides, must_match))
    # Before modules are made of them.
    plain = {
        key.value: yaml.constructor.construct_object(value)
        for key, value in node.value
        if key.value in numbers and isinstance(value, ScalarNode)
    }
    _check_numbers(path, plain, plain)
    return yaml.constructor.construct_document(node)


def _read_trusted(path: Path, *overrides: Any) -> dict:
    """The hyperparameters of a file that may run what it wants."""
    with path.open(encoding="utf-8") as file:
        return load_hyperpyyaml(file, *overrides)


def _override(text: str, overrides: Overrides, must_match: bool) -> str:
    """A YAML text with values replaced."""
    yaml, replaced = YAML(), io.StringIO()
    settings = yaml.load(text)
    if isinstance(overrides, str):
        overrides = yaml.load(overrides)
    recursive_update(settings, overrides, must_match)
    yaml.dump(settings, replaced)
    return replaced.getvalue()


def _check(
    path: Path,
    hparams: dict[str, Any],
    modules: Iterable[str],
    numbers: Iterable[str],
) -> None:
    """Refuses hyperparameters that make no separator."""
    if not all(isinstance(key, str) for key in hparams):
        raise UserError(f"{path}: its keys must be names: {EXPECTED}")
    _check_numbers(path, hparams, numbers)
    made = hparams.get("modules")
    if not (
        isinstance(made, dict)
        and {*modules} <= {*made}
        and all(str(name).isidentifier() for name in made)
        and all(isinstance(module, nn.Module) for module in made.values())
    ):
        raise UserError(
            f"{path}: modules must be {', '.join(modules)}, each a module"
        )
    if not isinstance(hparams.get("pretrainer"), Pretrainer):
        raise UserError(f"{path}: pretrainer must be {PRETRAINER}")


def _check_numbers(
    path: Path, hparams: Mapping[str, Any], numbers: Iterable[str]
) -> None:
    """Refuses numbers of a separator that are none."""
    for key in numbers:
        value = hparams.get(key)
        if type(value) is not int or value < 1:
            got = one_line(repr(value))[:80]
            raise UserError(
                f"{path}: {key} must be a positive integer, got {got}"
            )


def _check_loadables(
    path: Path, hparams: dict[str, Any]
) -> dict[str, nn.Module]:
    """What to load: the modules that have weights, from files of their names."""
    pretrainer, modules = hparams["pretrainer"], hparams["modules"]
    for name in ("paths", "custom_hooks", "conditions", "collect_in"):
        if getattr(pretrainer, name, None):
            raise UserError(f"{path}: {name} of the pretrainer: {TRUST}")
    loadables = pretrainer.loadables
    others = [x for x in loadables if modules.get(x, x) is not loadables[x]]
    with_weights = [x for x in modules if modules[x].state_dict()]
    missing = [x for x in with_weights if x not in loadables]
    if others or missing:
        raise UserError(
            f"{path}: loadables of the pretrainer must be the modules with "
            f"weights ({', '.join(with_weights)}), got {', '.join(map(str, loadables))}"
        )
    return loadables


def _load_as_told(
    pretrainer: Pretrainer, source: Any, options: dict[str, Any]
) -> None:
    """Loads weights from where the file says, but all of them."""
    if isinstance(source, Path):
        # Files that lie in savedir are taken from there as they are.
        options = {"savedir": source, **options}
        source = str(source)
    options = dict(options)
    pretrainer.set_collect_in(options.pop("savedir", None))
    pretrainer.collect_files(default_source=source, **options)
    hooks = {
        name: load_state
        for name, loadable in pretrainer.loadables.items()
        if isinstance(loadable, nn.Module)
    }
    pretrainer.custom_hooks = {**hooks, **pretrainer.custom_hooks}
    pretrainer.load_collected()
