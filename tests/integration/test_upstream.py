"""The overlay on SpeechBrain: on a stand-in always, on a checkout if there is."""

import ast
import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import speechbrain
import upstream
from recipe_runs import SYSTEMS
from ruamel.yaml import YAML

CHECKOUT = os.environ.get("SPEECHBRAIN_CHECKOUT")
RUFF = upstream.RUFF
PARTS = sorted(upstream.PARTS)
FIELDS = (
    "Task,Dataset,Script_file,Hparam_file,Data_prep_file,Readme_file,"
    "Result_url,HF_repo,test_debug_flags,test_debug_checks,performance"
)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """As little of SpeechBrain as is needed; nothing is sorted, for time."""
    monkeypatch.setattr(upstream, "RUFF", None)
    folder = tmp_path / "speechbrain"
    for place in ("speechbrain", "tests/recipes", "tests/samples/separation"):
        (folder / place).mkdir(parents=True)
    (folder / "speechbrain" / "core.py").write_text("# theirs\n")
    rows = folder / "tests" / "recipes" / "WSJ0Mix.csv"
    rows.write_text(f"{FIELDS}\nSeparation,WSJ0Mix,a,b,c,d,,,flags,,\n")
    for part in ("mixture", "source1", "source2"):
        path = folder / "tests" / "samples" / "separation" / f"{part}_0.wav"
        path.write_bytes(b"")
    return folder


def lay_over(checkout, *options):
    return upstream.main([str(checkout), *options])


def files_of(checkout):
    return {
        path.relative_to(checkout).as_posix(): path.read_text("utf-8")
        for path in checkout.rglob("*")
        if path.is_file() and path.suffix != ".wav" and ".git" not in path.parts
    }


def test_the_second_time_nothing_changes(checkout, capsys):
    assert lay_over(checkout) == 0
    first = files_of(checkout)
    assert lay_over(checkout) == 0
    assert files_of(checkout) == first
    assert ", 0 of them written now" in capsys.readouterr().out
    assert first["speechbrain/core.py"] == "# theirs\n"


def test_all_that_is_imported_is_there(checkout):
    assert lay_over(checkout) == 0
    files = files_of(checkout)
    theirs = Path(speechbrain.__file__).parents[1]
    looked_at = 0
    for path, text in files.items():
        assert upstream.PACKAGE not in text, path
        if not path.endswith(".py"):
            continue
        for node in ast.walk(ast.parse(text)):
            name = getattr(node, "module", None) or ""
            if name.startswith("speechbrain."):
                place = name.replace(".", "/")
                there = (theirs / place).with_suffix(".py").is_file()
                there |= (theirs / place).is_dir()
                assert there or f"{place}.py" in files, (path, name)
                looked_at += 1
    assert looked_at > 200
    # Names that SpeechBrain has are not taken.
    assert "speechbrain/inference/separation.py" not in files
    assert "speechbrain/nnet/schedulers.py" not in files


def test_parts_are_disjoint_and_make_the_whole(checkout):
    whole = upstream.plan(checkout, PARTS)
    each = [upstream.plan(checkout, [part]) for part in PARTS]
    names = [set(files) - {upstream.README} for files in each]
    assert sum(map(len, names)) == len(set().union(*names))
    assert set().union(*names) | {upstream.README} == set(whole)
    assert Path("speechbrain/processing/kmeans.py") in names[0]
    assert not [x for files in names[:3] for x in files if "recipes" in x.parts]
    assert len([x for x in names[3] if x.suffix == ".yaml"]) == 3


@pytest.mark.parametrize("part", PARTS)
def test_parts_can_be_reviewed(checkout, part):
    # And bring tests of what they add.
    files = upstream.plan(checkout, [part])
    lines = {path: text.count("\n") for path, text in files.items()}
    assert sum(lines.values()) < 7000
    tests = sum(lines[x] for x in lines if upstream.TESTS in x.parents)
    modules = sum(lines[x] for x in lines if x.parts[0] == "speechbrain")
    assert tests > modules / 5


