"""Tests of the pictures and the examples."""

import pytest
import soundfile
import torch
from speechbrain.utils.train_logger import FileTrainLogger

from speechbrain_kmdanet.utils.plots import plot_training_curves, write_example

image = pytest.importorskip("matplotlib.image")
Figure = pytest.importorskip("matplotlib.figure").Figure


def test_training_curves(tmp_path, monkeypatch):
    curves = {}
    save = Figure.savefig

    def look_and_save(figure, *arguments, **options):
        for axis in figure.axes:
            for line in axis.lines:
                curves[line.get_label()] = line.get_xydata().tolist()
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", look_and_save)
    logger = FileTrainLogger(tmp_path / "log.txt")
    for epoch, loss in ((1, 0.0125), (2, 1.5)):
        logger.log_stats(
            {"epoch": epoch, "lr": 1e-3},
            train_stats={"loss": loss},
            valid_stats={"loss": -3.25, "si_sdri": 123.0 * epoch},
            verbose=False,
        )
    logger.log_stats({"Epoch loaded": 2}, test_stats={"loss": 9.0})
    plot_training_curves(tmp_path / "log.txt", tmp_path / "curves.png")
    assert curves == {
        "train loss": [[1, 0.0125], [2, 1.5]],
        "valid loss": [[1, -3.25], [2, -3.25]],
        "valid si_sdri": [[1, 123], [2, 246]],
    }
    assert image.imread(tmp_path / "curves.png").std() > 0


@pytest.mark.parametrize("level", [0.0, 3.0])
def test_example(tmp_path, level):
    sources = level * torch.randn(800, 2)
    estimates = sources * torch.tensor([1.0, 0.5])
    folder = tmp_path / "example"
    write_example(
        folder, sources.sum(1), sources, estimates, 8000, r"a $\no$ b"
    )
    audio = {}
    for name in ("mixture", "source1", "source2", "estimate1", "estimate2"):
        samples, rate = soundfile.read(folder / f"{name}.wav")
        assert rate == 8000 and samples.shape == (800,)
        audio[name] = torch.from_numpy(samples)
    # one gain for all, and no clipping; 16 bits
    peak = max(float(samples.abs().max()) for samples in audio.values())
    assert peak == pytest.approx(0.99 if level else 0.0, abs=1e-3)
    total = audio["source1"] + audio["source2"]
    assert (audio["mixture"] - total).abs().max() < 1e-4
    assert (audio["estimate2"] - 0.5 * audio["source2"]).abs().max() < 1e-4
    picture = image.imread(folder / "spectrograms.png")
    assert picture.std() > 0
