"""What a user gets wrong is told in one line, with exit status 2."""

import os
import shutil

import numpy as np
import pytest
import soundfile
import torch
from recipe_runs import RECIPE, command_line, run_python

from speechbrain_kmdanet.dataio.corpus import index_corpus
from speechbrain_kmdanet.utils import jobs

SYSTEM = "kmeans_danet_spherical"


@pytest.fixture
def copy(data, tmp_path):
    """A copy of the mixtures of two speakers, to be damaged."""
    return shutil.copytree(data.two, tmp_path / "2speakers")


def first(folder, split, part):
    """First file of a part of a split."""
    return min((folder / "wav8k" / "min" / split / part).glob("*.wav"))


def refused(capsys, status):
    """The one line that was written."""
    lines = capsys.readouterr().err.splitlines()
    # Progress bars and warnings are not ours.
    errors = [line for line in lines if line.startswith("train.py: error: ")]
    assert status == 2 and len(errors) == 1
    assert not any("Traceback" in line for line in lines)
    return errors[0].removeprefix("train.py: error: ")


def contents(folder):
    """Bytes, and times of change, of all that is in a folder."""
    return {
        path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes())
        for path in (folder, *folder.rglob("*"))
        if path.exists()
    }


@pytest.fixture
def refuse(train, capsys):
    """Has train.py refuse something, which changes nothing on the disk."""

    def run(output, *flags, system=SYSTEM, **options):
        before = contents(output)
        status = train(system, output, *flags, **options)
        message = refused(capsys, status)
        after = contents(output)
        # The folder itself was locked.
        if output in before:
            before[output] = after[output]
        assert after == before
        return message

    return run


def remove_source(folder):
    path = first(folder, "cv", "s2")
    path.unlink()
    return f"cv/s2, the first is {path.name}: build the mixtures again"


def remove_split(folder):
    shutil.rmtree(folder / "wav8k" / "min" / "tr" / "s1")
    return "data_folder must have the layout of WSJ0-mix"


def empty_split(folder):
    for path in (folder / "wav8k" / "min" / "tt" / "mix").glob("*.wav"):
        path.unlink()
    return "there are no recordings in"


def change_rate(folder):
    path = first(folder, "tr", "mix")
    soundfile.write(path, soundfile.read(path)[0], 16000)
    return f"{path} has 1 channel(s) at 16000 Hz, expected one at"


def add_channel(folder):
    path = first(folder, "tt", "mix")
    signal = soundfile.read(path)[0]
    soundfile.write(path, np.stack([signal, signal], axis=1), 8000)
    return f"{path} has 2 channel(s) at 8000 Hz, expected one at"


def shorten_mixture(folder):
    for part in ("mix", "s1", "s2"):
        path = first(folder, "tr", part)
        soundfile.write(path, soundfile.read(path)[0][:2], 8000)
    return f"{first(folder, 'tr', 'mix')} is too short, 2 samples (expected"


def make_text(folder):
    path = first(folder, "cv", "mix")
    path.write_text("This is no audio.")
    return f"{path} cannot be read"


@pytest.mark.parametrize(
    "damage",
    [
        remove_source,
        remove_split,
        empty_split,
        change_rate,
        add_channel,
        shorten_mixture,
        make_text,
    ],
)
def test_damage_found_at_the_start(refuse, copy, tmp_path, damage):
    expected = damage(copy)
    assert expected in refuse(tmp_path / "output", data_folder=copy)


def put_nan(path):
    signal = soundfile.read(path)[0]
    signal[100] = np.nan
    soundfile.write(path, signal, 8000, "FLOAT")
    return "has NaN or infinite samples"


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1000])
    return "truncated, 1000 bytes missing"


def change_source_rate(path):
    soundfile.write(path, soundfile.read(path)[0], 16000)
    return "has 16000 Hz, expected sample_rate=8000 Hz"


def shorten_source(path):
    soundfile.write(path, soundfile.read(path)[0][:-1], 8000)
    return "and its sources differ in length"


@pytest.mark.parametrize(
    "damage, workers",
    [(put_nan, 1), (truncate, 1), (change_source_rate, 0), (shorten_source, 1)],
)
def test_damage_found_on_reading(
    train, trained, copy, tmp_path, capsys, damage, workers
):
    path = first(copy, "tt", "s1")
    expected = damage(path)
    status = train(
        SYSTEM,
        tmp_path / "output",
        "--test_only",
        data_folder=copy,
        initial_weights=trained / "pretrained",
        test_loader_options=f"{{num_workers: {workers}}}",
    )
    message = refused(capsys, status)
    assert expected in message and path.name in message