def test_systems_have_one_file_and_one_row_each(checkout):
    assert lay_over(checkout) == 0
    folder = checkout / upstream.OVERLAY / "hparams"
    assert sorted(x.stem for x in folder.glob("*.yaml")) == SYSTEMS
    with (checkout / upstream.ROWS).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1 + len(SYSTEMS)
    for row in rows[1:]:
        for key in ("Script_file", "Hparam_file", "Data_prep_file"):
            assert (checkout / row[key]).is_file()
        text = (checkout / row["Hparam_file"]).read_text("utf-8")
        keys = YAML().load(text)
        assert "layers" not in keys and "trunk" not in keys
        for flag in re.findall(r"--(\w+)=", row["test_debug_flags"]):
            assert flag in keys
        # What is referred to stands before.
        seen = set()
        for line in text.splitlines():
            if "!ref" in line or "!copy" in line:
                assert set(re.findall(r"<(\w+)>", line)) <= seen, line
            if found := re.match(r"(\w+):", line):
                seen.add(found[1])


def test_what_is_no_checkout_is_refused(tmp_path, checkout, capsys):
    assert lay_over(tmp_path) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "there is no speechbrain/core.py in" in line
    (checkout / upstream.ROWS).unlink()  # as where it is installed
    assert lay_over(checkout) == 2
    assert f"there is no {upstream.ROWS} in" in capsys.readouterr().err


def test_a_part_stands_on_those_before(checkout, capsys):
    before = files_of(checkout)
    assert lay_over(checkout, "--part", "2") == 2
    assert "part 2 stands on part 1, of which" in capsys.readouterr().err
    assert files_of(checkout) == before
    for part in map(str, PARTS):
        assert lay_over(checkout, "--part", part) == 0
    made = files_of(checkout)
    # In whatever order they are repeated, what is there stays.
    for parts in (["2"], ["1"], ["4"], map(str, PARTS)):
        assert lay_over(checkout, "--part", *parts) == 0
        assert files_of(checkout) == made


def test_files_of_theirs_are_not_overwritten(checkout, capsys):
    theirs = checkout / "speechbrain" / "processing" / "kmeans.py"
    theirs.parent.mkdir()
    theirs.write_text("# theirs\n")
    before = files_of(checkout)
    assert lay_over(checkout) == 2
    assert "kmeans.py is there and differs" in capsys.readouterr().err
    assert files_of(checkout) == before
    theirs.unlink()
    (checkout / "recipes" / "WSJ0Mix").mkdir(parents=True)
    (checkout / upstream.OVERLAY).write_text("a file\n")
    before = files_of(checkout)
    assert lay_over(checkout) == 2
    assert "is a file where a folder has to go" in capsys.readouterr().err
    assert files_of(checkout) == before


def test_edits_are_kept_unless_asked(checkout, capsys):
    some = "1", "2", "3", "4"
    assert lay_over(checkout, "--part", *some) == 0
    first = files_of(checkout)
    ours = checkout / "speechbrain" / "processing" / "kmeans.py"
    ours.write_text(ours.read_text("utf-8") + "# of a review\n", "utf-8")
    rows = checkout / upstream.ROWS
    text = rows.read_text("utf-8")
    rows.write_text(text.replace("--batch_size=1", "--batch_size=7"), "utf-8")
    edited = files_of(checkout)
    for parts in (["1"], some):
        assert lay_over(checkout, "--part", *parts) == 2
        assert "kmeans.py is there and differs" in capsys.readouterr().err
        assert files_of(checkout) == edited
    assert lay_over(checkout, "--part", *some, "--force") == 0
    assert files_of(checkout) == first
    assert "Separation,WSJ0Mix,a,b,c,d,,,flags,,\n" in text


