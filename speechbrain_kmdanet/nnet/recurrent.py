"""Recurrent layers that do not read padding."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.processing.bins import is_exporting


@torch.library.custom_op("kmdanet::blstm", mutates_args=())
def blstm(x: Tensor, weights: Sequence[Tensor], num_layers: int) -> Tensor:
    """A bidirectional LSTM as one step of an export.

    PyTorch's own is written out frame by frame there.

    Arguments
    ---------
    x : torch.Tensor
        Frames [B, T, input_size].
    weights : sequence of torch.Tensor
        Weights in the order of PyTorch's LSTM.
    num_layers : int
        Number of layers.

    Returns
    -------
    torch.Tensor
        Frames [B, T, hidden_size] of both directions.
    """
    cells = x.new_zeros(2 * num_layers, len(x), weights[1].shape[1])
    options = True, num_layers, 0.0, False, True, True
    return torch.lstm(x, (cells, cells), list(weights), *options)[0]


BLSTM = torch.ops.kmdanet.blstm


@blstm.register_fake
def _blstm_shape(
    x: Tensor, weights: Sequence[Tensor], num_layers: int
) -> Tensor:
    """A tensor of the shape of the result."""
    return x.new_empty(*x.shape[:2], 2 * weights[1].shape[1])


class PaddedBLSTM(nn.LSTM):
    """Bidirectional LSTM over sequences of different lengths.

    Arguments
    ---------
    input_size : int
        Size of a frame at the input.
    hidden_size : int
        Size of a frame at the output: cells of both directions together.
    num_layers : int
        Number of layers.
    dropout : float
        Dropout between the layers.

    Raises
    ------
    UserError
        If the hidden size is odd.

    Example
    -------
    >>> import torch
    >>> blstm = PaddedBLSTM(input_size=3, hidden_size=8)
    >>> blstm(torch.randn(2, 10, 3), torch.tensor([10, 6])).shape
    torch.Size([2, 10, 8])
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        dropout: float = 0.0,
    ) -> None:
        if hidden_size % 2:
            raise UserError(
                "hidden_size is shared by two directions and must be even, "
                f"got {hidden_size}"
            )
        super().__init__(
            input_size,
            hidden_size // 2,
            num_layers,
            batch_first=True,
            bidirectional=True,
            dropout=dropout if num_layers > 1 else 0.0,
        )

    def forward(
        self, frames: Tensor, num_frames: Tensor | None = None
    ) -> Tensor:
        """Runs both directions.

        Arguments
        ---------
        frames : torch.Tensor
            Frames [B, T, input_size].
        num_frames : torch.Tensor
            Number of frames of each item that are not padding [B], on the CPU
            whatever the device, which is waited for otherwise; None if there
            is no padding.

        Returns
        -------
        torch.Tensor
            Frames [B, T, hidden_size]; padded ones are 0.
        """
        if num_frames is None and is_exporting():
            frames_out: Tensor = blstm(
                frames, self._flat_weights, self.num_layers
            )
            return frames_out
        if num_frames is None:
            return super().forward(frames)[0]  # type: ignore[has-type]
        # PyTorch would wait for the device twice to sort and to undo that.
        lengths, longest = num_frames.cpu().sort(descending=True)
        orders = torch.stack([longest, longest.argsort()])
        longest, given = orders.to(frames.device, non_blocking=True)
        packed = pack_padded_sequence(
            frames.index_select(0, longest), lengths, batch_first=True
        )
        output, _ = pad_packed_sequence(
            super().forward(packed)[0],  # type: ignore[has-type]
            batch_first=True,
            total_length=frames.shape[1],
        )
        return output.index_select(0, given)