def test_damage_found_in_training(train, copy, tmp_path, capsys):
    path = first(copy, "tr", "s2")
    expected = put_nan(path)
    status = train(
        SYSTEM,
        tmp_path / "output",
        data_folder=copy,
        train_loader_options="{num_workers: 1, batch_size: 8}",
    )
    message = refused(capsys, status)
    assert f"{path}: {expected}" in message


@pytest.mark.parametrize("noticed", [True, False])
def test_damage_after_the_levels_were_measured(
    train, data, tmp_path, capsys, noticed
):
    corpus = shutil.copytree(data.corpus, tmp_path / "corpus")
    index_corpus(corpus, tmp_path / "output" / "save" / "corpus.csv", 1)
    for path in corpus.glob("*/*.wav"):
        state = path.stat()
        path.write_bytes(b"This is no audio.".ljust(state.st_size))
        if not noticed:
            os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    status = train(
        SYSTEM,
        tmp_path / "output",
        data_folder=data.two,
        dynamic_mixing=corpus,
        epoch_size=4,
        train_loader_options="{num_workers: 1}",
    )
    start = f"12 of 12 recordings in {corpus} cannot be used, nothing was"
    if not noticed:
        start = f"Error opening '{corpus}"
    assert refused(capsys, status).startswith(start)


@pytest.mark.parametrize(
    "options, expected",
    [
        (dict(data_folder="nowhere"), "there is no folder nowhere/wav8k/min/t"),
        (dict(loss="snr"), "loss must be one of ('magnitude', 'si_sdr'"),
        (dict(speeds="[1"), "a value that cannot be understood (expected ',' "),
        (dict(trunk="nowhere"), "has the layer nowhere.yaml, but there is no"),
        (dict(num_spk=3), "has no key num_spk: check --num_spk"),
        (dict(num_spks=3), "2 sources (s1, s2), expected num_spks=3: give the"),
        (dict(batch_size=9), "has 8 mixtures of 2 talkers, fewer than the 9"),
        (
            dict(train_loader_options="{persistent_workers: True}"),
            "persistent_workers must be False",
        ),
        (dict(dynamic_mixing="nowhere"), "there are no recordings in nowhere"),
        (dict(initial_weights="nowhere.ckpt"), "'nowhere.ckpt'"),
        (dict(initial_weights=RECIPE), "'" + str(RECIPE / "masknet.ckpt")),
        (dict(initial_weights=__file__), "test_bad_input.py holds no weights"),
    ],
)
def test_wrong_options(refuse, data, tmp_path, options, expected):
    options = {"data_folder": data.two, **options}
    assert expected in refuse(tmp_path / "output", **options)


def test_an_option_given_twice(refuse, data, tmp_path):
    twice = "--lr", "0.1", "--lr", "0.2"
    message = refuse(tmp_path / "output", *twice, data_folder=data.two)
    assert message == "--lr is given twice"


def test_number_of_sources(refuse, data, tmp_path):
    # Two of three sources are no separation.
    output = tmp_path / "output"
    expected = "tr has 3 sources (s1, s2, s3), expected num_spks=2: give the"
    assert expected in refuse(output, data_folder=data.three)
    three = shutil.copytree(data.three, tmp_path / "3speakers")
    folders = f"[{data.two}, {three}]"
    shutil.rmtree(three / "wav8k" / "min" / "tt" / "s3")
    expected = "tt has 2 sources (s1, s2), expected num_spks=3"
    assert expected in refuse(output, data_folder=folders)
    shutil.rmtree(three / "wav8k" / "min" / "cv" / "s1")
    assert "there is no folder" in refuse(output, data_folder=folders)


def test_several_folders(refuse, data, tmp_path):
    folders = f"[{data.two}, {data.two}]"
    expected = "several folders of data_folder must hold mixtures of different"
    assert expected in refuse(tmp_path / "output", data_folder=folders)
    # Mixtures of three speakers in training, but too few for a batch
    options = dict(data_folder=f"[{data.two}, {data.three}]", batch_size=5)
    expected = "an epoch has 4 mixtures of 3 talkers, fewer than the 5 of one"
    assert expected in refuse(tmp_path / "output", **options)


def test_missing_data_folder(refuse, tmp_path):
    message = refuse(tmp_path / "output")
    assert message == "data_folder must be given: --data_folder VALUE"


