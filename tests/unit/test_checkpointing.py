"""Tests of checkpoints that are whole or not taken."""

import errno
import hashlib
import logging
import os

import pytest
import torch
import yaml
from speechbrain.utils.epoch_loop import EpochCounter
from torch import nn

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.utils import checkpointing
from speechbrain_kmdanet.utils.checkpointing import (
    WholeCheckpointer,
    all_finite,
)
from speechbrain_kmdanet.utils.export import write_tensors

FILES = ("CKPT.yaml", "counter.ckpt", "net.ckpt", "optimizer.ckpt")


def make(folder, width=3):
    """A checkpointer of a network, its optimizer and a counter."""
    net = nn.Linear(2, width)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    parts = {"net": net, "optimizer": optimizer, "counter": EpochCounter(9)}
    return WholeCheckpointer(folder, parts)


def save(saver, epoch):
    """Saves weights that are all the epoch's number."""
    nn.init.constant_(saver.recoverables["net"].weight, float(epoch))
    saver.recoverables["counter"].current = epoch
    return saver.save_checkpoint(meta={"epoch": epoch, "score": -epoch})


def weight(saver):
    """The number that all weights are."""
    return saver.recoverables["net"].weight.unique().item()


def empty(path):
    path.write_bytes(b"")


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)


def append(path):
    path.write_bytes(path.read_bytes() + b"\n")


def remove(path):
    path.unlink()


def turn_into_folder(path):
    path.unlink()
    path.mkdir()


def test_nothing_is_made_before_a_checkpoint(tmp_path):
    saver = make(tmp_path / "new" / "save")
    assert saver.find_checkpoint() is None
    assert saver.recover_if_possible() is None
    assert not list(tmp_path.iterdir())


def test_what_is_saved_comes_back(tmp_path):
    saver = make(tmp_path)
    saver.about["made_of"] = "straw"
    saved = [save(saver, epoch) for epoch in (1, 2)]
    assert sorted(tmp_path.iterdir()) == sorted(x.path for x in saved)
    other = make(tmp_path)
    assert other.recover_if_possible(max_key="score").meta == saved[0].meta
    assert weight(other) == 1
    assert other.recover_if_possible().path == saved[1].path
    assert weight(other) == 2 and other.recoverables["counter"].current == 2
    one, two = (
        x.recoverables["optimizer"].state_dict() for x in (saver, other)
    )
    assert str(one) == str(two)
    meta = yaml.safe_load((saved[0].path / "CKPT.yaml").read_text())
    assert meta["made_of"] == "straw"
    digests = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in saved[0].path.glob("*.ckpt")
    }
    assert meta["sha256"] == digests
    assert set(digests) == {*FILES} - {"CKPT.yaml"}


@pytest.mark.parametrize(
    "damage", [empty, halve, flip, remove, turn_into_folder]
)
@pytest.mark.parametrize("name", FILES)
def test_the_one_before_a_damaged_one(tmp_path, caplog, name, damage):
    saver = make(tmp_path)
    before, last = save(saver, 1), save(saver, 2)
    damage(last.path / name)
    other = make(tmp_path)
    assert other.recover_if_possible().path == before.path
    warnings = [x.message for x in caplog.records if x.levelno > logging.INFO]
    damaged = last.path / name
    assert warnings == [f"{damaged} is damaged; this checkpoint is left out"]
    assert weight(other) == 1


@pytest.mark.parametrize("damage", [empty, halve, flip, append, remove])
@pytest.mark.parametrize("name", FILES)
def test_no_other_than_a_damaged_one(tmp_path, name, damage):
    if (name, damage) == ("CKPT.yaml", append):
        return  # an empty line
    saved = save(make(tmp_path), 1)
    damage(saved.path / name)
    other = make(tmp_path)
    nn.init.constant_(other.recoverables["net"].weight, 7.0)
    for find in (other.recover_if_possible, other.find_checkpoint):
        with pytest.raises(UserError) as error:
            find()
        start = f"{saved.path / name} is damaged, and there is no other"
        assert str(error.value).startswith(start)
    assert weight(other) == 7


