"""Mask enhancement network: a second look at masks that a clustering made.

Reference: Isik, Le Roux, Chen, Watanabe and Hershey, "Single-channel
multi-speaker separation using deep clustering" (end-to-end training).

Authors
 * The speechbrain_kmdanet developers 2026
"""

import math

import torch
from torch import nn

from speechbrain_kmdanet.lobes.models.embedding import LOG_FLOOR
from speechbrain_kmdanet.nnet.recurrent import PaddedBLSTM


class EnhancementNet(nn.Module):
    """New masks from the mixture and what the first masks make of it.

    The same BLSTM looks at every talker by itself, at the log-magnitudes of
    the mixture and of the masked mixture. Its outputs meet in a softmax over
    the talkers, of whom there may be any number. Unlike the paper's, they are
    added to the logarithms of the first masks: a network that has not learned
    anything yet leaves these about as they are, instead of dropping them.

    Arguments
    ---------
    num_bins : int
        Number of frequency bins F.
    hidden_size : int
        Cells of the BLSTM, both directions together.
    num_layers : int
        Number of BLSTM layers.
    dropout : float
        Dropout between the layers.

    Example
    -------
    >>> net = EnhancementNet(num_bins=33, hidden_size=16)
    >>> masks = torch.rand(2, 3, 10 * 33).softmax(dim=1)
    >>> net(torch.rand(2, 10, 33), masks).shape
    torch.Size([2, 3, 330])
    """

    def __init__(self, num_bins=257, hidden_size=300, num_layers=1, dropout=0):
        super().__init__()
        self.blstm = PaddedBLSTM(2 * num_bins, hidden_size, num_layers, dropout)
        self.output = nn.Linear(hidden_size, num_bins)

    def forward(self, magnitudes, masks, num_frames=None):
        """Enhances masks.

        Arguments
        ---------
        magnitudes : torch.Tensor
            Magnitudes of the mixture [B, T, F], relative to its level.
        masks : torch.Tensor
            Masks of the bins [B, K, T · F].
        num_frames : torch.Tensor
            Number of frames of each item that are not padding [B]; None if
            there is no padding.

        Returns
        -------
        torch.Tensor
            Masks [B, K, T · F] in float32, which sum to one over the talkers.
        """
        num_spks = masks.shape[1]
        mixture = magnitudes.unsqueeze(1).expand(-1, num_spks, -1, -1)
        masked = masks.reshape(mixture.shape) * mixture
        x = torch.cat([mixture, masked], dim=3).clamp_min(LOG_FLOOR).log()
        x = 1.0 - x / math.log(LOG_FLOOR)  # 0 for silence, 1 at the level
        # The BLSTM sees the talkers as items of a larger batch.
        if num_frames is not None:
            num_frames = num_frames.repeat_interleave(num_spks)
        x = self.output(self.blstm(x.flatten(0, 1), num_frames))
        skip = masks.clamp_min(LOG_FLOOR).log()
        return (skip + x.float().view_as(masks)).softmax(dim=1)
