"""What the READMEs show works: snippets run, commands and paths exist."""

import re
import shlex

import pytest
import soundfile
import torch
from recipe_runs import RECIPE, ROOT
from ruamel.yaml import YAML
from speechbrain.utils.run_opts import RunOptions

from speechbrain_kmdanet.command_line import make_parser
from speechbrain_kmdanet.utils.schema import read_schema

READMES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not {".venv", "results", "tmp"} & set(path.relative_to(ROOT).parts)
)
CARDS = [path for path in READMES if path.parent.parent.name == "pretrained"]
PRETRAINED = ROOT / "pretrained" / "kmeans_danet_spherical_so762"
of_each = pytest.mark.parametrize(
    "path", READMES, ids=lambda path: str(path.relative_to(ROOT))
)


def blocks(path, language):
    """Code of a language in a README, also inside lists."""
    text = path.read_text(encoding="utf-8")
    pattern = rf"^( *)```{language}\n(.*?)^\1```"
    return [code for _, code in re.findall(pattern, text, re.M | re.S)]


def commands(path):
    """Words of each command in a README's shell blocks."""
    for code in blocks(path, "shell"):
        command = ""
        for line in code.replace("\\\n", " ").splitlines():
            command += line + "\n"
            # A quoted text may go on in the next line.
            if re.sub(r"#.*", "", command).count('"') % 2 == 0:
                yield shlex.split(command, comments=True)
                command = ""


@of_each
def test_snippets_run(path, tmp_path, monkeypatch):
    (tmp_path / "pretrained").symlink_to(ROOT / "pretrained")
    (tmp_path / "OUTPUT").mkdir()
    (tmp_path / "OUTPUT" / "pretrained").symlink_to(PRETRAINED)
    for name in ("meeting.wav", "mixture.wav"):
        soundfile.write(tmp_path / name, 0.1 * torch.randn(8000).numpy(), 8000)
    monkeypatch.chdir(tmp_path)
    # What a snippet may take for granted.
    x, energies = torch.randn(2, 100, 4), torch.rand(2, 100)
    for code in blocks(path, "python"):
        exec(compile(code, str(path), "exec"), {"x": x, "energies": energies})


@of_each
def test_commands_exist(path):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    keys = read_schema(ROOT / "hparams" / "schema.yaml")["properties"]
    known = {*keys, *RunOptions().as_dict(), "ckpt_interval_steps"}
    for words in commands(path):
        if words[:1] == ["make"]:
            assert all(re.search(f"^{x}:", makefile, re.M) for x in words[1:])
        if words[:1] == ["kmdanet"]:
            make_parser().parse_args(words[1:])
        script = next((x for x in words if x.endswith(".py")), None)
        if script:
            places = [path.parent / script, ROOT / script, RECIPE / script]
            assert any(place.is_file() for place in places), script
        if script == "train.py":
            options = {x[2:] for x in words if x.startswith("--")}
            options -= {"nproc_per_node=2"}
            assert options <= known, options - known


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_paths_exist(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    for file in re.findall(r"[\w/]+/[\w/]+\.(?:py|yaml|md|png)\b", text):
        roots = ROOT, ROOT / "speechbrain_kmdanet", RECIPE, RECIPE.parent
        places = [root / file for root in roots]
        assert any(place.is_file() for place in places), file
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / link).exists(), link


def test_the_checks_see_something():
    assert sum(len(blocks(path, "python")) for path in READMES) >= 4
    assert sum(1 for path in READMES for _ in commands(path)) >= 12


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.parent.name)
def test_cards_say_what_hubs_read(path):
    _, front, text = path.read_text(encoding="utf-8").split("---\n", 2)
    card = YAML(typ="safe").load(front)
    assert card["library_name"] == "speechbrain"
    assert card["license"] == "apache-2.0"
    assert {"language", "pipeline_tag", "tags", "datasets", "metrics"} <= {
        *card
    }
    (model,) = card["model-index"]
    assert model["name"] == path.parent.name
    for result in model["results"]:
        # The figures of the card, row by row.
        name, value = result["dataset"]["name"], result["metrics"][0]["value"]
        assert re.search(rf"^\| {name}.*\*\*{value} ±", text, re.M)
