"""What a user gets wrong is told in one line, with exit status 2."""

import shutil

import numpy as np
import pytest
import soundfile
import torch
from recipe_runs import RECIPE, command_line, run_python

from speechbrain_kmdanet.dataio.corpus import index_corpus

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
    return "there are no WAV files in"


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
def test_damage_found_at_the_start(train, copy, tmp_path, capsys, damage):
    expected = damage(copy)
    status = train(SYSTEM, tmp_path / "output", data_folder=copy)
    assert expected in refused(capsys, status)


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


def test_damage_after_the_levels_were_measured(train, data, tmp_path, capsys):
    corpus = shutil.copytree(data.corpus, tmp_path / "corpus")
    index_corpus(corpus, tmp_path / "output" / "save" / "corpus.csv", 1)
    for path in corpus.glob("*/*.wav"):
        path.write_text("This is no audio.")
    status = train(
        SYSTEM,
        tmp_path / "output",
        data_folder=data.two,
        dynamic_mixing=corpus,
        epoch_size=4,
        train_loader_options="{num_workers: 1}",
    )
    message = refused(capsys, status)
    assert message.startswith(f"Error opening '{corpus}")


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
def test_wrong_options(train, data, tmp_path, capsys, options, expected):
    options = {"data_folder": data.two, **options}
    assert expected in refused(capsys, train(SYSTEM, tmp_path, **options))


def test_an_option_given_twice(train, data, tmp_path, capsys):
    twice = "--lr", "0.1", "--lr", "0.2"
    status = train(SYSTEM, tmp_path, *twice, data_folder=data.two)
    assert refused(capsys, status) == "--lr is given twice"


def test_number_of_sources(train, data, tmp_path, capsys):
    # Two of three sources are no separation.
    status = train(SYSTEM, tmp_path, data_folder=data.three)
    expected = "tr has 3 sources (s1, s2, s3), expected num_spks=2: give the"
    assert expected in refused(capsys, status)
    three = shutil.copytree(data.three, tmp_path / "3speakers")
    folders = f"[{data.two}, {three}]"
    shutil.rmtree(three / "wav8k" / "min" / "tt" / "s3")
    status = train(SYSTEM, tmp_path, data_folder=folders)
    expected = "tt has 2 sources (s1, s2), expected num_spks=3"
    assert expected in refused(capsys, status)
    shutil.rmtree(three / "wav8k" / "min" / "cv" / "s1")
    status = train(SYSTEM, tmp_path, data_folder=folders)
    assert "there is no folder" in refused(capsys, status)


def test_several_folders(train, data, tmp_path, capsys):
    folders = f"[{data.two}, {data.two}]"
    status = train(SYSTEM, tmp_path, data_folder=folders)
    expected = "several folders of data_folder must hold mixtures of different"
    assert expected in refused(capsys, status)
    # Mixtures of three speakers in training, but too few for a batch
    folders = f"[{data.two}, {data.three}]"
    status = train(SYSTEM, tmp_path, data_folder=folders, batch_size=5)
    expected = "an epoch has 4 mixtures of 3 talkers, fewer than the 5 of one"
    assert expected in refused(capsys, status)


def test_missing_data_folder(train, tmp_path, capsys):
    message = refused(capsys, train(SYSTEM, tmp_path))
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


def test_nothing_to_test(train, data, tmp_path, capsys):
    status = train(SYSTEM, tmp_path, "--test_only", data_folder=data.two)
    message = refused(capsys, status)
    assert "no epoch was finished in" in message
    assert message.endswith("train first, or give --initial_weights")


@pytest.mark.parametrize("source", ["checkpoint", "initial_weights"])
def test_other_network(train, data, trained, tmp_path, capsys, source):
    options = {"data_folder": data.two, "embedding_dim": 4}
    if source == "checkpoint":
        output = shutil.copytree(trained, tmp_path / "output")
    else:
        output, options[source] = tmp_path / "output", trained / "pretrained"
    status = train(SYSTEM, output, "--test_only", **options)
    message = refused(capsys, status)
    assert "does not fit the model (size mismatch" in message


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
