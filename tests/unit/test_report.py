"""Tests of reports."""

import re
import subprocess
import sys
from datetime import date

import pytest

from speechbrain_kmdanet.utils import report
from speechbrain_kmdanet.utils.report import (
    describe_environment,
    format_figure,
    format_hours,
    format_markdown,
    format_number,
    format_time,
    hide_paths,
    write_report,
)


def test_figures_as_text():
    assert format_figure({"mean": 5.916, "ci95": 0.27}) == "5.92 ± 0.27"
    assert format_figure({"mean": 0.3, "ci95": 0.1}, True) == "+0.30 ± 0.10"
    assert format_figure({"mean": -0.3, "ci95": 0.1}, True) == "−0.30 ± 0.10"
    assert format_figure({"mean": None, "ci95": None}) == "–"
    lines = [["a", "1"], ["bbb", "22"]]
    assert format_markdown(["x", "figure"], lines).splitlines() == [
        "| x   | figure |",
        "| --- | ------ |",
        "| a   | 1      |",
        "| bbb | 22     |",
    ]


def test_no_path_is_in_the_command(tmp_path):
    command = [
        "python",
        "reproduce.py",
        "table3",
        "--data_folder",
        str(tmp_path),
        f"--dynamic_mixing={tmp_path}",
        "--hours",
        "5",
        "--runs",
        "here",
        "--results",
        str(tmp_path),
        "--train_on",
        "2",
        "--",
        "--opt_class",
        "{fused: True}",
        "--weights",
        str(tmp_path / "x"),
    ]
    text = hide_paths(command)
    assert text.replace(" \\\n   ", "") == (
        "python reproduce.py table3 --data_folder ROOT --dynamic_mixing CORPUS "
        "--hours 5 --train_on 2 -- --opt_class '{fused: True}' --weights PATH"
    )
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    "given, written",
    [
        ("/home/me/a b.wav", "PATH"),
        ("--weights=/home/me", "--weights=PATH"),
        ("--data_folder=/home/me", "--data_folder ROOT"),
        ("--x={a: /home/me, b: 1/2}", "'--x={a: PATH, b: 1/2}'"),
        ("results/a.md", "results/a.md"),
    ],
)
def test_paths_are_hidden_wherever_they_stand(given, written):
    text = hide_paths(["python", "x.py", given, "--lr", "1"])
    assert text == f"python x.py {written} --lr 1"


def test_numbers_as_text():
    assert format_number(None) == "–" and format_number(1.25, 1) == "1.2"
    assert format_hours(0.0022222) == "0.00222 h"
    assert format_hours(99.94) == "99.9 h" and format_hours(99.96) == "100 h"
    times = [format_time(seconds) for seconds in (89.4, 90, 5369, 5371, 36000)]
    assert times == ["89 s", "2 min", "89 min", "1 h 30 min", "10 h 00 min"]


def git(folder, *arguments):
    """Runs git as somebody, and returns what it says."""
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    command = ["git", *who, *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_commit_is_that_of_the_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "ROOT", tmp_path / "checkout")
    (tmp_path / "checkout").mkdir()
    assert describe_environment()["commit"] == "unknown"
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "-m", "theirs")
    # An installed package inside somebody else's checkout
    assert describe_environment()["commit"] == "unknown"
    git(tmp_path / "checkout", "init", "--quiet")
    file = tmp_path / "checkout" / "file"
    file.write_text("ours")
    git(file.parent, "add", "file")
    git(file.parent, "commit", "--quiet", "-m", "ours")
    commit = git(file.parent, "rev-parse", "HEAD")
    assert commit.startswith(describe_environment()["commit"])
    file.write_text("changed")
    assert describe_environment()["commit"].endswith("-dirty")


def test_report_says_with_what_it_was_measured(tmp_path, monkeypatch, capsys):
    script = report.ROOT / "benchmarks" / "run.py"
    results = ["--results", str(tmp_path), "--repeats", "3"]
    monkeypatch.setattr(sys, "argv", [str(script), *results])
    path = tmp_path / "new" / "report.md"
    table = ["what", "figure"], [["a", "1"]]
    text = write_report(path, "Title", ["A paragraph.", table])
    assert path.read_text(encoding="utf-8") == text
    assert text.startswith(
        "# Title\n\nA paragraph.\n\n"
        "| what | figure |\n| ---- | ------ |\n| a    | 1      |\n\nMeasured on "
    )
    assert date.today().isoformat() in text
    assert re.search(r" threads; Python [\d.]+, PyTorch .+; commit \w+", text)
    assert text.endswith(
        "; with\n\n```shell\npython benchmarks/run.py --repeats 3\n```\n"
    )
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "mine.py")])
    assert "\npython mine.py\n" in write_report(path, "Title", [])
