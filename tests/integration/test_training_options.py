"""Options that SpeechBrain's own separation recipes have."""

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

SYSTEM = "kmeans_danet_spherical"


def rates_logged(folder):
    lines = (folder / "train_log.txt").read_text().splitlines()
    return [float(line.split("lr: ")[1].split(" ")[0]) for line in lines]


def weights_of(folder):
    return torch.load(folder / "pretrained" / "masknet.ckpt", weights_only=True)


def test_the_rate_falls_where_the_loss_does_not(
    recipe, train, data, tmp_path, monkeypatch
):
    # Of training and validation in turn; and of the test.
    losses = {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0, None: 0.0}
    monkeypatch.setattr(recipe, "gather", lambda _: [losses[current[0]]])
    current = [None]

    def note(self, stage, epoch=None):
        current[0] = epoch
        return start(self, stage, epoch)

    start = recipe.Separator.on_stage_start
    monkeypatch.setattr(recipe.Separator, "on_stage_start", note)
    options = dict(
        data_folder=data.two,
        schedule="plateau",
        lr=0.01,
        lr_scheduler="{patience: 1, dont_halve_until_epoch: 0}",
    )
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(SYSTEM, whole, number_of_epochs=4, **options) == 0
    # The best was the first; the third is the second that is not better.
    expected = [0.01, 0.01, 0.01, 0.005]
    assert rates_logged(whole) == pytest.approx(expected)
    assert train(SYSTEM, parts, number_of_epochs=2, **options) == 0
    assert train(SYSTEM, parts, number_of_epochs=4, **options) == 0
    assert rates_logged(parts) == pytest.approx(expected)
    one, other = weights_of(whole), weights_of(parts)
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    "low, high, expected",
    [
        (None, None, 0.0),
        (-5.0, None, 3.0),
        (None, 5.0, -7 / 3),
        (-5.0, 5.0, 1.0),
        (100.0, None, 0.0),
    ],
)
def test_mixtures_that_are_learned_or_hopeless(recipe, low, high, expected):
    limits = SimpleNamespace(loss_threshold=low, loss_upper_lim=high)
    separator = SimpleNamespace(hparams=limits)
    mean = recipe.Separator._mean_of_some
    losses = torch.tensor([-9.0, 1.0, 1.0, 7.0], requires_grad=True)
    loss = mean(separator, losses)
    assert loss.item() == pytest.approx(expected)
    loss.backward()
    kept = (losses.grad != 0).tolist()
    assert kept == [
        (low is None or x >= low) and (high is None or x <= high)
        for x in losses.tolist()
    ]
    # What diverges is seen.
    assert mean(separator, losses.detach() * float("nan")).isnan()


def test_parts_of_mixtures_are_left_out_in_training(
    recipe, train, data, tmp_path, monkeypatch
):
    seen = {True: [], False: []}

    def note(encoder, masknet, decoder, mixture, **options):
        whole = torch.allclose(mixture, options["sources"].sum(2), atol=2e-4)
        seen[masknet.training].append(whole)
        return separate(encoder, masknet, decoder, mixture, **options)

    separate = recipe.separate
    monkeypatch.setattr(recipe, "separate", note)
    options = dict(number_of_epochs=1, data_folder=data.two, use_wavedrop=True)
    assert train(SYSTEM, tmp_path, **options) == 0
    assert seen[True] and not any(seen[True])
    assert seen[False] and all(seen[False])


@pytest.fixture
def trackers(monkeypatch):
    """What TensorBoard and Weights & Biases are told, which are not needed."""
    told = {"tensorboard": [], "wandb": []}
    board, wandb = ModuleType("torch.utils.tensorboard"), ModuleType("wandb")
    board.SummaryWriter = lambda folder: SimpleNamespace(
        add_scalar=lambda *x: told["tensorboard"].append(x)
    )
    wandb.init = lambda **options: SimpleNamespace(
        log=lambda x, step: told["wandb"].append((step, x))
    )
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    return told


