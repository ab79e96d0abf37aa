"""A training that is killed continues as if nothing had happened."""

import re
import shutil
import signal

import pytest
import torch
import yaml
from recipe_runs import PROBE, RECIPE, command_line, run_python


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


@pytest.fixture
def one_thread():
    """As many as in a process of run_python: sums depend on it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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


@pytest.mark.parametrize("workers, accumulated, step", [(0, 1, 11), (2, 2, 6)])
def test_killed_training_continues(
    train, data, tmp_path, monkeypatch, one_thread, workers, accumulated, step
):
    # Epochs of 6 batches, of one, two and three speakers in turn, with noise,
    # dropout and k-means, which draws its first centroids. The step is in the
    # second epoch, after a checkpoint that is not an epoch's.
    system = "kmeans_danet_euclidean"
    options = dict(
        data_folder=f"[{data.two}, {data.three}]",
        dynamic_mixing=data.corpus,
        epoch_size=12,
        batch_size=2,
        speeds="[0.95, 1.05]",
        num_layers=2,
        dropout=0.4,
        number_of_epochs=3,
        grad_accumulation_factor=accumulated,
        ema_decay=0.9,
        noise=data.corpus,
        noise_share=0.5,
        mixing_spks="[1, 2, 3]",
        mixing_shares="[1, 1, 1]",
        ckpt_interval_minutes=0,
        ckpt_interval_steps=3,
    )
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert train(system, whole, **options) == 0

    options["train_loader_options"] = f"{{num_workers: {workers}}}"
    command = command_line(system, killed, **options)
    monkeypatch.setenv("PYTHONPATH", str(RECIPE))
    status, output = run_python(PROBE, "kill", step, *command)
    assert status == -signal.SIGKILL, output
    log = killed / "train_log.txt"
    assert log.read_text().count("epoch:") == 1
    last, meta = last_checkpoint(killed)
    assert not meta["end-of-epoch"]
    cut_short(last, last.with_name("CKPT+later"))

    assert train(system, killed, **options) == 0
    text = (killed / "log.txt").read_text()
    assert f"Loading a checkpoint from {last}\n" in text
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
