"""Settings of train.py: refused before anything is written, and others' loggers."""

import importlib.util

import pytest
from recipe_runs import RECIPE

SYSTEM = "kmeans_danet_spherical"


class Logger:
    """Stands for a logger that writes no text."""

    logged = []

    def __init__(self, name):
        self.name = name

    def log_stats(self, stats_meta, train_stats=None, valid_stats=None):
        """Keeps what is logged."""
        self.logged.append((self.name, stats_meta, train_stats, valid_stats))


@pytest.mark.parametrize(
    "flags, options, expected",
    [
        ((), {"batch_size": 0}, "batch_size must be a positive integer, got 0"),
        ((), {"num_spks": 0}, "num_spks must be an integer from 1 to 100"),
        ((), {"epoch_size": 0}, "epoch_size must be a positive integer"),
        ((), {"compute_sdr": "x"}, "compute_sdr must be True or False"),
        ((), {"btach_size": 3}, "btach_size (did you mean batch_size?)"),
        (("lr", "0.1"), {}, "'lr' is no option: expected --KEY VALUE"),
        (("--debug_batches", "0"), {}, "debug_batches must be a positive int"),
        ((), {"device": "cuda:99"}, "device cuda:99 is not there"),
        (
            ("--precision", "fp16"),
            {},
            "precision must be fp32 or bf16 on a CPU",
        ),
    ],
)
def test_refused_before_anything_is_written(
    train, tmp_path, capsys, flags, options, expected
):
    output = tmp_path / "output"
    assert train(SYSTEM, output, *flags, data_folder=tmp_path, **options) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [x for x in lines if x.startswith("train.py: error: ")] == lines[-1:]
    assert expected in lines[-1]
    assert not any(tmp_path.iterdir())


def test_a_run_in_a_folder_of_any_name(train, data, tmp_path):
    output = tmp_path / "a$b $c$: #1=é"
    options = dict(data_folder=data.two, number_of_epochs=1, num_examples=1)
    assert train(SYSTEM, output, **options) == 0
    assert list(tmp_path.iterdir()) == [output]
    assert (output / "pretrained" / "masknet.ckpt").is_file()
    assert (output / "training.png").is_file()


def test_a_logger_that_writes_no_text(train, data, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"layers: [{RECIPE / 'hparams' / SYSTEM}.yaml]\n"
        f"train_logger: !new:{__name__}.Logger\n    name: !ref <system>\n"
    )
    output = tmp_path / "output"
    options = dict(data_folder=data.two, number_of_epochs=1)
    assert train(path.with_suffix(""), output, **options) == 0
    ((name, meta, trained, valid),) = Logger.logged
    assert name == SYSTEM and meta["epoch"] == 1
    assert {"loss"} <= set(trained) & set(valid)
    assert not (output / "training.png").exists()


@pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None,
    reason="tensorboard is not installed",
)
def test_the_logger_for_tensorboard(train, data, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"layers: [{RECIPE / 'hparams' / SYSTEM}.yaml]\n"
        "train_logger: !new:speechbrain.utils.train_logger.TensorboardLogger\n"
        "    save_dir: !ref <output_folder>/tensorboard\n"
    )
    output = tmp_path / "output"
    options = dict(data_folder=data.two, number_of_epochs=1)
    assert train(path.with_suffix(""), output, **options) == 0
    assert list((output / "tensorboard").glob("events.*"))
