"""A training that is killed continues from its checkpoint."""

import re
import shutil
import signal

import yaml
from recipe_runs import PROBE, command_line, run_python


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


def test_killed_training_continues(train, data, tmp_path):
    # Epochs of 5 steps. The last checkpoint before step 8 is that of step 7,
    # the second one of epoch 2.
    options = dict(
        data_folder=data.two,
        dynamic_mixing=data.corpus,
        epoch_size=20,
        number_of_epochs=3,
        ckpt_interval_minutes=0,
        ckpt_interval_steps=2,
    )
    system = "kmeans_danet_euclidean"
    command = command_line(system, tmp_path, **options)
    status, output = run_python(PROBE, "kill", 8, *command)
    assert status == -signal.SIGKILL, output
    log = tmp_path / "train_log.txt"
    assert log.read_text().count("epoch:") == 1
    checkpoints = read_checkpoints(tmp_path)
    last = max(checkpoints, key=lambda path: checkpoints[path]["unixtime"])
    assert not checkpoints[last]["end-of-epoch"]
    cut_short(last, last.with_name("CKPT+later"))

    assert train(system, tmp_path, **options) == 0
    text = (tmp_path / "log.txt").read_text()
    assert f"Loading a checkpoint from {last}\n" in text
    # No epoch is made again, and no step of the checkpoint.
    epochs = re.findall(r"^epoch: (\d+)", log.read_text(), re.M)
    assert epochs == ["1", "2", "3"]
    checkpoints = read_checkpoints(tmp_path)
    last = max(checkpoints, key=lambda path: checkpoints[path]["unixtime"])
    brain = yaml.safe_load((last / "brain.ckpt").read_text())
    assert brain["optimizer_step"] == 15
    assert (tmp_path / "pretrained" / "masknet.ckpt").is_file()
