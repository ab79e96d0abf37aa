"""The references through train.py: ideal masks, and the waveform domain."""

import csv
import json
import logging
import re
import shutil

import pytest
import torch
from speechbrain.inference.separation import SepformerSeparation

from speechbrain_kmdanet.processing.separation import decode_sources

EPOCHS = {"number_of_epochs": 2, "segment_seconds": 0.5}
PARTS = "encoder", "masknet", "decoder"


def read_results(folder, num_spks=2):
    """Summary and rows of a test."""
    folder = folder / f"test_{num_spks}speakers"
    with (folder / "per_utterance.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return json.loads((folder / "summary.json").read_text()), rows


def read_weights(folder):
    """Weights of the three modules in a folder."""
    return {
        name: torch.load(folder / f"{name}.ckpt", weights_only=True)
        for name in PARTS
    }


def assert_equal_weights(one, other):
    for name in PARTS:
        assert one[name] and one[name].keys() == other[name].keys()
        for key, value in one[name].items():
            assert torch.equal(value, other[name][key]), (name, key)


@pytest.fixture(
    scope="module",
    params=[
        *("conv_tasnet", "dprnn", "sepformer"),
        *("blstm_tasnet", "furcanext", "skim", "resepformer"),
    ],
)
def reference(request, train, data, tmp_path_factory):
    """A trained system: its name, options and output folder."""
    folder = tmp_path_factory.mktemp(request.param)
    options = {**EPOCHS, "data_folder": data.two}
    assert train(request.param, folder, **options) == 0
    return request.param, options, folder


def test_waveform_systems_train_and_are_evaluated(reference):
    _, _, folder = reference
    log = (folder / "train_log.txt").read_text().splitlines()
    losses = [float(re.search(r"train loss: ([^ ,]+)", x)[1]) for x in log]
    assert len(losses) == 2 and losses[1] < losses[0]
    summary, rows = read_results(folder)
    assert summary["utterances"] == len(rows) == 4
    assert summary["si_sdr"]["scored"] == 4
    for checkpoint in (folder / "save").glob("CKPT*"):
        files = {path.name for path in checkpoint.iterdir()}
        assert {f"{name}.ckpt" for name in PARTS} <= files


def test_all_weights_change_and_are_restored(reference, train, tmp_path):
    system, options, folder = reference
    learned = read_weights(folder / "pretrained")
    own, _ = read_results(folder)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / "pretrained")
    # The training goes on from its checkpoint, whatever is drawn before: with
    # another seed, which is that of another training.
    assert train(system, copy, seed=4321, **options) == 2
    settings = copy / "hyperparams.yaml"
    text = settings.read_text()
    settings.write_text(text.replace("1234", "4321"))
    assert train(system, copy, seed=4321, **options) == 0
    assert_equal_weights(read_weights(copy / "pretrained"), learned)
    assert read_results(copy)[0]["si_sdr"] == own["si_sdr"]
    # These are not where the training started, none of the three.
    fresh = tmp_path / "fresh"
    options = {**options, "number_of_epochs": 1, "lr": 1e-30}
    assert train(system, fresh, **options) == 0
    for name, state in read_weights(fresh / "pretrained").items():
        assert any(
            not torch.equal(value, learned[name][key])
            for key, value in state.items()
        )


def test_pretrained_weights_are_evaluated(reference, train, tmp_path):
    system, options, folder = reference
    own, _ = read_results(folder)
    options = {**options, "initial_weights": folder / "pretrained"}
    status = train(system, tmp_path, "--test_only", seed=4321, **options)
    assert status == 0
    summary, _ = read_results(tmp_path)
    assert summary["si_sdr"] == own["si_sdr"]


