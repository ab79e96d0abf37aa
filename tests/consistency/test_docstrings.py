"""Every public function says what it takes and what it returns."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = sorted((ROOT / "speechbrain_kmdanet").rglob("*.py"))
RECIPES = sorted((ROOT / "recipes").rglob("*.py"))
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def name_of(path):
    """Path as the test is called."""
    return str(path.relative_to(ROOT))


def public_definitions(path):
    """Public classes and functions of a file, methods with their class."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = [(node, None) for node in tree.body]
    for node, owner in nodes:
        if not isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            continue
        if node.name.startswith("_"):
            continue
        yield node, owner
        if isinstance(node, ast.ClassDef):
            nodes.extend((method, node) for method in node.body)


def sections(docstring):
    """Underlined sections of a docstring, by name."""
    parts = re.split(r"^(\w+)\n-{3,}$", docstring, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))


def arguments_of(function):
    """Names that a function has to document."""
    a = function.args
    names = [x.arg for x in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
    names += [f"*{a.vararg.arg}"] if a.vararg else []
    names += [f"**{a.kwarg.arg}"] if a.kwarg else []
    return [name for name in names if name not in ("self", "cls")]


def own_returns(function):
    """Whether a function returns a value; functions in it do not count."""
    nodes = list(function.body)
    for node in nodes:
        if isinstance(node, ast.Return) and node.value is not None:
            return True
        if not isinstance(node, (*FUNCTIONS, ast.Lambda, ast.ClassDef)):
            nodes.extend(ast.iter_child_nodes(node))
    return False


@pytest.mark.parametrize("path", PACKAGE + RECIPES, ids=name_of)
def test_everything_public_has_a_docstring(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{name_of(path)} says not what it is for"
    missing = [
        node.name
        for node, _ in public_definitions(path)
        if not ast.get_docstring(node)
    ]
    assert not missing


@pytest.mark.parametrize("path", PACKAGE + RECIPES, ids=name_of)
def test_public_signatures_are_annotated(path):
    missing = []
    for node, _ in public_definitions(path):
        functions = [node]
        if isinstance(node, ast.ClassDef):
            functions = [
                x
                for x in node.body
                if isinstance(x, FUNCTIONS) and x.name == "__init__"
            ]
        for function in functions:
            a = function.args
            given = [*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg]
            missing += [
                f"{function.name}({x.arg})"
                for x in given
                if x and x.arg not in ("self", "cls") and not x.annotation
            ]
            if not function.returns:
                missing.append(function.name)
    assert not missing


@pytest.mark.parametrize("path", PACKAGE, ids=name_of)
def test_every_argument_and_result_is_documented(path):
    problems = []
    for node, owner in public_definitions(path):
        docstring = ast.get_docstring(node) or ""
        if ", see :" in docstring:
            continue  # the same arguments as another
        found = sections(docstring)
        function = node
        if isinstance(node, ast.ClassDef):
            # The arguments of a class are those of its __init__.
            inits = [
                x
                for x in node.body
                if isinstance(x, FUNCTIONS) and x.name == "__init__"
            ]
            if not inits:
                continue
            function = inits[0]
        documented = re.findall(
            r"^(\*{0,2}\w[\w, *]*) :", found.get("Arguments", ""), re.MULTILINE
        )
        documented = [
            name for names in documented for name in names.split(", ")
        ]
        wanted = arguments_of(function)
        if documented != wanted:
            problems.append(
                f"{node.name}: documents {documented}, has {wanted}"
            )
        is_property = any(
            isinstance(x, ast.Name) and x.id.endswith("property")
            for x in node.decorator_list
        )
        if (
            isinstance(node, FUNCTIONS)
            and not is_property
            and own_returns(node) != ("Returns" in found)
        ):
            problems.append(f"{node.name}: Returns")
    assert not problems