def test_too_few_speakers(train, data, tmp_path, capsys):
    shutil.copytree(data.corpus / "low0", tmp_path / "corpus" / "low0")
    status = train(
        SYSTEM,
        tmp_path / "output",
        data_folder=data.two,
        dynamic_mixing=tmp_path / "corpus",
    )
    expected = "num_spks=2 need as many talkers, but"
    assert expected in refused(capsys, status)


def test_nothing_to_test(refuse, data, tmp_path):
    output = tmp_path / "output"
    message = refuse(output, "--test_only", data_folder=data.two)
    assert "no epoch was finished in" in message
    assert message.endswith("train first, or give --initial_weights")


def test_another_network(refuse, data, trained, tmp_path):
    options = {"data_folder": data.two, "embedding_dim": 4}
    weights = trained / "pretrained"
    message = refuse(tmp_path / "new", initial_weights=weights, **options)
    assert "does not fit the model (size mismatch" in message
    output = shutil.copytree(trained, tmp_path / "output")
    message = refuse(output, "--test_only", **options)
    assert "does not fit the model (size mismatch" in message
    expected = "holds a training with embedding_dim 8, expected 4: give another"
    assert expected in refuse(output, **options)


@pytest.mark.parametrize(
    "system, options, differs",
    [
        ("danet", {}, "system kmeans_danet_spherical, expected danet"),
        (SYSTEM, dict(lr=0.5), "lr 0.01, expected 0.5"),
        (SYSTEM, dict(loss="si_sdr"), "loss magnitude, expected si_sdr"),
        (SYSTEM, dict(ema_decay=0.9), "ema_decay 0, expected 0.9"),
    ],
)
def test_another_training(
    refuse, data, trained, tmp_path, system, options, differs
):
    output = shutil.copytree(trained, tmp_path / "output")
    options["data_folder"] = data.two
    message = refuse(output, system=system, **options)
    assert message.startswith(f"{output} holds a training with {differs}: give")


def test_a_test_of_another_system(refuse, data, trained, tmp_path):
    output = shutil.copytree(trained, tmp_path / "output")
    options = dict(system="danet", data_folder=data.two)
    message = refuse(output, "--test_only", **options)
    assert "holds a training with system kmeans_danet_spherical" in message


def test_a_training_on_other_data(refuse, data, trained, tmp_path):
    output = shutil.copytree(trained, tmp_path / "output")
    moved = shutil.copytree(data.two, tmp_path / "2speakers")
    for split in ("tr", "cv"):
        for part in ("mix", "s1", "s2"):
            path = first(moved, split, part)
            path.rename(path.with_stem(path.stem + "0"))
        message = refuse(output, data_folder=moved)
        assert "is of a training with other data: give another" in message
        shutil.rmtree(moved)
        shutil.copytree(data.two, moved)


def test_another_run_is_in_the_folder(
    refuse, data, trained, tmp_path, monkeypatch
):
    monkeypatch.setattr(jobs, "LOCK_SECONDS", 0.0)
    output = shutil.copytree(trained, tmp_path / "output")
    with jobs.only_process(output, "wait"):
        for flags in ((), ("--test_only",)):
            message = refuse(output, *flags, data_folder=data.two)
            assert f"another process is at work in {output}" in message


def test_damaged_checkpoints(refuse, data, trained, tmp_path):
    output = shutil.copytree(trained, tmp_path / "output")
    for path in output.glob("save/CKPT*/masknet.ckpt"):
        path.write_bytes(path.read_bytes()[:1000])
    for flags in ((), ("--test_only",)):
        message = refuse(output, *flags, data_folder=data.two)
        assert "masknet.ckpt is damaged, and there is no other" in message


def test_command_line_of_a_missing_file(tmp_path):
    command = command_line(SYSTEM, tmp_path, data_folder=tmp_path)
    command[0] = "missing.yaml"
    status, output = run_python(RECIPE / "train.py", *command)
    assert status == 2
    assert output.splitlines()[-1] == (
        "train.py: error: [Errno 2] No such file or directory: 'missing.yaml'"
    )
    assert "Traceback" not in output


@pytest.mark.parametrize(
    "bug, kind",
    [
        (lambda *_: torch.zeros(2).view(3, 1), RuntimeError),
        (lambda *_: np.zeros(2).reshape(3), ValueError),
        (lambda *_: {}["key"], KeyError),
    ],
)
def test_bugs_keep_their_traceback(
    train, recipe, data, tmp_path, monkeypatch, bug, kind
):
    monkeypatch.setattr(recipe, "make_loaders", bug)
    with pytest.raises(kind):
        train(SYSTEM, tmp_path, data_folder=data.two)
