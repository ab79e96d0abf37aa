"""A dual-path trunk: across bands and across time in turn, with shared weights.

Neighbouring bins are one band; blocks of recurrence across the bands of a
frame, across whole frames, and across the frames of a band make features of the
bands, and those make the embeddings of their bins. What the weights have
learned in one band, or one frame, holds in all; only those for whole frames
know one band from another.

References: Luo, Chen and Yoshioka, "Dual-path RNN: efficient long sequence
modeling for time-domain single-channel speech separation"; Wang, Cornell, Choi,
Lee, Kim and Watanabe, "TF-GridNet: integrating full- and sub-band modeling for
speech separation" (time and frequency in turn, complex spectra); Hao, Su, Horaud
and Li, "FullSubNet: a full-band and sub-band fusion model for real-time
single-channel speech enhancement".
"""

import torch
from torch import Tensor, nn

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.nnet.recurrent import PaddedBLSTM
from speechbrain_kmdanet.processing.bins import (
    relative_magnitudes,
    tiny,
    valid_mask,
)

# Log-magnitudes are relative to the root mean square of the item, from −60 dB
# on; shifted and scaled to about zero mean and unit variance.
LOG_FLOOR, LOG_SHIFT, LOG_SCALE = 1e-3, 3.5, 0.5
PARTS = 3  # of a bin at the input: real, imaginary, log-magnitude
CONTEXT = 3  # frames that the encoder sees


