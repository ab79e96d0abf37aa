"""A separator as one ONNX file: its network and its clustering.

A spectrum goes in and masks come out, for any number of frames. What turns a
recording into a spectrum is said in the metadata of the file: the STFT is a
matter of a few lines in every language, and of none in ONNX.
"""

import copy
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx  # noqa: F401  (torch.onnx needs both, and says so late)
import torch
from onnxscript import opset18
from torch import Tensor, nn

from speechbrain_kmdanet.errors import UserError, one_line
from speechbrain_kmdanet.inference.separation import AttractorSeparation
from speechbrain_kmdanet.lobes.models.masker import check_num_spks
from speechbrain_kmdanet.nnet.recurrent import BLSTM
from speechbrain_kmdanet.utils.jobs import write_whole

OPSET = 18
INPUTS, OUTPUT = ("real", "imaginary"), "masks"
FRAMES = 24  # of the example that the network is traced with
GATES = 4  # of an LSTM: input, forget, cell, output; ONNX has its own order
PER_DIRECTION = 4  # weights of a layer: of inputs, of cells, and two biases
op: Any = opset18  # it makes constants of Python's numbers, whatever its types


class SpectrumMasker(nn.Module):
    """A masker of real and imaginary parts, of one number of talkers.

    Arguments
    ---------
    masknet : nn.Module
        The masker, see :class:`.masker.Masker`.
    num_spks : int
        Number of talkers K.
    """

    def __init__(self, masknet: nn.Module, num_spks: int) -> None:
        super().__init__()
        self.masknet = masknet
        self.num_spks = num_spks

    def forward(self, real: Tensor, imaginary: Tensor) -> Tensor:
        """Computes masks.

        Arguments
        ---------
        real, imaginary : torch.Tensor
            Parts of the spectrum of a mixture [1, F, T].

        Returns
        -------
        torch.Tensor
            Masks [K, 1, F, T].
        """
        spectrum = torch.complex(real, imaginary)
        masks: Tensor = self.masknet(spectrum, num_spks=self.num_spks)
        return masks


def export_onnx(
    separator: AttractorSeparation,
    file: str | Path,
    num_spks: int | None = None,
) -> None:
    """Writes the network and the clustering of a separator as ONNX.

    The inputs ``real`` and ``imaginary`` [1, F, T] are the parts of the
    spectrum of a mixture, with any number of frames T; the output ``masks``
    [K, 1, F, T] is to be multiplied with it. ``sample_rate``, ``num_spks``,
    ``n_fft``, ``hop_length`` and ``highpass`` (see
    :class:`.processing.stft.STFTEncoder`) are in the metadata of the file.

    Arguments
    ---------
    separator : AttractorSeparation
        The separator.
    file : str or pathlib.Path
        Where to write, whole or not at all.
    num_spks : int
        Number of talkers K; that of the separator by default.

    Raises
    ------
    UserError
        If the separator has no STFT, or cannot be exported.
    OSError
        If the file cannot be written.
    """
    encoder: Any = separator.mods.encoder
    if not hasattr(encoder, "n_fft"):
        raise UserError(
            "only separators in the time-frequency plane are exported: this "
            "one has another encoder"
        )
    wanted = separator.hparams.num_spks if num_spks is None else num_spks
    wanted = check_num_spks(wanted)
    # The separator stays where it is.
    masknet = copy.deepcopy(separator.eval().mods.masknet).float().cpu()
    program = _trace(SpectrumMasker(masknet, wanted), encoder.n_fft)
    program.model.metadata_props.update(
        {
            "sample_rate": str(separator.hparams.sample_rate),
            "num_spks": str(wanted),
            "n_fft": str(encoder.n_fft),
            "hop_length": str(encoder.hop_length),
            "highpass": json.dumps(encoder.highpass.cutoff),
        }
    )
    with write_whole(file) as unfinished:
        program.save(str(unfinished), external_data=False)


def _trace(masker: SpectrumMasker, n_fft: int) -> Any:
    """The ONNX program of a masker."""
    masker.eval()
    bins = n_fft // 2 + 1
    example = torch.randn(2, 1, bins, FRAMES).unbind(0)
    frames = {2: torch.export.Dim.DYNAMIC}
    try:
        with warnings.catch_warnings(), _quiet():
            # Of names of axes, which are alike for both inputs.
            warnings.simplefilter("ignore")
            return torch.onnx.export(
                masker,
                tuple(example),
                input_names=INPUTS,
                output_names=[OUTPUT],
                opset_version=OPSET,
                dynamo=True,
                dynamic_shapes=(frames, frames),
                custom_translation_table={
                    BLSTM.default: _translate_blstm,
                    torch.ops.aten.sort.stable: _translate_sort,
                },
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise UserError(
            f"this separator cannot be exported: {one_line(error)}"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Spares the user what the exporter has to say of its own work."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


def _translate_blstm(x: Any, weights: Sequence[Any], num_layers: int) -> Any:
    """ONNX's LSTM for ours, see :func:`.nnet.recurrent.blstm`."""
    x = op.Transpose(x, perm=[1, 0, 2])  # [T, B, C]
    each = iter(weights)
    for _ in range(num_layers):
        inputs, cells, biases = [], [], []
        for _ in range(2):
            *parts, first, second = (
                _reorder(next(each)) for _ in range(PER_DIRECTION)
            )
            inputs.append(op.Unsqueeze(parts[0], [0]))
            cells.append(op.Unsqueeze(parts[1], [0]))
            biases.append(op.Unsqueeze(op.Concat(first, second, axis=0), [0]))
        made, *_ = op.LSTM(
            x,
            op.Concat(*inputs, axis=0),
            op.Concat(*cells, axis=0),
            op.Concat(*biases, axis=0),
            direction="bidirectional",
            hidden_size=weights[1].shape[1],
        )  # [T, 2, B, H]
        x = op.Reshape(op.Transpose(made, perm=[0, 2, 1, 3]), [0, 0, -1])
    return op.Transpose(x, perm=[1, 0, 2])


def _reorder(weights: Any) -> Any:
    """Weights of the gates in the order of ONNX."""
    enter, forget, cell, leave = op.Split(weights, num_outputs=GATES, axis=0)
    return op.Concat(enter, leave, forget, cell, axis=0)


def _translate_sort(
    x: Any, stable: bool = True, dim: int = -1, descending: bool = False
) -> Any:
    """ONNX's TopK, in which the first of equals is first, for a stable sort."""
    size = op.Constant(value_ints=[x.shape[dim]])
    return op.TopK(x, size, axis=dim, largest=int(descending))
