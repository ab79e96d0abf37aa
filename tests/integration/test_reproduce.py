"""The paper's tables on tiny data, with reproduce.py."""

import csv
import json
import logging
import re
import sys
from types import SimpleNamespace
from unittest import mock

import pytest
import reproduce as program
from recipe_runs import RECIPE, ROOT, TINY, TRUNK, run_python

OVERRIDES = ["--", "--noprogressbar"]
for key, value in {**TINY, **TRUNK}.items():
    OVERRIDES += [f"--{key}", str(value)]
PRETRAINED = ROOT / "pretrained" / "kmeans_danet_spherical_so762"
# An epoch of 8 mixtures of a second
HOURS = str(8 / 3600)
MEASURED = r"−?\d+\.\d\d ± \d+\.\d\d"


@pytest.fixture(scope="module")
def reproduce(recipe, data, tmp_path_factory):
    """Runs reproduce.py and, called by it, train.py in this process."""
    folder = tmp_path_factory.mktemp("reproduce")
    calls = []

    def call_train(arguments):
        root, hook = logging.getLogger(), sys.excepthook
        handlers, level = list(root.handlers), root.level
        describe = "speechbrain.utils.logger.get_environment_description"
        calls.append(arguments)
        try:
            with mock.patch(describe, return_value=""):
                return recipe.main(arguments)
        finally:
            root.handlers[:], sys.excepthook = handlers, hook
            root.setLevel(level)

    def run(table, *arguments, hours=HOURS, overrides=OVERRIDES):
        calls.clear()
        options = {
            "data_folder": data.two.parent,
            "name": "tiny",
            "hours": hours,
            "runs": folder / "runs",
            "results": folder / "results",
        }
        command = [table]
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        command += [*arguments, *overrides]
        with mock.patch("reproduction.runs.call_train", call_train):
            return program.main(command)

    return SimpleNamespace(run=run, calls=calls, folder=folder, data=data)


@pytest.fixture(scope="module")
def table_1(reproduce):
    """Folder of the results, after table1."""
    assert reproduce.run("table1") == 0
    assert len(reproduce.calls) == 2
    return reproduce.folder / "results"


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def errors(capsys):
    return re.findall(
        r"^reproduce\.py: error: (.+)$", capsys.readouterr().err, re.M
    )


def test_table_1(reproduce, table_1):
    text = (table_1 / "table1_tiny.md").read_text()
    for metric, paper in (("Euclidean", "9.6"), ("spherical", "9.9")):
        pattern = rf"^\| DANet +\| {metric} +\| {paper} +\| {MEASURED} +\|$"
        assert re.search(pattern, text, re.M)
    assert re.search(r"by mixture \| \+0\.3 +\| [+−]\d+\.\d\d ± ", text)
    # The figures are those that train.py wrote.
    rows = read_csv(table_1 / "table1_tiny.csv")
    assert [row["method"] for row in rows] == ["danet", "danet_spherical"]
    training = reproduce.folder / "runs" / "danet" / "2speakers" / "seed1234"
    for row, name in zip(
        rows, ("test_2speakers", "test_2speakers_danet_spherical")
    ):
        summary = json.loads((training / name / "summary.json").read_text())
        score = summary["si_sdri"]
        assert float(row["si_sdri"]) == pytest.approx(score["mean"], abs=1e-4)
        assert float(row["ci95"]) == pytest.approx(score["ci95"], abs=1e-4)
        assert int(row["mixtures"]) == summary["utterances"] == 4
    assert summary["infer_metric"] == "spherical"
    difference = float(rows[1]["si_sdri"]) - float(rows[0]["si_sdri"])
    assert float(rows[1]["difference"]) == pytest.approx(difference, abs=2e-4)


def test_budget_and_source_are_stated(reproduce, table_1):
    text = (table_1 / "table1_tiny.md").read_text()
    words = " ".join(text.split())
    assert "Each training saw 0.00222 h of mixtures, those of tr; seed" in words
    assert "segment_seconds 1.0, batch_size 4, loss magnitude. hid" in words
    assert "hidden_size 32, num_layers 1." in words
    assert re.search(r"Measured on \d{4}-\d\d-\d\d, .+ threads; Python", words)
    assert "--data_folder ROOT" in words and " --lr 0.01" in words
    assert str(reproduce.folder) not in text
    assert str(reproduce.data.two.parent) not in text