def test_nothing_is_needed_that_speechbrain_does_not_want(checkout):
    # SpeechBrain's checks import every module, where no more is installed than
    # its requirements and what these bring.
    theirs = {"numpy", "scipy", "soundfile", "torch", "torchaudio", "tqdm"}
    theirs |= {"hyperpyyaml", "ruamel", "yaml", "filelock", "pytest"}
    theirs |= {"speechbrain", "prepare_data", *sys.stdlib_module_names}
    asked = set()
    for path, text in upstream.plan(checkout, PARTS).items():
        if path.suffix != ".py":
            continue
        tree = ast.parse(text)
        for node in ast.walk(tree):
            names = [getattr(node, "module", None) or ""]
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif not isinstance(node, ast.ImportFrom):
                continue
            foreign = {name.partition(".")[0] for name in names} - theirs
            assert not foreign or node not in tree.body, (path, foreign)
            asked |= foreign
    # jsonschema is for schemas, which do not come along.
    asked -= {"jsonschema", "onnx", "onnxscript"}
    assert asked == set(upstream.REQUIREMENTS.split())


def test_texts_name_what_the_parts_hold(checkout):
    texts = (Path(upstream.ROOT) / "tools" / "pull_requests.md").read_text()
    for part, text in enumerate(re.split(r"^## \d", texts, flags=re.M)[1:], 1):
        for name in upstream.part_modules(part):
            place = upstream.destination(name).relative_to("speechbrain")
            assert f"`{place.as_posix()}`" in text, (part, name)
        for name in upstream.chosen_systems(part):
            assert f"`{name}`" in text, (part, name)


def test_flattened_files_say_what_the_layers_say(checkout):
    for path, text in upstream.plan(checkout, PARTS).items():
        if path.suffix == ".yaml":
            assert not re.search(r": (true|false)\b", text), path
    text = upstream.flatten("kmeans_danet_spherical")
    assert re.search(r"^embedding_dim: \d+ # D$", text, re.MULTILINE)


def test_absolute_values_are_no_substitutions(checkout):
    assert lay_over(checkout) == 0
    for path, text in files_of(checkout).items():
        if path.endswith(".py") and path.startswith("speechbrain/"):
            for node in ast.walk(ast.parse(text)):
                if isinstance(
                    node, (ast.FunctionDef, ast.ClassDef, ast.Module)
                ):
                    about = ast.get_docstring(node) or ""
                    assert not re.search(r"\|\w[^|\n]*\|", about), path


@pytest.mark.skipif(not RUFF, reason="ruff is not installed")
def test_files_have_the_form_of_the_checkout(checkout):
    text = "import sys\nimport ast\nx = [ 1 ]\n"
    settings = "[tool.ruff.lint]\nselect = ['I']\n"
    (checkout / "pyproject.toml").write_text(settings)
    made = upstream._sorted(text, checkout, Path("a.py"), RUFF)
    assert made == "import ast\nimport sys\n\nx = [1]\n"


@pytest.mark.skipif(
    not CHECKOUT, reason="SPEECHBRAIN_CHECKOUT names no checkout"
)
def test_their_checks_pass(tmp_path):
    copy = tmp_path / "speechbrain"
    subprocess.run(["git", "clone", "-q", CHECKOUT, copy], check=True)
    assert lay_over(copy) == 0
    added = subprocess.run(
        ["git", "ls-files", "-o", "--exclude-standard", "speechbrain"],
        cwd=copy,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    checks = ("test_recipe", "test_yaml", "test_docstrings")
    python = [sys.executable, "-m", "pytest", "-q"]
    # Its search of constants takes SpeechBrain's lazy modules apart.
    python += ["-p", "no:hypothesispytest"]
    for arguments in (
        [f"tests/consistency/{check}.py" for check in checks],
        [upstream.TESTS.as_posix()],
        ["--doctest-modules", *added],
    ):
        environment = {**os.environ, "PYTHONPATH": str(copy)}
        done = subprocess.run([*python, *arguments], cwd=copy, env=environment)
        assert done.returncode == 0, arguments
