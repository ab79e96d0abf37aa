"""The house stands as it should: folders, sizes, imports, paths."""

import ast
import re
from pathlib import Path

import pytest
import speechbrain
from recipe_runs import ROOT

PACKAGE = ROOT / "speechbrain_kmdanet"
UPSTREAM = Path(speechbrain.__file__).parent
FILES = [
    path
    for folder in ("speechbrain_kmdanet", "recipes", "benchmarks", "tools")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
TESTS = sorted((ROOT / "tests").rglob("*.py"))
# A folder imports from those before it alone: there is no cycle.
ORDER = [
    "errors",
    "processing",
    "nnet",
    "lobes",
    "utils",
    "dataio",
    "inference",
    "command_line",
    "__main__",
]
# Paths that SpeechBrain has, too: our definitions are added to theirs. All
# other files can be copied upstream as they are.
COLLISIONS = {"inference/separation.py", "nnet/schedulers.py"}


def name_of(path):
    """Path as a test is called."""
    return str(path.relative_to(ROOT))


def imports(path):
    """Names of the modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def part_of(name):
    """Folder of a module of the package, by its dotted name."""
    return name.split(".")[1]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=name_of)
def test_folders_import_in_one_direction(path):
    place = path.relative_to(PACKAGE).with_suffix("").parts[0]
    if place == "__init__":
        return
    for name in imports(path):
        if name.startswith("speechbrain_kmdanet."):
            assert ORDER.index(part_of(name)) <= ORDER.index(place), name
        # The package stands without the recipes.
        assert not name.startswith(("recipes", "reproduction", "train"))


@pytest.mark.parametrize("path", FILES + TESTS, ids=name_of)
def test_a_file_is_a_chapter(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 500
    assert not re.search(r"sys\.path\.(insert|append|extend)", text) or (
        path == Path(__file__)
    )
    assert "fmt: skip" not in text or path == Path(__file__)


def test_collisions_with_speechbrain_are_known():
    ours = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if path.name != "__init__.py"
    }
    # A file beside a folder of its name would hide it, too.
    theirs = {
        name
        for name in ours
        if (UPSTREAM / name).is_file() or (UPSTREAM / name[:-3]).is_dir()
    }
    assert theirs == COLLISIONS


def test_published_paths_stay():
    # Separators that people have downloaded name these.
    from speechbrain_kmdanet.lobes.models import danet, embedding
    from speechbrain_kmdanet.nnet import attractors
    from speechbrain_kmdanet.processing import stft

    for module, names in (
        (stft, ("STFTEncoder", "STFTDecoder")),
        (embedding, ("EmbeddingNet",)),
        (danet, ("DANet",)),
        (attractors, ("KMeansAttractors", "OracleAttractors")),
    ):
        assert all(hasattr(module, name) for name in names)


def test_there_are_few_files():
    assert 40 < len(FILES) <= 115