def test_nothing_is_made_twice(reproduce, table_1, capsys):
    assert reproduce.run("table1") == 0
    # What changes no result may differ.
    others = [x for x in OVERRIDES if x != "--noprogressbar"]
    assert reproduce.run("table1", overrides=others) == 0
    assert reproduce.calls == []
    assert capsys.readouterr().out.count("All of these runs are done.") == 2


def test_other_settings_are_refused(reproduce, table_1, capsys):
    before = (table_1 / "table1_tiny.md").read_text()
    hours = str(2 * 8 / 3600)
    assert reproduce.run("table1", hours=hours) == 2
    (line,) = errors(capsys)
    assert "number_of_epochs is 1 there and 2 now): give another folder" in line
    overrides = [*OVERRIDES, "--dropout", "0.1"]
    assert reproduce.run("table1", "--dry_run", overrides=overrides) == 2
    (line,) = errors(capsys)
    assert "dropout is not given there and 0.1 now" in line
    assert reproduce.calls == []
    assert (table_1 / "table1_tiny.md").read_text() == before


def test_a_piece_of_table_3(reproduce, table_1, capsys):
    part = ["--systems", "danet", "oracle_ratio", "--train_on", "2"]
    assert reproduce.run("table3", *part, "--dry_run") == 0
    told = capsys.readouterr().out
    # The training is that of Table 1; what is left are three tests.
    assert reproduce.calls == []
    assert re.search(r"^  done +DANet, .+: training, 0\.00222 h", told, re.M)
    assert told.count("  to do ") == 3
    assert re.search(r"^To make: 3 of 4 runs, 0 h .+ about \d+ s", told, re.M)

    assert reproduce.run("table3", *part) == 0
    assert len(reproduce.calls) == 3
    rows = {
        (row["method"], row["trained_on"], row["tested_on"]): row
        for row in read_csv(table_1 / "table3_tiny.csv")
    }
    assert {key for key, row in rows.items() if row["si_sdri"]} == {
        ("danet", "2", "2"),
        ("danet", "2", "3"),
        ("danet_spherical", "2", "2"),
        ("oracle_ratio", "", "2"),
        ("oracle_ratio", "", "3"),
    }
    own = read_csv(table_1 / "table1_tiny.csv")
    assert rows["danet", "2", "2"]["si_sdri"] == own[0]["si_sdri"]
    assert float(rows["oracle_ratio", "", "2"]["si_sdri"]) > 10
    assert rows["kmeans_danet_spherical", "2", "3"]["paper_si_sdri"] == "3.6"
    text = (table_1 / "table3_tiny.md").read_text()
    assert re.search(rf"^\| DANet, Euc.+\| 9\.5 +\| {MEASURED} +\|", text, re.M)
    assert "2 → 3, paper" in text and "3 → 3" not in text


def test_table_2(reproduce, table_1):
    assert reproduce.run("table2") == 0
    assert len(reproduce.calls) == 5
    rows = read_csv(table_1 / "table2_tiny.csv")
    assert [row["train_iterations"] for row in rows] == "1 3 5 10 20".split()
    assert all(float(row["minutes_per_epoch"]) > 0 for row in rows)
    pattern = rf"^\| 20 +\| 10\.7 +\| {MEASURED} +\| 22\.81 .+\| 4\.96 +\| \d"
    text = (table_1 / "table2_tiny.md").read_text()
    assert re.search(pattern, text, re.M)
    # L = 5 is a row of Table 3, too.
    part = ["--systems", "kmeans_danet_spherical", "--train_on", "2"]
    assert reproduce.run("table3", *part) == 0
    assert len(reproduce.calls) == 1
    text = (table_1 / "table3_tiny.md").read_text()
    assert "Differences to k-means DANet (spherical)" in text