@pytest.mark.parametrize("text", ["[]", "x: 1", "unixtime: x\nend-of-epoch: y"])
def test_meta_data_that_are_none(tmp_path, text):
    saved = save(make(tmp_path), 1)
    (saved.path / "CKPT.yaml").write_text(text)
    with pytest.raises(UserError, match="CKPT.yaml is damaged"):
        make(tmp_path).recover_if_possible()


def test_damage_that_comes_later_is_seen(tmp_path):
    saver = make(tmp_path)
    before, last = save(saver, 1), save(saver, 2)
    assert saver.recover_if_possible().path == last.path
    flip(last.path / "net.ckpt")
    assert saver.recover_if_possible().path == before.path


def test_a_link_is_not_followed(tmp_path):
    saved = save(make(tmp_path / "elsewhere"), 1)
    (tmp_path / "save").mkdir()
    (tmp_path / "save" / saved.path.name).symlink_to(saved.path)
    with pytest.raises(UserError, match="is a link, which is not followed"):
        make(tmp_path / "save").recover_if_possible()


@pytest.mark.parametrize("whole", [True, False])
def test_checkpoints_without_digests(tmp_path, whole):
    saved = save(make(tmp_path), 1)
    meta = {k: x for k, x in saved.meta.items() if k != "sha256"}
    (saved.path / "CKPT.yaml").write_text(yaml.dump(meta))
    if whole:
        assert make(tmp_path).recover_if_possible().path == saved.path
        return
    halve(saved.path / "optimizer.ckpt")
    with pytest.raises(UserError, match="optimizer.ckpt is damaged"):
        make(tmp_path).recover_if_possible()


def write_and_die(*arguments):
    """As if the process had ended in the middle of a file."""
    if len(arguments) == 2:
        arguments[1].write_bytes(b"half")
    raise KeyboardInterrupt


@pytest.mark.parametrize("writes", ["write_tensors", "digest"])
def test_killed_while_writing(tmp_path, monkeypatch, writes):
    saver = make(tmp_path)
    before = save(saver, 1)
    monkeypatch.setattr(checkpointing, writes, write_and_die)
    with pytest.raises(KeyboardInterrupt):
        save(saver, 2)
    (left,) = {*tmp_path.iterdir()} - {before.path}
    assert left.name.startswith(".unfinished+CKPT")
    monkeypatch.undo()
    other = make(tmp_path)
    other.remove_unfinished()
    assert list(tmp_path.iterdir()) == [before.path]
    assert other.recover_if_possible().path == before.path


def test_full_disk(tmp_path, monkeypatch):
    saver = make(tmp_path)
    before = save(saver, 1)

    def fail(tensors, path):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(checkpointing, "write_tensors", fail)
        with pytest.raises(OSError, match="No space left on device"):
            save(saver, 2)
    assert list(tmp_path.iterdir()) == [before.path]
    save(saver, 3)
    assert weight(saver) == 3 and len(saver.list_checkpoints()) == 2


def test_a_limit_of_the_system_leaves_the_file_as_it_was(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "net.ckpt"
    write_tensors({"x": torch.zeros(10)}, path)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_tensors({"x": torch.zeros(10000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_another_model(tmp_path):
    save(make(tmp_path), 1)
    with pytest.raises(UserError, match="checkpoint .* does not fit the model"):
        make(tmp_path, width=4).recover_if_possible()
    other = make(tmp_path)
    other.add_recoverable("average", nn.Linear(1, 1))
    with pytest.raises(UserError, match="checkpoint .* has no average: give"):
        other.recover_if_possible()


def test_what_checkpoints_belong_to(tmp_path):
    saver = make(tmp_path)
    saver.belong_to("data", [["a", 1.5]])
    save(saver, 1)
    saver.belong_to("data", [["a", 1.5]])
    with pytest.raises(UserError, match="of a training with other data: give"):
        make(tmp_path).belong_to("data", [["a", 1.25]])
    # Before there was such a thing
    make(tmp_path).belong_to("colour", "red")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_all_finite(tmp_path, value):
    parts = make(tmp_path).recoverables
    assert all_finite(parts)
    optimizer = parts["optimizer"]
    for tensor in (
        parts["net"].bias.data,
        optimizer.state[parts["net"].bias]["exp_avg_sq"],
    ):
        before = tensor[0].item()
        tensor[0] = value
        assert not all_finite(parts)
        tensor[0] = before
    assert all_finite(parts)
