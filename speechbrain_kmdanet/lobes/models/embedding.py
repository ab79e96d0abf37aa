"""The BLSTM trunk of the paper: a vector for every time-frequency bin.

The network has the shape of Open-Unmix: the frames are encoded, a BLSTM with a
skip connection around it models time, and the frames are decoded.

References: Stöter, Uhlich, Liutkus and Mitsufuji, "Open-Unmix - a reference
implementation for music source separation"; Cadoux et al., "Closing the
training/inference gap for deep attractor networks", Sec. 4.1.
"""

import torch
from torch import Tensor, nn

from speechbrain_kmdanet.nnet.recurrent import PaddedBLSTM
from speechbrain_kmdanet.processing.bins import relative_magnitudes, valid_mask

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

    def __init__(
        self, input_size: int, output_size: int, activation: nn.Module
    ) -> None:
        super().__init__()
        # The normalisation has a bias of its own.
        self.linear = nn.Linear(input_size, output_size, bias=False)
        self.norm = nn.BatchNorm1d(output_size)
        self.activation = activation

    def forward(self, frames: Tensor, valid: Tensor | None = None) -> Tensor:
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
    """Embeds every time-frequency bin of a spectrum, by its magnitude.

    A trunk is called with a complex spectrum, and says in ``embedding_dim``
    how many outputs a bin has.

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
    >>> net(torch.randn(2, 33, 10, dtype=torch.complex64)).shape
    torch.Size([2, 330, 4])
    """

    def __init__(
        self,
        num_bins: int = 257,
        embedding_dim: int = 20,
        hidden_size: int = 512,
        num_layers: int = 3,
        dropout: float = 0.4,
    ) -> None:
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

    def forward(
        self, spectrum: Tensor, num_frames: Tensor | None = None
    ) -> Tensor:
        """Embeds the bins.

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
            Embeddings [B, T · F, D]; those of padded frames have no meaning.
        """
        valid = None
        if num_frames is not None:
            valid = valid_mask(num_frames, spectrum.shape[2])  # [B, T]
        magnitudes = relative_magnitudes(spectrum, num_frames)  # [B, T, F]
        x = magnitudes.clamp_min(LOG_FLOOR).log()
        x = (x + self.input_shift) * self.input_scale
        for layer in self.encoder:
            x = layer(x, valid)  # [B, T, H]
        x = torch.cat([x, self.blstm(x, num_frames)], dim=2)  # [B, T, 2 H]
        x = self.output(self.decoder(x, valid))  # [B, T, F · D]
        return x.view(x.shape[0], -1, self.embedding_dim)
