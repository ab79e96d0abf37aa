"""Masknets of waveform-domain separators that SpeechBrain has not.

References: Luo and Mesgarani, "TasNet: time-domain audio separation network
for real-time, single-channel speech separation" (BLSTM-TasNet); Shi, Lin, Liu,
Liu, Han and Shi, "FurcaNeXt: End-to-end monaural speech separation with dynamic
gated dilated temporal convolutional networks".
"""

import torch
from torch import Tensor, nn

from speechbrain_kmdanet.nnet.recurrent import PaddedBLSTM

LAYERS_OF_A_SKIP = 2  # the input of a pair of layers is added to its output


class RecurrentMaskNet(nn.Module):
    """Masks from BLSTMs over the frames of a learned encoder: BLSTM-TasNet.

    Frames are normalised, and go through BLSTMs with a connection around each
    pair of them from the second layer on. The masks of a feature sum to one.

    Arguments
    ---------
    num_filters : int
        Features C of a frame.
    num_spks : int
        Number of talkers K.
    hidden_size : int
        Cells of a layer, both directions together.
    num_layers : int
        Layers.

    Example
    -------
    >>> masknet = RecurrentMaskNet(num_filters=16, hidden_size=8, num_layers=3)
    >>> masknet(torch.rand(3, 16, 20)).shape
    torch.Size([2, 3, 16, 20])
    """

    def __init__(
        self,
        num_filters: int = 500,
        num_spks: int = 2,
        hidden_size: int = 1000,
        num_layers: int = 4,
    ) -> None:
        super().__init__()
        self.num_spks = num_spks
        self.norm = nn.LayerNorm(num_filters)
        sizes = [num_filters] + [hidden_size] * (num_layers - 1)
        self.layers = nn.ModuleList(PaddedBLSTM(x, hidden_size) for x in sizes)
        self.output = nn.Linear(hidden_size, num_spks * num_filters)

    def forward(self, features: Tensor) -> Tensor:
        """Makes masks.

        Arguments
        ---------
        features : torch.Tensor
            Features of the mixture [B, C, T].

        Returns
        -------
        torch.Tensor
            Masks [K, B, C, T].
        """
        x = self.norm(features.transpose(1, 2))  # [B, T, C]
        before = None
        for number, layer in enumerate(self.layers):
            x = layer(x)  # [B, T, H]
            if number % LAYERS_OF_A_SKIP == 0:
                x = x if before is None else x + before
                before = x
        logits = self.output(x).unflatten(2, (self.num_spks, -1))
        return logits.softmax(2).permute(2, 0, 3, 1)  # [K, B, C, T]


class GatedBlock(nn.Module):
    """Residual block of gated convolutions: a value times a gate, twice.

    Arguments
    ---------
    channels : int
        Channels at both ends.
    hidden_size : int
        Channels inside.
    kernel_size : int
        Frames that the convolution over time spans, an odd number.
    dilation : int
        Frames between these.

    Example
    -------
    >>> block = GatedBlock(4, 8, kernel_size=3, dilation=2)
    >>> block(torch.rand(3, 4, 20)).shape
    torch.Size([3, 4, 20])
    """

    def __init__(
        self, channels: int, hidden_size: int, kernel_size: int, dilation: int
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(1, channels),
            nn.Conv1d(channels, 2 * hidden_size, 1),
            nn.GLU(1),
            nn.GroupNorm(1, hidden_size),
            nn.Conv1d(
                hidden_size,
                2 * hidden_size,
                kernel_size,
                padding=dilation * (kernel_size - 1) // 2,
                dilation=dilation,
                groups=hidden_size,
            ),
            nn.GLU(1),
            nn.Conv1d(hidden_size, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Goes through the block.

        Arguments
        ---------
        x : torch.Tensor
            Frames [B, C, T].

        Returns
        -------
        torch.Tensor
            Frames of the same shape.
        """
        return x + self.layers(x)


class GatedMaskNet(nn.Module):
    """Masks from gated, dilated convolutions: a small FurcaNeXt.

    One branch of FurcaNeXt's, in the sizes of a small Conv-TasNet: its
    ensembles of branches of other dilations, and the weights that are found
    dynamically, are left out.

    Arguments
    ---------
    num_filters : int
        Features C of a frame.
    num_spks : int
        Number of talkers K.
    bottleneck_size : int
        Channels between the blocks.
    hidden_size : int
        Channels inside of them.
    kernel_size : int
        Frames that a convolution spans.
    num_blocks : int
        Blocks of dilations 1, 2, 4...
    num_repeats : int
        How often these follow each other.

    Example
    -------
    >>> masknet = GatedMaskNet(16, 2, 8, 8, num_blocks=3, num_repeats=1)
    >>> masknet(torch.rand(3, 16, 20)).shape
    torch.Size([2, 3, 16, 20])
    """

    def __init__(
        self,
        num_filters: int = 256,
        num_spks: int = 2,
        bottleneck_size: int = 64,
        hidden_size: int = 128,
        kernel_size: int = 3,
        num_blocks: int = 6,
        num_repeats: int = 2,
    ) -> None:
        super().__init__()
        self.num_spks = num_spks
        self.layers = nn.Sequential(
            nn.GroupNorm(1, num_filters),
            nn.Conv1d(num_filters, bottleneck_size, 1),
            *(
                GatedBlock(bottleneck_size, hidden_size, kernel_size, 2**block)
                for _ in range(num_repeats)
                for block in range(num_blocks)
            ),
            nn.PReLU(),
            nn.Conv1d(bottleneck_size, num_spks * num_filters, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Makes masks, see :meth:`RecurrentMaskNet.forward`."""
        masks = self.layers(features).relu()  # [B, K · C, T]
        return torch.stack(masks.chunk(self.num_spks, 1))