def test_stock_separator_agrees(reference, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = reference[2] / "pretrained"
    stock = SepformerSeparation.from_hparams(
        source=str(folder), savedir=str(tmp_path / "stock")
    )
    encoder, masknet, decoder = (stock.mods[name] for name in PARTS)
    weights = {name: stock.mods[name].state_dict() for name in PARTS}
    assert_equal_weights(weights, read_weights(folder))
    mixture = torch.randn(2, 4001)
    with torch.no_grad():
        features = encoder(mixture)
        masks, _ = masknet(features, num_spks=2, with_embeddings=True)
        separated = decode_sources(masks, features, decoder, 4001)
        # It decodes one source at a time: rounding differs.
        torch.testing.assert_close(
            stock.separate_batch(mixture), separated, atol=1e-6, rtol=1e-4
        )


@pytest.mark.parametrize("system", ["conv_tasnet", "sepformer"])
def test_waveform_systems_have_no_magnitudes(
    train, data, tmp_path, capsys, system
):
    options = {"data_folder": data.two, "loss": "magnitude"}
    assert train(system, tmp_path / "output", **options) == 2
    message = capsys.readouterr().err
    expected = f"loss magnitude needs magnitudes, and {system} makes none"
    assert expected in message and "choose from si_sdr" in message


@pytest.mark.parametrize(
    "mask", ["binary", "ratio", "wiener", "phase_sensitive"]
)
def test_oracle_is_evaluated_at_once(train, data, tmp_path, caplog, mask):
    folder = tmp_path / "data"
    # The data of tr and cv need not be there.
    shutil.copytree(data.two / "wav8k/min/tt", folder / "wav8k/min/tt")
    output = tmp_path / "output"
    with caplog.at_level(logging.INFO):
        assert train("oracle", output, data_folder=folder, mask=mask) == 0
    summary, rows = read_results(output)
    assert len(rows) == 4 and summary["mask"] == mask
    # Voices in bands of their own hardly overlap.
    assert summary["si_sdri"]["mean"] > 20
    assert summary["weights"] == "oracle, without weights"
    assert not (output / "pretrained").exists()
    assert not list((output / "save").glob("CKPT*"))
    assert "oracle has no parameters" in (output / "log.txt").read_text()


def test_oracle_of_three_talkers_and_in_batches(train, data, tmp_path):
    scores = []
    for batch_size in (1, 2):
        status = train(
            "oracle",
            tmp_path,
            data_folder=data.three,
            num_spks=3,
            test_loader_options=f"{{batch_size: {batch_size}, num_workers: 0}}",
        )
        assert status == 0
        summary, rows = read_results(tmp_path, num_spks=3)
        scores.append(summary["si_sdr"]["mean"])
        assert len(rows) == 2
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)


def test_unknown_ideal_mask(train, data, tmp_path, capsys):
    options = {"data_folder": data.two, "mask": "soft"}
    assert train("oracle", tmp_path, **options) == 2
    assert "mask must be one of" in capsys.readouterr().err


def test_our_separator_agrees(reference, tmp_path, monkeypatch):
    from speechbrain_kmdanet.inference.separation import AttractorSeparation

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = reference[2] / "pretrained"
    stock = SepformerSeparation.from_hparams(
        source=str(folder), savedir=str(tmp_path / "stock")
    )
    separator = AttractorSeparation.from_hparams(folder)
    mixture = torch.randn(2, 4001)
    mixture[1, 3000:] = 0
    # Stock SpeechBrain leaves out what is inaudible.
    lengths = torch.tensor([4001, 3000])
    highpass = separator.mods.encoder.highpass
    rest, alone_rest = (
        (mixture - highpass(mixture, its)).unsqueeze(2) / 2
        for its in (None, lengths)
    )
    with torch.no_grad():
        expected = stock.separate_batch(mixture)
        alone = stock.separate_batch(mixture[1:, :3000])
    separated = separator.separate_batch(mixture)
    torch.testing.assert_close(separated, expected + rest, atol=1e-6, rtol=1e-4)
    separated = separator.separate_batch(mixture, lengths=lengths / 4001)
    torch.testing.assert_close(
        separated[1, :3000],
        alone[0] + alone_rest[1, :3000],
        atol=1e-6,
        rtol=1e-4,
    )
    with pytest.raises(ValueError, match="only, got num_spks=3"):
        separator.separate_batch(mixture, num_spks=3)


def test_one_file_is_not_all_weights(reference, train, tmp_path, capsys):
    system, options, folder = reference
    weights = folder / "pretrained" / "masknet.ckpt"
    options = {**options, "initial_weights": weights}
    assert train(system, tmp_path, "--test_only", **options) == 2
    assert "must be a pretrained folder" in capsys.readouterr().err
