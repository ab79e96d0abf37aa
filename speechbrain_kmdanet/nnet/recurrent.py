"""Recurrent layers that do not read padding.

Authors
 * The speechbrain_kmdanet developers 2026
"""

from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


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
    ValueError
        If the hidden size is odd.

    Example
    -------
    >>> import torch
    >>> blstm = PaddedBLSTM(input_size=3, hidden_size=8)
    >>> blstm(torch.randn(2, 10, 3), torch.tensor([10, 6])).shape
    torch.Size([2, 10, 8])
    """

    def __init__(self, input_size, hidden_size, num_layers=1, dropout=0.0):
        if hidden_size % 2:
            raise ValueError(
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

    def forward(self, frames, num_frames=None):
        """Runs both directions.

        Arguments
        ---------
        frames : torch.Tensor
            Frames [B, T, input_size].
        num_frames : torch.Tensor
            Number of frames of each item that are not padding [B]; None if
            there is no padding.

        Returns
        -------
        torch.Tensor
            Frames [B, T, hidden_size]; padded ones are 0.
        """
        if num_frames is None:
            return super().forward(frames)[0]
        packed = pack_padded_sequence(
            frames, num_frames.cpu(), batch_first=True, enforce_sorted=False
        )
        return pad_packed_sequence(
            super().forward(packed)[0],
            batch_first=True,
            total_length=frames.shape[1],
        )[0]
