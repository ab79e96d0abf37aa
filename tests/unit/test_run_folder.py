"""Tests of the folder of a run: its settings, its lock, its links."""

import pytest

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.utils import jobs
from speechbrain_kmdanet.utils.run_folder import RunFolder

SETTINGS = """\
system: {system}
num_spks: 2
sample_rate: 8000
lr: 0.1
speeds: [0.9, 1.1]
ema_decay: 0
number_of_epochs: 10
output_folder: {folder}
save_folder: !ref <output_folder>/save
train_loader_options:
    batch_size: 4
    num_workers: 2
opt_class: !name:torch.optim.{optimizer}
    lr: !ref <lr>
encoder: !new:torch.nn.Identity
decoder: !new:torch.nn.Identity
masknet: !new:torch.nn.{module}
    p: 0.5
"""


def make(folder, overrides="", **values):
    """The folder of a run with these settings."""
    values = dict(system="one", optimizer="Adam", module="Dropout") | values
    path = folder.parent / f"{folder.name}.yaml"
    path.write_text(SETTINGS.format(folder=folder, **values))
    return RunFolder(folder, path, overrides)


@pytest.fixture
def folder(tmp_path):
    """A folder with a checkpoint."""
    run = make(tmp_path / "run")
    run.record()
    (tmp_path / "run" / "save" / "CKPT+1").mkdir(parents=True)
    return tmp_path / "run"


def test_settings_are_recorded_when_asked_for(tmp_path):
    run = make(tmp_path / "run", "lr: 0.2")
    with run.opened():
        assert not run.settings_file.exists()
        run.record()
    text = run.settings_file.read_text()
    assert "\nlr: 0.2\n" in text and "inplace: false" in text
    assert not (tmp_path / "run" / ".lock").exists()


@pytest.mark.parametrize(
    "overrides, values, differs",
    [
        ("lr: 0.2", {}, "lr 0.1, expected 0.2"),
        ("lr: 1.0e-1", {}, None),
        ("", {"system": "two"}, "system one, expected two"),
        ("{lr: 1, num_spks: 3}", {}, "num_spks 2, expected 3"),
        ("speeds: [0.9]", {}, r"speeds \[0.9, 1.1\], expected \[0.9\]"),
        ("speeds: [0.9, 1.2]", {}, r"speeds \[0.9, 1.1\], expected"),
        ("speeds: 0.9", {}, r"speeds \[0.9, 1.1\], expected 0.9"),
        ("train_loader_options: {batch_size: 5}", {}, "train_loader_options"),
        ("train_loader_options: {num_workers: 0}", {}, None),
        ("masknet: {p: 0.4}", {}, "masknet torch.nn.Dropout"),
        (
            "",
            {"module": "Dropout1d"},
            "masknet torch.nn.Dropout, expected torch",
        ),
        ("", {"optimizer": "SGD"}, "opt_class !name:torch.optim.Adam, expect"),
        ("number_of_epochs: 20", {}, None),
        ("ema_decay: 0.9", {}, "ema_decay 0, expected 0.9"),
        ("", {}, None),
    ],
)
def test_a_training_with_other_settings(folder, overrides, values, differs):
    run = make(folder, overrides, **values)
    if differs is None:
        run.check()
        return
    expected = f"run holds a training with {differs}.*: give another output_f"
    with pytest.raises(UserError, match=expected):
        with run.opened():
            pass
    assert (folder / "hyperparams.yaml").read_text() == make(folder).text


@pytest.mark.parametrize(
    "overrides, system, differs",
    [
        ("{lr: 1, num_spks: 3}", "one", None),
        ("", "two", "system"),
        ("ema_decay: 0.9", "one", "ema_decay"),
    ],
)
def test_a_test_with_other_settings(folder, overrides, system, differs):
    run = make(folder, overrides, system=system)
    if differs is None:
        run.check(test_only=True)
        return
    with pytest.raises(UserError, match=f"holds a training with {differs} "):
        run.check(test_only=True)


@pytest.mark.parametrize(
    "overrides, same",
    [
        ("", True),
        ("lr: 1", True),
        ("num_spks: 3", False),
        ("masknet: {p: 0.4}", False),
    ],
)
def test_a_separator_with_other_settings(folder, overrides, same):
    assert make(folder, overrides).is_as_trained() == same


def test_without_a_checkpoint_there_is_nothing_to_mix_up(folder):
    (folder / "save" / "CKPT+1").rmdir()
    make(folder, system="two").check()
    # Where the checkpoints are, or were
    (folder / "save" / "CKPT+1").mkdir()
    with pytest.raises(UserError, match="system one, expected two"):
        make(folder, f"save_folder: {folder}2", system="two").check()


def test_settings_of_another_version(folder):
    # It had no such argument, or setting; that it has now changes nothing.
    path = folder / "hyperparams.yaml"
    text = path.read_text()
    assert "inplace" in text
    lines = text.splitlines(keepends=True)
    kept = [x for x in lines if "inplace" not in x and "ema_decay" not in x]
    path.write_text("".join([*kept, "old: 1\n"]))
    make(folder).check()
    make(folder).check(test_only=True)
    assert make(folder).is_as_trained()


@pytest.mark.parametrize("text", ["", "- 1", "a: [", "\0", "a: !b:c ]"])
def test_damaged_settings(folder, text):
    (folder / "hyperparams.yaml").write_text(text)
    with pytest.raises(UserError, match="hyperparams.yaml is damaged, so that"):
        make(folder).check()


def test_two_runs_at_once(folder, monkeypatch):
    monkeypatch.setattr(jobs, "LOCK_SECONDS", 0.0)
    with make(folder).opened():
        with pytest.raises(
            UserError, match="another process is at work in .*run"
        ):
            with make(folder).opened():
                pass
    with make(folder).opened():
        pass


def test_links(folder, tmp_path):
    (tmp_path / "elsewhere.txt").write_text("not ours")
    (folder / "log.txt").symlink_to(tmp_path / "elsewhere.txt")
    (folder / "env.log").symlink_to(tmp_path / "nowhere")
    (folder / "save" / ".masknet.ckpt.12.tmp").write_text("half")
    make(folder).prepare()
    assert {x.name for x in folder.iterdir()} == {"hyperparams.yaml", "save"}
    assert (tmp_path / "elsewhere.txt").read_text() == "not ours"
    assert [x.name for x in (folder / "save").iterdir()] == ["CKPT+1"]
    (tmp_path / "scratch").mkdir()
    (folder / "pretrained").symlink_to(tmp_path / "scratch")
    with pytest.raises(UserError, match="run/pretrained is a link to a folder"):
        make(folder).check()
