"""How many talkers there are, from the spectrum of their mixture.

Reference: Stöter, Chakrabarty, Edler and Habets, "CountNet: estimating the
number of concurrent speakers using supervised learning".
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from speechbrain_kmdanet.lobes.models.dual_path_trunk import (
    PARTS,
    spectral_parts,
)
from speechbrain_kmdanet.nnet.recurrent import PaddedBLSTM
from speechbrain_kmdanet.processing.bins import valid_mask

KERNELS, STRIDES = (7, 5, 3), (4, 2, 2)  # across bins
STEPPING, STEP = 1, 2  # the layer from which on only every other frame is


class TalkerCounter(nn.Module):
    """Tells how likely each number of talkers is.

    Convolutions see the harmonics of a few frames, a BLSTM what comes before
    and after; what is seen in the mean, and at most, of all frames says how
    many there are.

    Arguments
    ---------
    num_bins : int
        Number of frequency bins F.
    max_spks : int
        Largest number of talkers M.
    channels : sequence of int
        Channels of the convolutions.
    hidden_size : int
        Features of a frame, and cells of the BLSTM in both directions.
    dropout : float
        Dropout in training.

    Example
    -------
    >>> counter = TalkerCounter(num_bins=65, channels=(4, 4, 4)).eval()
    >>> spectrum = torch.randn(2, 65, 20, dtype=torch.complex64)
    >>> counter(spectrum).softmax(1).shape
    torch.Size([2, 4])
    """

    def __init__(
        self,
        num_bins: int = 257,
        max_spks: int = 4,
        channels: Sequence[int] = (16, 24, 32),
        hidden_size: int = 128,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.max_spks = max_spks
        sizes = [PARTS, *channels]
        self.convolutions = nn.ModuleList()
        for layer, (kernel, stride) in enumerate(zip(KERNELS, STRIDES)):
            self.convolutions.append(
                nn.Conv2d(
                    sizes[layer],
                    sizes[layer + 1],
                    (3, kernel),
                    stride=(STEP if layer == STEPPING else 1, stride),
                    padding=(1, kernel // 2),
                )
            )
            num_bins = (num_bins - 1) // stride + 1
        self.norms = nn.ModuleList(nn.BatchNorm2d(size) for size in channels)
        self.input = nn.Linear(num_bins * sizes[-1], hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.blstm = PaddedBLSTM(hidden_size, hidden_size)
        self.output = nn.Sequential(
            nn.Linear(2 * hidden_size, hidden_size // 2),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_size // 2, max_spks),
        )

    def forward(
        self, spectrum: Tensor, num_frames: Tensor | None = None
    ) -> Tensor:
        """Counts talkers.

        Arguments
        ---------
        spectrum : torch.Tensor
            Complex spectrum of the mixture [B, F, T], at any level.
        num_frames : torch.Tensor
            Number of frames of each item that are not padding [B]; None if
            there is no padding.

        Returns
        -------
        torch.Tensor
            Logits [B, M] of 1 to M talkers.
        """
        x = spectral_parts(spectrum, num_frames)  # [B, 3, T, F]
        for layer, convolution in enumerate(self.convolutions):
            x = _without_padding(x, num_frames)
            x = convolution(x)  # [B, C, T, F]
            if layer == STEPPING and num_frames is not None:
                num_frames = (num_frames - 1) // STEP + 1
            x = self.norms[layer](x).relu()
        x = x.transpose(1, 2).flatten(2)  # [B, T, C · F]
        x = self.dropout(self.input(self.dropout(x)).relu())
        x = self.blstm(x, num_frames)  # [B, T, H]
        if num_frames is None:
            mean, most = x.mean(1), x.amax(1)
        else:
            valid = valid_mask(num_frames, x.shape[1], x.device).unsqueeze(2)
            mean = (x * valid).sum(1) / num_frames.to(x).unsqueeze(1)
            most = x.masked_fill(~valid, -torch.inf).amax(1)
        return self.output(torch.cat([mean, most], 1))


def _without_padding(x: Tensor, num_frames: Tensor | None) -> Tensor:
    """Features [B, C, T, F] with zeros in padded frames, as beyond the ends."""
    if num_frames is None:
        return x
    valid = valid_mask(num_frames, x.shape[2], x.device)  # [B, T]
    return x * valid.unsqueeze(1).unsqueeze(3)
