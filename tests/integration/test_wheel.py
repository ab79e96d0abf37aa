"""What is installed from a wheel works alone: no network, nothing written."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import soundfile
from recipe_runs import ROOT

PARTS = "setup.py", "pyproject.toml", "README.md", "speechbrain_kmdanet"
# Python imports it first of all.
NO_NETWORK = """
import socket

def refuse(*arguments, **options):
    raise SystemExit("the network was asked")

socket.socket.connect = socket.create_connection = refuse
socket.getaddrinfo = refuse
"""


def run(*arguments, **options):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        **options,
    )


def listing(folder):
    """Files of a folder, with what changes when they are written."""
    return {
        path: (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
    }


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder that the wheel was installed into."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, source / part, ignore=ignored)
        else:
            shutil.copy(ROOT / part, source)
    pip = "-m", "pip", "--disable-pip-version-check", "--no-input"
    built = run(
        *pip,
        "wheel",
        source,
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        folder,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("*.whl")
    assert wheel.stat().st_size < 25e6
    site = folder / "site"
    done = run(*pip, "install", "--no-deps", "--target", site, wheel)
    assert done.returncode == 0, done.stderr
    return site


def test_the_first_commands_of_the_readme(installed, tmp_path):
    hook, here = tmp_path / "hook", tmp_path / "here"
    for folder in (hook, here):
        folder.mkdir()
    (hook / "sitecustomize.py").write_text(NO_NETWORK, encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (hook, installed))),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "0",
    }

    def kmdanet(*arguments):
        return run(
            "-m",
            "speechbrain_kmdanet",
            *arguments,
            cwd=here,
            env=environment,
        )

    before = listing(installed)
    told = kmdanet("example")
    assert told.returncode == 0, told.stderr
    words = told.stdout.splitlines()[-1].split()
    assert words[:3] == ["kmdanet", "separate", "two_talkers.flac"]
    done = kmdanet(*words[1:], "--device", "cpu", "--json")
    assert done.returncode == 0, done.stderr
    assert listing(installed) == before
    mixture, rate = soundfile.read(here / "two_talkers.flac")
    about = json.loads((here / "separated/two_talkers.json").read_text())
    assert about["tracks"] == ["two_talkers_1.wav", "two_talkers_2.wav"]
    for name in about["tracks"]:
        track, its_rate = soundfile.read(here / "separated" / name)
        assert its_rate == rate and len(track) == len(mixture)
        assert 0.1 < track.std() / mixture.std() < 1
    # Each voice is heard, and both at times.
    assert {turn["track"] for turn in about["turns"]} == {1, 2}