def test_failed_runs_are_named(reproduce, capsys, tmp_path):
    runs = ["--runs", str(tmp_path)]
    system = ["--systems", "danet", "--train_on", "2"]
    bad = [*OVERRIDES, "--no_such_key", "3"]
    assert reproduce.run("table3", *system, *runs, overrides=bad) == 2
    (line,) = errors(capsys)
    assert line.startswith("train.py stopped with status") and "DANet" in line
    # Nothing was trained with that, and nothing keeps from trying another.
    again = "table3", *system, *runs, "--dry_run"
    assert reproduce.run(*again) == 0
    assert "To make: 2 of 2 runs" in capsys.readouterr().out


def test_missing_data_are_named(reproduce, tmp_path, capsys):
    where = ["--data_folder", str(tmp_path)]
    assert reproduce.run("table3", *where) == 2
    assert "there is no folder 2speakers in" in errors(capsys)[0]
    assert reproduce.run("table1", *where) == 2
    assert "there are no recordings in" in errors(capsys)[0]


def test_figure_1(reproduce, table_1, capsys):
    separator = ["--separator", str(PRETRAINED)]
    assert reproduce.run("figure1", *separator) == 0
    assert reproduce.calls == []
    picture = table_1 / "figure1_tiny.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    text = (table_1 / "figure1_tiny.md").read_text()
    assert f"]({picture.name})" in text and "(Eq. 6)" in text
    distances = re.findall(r"^\| (\w+) k-means \| (\d+\.\d\d)", text, re.M)
    assert [kind for kind, _ in distances] == ["spherical", "euclidean"]
    assert str(PRETRAINED) not in text
    # The separator of Table 1 is there already, with its attractors of Eq. 1.
    assert reproduce.run("figure1", "--systems", "danet") == 0
    assert reproduce.calls == []
    assert "those of Eq. 1" in (table_1 / "figure1_tiny.md").read_text()
    assert reproduce.run("figure1", *separator, "--mixture", "none") == 2
    assert "there is no mixture none in" in errors(capsys)[0]
    assert reproduce.run("figure1", "--systems", "upit") == 2
    assert "got --systems upit" in errors(capsys)[0]


def test_figure_1_of_two_men(reproduce, table_1, data, tmp_path, capsys):
    names = sorted(
        path.stem for path in (data.two / "wav8k/min/tt/mix").glob("*.wav")
    )
    men = set(names[-1].split("_")[::2])
    rows = [
        f"tt/{path.name},{'m' if path.stem in men else 'f'}\n"
        for path in data.corpus.rglob("*.wav")
    ]
    file = tmp_path / "speakers.csv"
    options = ["--separator", str(PRETRAINED), "--genders", str(file)]
    file.write_text("path,gender\n" + "".join(rows))
    assert reproduce.run("figure1", *options) == 0
    text = (table_1 / "figure1_tiny.md").read_text()
    expected = [x for x in names if men.issuperset(x.split("_")[::2])]
    assert f"mixture {expected[0]} of tt" in text
    file.write_text("path,gender\n" + "".join(rows).replace(",m", ",f"))
    assert reproduce.run("figure1", *options) == 2
    assert "has no mixture of two men" in errors(capsys)[0]
    for wrong in ("path\ntt/a.wav\n", "path,gender\ntt/a.wav\n"):
        file.write_text(wrong)
        assert reproduce.run("figure1", *options) == 2
        assert f"--genders {file} cannot be read" in errors(capsys)[0]


def test_dry_run_of_all_as_a_process(data, tmp_path):
    command = [RECIPE / "reproduce.py", "all", "--dry_run"]
    command += ["--data_folder", data.two.parent, "--runs", tmp_path]
    status, output = run_python(*command, "--results", tmp_path, *OVERRIDES)
    assert status == 0, output
    assert re.search(r"To make: \d+ of \d+ runs, .+ \(a guess for two", output)
    assert output.count("DANet, Euclidean k-means (E2), 2 speakers, seed") == 1
    assert "L = 20, 2 speakers, seed 1234: training" in output
    assert list(tmp_path.iterdir()) == []
