"""Training, evaluation and export with train.py, on tiny data."""

import csv
import json
import re
import shutil

import pytest
import soundfile
import torch
from speechbrain.inference.separation import SepformerSeparation

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def read_results(folder, num_spks=2):
    """Summary and rows of a test."""
    folder = folder / f"test_{num_spks}speakers"
    with (folder / "per_utterance.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return json.loads((folder / "summary.json").read_text()), rows


def epochs_logged(folder):
    text = (folder / "train_log.txt").read_text()
    return [int(epoch) for epoch in re.findall(r"^epoch: (\d+)", text, re.M)]


def test_training_learns_to_separate(trained):
    assert epochs_logged(trained) == [1, 2, 3, 4, 5, 6]
    summary, _ = read_results(trained)
    assert summary["si_sdri"]["mean"] > 5.0
    assert summary["sdri"]["mean"] > 5.0


def test_results_are_consistent(trained, data):
    summary, rows = read_results(trained)
    names = [path.stem for path in sorted((data.two).glob("*/*/tt/mix/*.wav"))]
    assert [row["id"] for row in rows] == names
    assert summary["utterances"] == len(names) == 4
    assert summary["data_folder"] == str(data.two)
    assert summary["silent_sources"] == 0
    for name in ("si_sdr", "si_sdri", "sdr", "sdri"):
        values = torch.tensor([float(row[name]) for row in rows]).double()
        score = summary[name]
        assert score["mean"] == pytest.approx(values.mean().item())
        half = 1.96 * values.std().item() / len(values) ** 0.5
        assert score["ci95"] == pytest.approx(half, rel=1e-3)


def test_examples_and_pictures(trained):
    (example,) = (trained / "test_2speakers" / "examples").iterdir()
    names = {path.name for path in example.iterdir()}
    waveforms = ("mixture", "source1", "source2", "estimate1", "estimate2")
    assert names == {f"{n}.wav" for n in waveforms} | {"spectrograms.png"}
    audio = {n: soundfile.read(example / f"{n}.wav") for n in waveforms}
    assert {rate for _, rate in audio.values()} == {8000}
    sources = audio["source1"][0] + audio["source2"][0]
    assert abs(audio["mixture"][0] - sources).max() < 1e-3
    for picture in (example / "spectrograms.png", trained / "training.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "system, loss",
    [("kmeans_danet_euclidean", "si_sdr"), ("danet", "magnitude")],
)
def test_other_systems(train, data, tmp_path, system, loss):
    options = dict(number_of_epochs=2, loss=loss)
    if system == "danet":
        options["dynamic_mixing"] = data.corpus
        options["epoch_size"] = 8
    assert train(system, tmp_path, data_folder=data.two, **options) == 0
    assert epochs_logged(tmp_path) == [1, 2]
    summary, rows = read_results(tmp_path)
    assert summary["utterances"] == len(rows) == 4
    assert (tmp_path / "pretrained" / "masknet.ckpt").is_file()


def test_pretrained_is_self_contained(trained, data, tmp_path, monkeypatch):
    folder = trained / "pretrained"
    text = (folder / "hyperparams.yaml").read_text()
    assert "://" not in text and "huggingface" not in text
    assert not re.search(r"(^|[\s'\":])[/~]\w", text)
    for name in OFFLINE:
        monkeypatch.setenv(name, "1")
    stock = SepformerSeparation.from_hparams(
        source=str(folder), savedir=str(tmp_path / "stock")
    )
    # The stock interface loses what is below 30 Hz, which voices are not.
    paths = sorted((data.two / "wav8k/min/tt/mix").glob("*.wav"))[:3]
    mixtures = torch.stack(
        [torch.tensor(soundfile.read(x, 4001)[0]).float() for x in paths]
    )
    separated = stock.separate_batch(mixtures)
    assert separated.shape == (3, 4001, 2)
    lost = mixtures - separated.sum(2)
    assert lost.square().sum() < 0.05 * mixtures.square().sum()


def test_test_only_reproduces_the_test(train, data, trained, tmp_path):
    own, _ = read_results(trained)
    # From the checkpoint, in batches with padding
    again = tmp_path / "test_2speakers"
    status = train(
        "kmeans_danet_spherical",
        trained,
        "--test_only",
        data_folder=data.two,
        test_folder=again,
        test_loader_options="{batch_size: 4, num_workers: 0}",
    )
    summary, rows = read_results(tmp_path)
    assert status == 0 and len(rows) == 4
    for name in ("si_sdr", "si_sdri"):
        expected = pytest.approx(own[name]["mean"], abs=1e-3)
        assert summary[name]["mean"] == expected
    assert summary["weights"] == own["weights"] != ""

    # From the weights alone, without data for training
    weights = trained / "pretrained"
    folder = tmp_path / "other"
    options = dict(
        data_folder=data.two, initial_weights=weights, dynamic_mixing="nowhere"
    )
    status = train("kmeans_danet_spherical", folder, "--test_only", **options)
    summary, _ = read_results(folder)
    assert status == 0
    assert summary["si_sdr"] == own["si_sdr"]
    assert summary["weights"] == str(weights)
    assert not (folder / "pretrained").exists()


def test_three_speakers_with_the_network_of_two(train, data, trained):
    settings = (trained / "hyperparams.yaml").read_text()
    status = train(
        "kmeans_danet_spherical",
        trained,
        "--test_only",
        data_folder=data.three,
        num_spks=3,
        num_examples=1,
        infer_metric="euclidean",
    )
    assert status == 0
    summary, rows = read_results(trained, num_spks=3)
    assert summary["num_spks"] == 3 and len(rows) == 2
    assert summary["infer_metric"] == "euclidean"
    assert summary["si_sdri"]["mean"] > 0.0
    # The test leaves the settings of the separator as they were.
    assert (trained / "hyperparams.yaml").read_text() == settings
    separator = (trained / "pretrained" / "hyperparams.yaml").read_text()
    assert re.search(r"^num_spks: 2$", separator, re.M)
    assert "euclidean" not in separator


def test_two_and_three_speakers_together(train, data, tmp_path):
    options = dict(
        data_folder=f"[{data.two}, {data.three}]",
        number_of_epochs=2,
        test_loader_options="{batch_size: 3, num_workers: 0}",
    )
    assert train("kmeans_danet_spherical", tmp_path, **options) == 0
    summary, rows = read_results(tmp_path, "2speakers+3")
    assert summary["num_spks"] == [2, 3]
    assert sorted(row["num_spks"] for row in rows) == [*"222233"]
    for num_spks, count in (("2", 4), ("3", 2)):
        part = summary["by_num_spks"][num_spks]
        values = [
            float(row["si_sdri"]) for row in rows if row["num_spks"] == num_spks
        ]
        assert part["utterances"] == len(values) == count
        assert part["si_sdri"]["mean"] == pytest.approx(sum(values) / count)


def test_what_was_not_tested_is_not_written(train, data, trained, tmp_path):
    output = shutil.copytree(trained, tmp_path / "output")
    written = {x: x.read_bytes() for x in (output / "pretrained").iterdir()}
    shutil.rmtree(output / "pretrained")
    for options in ({"infer_metric": "euclidean"}, {}):
        assert not (output / "pretrained").exists()
        options["data_folder"] = data.two
        system = "kmeans_danet_spherical"
        assert train(system, output, "--test_only", **options) == 0
    assert written == {
        x: x.read_bytes() for x in (output / "pretrained").iterdir()
    }


@pytest.mark.parametrize("lr", [1e9, 1e30])
def test_divergence(train, data, trained, tmp_path, capsys, lr):
    options = dict(data_folder=data.two, number_of_epochs=1)
    folder = tmp_path / "output"
    assert train("kmeans_danet_spherical", folder, lr=lr, **options) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert re.search(
        "error: the training diverged in epoch 1.*: lower lr", line
    )
    assert not (folder / "pretrained").exists()
    assert not list(folder.glob("save/CKPT*"))
    assert "nan" not in (folder / "log.txt").read_text()
    # The folder can be used as if nothing had happened.
    assert train("kmeans_danet_spherical", folder, **options) == 0
    assert (folder / "pretrained" / "masknet.ckpt").is_file()


def test_initial_weights_and_checkpoints(train, data, trained, tmp_path):
    def run(*flags, weights):
        status = train(
            "kmeans_danet_spherical",
            tmp_path / "output",
            *flags,
            data_folder=data.two,
            initial_weights=weights,
            number_of_epochs=1,
            lr=1e-5,
        )
        assert status == 0
        return read_results(tmp_path / "output")[0]["si_sdri"]["mean"]

    weights = trained / "pretrained" / "masknet.ckpt"
    started = run(weights=weights)
    assert started > 5.0
    # These separate nothing.
    state = torch.load(weights, weights_only=True)
    nothing = {name: torch.zeros_like(value) for name, value in state.items()}
    torch.save(nothing, tmp_path / "nothing.ckpt")
    # Now there is a checkpoint, which a training continues from...
    assert run(weights=tmp_path / "nothing.ckpt") == started
    # ...and a test alone does not.
    assert run("--test_only", weights=tmp_path / "nothing.ckpt") < 1.0


def test_silent_references_are_counted(train, data, trained, tmp_path, capsys):
    folder = tmp_path / "silent"
    shutil.copytree(data.two / "wav8k" / "min" / "tt", folder / "wav8k/min/tt")
    path = min((folder / "wav8k/min/tt/s2").glob("*.wav"))
    length = soundfile.info(path).frames
    soundfile.write(path, [0.0] * length, 8000)
    status = train(
        "kmeans_danet_spherical",
        tmp_path / "output",
        "--test_only",
        data_folder=folder,
        initial_weights=trained / "pretrained",
        compute_sdr=True,
    )
    assert status == 0
    summary, rows = read_results(tmp_path / "output")
    assert summary["silent_sources"] == 1
    assert [row["silent_sources"] for row in rows] == ["1", "0", "0", "0"]
    assert summary["si_sdri"]["scored"] == 4
    text = "SI-SDRi .* dB .4 mixtures; silent references: 1"
    assert re.search(text, capsys.readouterr().out)


def test_rates_by_steps(recipe, train, data, tmp_path, monkeypatch):
    rates = []

    def note(self, *_):
        rates.append(self.optimizer.param_groups[0]["lr"])

    monkeypatch.setattr(recipe.Separator, "on_fit_batch_end", note)
    options = dict(
        data_folder=data.two,
        dynamic_mixing=f"[{data.corpus}]",
        epoch_size=16,
        schedule="warm_cool",
        warmup_steps=2,
        lr=0.01,
    )
    system = "kmeans_danet_spherical"
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(system, whole, number_of_epochs=2, **options) == 0
    # Up in 2 of 8 steps, constant, and down in the last 4.
    expected = [0.5, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    assert rates == pytest.approx([0.01 * rate for rate in expected])
    # The rate is a function of the step, also where a training goes on.
    rates.clear()
    options["total_steps"] = 8
    assert train(system, parts, number_of_epochs=1, **options) == 0
    assert train(system, parts, number_of_epochs=2, **options) == 0
    assert rates == pytest.approx([0.01 * rate for rate in expected])
    one, other = (
        torch.load(folder / "pretrained" / "masknet.ckpt", weights_only=True)
        for folder in (whole, parts)
    )
    assert all(torch.equal(one[key], other[key]) for key in one)
