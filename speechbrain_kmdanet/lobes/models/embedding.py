"""Embedding network: a vector for every time-frequency bin.

The network has the shape of Open-Unmix: the frames are encoded, a BLSTM with a
skip connection around it models time, and the frames are decoded.

References: Stöter, Uhlich, Liutkus and Mitsufuji, "Open-Unmix - a reference
implementation for music source separation"; Cadoux et al., "Closing the
training/inference gap for deep attractor networks", Sec. 4.1.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import torch
from torch import nn

from speechbrain_kmdanet.nnet.recurrent import PaddedBLSTM

# Magnitudes are relative to the root mean square of the item: −60 dB.
LOG_FLOOR = 1e-3


class FrameEncoder(nn.Module):
    """Linear layer, batch normalisation over the valid frames, activation.

    Arguments
    ---------
    input_size : int
        Size of a frame at the input.
    output_size : int
        Size of a frame at the output.
    activation : nn.Module
        Activation.
    """

    def __init__(self, input_size, output_size, activation):
        super().__init__()
        # The normalisation has a bias of its own.
        self.linear = nn.Linear(input_size, output_size, bias=False)
        self.norm = nn.BatchNorm1d(output_size)
        self.activation = activation

    def forward(self, frames, valid=None):
        """Encodes frames.

        Arguments
        ---------
        frames : torch.Tensor
            Frames [B, T, C].
        valid : torch.Tensor
            False for padded frames [B, T], which take no part in the
            statistics; None if there is no padding.

        Returns
        -------
        torch.Tensor
            Frames [B, T, output_size].
        """
        frames = self.linear(frames)
        if valid is None or not self.training:
            normed = self.norm(frames.flatten(0, 1)).view_as(frames)
        else:
            normed = torch.zeros_like(frames)
            normed[valid] = self.norm(frames[valid]).to(frames.dtype)
        return self.activation(normed)


class EmbeddingNet(nn.Module):
    """Embeds every time-frequency bin of a magnitude spectrum.

    Arguments
    ---------
    num_bins : int
        Number of frequency bins F.
    embedding_dim : int
        Dimension D of the embeddings.
    hidden_size : int
        Size of the encoded frames and of both directions of the BLSTM
        together.
    num_layers : int
        Number of BLSTM layers.
    dropout : float
        Dropout between the BLSTM layers.

    Example
    -------
    >>> net = EmbeddingNet(num_bins=33, embedding_dim=4, hidden_size=16)
    >>> net(torch.rand(2, 10, 33)).shape
    torch.Size([2, 330, 4])
    """

    def __init__(
        self,
        num_bins=257,
        embedding_dim=20,
        hidden_size=512,
        num_layers=3,
        dropout=0.4,
    ):
        super().__init__()
        self.embedding_dim = embedding_dim
        # Open-Unmix's learned shift and scale of the input; they start at
        # the mean and the spread of log-magnitudes of speech.
        self.input_shift = nn.Parameter(torch.full((num_bins,), 3.5))
        self.input_scale = nn.Parameter(torch.full((num_bins,), 0.5))
        self.encoder = nn.ModuleList(
            [
                FrameEncoder(num_bins, hidden_size, nn.Tanh()),
                FrameEncoder(hidden_size, hidden_size, nn.Tanh()),
            ]
        )
        self.blstm = PaddedBLSTM(hidden_size, hidden_size, num_layers, dropout)
        self.decoder = FrameEncoder(2 * hidden_size, hidden_size, nn.ReLU())
        self.output = nn.Linear(hidden_size, num_bins * embedding_dim)

    def forward(self, magnitudes, num_frames=None):
        """Embeds the bins.

        Arguments
        ---------
        magnitudes : torch.Tensor
            Magnitude spectra [B, T, F], relative to the item's level.
        num_frames : torch.Tensor
            Number of frames of each item that are not padding [B]; None if
            there is no padding.

        Returns
        -------
        torch.Tensor
            Embeddings [B, T · F, D]; those of padded frames have no meaning.
        """
        valid = None
        if num_frames is not None:
            frames = torch.arange(magnitudes.shape[1], device=magnitudes.device)
            valid = frames < num_frames.view(-1, 1)
        x = magnitudes.clamp_min(LOG_FLOOR).log()
        x = (x + self.input_shift) * self.input_scale
        for layer in self.encoder:
            x = layer(x, valid)
        x = torch.cat([x, self.blstm(x, num_frames)], dim=2)
        x = self.output(self.decoder(x, valid))
        return x.view(x.shape[0], -1, self.embedding_dim)
