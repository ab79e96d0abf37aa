"""A training that is ended continues as if nothing had happened."""

import re
import shutil
import signal
from functools import cache

import pytest
import torch
import yaml
from recipe_runs import PROBE, RECIPE, TRUNK, command_line, run_python


def read_checkpoints(folder):
    """Meta data of the checkpoints by folder."""
    return {
        path.parent: yaml.safe_load(path.read_text())
        for path in (folder / "save").glob("CKPT*/CKPT.yaml")
    }


def cut_short(checkpoint, copy):
    """Makes a later checkpoint, whose writing was not finished."""
    shutil.copytree(checkpoint, copy)
    meta = yaml.safe_load((copy / "CKPT.yaml").read_text())
    meta["unixtime"] += 1.0
    (copy / "CKPT.yaml").write_text(yaml.dump(meta))
    optimizer = (copy / "optimizer.ckpt").read_bytes()
    (copy / "optimizer.ckpt").write_bytes(optimizer[: len(optimizer) // 2])


def last_checkpoint(folder):
    checkpoints = read_checkpoints(folder)
    last = max(checkpoints, key=lambda path: checkpoints[path]["unixtime"])
    return last, checkpoints[last]


def assert_equal_states(*files):
    """The same tensors in files of PyTorch, bit for bit."""
    first, second = (
        torch.utils._pytree.tree_flatten(torch.load(file)) for file in files
    )
    assert first[1] == second[1]
    for a, b in zip(first[0], second[0]):
        assert torch.equal(a, b) if torch.is_tensor(a) else a == b


# Epochs of 6 batches, of one, two and three speakers in turn, with noise,
# dropout and k-means, which draws its first centroids. Checkpoints after three
# steps in an epoch, too.
SYSTEM = "kmeans_danet_euclidean"
SETTINGS = dict(
    epoch_size=12,
    batch_size=2,
    speeds="[0.95, 1.05]",
    number_of_epochs=3,
    ema_decay=0.9,
    noise_share=0.5,
    mixing_spks="[1, 2, 3]",
    mixing_shares="[1, 1, 1]",
    ckpt_interval_minutes=0,
    ckpt_interval_steps=3,
)
TRUNKS = {
    "blstm": dict(
        sizes={**TRUNK, "num_layers": 2, "dropout": 0.4},
    ),
    "dual_path": dict(
        trunk="dual_path",
        sizes={
            "channels": 8,
            "hidden_size": 8,
            "num_blocks": 1,
            "embedding_dim": 8,
        },
    ),
}


@pytest.fixture(scope="module")
def settings(data):
    return SETTINGS | dict(
        data_folder=f"[{data.two}, {data.three}]",
        dynamic_mixing=data.corpus,
        noise=data.corpus,
    )


@pytest.fixture(scope="module")
def whole(train, settings, tmp_path_factory):
    """Output folders of trainings that nothing interrupts."""

    @cache
    def run(trunk, accumulated):
        folder = tmp_path_factory.mktemp("whole")
        options = dict(grad_accumulation_factor=accumulated, **TRUNKS[trunk])
        assert train(SYSTEM, folder, **settings, **options) == 0
        return folder

    return run


@pytest.mark.parametrize(
    "kill, workers, accumulated, trunk",
    [
        ("SIGKILL:6", 2, 2, "blstm"),
        ("SIGKILL:save", 0, 1, "blstm"),
        ("SIGTERM:valid", 1, 1, "blstm"),
        ("SIGINT:7", 2, 1, "blstm"),
        ("SIGTERM:8", 0, 1, "dual_path"),
    ],
)
def test_training_goes_on(
    train,
    whole,
    settings,
    tmp_path,
    monkeypatch,
    kill,
    workers,
    accumulated,
    trunk,
):
    # The kill is in the second epoch, after a checkpoint that is no epoch's.
    whole, killed = whole(trunk, accumulated), tmp_path / "killed"
    options = {**settings, "grad_accumulation_factor": accumulated}
    options.update(TRUNKS[trunk])
    for stage in ("train", "valid"):
        options[f"{stage}_loader_options"] = f"{{num_workers: {workers}}}"
    command = command_line(SYSTEM, killed, **options)
    monkeypatch.setenv("PYTHONPATH", str(RECIPE))
    status, output = run_python(PROBE, "kill", kill, *command)
    name, moment = kill.split(":")
    if name == "SIGKILL":
        assert status == -signal.SIGKILL, output
        assert moment != "save" or [*killed.glob("save/.unfinished*")]
    else:
        assert status == 128 + signal.Signals[name], output
        line = "train.py: the same command goes on from here"
        assert output.splitlines()[-1] == line
        assert "Traceback" not in output
    log = killed / "train_log.txt"
    assert log.read_text().count("epoch:") == 1
    last, meta = last_checkpoint(killed)
    assert meta["end-of-epoch"] == (kill == "SIGKILL:save")
    cut_short(last, last.with_name("CKPT+later"))
    # As if the first epoch had ended just before it was saved
    with log.open("a") as file:
        file.write("epoch: 2, lr: 1.00e-02 - train loss: 1.00\nepoch: 3, l")

    assert train(SYSTEM, killed, **options) == 0
    text = (killed / "log.txt").read_text()
    assert f"Loading a checkpoint from {last}\n" in text
    later = last.with_name("CKPT+later") / "optimizer.ckpt"
    assert f"{later} is damaged; this checkpoint is left out" in text
    assert not [*killed.glob("save/.unfinished*")]
    # Its time lies ahead of what a fast machine has saved since.
    shutil.rmtree(later.parent)
    # No epoch is made again, and no step of the checkpoint.
    epochs = re.findall(r"^epoch: (\d+)", log.read_text(), re.M)
    assert epochs == ["1", "2", "3"]
    logs = [
        re.sub("train (cpu_)?seconds: [^ ]+", "", path.read_text())
        for path in (log, whole / "train_log.txt")
    ]
    assert logs[0] == logs[1]
    last, _ = last_checkpoint(killed)
    brain = yaml.safe_load((last / "brain.ckpt").read_text())
    assert brain["optimizer_step"] == 18 // accumulated
    for name in ("masknet.ckpt", "average.ckpt", "optimizer.ckpt"):
        assert_equal_states(last_checkpoint(whole)[0] / name, last / name)
    assert (killed / "pretrained" / "masknet.ckpt").is_file()
