"""The first lesson, with a training of seconds."""

import subprocess
import sys

from recipe_runs import ROOT, TINY, TRUNK

LESSON = ROOT / "tutorials" / "first_lesson.py"


def run(*arguments):
    return subprocess.run(
        [sys.executable, LESSON, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_lesson(minimix, tmp_path):
    options = {**TINY, **TRUNK, "number_of_epochs": 1, "epoch_size": 8}
    words = [x for k, v in options.items() for x in (f"--{k}", v)]
    made = run(minimix, tmp_path / "lesson", "--", *words)
    assert made.returncode == 0, made.stderr
    lines = [x for x in made.stdout.splitlines() if x[:2] in "1. 2. 3. 4. "]
    assert [line[0] for line in lines] == list("1234"), made.stdout
    assert lines[0].startswith("1. 2 talkers, ")
    files = {path.name for path in (tmp_path / "lesson").iterdir()}
    assert files == {"talker1.wav", "talker2.wav", "embeddings.png", "own"}


def test_what_is_missing_is_said(tmp_path):
    made = run(tmp_path, tmp_path / "lesson")
    assert made.returncode == 2
    assert made.stderr.startswith("first_lesson.py: error: there is no MiniMix")
