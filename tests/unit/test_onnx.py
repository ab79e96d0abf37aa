"""Exports say what PyTorch says, for any number of frames."""

import numpy as np
import onnxruntime
import pytest
import torch
from tiny_separator import write_separator

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.inference.onnx import SpectrumMasker, export_onnx
from speechbrain_kmdanet.inference.separation import AttractorSeparation
from speechbrain_kmdanet.lobes.models.dual_path_trunk import DualPathNet
from speechbrain_kmdanet.lobes.models.embedding import EmbeddingNet
from speechbrain_kmdanet.lobes.models.stacked_trunk import StackedNet


@pytest.fixture(scope="module")
def separator(tmp_path_factory):
    folder = write_separator(tmp_path_factory.mktemp("separator"))
    separator = AttractorSeparation.from_hparams(folder)
    # Each is written out in the export.
    separator.mods.masknet.infer_attractors.iterations = 3
    return separator


def test_masks_are_those_of_pytorch(separator, tmp_path, caplog):
    file = tmp_path / "separator.onnx"
    export_onnx(separator, file)
    # What the exporter finds of its own work is nothing to users.
    told = [x.name for x in caplog.records if x.levelno > 20]
    assert not [x for x in told if x.startswith(("onnx", "torch"))]
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    session = onnxruntime.InferenceSession(file)
    about = session.get_modelmeta().custom_metadata_map
    assert about == {
        "sample_rate": "8000",
        "num_spks": "2",
        "n_fft": "128",
        "hop_length": "32",
        "highpass": "30",
    }
    for samples in (1500, 9000):
        spectrum = separator.mods.encoder(torch.randn(1, samples))
        with torch.no_grad():
            masks = separator.mods.masknet(spectrum)
        parts = {"real": spectrum.real, "imaginary": spectrum.imag}
        (made,) = session.run(None, {x: y.numpy() for x, y in parts.items()})
        assert made.shape == (2, 1, *spectrum.shape[1:])
        np.testing.assert_allclose(made, masks.numpy(), rtol=0, atol=1e-4)


def test_another_number_of_talkers(separator):
    masker = SpectrumMasker(separator.mods.masknet, num_spks=3).eval()
    frames = {2: torch.export.Dim.DYNAMIC}
    example = torch.randn(2, 1, 65, 24).unbind()
    with torch.no_grad():
        program = torch.export.export(
            masker, example, dynamic_shapes=(frames, frames)
        )
        parts = torch.randn(2, 1, 65, 55).unbind()
        masks = program.module()(*parts)
        assert masks.shape == (3, 1, 65, 55)
        torch.testing.assert_close(masks, masker(*parts), rtol=0, atol=1e-4)


def trunks():
    sizes = dict(channels=8, hidden_size=8, num_blocks=1, bins_per_band=4)
    first = EmbeddingNet(33, 4, hidden_size=8, num_layers=2)
    return {
        "blstm": first,
        "dual_path": DualPathNet(33, 4, frame_size=8, **sizes),
        "stacked": StackedNet(first, DualPathNet(33, 4, num_hints=4, **sizes)),
    }


@pytest.mark.parametrize("name", ["blstm", "dual_path", "stacked"])
def test_trunks_are_exported_by_pytorch(name):
    trunk = trunks()[name].eval()
    example = torch.randn(1, 33, 12, dtype=torch.complex64)
    frames = {2: torch.export.Dim.DYNAMIC}
    program = torch.export.export(trunk, (example,), dynamic_shapes=(frames,))
    spectrum = torch.randn(1, 33, 31, dtype=torch.complex64)
    torch.testing.assert_close(program.module()(spectrum), trunk(spectrum))


@pytest.mark.parametrize("num_spks, expected", [(0, ">= 1"), (101, "most 100")])
def test_numbers_that_are_none(separator, tmp_path, num_spks, expected):
    with pytest.raises(UserError, match=expected):
        export_onnx(separator, tmp_path / "separator.onnx", num_spks)
    assert not [*tmp_path.iterdir()]


def test_other_encoders_are_refused(separator, tmp_path, monkeypatch):
    monkeypatch.delattr(separator.mods.encoder, "n_fft")
    with pytest.raises(UserError, match="only separators in the time-freq"):
        export_onnx(separator, tmp_path / "separator.onnx")
