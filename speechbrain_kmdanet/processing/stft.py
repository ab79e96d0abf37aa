"""Encoder (STFT) and decoder (inverse STFT) of the separators.

Both have the call signature of the encoder and decoder of SpeechBrain's own
separators: waveforms [B, L] in and out, without lengths.
"""

from typing import TypeVar

import torch
from torch import Tensor, nn

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.processing.bins import (
    at_least_float32,
    check_tensor,
    describe,
)
from speechbrain_kmdanet.processing.highpass import HighPass

Count = TypeVar("Count", int, Tensor)


class _STFT(nn.Module):
    """Window and hop that an encoder and its decoder share."""

    window: Tensor

    def __init__(self, n_fft: int = 512, hop_length: int = 128) -> None:
        super().__init__()
        for name, value in (("n_fft", n_fft), ("hop_length", hop_length)):
            if type(value) is not int:
                raise UserError(
                    f"{name} must be an integer, got {describe(value)}"
                )
        if not 0 < hop_length <= n_fft // 2:
            raise UserError(
                "hop_length must be positive and at most half of n_fft="
                f"{n_fft}, so that the windows overlap, got {hop_length}"
            )
        self.n_fft = self.window_length = n_fft
        self.hop_length = hop_length
        self.register_buffer("window", torch.hann_window(n_fft), False)


class STFTEncoder(_STFT):
    """Short-time Fourier transform of a waveform.

    The signal is padded with zeros on both sides so that every frame that
    overlaps it is there. An item therefore has the same frames alone and in a
    longer batch, and a signal of any length, even of 1 sample, is encoded.

    Arguments
    ---------
    n_fft : int
        Length of the Hann window and of the transform, in samples.
    hop_length : int
        Step between frames, in samples.
    highpass : float
        Frequency in Hz below which nothing is encoded, see HighPass; by
        default, all is.
    sample_rate : int
        Sample rate in Hz.

    Example
    -------
    >>> encoder = STFTEncoder(n_fft=512, hop_length=128)
    >>> encoder(torch.randn(2, 8000)).shape
    torch.Size([2, 257, 66])
    >>> encoder.num_frames(8000)
    66
    """

    has_magnitudes = True

    def __init__(
        self,
        n_fft: int = 512,
        hop_length: int = 128,
        highpass: float | None = None,
        sample_rate: int = 8000,
    ) -> None:
        super().__init__(n_fft, hop_length)
        self.highpass = HighPass(highpass, sample_rate)

    def num_frames(self, num_samples: Count) -> Count:
        """Number of frames of a signal.

        Arguments
        ---------
        num_samples : int or torch.Tensor
            Length of the signal, in samples.

        Returns
        -------
        int or torch.Tensor
            Number of frames T.
        """
        hops = (num_samples + self.hop_length - 1) // self.hop_length
        return hops + self.n_fft // 2 // self.hop_length + 1

    def forward(
        self, mixture: Tensor, num_samples: Tensor | None = None
    ) -> Tensor:
        """Encodes waveforms.

        Arguments
        ---------
        mixture : torch.Tensor
            Waveforms [B, L].
        num_samples : torch.Tensor
            Length of each item without padding [B]; L by default.

        Returns
        -------
        torch.Tensor
            Complex spectrum [B, F, T], F = n_fft // 2 + 1.

        Raises
        ------
        UserError
            If the input is not a non-empty [B, L] tensor of real numbers.
        """
        check_tensor("mixture", mixture, batch=None, samples=None)
        mixture = self.highpass(mixture, num_samples)
        length = mixture.shape[1]
        last = (self.num_frames(length) - 1) * self.hop_length
        half = self.n_fft // 2
        rest = self.n_fft - half  # one more for a window of odd length
        padded = nn.functional.pad(mixture, (half, last + rest - length))
        # The transform stays in float32 under autocast: half precision has
        # no complex type worth its rounding.
        with torch.autocast(mixture.device.type, enabled=False):
            padded = at_least_float32(padded)
            return torch.stft(
                padded,
                self.n_fft,
                self.hop_length,
                window=self.window.to(padded.dtype),
                center=False,
                return_complex=True,
            )


class STFTDecoder(_STFT):
    """Inverse short-time Fourier transform, see :class:`STFTEncoder`.

    Example
    -------
    >>> encoder, decoder = STFTEncoder(512, 128), STFTDecoder(512, 128)
    >>> waveform = torch.randn(2, 1001)
    >>> decoded = decoder(encoder(waveform))
    >>> torch.allclose(decoded[:, :1001], waveform, atol=1e-5)
    True
    """

    def forward(self, spectrum: Tensor) -> Tensor:
        """Decodes spectra.

        Arguments
        ---------
        spectrum : torch.Tensor
            Complex spectrum [B, F, T].

        Returns
        -------
        torch.Tensor
            Waveforms [B, (T - 1) · hop_length], or one sample more for a window
            of odd length: at least as long as what was encoded; the caller
            cuts them.

        Raises
        ------
        UserError
            If the input is no spectrum of such an encoder.
        """
        bins = self.n_fft // 2 + 1
        check_tensor(
            "spectrum", spectrum, "complex", batch=None, bins=bins, frames=None
        )
        with torch.autocast(spectrum.device.type, enabled=False):
            window = self.window.to(spectrum.real.dtype)
            frames = torch.fft.irfft(spectrum.transpose(1, 2), self.n_fft)
            energies = window.square().expand(1, *frames.shape[1:])
            return self._add(frames * window) / self._add(energies)

    def _add(self, frames: Tensor) -> Tensor:
        """Adds frames [B, T, n_fft] up where they overlap, without the ends.

        As torch.istft does, bit for bit, which would wait for the device.
        """
        size = [
            len(frames),
            self.n_fft + (frames.shape[1] - 1) * self.hop_length,
        ]
        added = torch.ops.aten.unfold_backward(
            frames, size, 1, self.n_fft, self.hop_length
        )
        half = self.n_fft // 2
        return added[:, half : size[1] - half]
