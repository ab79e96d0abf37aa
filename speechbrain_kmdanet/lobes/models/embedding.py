"""The BLSTM trunk of the paper: a vector for every time-frequency bin.

The network has the shape of Open-Unmix: the frames are encoded, a BLSTM with a
skip connection around it models time, and the frames are decoded.

References: Stöter, Uhlich, Liutkus and Mitsufuji, "Open-Unmix - a reference
implementation for music source separation"; Cadoux et al., "Closing the
training/inference gap for deep attractor networks", Sec. 4.1.
"""

import torch
from torch import Tensor, nn

from speechbrain_kmdanet.nnet.parallel import (
    several_processes,
    sum_over_processes,
)
from speechbrain_kmdanet.nnet.recurrent import PaddedBLSTM
from speechbrain_kmdanet.processing.bins import (
    at_least_float32,
    relative_magnitudes,
    valid_mask,
)

# Magnitudes are relative to the root mean square of the item: −60 dB.
LOG_FLOOR = 1e-3


class PaddedBatchNorm(nn.Module):
    """Batch normalisation over the valid frames of all processes.

    Its weights are those of torch.nn.BatchNorm1d. The processes of a training
    share the statistics on any device, and padding is left out without waiting
    for it.

    Arguments
    ---------
    size : int
        Size of a frame.
    eps : float
        What is added to the variance.
    momentum : float
        Weight of a batch in the running statistics.

    Example
    -------
    >>> norm = PaddedBatchNorm(size=1)
    >>> frames = torch.tensor([[[1.0], [3.0], [9.0]]])
    >>> norm(frames, torch.tensor([[True, True, False]]))[0, :2].flatten()
    tensor([-1.0000,  1.0000], grad_fn=<ViewBackward0>)
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self, size: int, eps: float = 1e-5, momentum: float = 0.1
    ) -> None:
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.register_buffer("running_mean", torch.zeros(size))
        self.register_buffer("running_var", torch.ones(size))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, frames: Tensor, valid: Tensor | None = None) -> Tensor:
        """Normalises frames, see :meth:`FrameEncoder.forward`."""
        if self.training:
            self.num_batches_tracked.add_(1)
            if valid is not None or several_processes():
                return self._normalise(frames, valid)
        normed = nn.functional.batch_norm(
            frames.flatten(0, 1),
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training,
            self.momentum,
            self.eps,
        )
        return normed.view_as(frames)

    def _normalise(self, frames: Tensor, valid: Tensor | None) -> Tensor:
        """Normalises by the valid frames of all processes, as in training."""
        x = at_least_float32(frames)
        if valid is None:
            valid = x.new_ones(x.shape[:2])
        counts = valid.unsqueeze(2).to(x.dtype)  # [B, T, 1]
        count = sum_over_processes(counts.sum()).clamp_min(1.0)
        mean = sum_over_processes((x * counts).sum((0, 1))) / count  # [C]
        x = x - mean
        squares = sum_over_processes((x.square() * counts).sum((0, 1)))
        with torch.no_grad():
            unbiased = squares / (count - 1.0).clamp_min(1.0)
            self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
            self.running_var.lerp_(unbiased.to(self.running_var), self.momentum)
        scale = self.weight * (squares / count + self.eps).rsqrt()
        return (x * scale + self.bias).to(frames.dtype)


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
        self.norm = PaddedBatchNorm(output_size)
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
        return self.activation(self.norm(self.linear(frames), valid))


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
            Number of frames of each item that are not padding [B], on the CPU
            if nobody is to wait for the device; None if there is no padding.

        Returns
        -------
        torch.Tensor
            Embeddings [B, T · F, D]; those of padded frames have no meaning.
        """
        valid = None
        if num_frames is not None:
            valid = valid_mask(
                num_frames, spectrum.shape[2], spectrum.device
            )  # [B, T]
        magnitudes = relative_magnitudes(spectrum, num_frames)  # [B, T, F]
        x = magnitudes.clamp_min(LOG_FLOOR).log()
        x = (x + self.input_shift) * self.input_scale
        for layer in self.encoder:
            x = layer(x, valid)  # [B, T, H]
        x = torch.cat([x, self.blstm(x, num_frames)], dim=2)  # [B, T, 2 H]
        x = self.output(self.decoder(x, valid))  # [B, T, F · D]
        return x.view(x.shape[0], -1, self.embedding_dim)