@pytest.mark.parametrize("tracking", ["tensorboard", "wandb"])
def test_trainings_are_tracked(train, data, tmp_path, trackers, tracking):
    options = dict(number_of_epochs=2, data_folder=data.two, tracking=tracking)
    assert train(SYSTEM, tmp_path, **options) == 0
    told = trackers[tracking]
    if tracking == "wandb":
        assert [step for step, _ in told] == [1, 2]
        assert {"si_sdri", "loss"} <= set(told[0][1]["valid"])
    else:
        assert {"si_sdri/valid", "loss/train"} <= {name for name, *_ in told}
    # The text is there as always, and the picture that is drawn of it.
    assert len(rates_logged(tmp_path)) == 2
    assert (tmp_path / "training.png").is_file()


def test_a_tracker_that_is_not_installed(
    train, data, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    options = dict(data_folder=data.two, tracking="tensorboard")
    assert train(SYSTEM, tmp_path / "out", **options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "tensorboard" in line and "cannot be made" in line
    assert not (tmp_path / "out").exists()


def test_own_lists_are_trained_on(train, data, trained, tmp_path, capsys):
    # A run leaves lists; so does everybody with mixtures elsewhere.
    lists = tmp_path / "lists"
    lists.mkdir()
    for split in ("tr", "cv", "tt"):
        text = (trained / "save" / f"{split}.csv").read_text()
        text = text.replace(str(data.two), "../audio")
        (lists / f"{split}.csv").write_text(text)
    (tmp_path / "audio").symlink_to(data.two)
    options = dict(data_folder=lists, number_of_epochs=1)
    assert train(SYSTEM, tmp_path / "listed", **options) == 0
    options["data_folder"] = data.two
    assert train(SYSTEM, tmp_path / "found", **options) == 0
    one, other = (
        json.loads((tmp_path / x / "test_2speakers/summary.json").read_text())
        for x in ("listed", "found")
    )
    assert one["si_sdri"] == other["si_sdri"]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("mix_wav,s1_wav\na.wav,b.wav\n", "is no list of mixtures"),
        ("ID,duration,mix_wav\nx,long,a.wav\n", "is no list of mixtures"),
        ("ID,mix_wav,s1_wav,s2_wav\n", "there are no mixtures in"),
        ("ID,mix_wav\nx,a.wav\n", "the mixture x has mix_wav, expected"),
        ("ID,mix_wav,s2_wav,s3_wav\nx,a,b,c\n", "sources from s1_wav on"),
        (
            "ID,mix_wav,s1_wav,s2_wav,s3_wav\nx,a,b,c,d\n",
            "of num_spks=2",
        ),
        ("ID,mix_wav,s1_wav,s2_wav\nx,a,b,c\n", "a cannot be read"),
    ],
)
def test_lists_that_are_none(train, tmp_path, capsys, text, expected):
    for split in ("tr", "cv", "tt"):
        (tmp_path / f"{split}.csv").write_text(text)
    output = tmp_path / "output"
    assert train(SYSTEM, output, data_folder=tmp_path) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line and "tr.csv" in line or "/a " in line
    assert not output.exists()


def test_folders_of_other_names(train, data, tmp_path):
    # As in WHAMR!
    for split in ("tr", "cv", "tt"):
        folder = tmp_path / "wav8k" / "min" / split
        folder.mkdir(parents=True)
        source = data.two / "wav8k" / "min" / split
        (folder / "mix_both_reverb").symlink_to(source / "mix")
        for number in (1, 2):
            link = folder / f"s{number}_anechoic"
            link.symlink_to(source / f"s{number}")
            # Not these.
            (folder / f"s{number}_reverb").mkdir()
    options = dict(
        data_folder=tmp_path,
        mixture_name="mix_both_reverb",
        source_name="s{}_anechoic",
        number_of_epochs=1,
    )
    assert train(SYSTEM, tmp_path / "output", **options) == 0