class _ResidualBLSTM(nn.Module):
    """Normalisation, BLSTM and linear layer [B, L, C], and a skip around.

    With a bottleneck, a linear layer before makes the features fewer.
    """

    def __init__(
        self, channels: int, hidden_size: int, bottleneck: int | None = None
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.input: nn.Module = nn.Identity()
        if bottleneck:
            self.input = nn.Linear(channels, bottleneck)
        self.blstm = PaddedBLSTM(bottleneck or channels, 2 * hidden_size)
        self.output = nn.Linear(2 * hidden_size, channels)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Sequences [B, L, C] of lengths [B], or without padding."""
        return x + self.output(self.blstm(self.input(self.norm(x)), lengths))


class _Nothing(nn.Module):
    """What stands for a path that there is not."""

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The input."""
        return x


class DualPathNet(nn.Module):
    """Embeds every time-frequency bin of a complex spectrum.

    Arguments
    ---------
    num_bins : int
        Number of frequency bins F.
    embedding_dim : int
        Dimension D of the embeddings.
    channels : int
        Features C of a band.
    hidden_size : int
        Cells of the BLSTMs in each direction.
    num_blocks : int
        Number of blocks [across bands, across whole frames, across time].
    bins_per_band : int
        Bins from one band to the next; a band sees twice as many and one.
    frame_size : int
        Cells of the BLSTMs over whole frames in each direction; 0: none.
    num_hints : int
        Further numbers about each bin that the network is given.

    Raises
    ------
    UserError
        If a size is not positive.

    Example
    -------
    >>> net = DualPathNet(33, embedding_dim=4, channels=8, hidden_size=8)
    >>> net(torch.randn(2, 33, 10, dtype=torch.complex64)).shape
    torch.Size([2, 330, 4])
    """

    def __init__(
        self,
        num_bins: int = 129,
        embedding_dim: int = 20,
        channels: int = 48,
        hidden_size: int = 64,
        num_blocks: int = 3,
        bins_per_band: int = 8,
        frame_size: int = 0,
        num_hints: int = 0,
    ) -> None:
        super().__init__()
        for name, size in (
            ("num_blocks", num_blocks),
            ("bins_per_band", bins_per_band),
        ):
            if size < 1:
                raise UserError(f"{name} must be at least 1, got {size}")
        if frame_size < 0:
            raise UserError(f"frame_size must be 0 or more, got {frame_size}")
        self.embedding_dim = embedding_dim
        width = 2 * bins_per_band + 1
        num_bands = -(-num_bins // bins_per_band)
        # Bins beyond both ends, so that all bands are complete.
        missing = (num_bands - 1) * bins_per_band + width - num_bins
        self.margins = missing // 2, missing - missing // 2
        self.encoder = nn.Conv2d(
            PARTS + num_hints,
            channels,
            (CONTEXT, width),
            stride=(1, bins_per_band),
            padding=(CONTEXT // 2, 0),
        )
        self.norm = nn.LayerNorm(channels)
        self.across_bands, self.across_time = (
            nn.ModuleList(
                _ResidualBLSTM(channels, hidden_size) for _ in range(num_blocks)
            )
            for _ in range(2)
        )
        size = num_bands * channels
        self.across_frames = nn.ModuleList(
            _ResidualBLSTM(size, frame_size, bottleneck=frame_size)
            if frame_size
            else _Nothing()
            for _ in range(num_blocks)
        )
        self.output_norm = nn.LayerNorm(channels)
        self.decoder = nn.ConvTranspose1d(
            channels, embedding_dim, width, bins_per_band
        )

    def forward(
        self,
        spectrum: Tensor,
        num_frames: Tensor | None = None,
        hints: Tensor | None = None,
    ) -> Tensor:
        """Embeds the bins, see :meth:`.embedding.EmbeddingNet.forward`.

        Hints [B, T · F, num_hints] are what the network is told of each bin.
        """
        batch, num_bins, frames = spectrum.shape
        x = self.features(spectrum, num_frames, hints)  # [B, T, Q, C]
        x = self.output_norm(x).flatten(0, 1).transpose(1, 2)  # [B · T, C, Q]
        first = self.margins[0]
        v = self.decoder(x)[..., first : first + num_bins]  # [B · T, D, F]
        return v.transpose(1, 2).reshape(batch, frames * num_bins, -1)

    def features(
        self,
        spectrum: Tensor,
        num_frames: Tensor | None = None,
        hints: Tensor | None = None,
    ) -> Tensor:
        """Features of the bands.

        Arguments
        ---------
        spectrum : torch.Tensor
            Complex spectrum of the mixture [B, F, T], at any level.
        num_frames : torch.Tensor
            Number of frames of each item that are not padding [B]; None if
            there is no padding.
        hints : torch.Tensor
            What the network is told of each bin [B, T · F, num_hints].

        Returns
        -------
        torch.Tensor
            Features H [B, T, Q, C] of Q bands; those of padded frames have no
            meaning.
        """
        x = spectral_parts(spectrum, num_frames)  # [B, 3, T, F]
        if hints is not None:
            hints = hints.unflatten(1, x.shape[2:])  # [B, T, F, E]
            if num_frames is not None:
                valid = valid_mask(num_frames, x.shape[2], x.device)
                hints = hints * valid.unsqueeze(2).unsqueeze(3)
            x = torch.cat([x, hints.permute(0, 3, 1, 2)], 1)
        x = nn.functional.pad(x, self.margins)
        x = self.encoder(x).permute(0, 2, 3, 1)  # [B, T, Q, C]
        x = self.norm(x)
        batch, frames, bands, _ = x.shape
        lengths = None
        if num_frames is not None:
            lengths = num_frames.repeat_interleave(bands)
        blocks = zip(self.across_bands, self.across_frames, self.across_time)
        for bands_net, frames_net, time_net in blocks:
            x = bands_net(x.flatten(0, 1))  # [B · T, Q, C]
            x = x.view(batch, frames, -1)  # [B, T, Q · C]
            x = frames_net(x, num_frames)
            x = x.unflatten(2, (bands, -1)).transpose(1, 2)  # [B, Q, T, C]
            x = time_net(x.flatten(0, 1), lengths)  # [B · Q, T, C]
            x = x.unflatten(0, (batch, bands)).transpose(1, 2)  # [B, T, Q, C]
        return x


def spectral_parts(
    spectrum: Tensor,
    num_frames: Tensor | None = None,
) -> Tensor:
    """What a network hears of every bin, at any level.

    Arguments
    ---------
    spectrum : torch.Tensor
        Complex spectrum of the mixture [B, F, T].
    num_frames : torch.Tensor
        Number of frames of each item that are not padding [B]; None if there
        is no padding.

    Returns
    -------
    torch.Tensor
        Root-compressed real and imaginary parts, and log-magnitudes
        [B, 3, T, F]; zeros in padded frames.
    """
    magnitudes = relative_magnitudes(spectrum, num_frames)  # [B, T, F]
    logs = (magnitudes.clamp_min(LOG_FLOOR).log() + LOG_SHIFT) * LOG_SCALE
    if num_frames is not None:
        # As beyond the ends of an item: zeros.
        valid = valid_mask(num_frames, logs.shape[1], logs.device)
        logs = logs * valid.unsqueeze(2)
    # Phases of unit length; 0 in silence.
    absolute = spectrum.abs().clamp_min(tiny(magnitudes)).transpose(1, 2)
    roots = magnitudes.sqrt() / absolute  # [B, T, F]
    parts = torch.view_as_real(spectrum).unbind(3)  # real, imaginary
    return torch.stack([*(x.transpose(1, 2) * roots for x in parts), logs], 1)
