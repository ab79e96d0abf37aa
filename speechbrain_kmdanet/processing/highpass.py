"""What of a signal can be heard: an offset, or rumble, says nothing of talkers.

An encoder lets its separator see the audible part only, and the sources share
the rest.
"""

import torch
from scipy.signal import butter
from torch import Tensor, nn
from torchaudio.functional import lfilter

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.processing.bins import not_compiled, valid_mask, widest

ORDER = 4


class HighPass(nn.Module):
    """Butterworth high-pass filter that starts at rest.

    Arguments
    ---------
    cutoff : float
        Frequency in Hz where 3 dB are lost; at 0 the mean is taken away, and
        without one nothing is.
    sample_rate : int
        Sample rate in Hz.

    Raises
    ------
    UserError
        If the frequency is not from 0 to half of the sample rate.

    Example
    -------
    >>> import torch
    >>> filter = HighPass(cutoff=30, sample_rate=8000)
    >>> bool(filter(torch.full((1, 4000), 0.3)).abs().max() < 1e-9)
    True
    """

    def __init__(
        self, cutoff: float | None = None, sample_rate: int = 8000
    ) -> None:
        super().__init__()
        if cutoff is not None and not 0 <= cutoff < sample_rate / 2:
            raise UserError(
                "highpass must be a frequency in Hz from 0 to half of "
                f"sample_rate={sample_rate}, got {cutoff!r}"
            )
        self.cutoff = cutoff
        self.sections: Tensor | None = None  # [S, 6], float64 in any case
        if cutoff:
            self.sections = torch.from_numpy(
                butter(ORDER, cutoff, "highpass", fs=sample_rate, output="sos")
            )

    def forward(
        self, waveform: Tensor, num_samples: Tensor | None = None
    ) -> Tensor:
        """Filters waveforms.

        Arguments
        ---------
        waveform : torch.Tensor
            Waveforms [B, L].
        num_samples : torch.Tensor
            Length of each item without padding [B]; L by default.

        Returns
        -------
        torch.Tensor
            Waveforms [B, L], 0 in the padding.
        """
        if self.cutoff is None:
            return waveform
        valid: Tensor | float = 1.0
        lengths: Tensor | int = waveform.shape[1]
        if num_samples is not None:
            valid = valid_mask(num_samples, waveform.shape[1])
            lengths = num_samples.unsqueeze(1)
        if self.sections is None:
            means = (waveform * valid).sum(1, keepdim=True) / lengths
            return (waveform - means) * valid
        # PyTorch cannot compile what torchaudio compiled.
        return not_compiled(_filter)(waveform, self.sections) * valid


def _filter(waveform: Tensor, sections: Tensor) -> Tensor:
    """Filters waveforms [B, L] by sections [S, 6], one after the other."""
    # The poles are so near 1 that single precision would be heard; where there
    # is no double precision, the CPU filters.
    precise = widest(waveform.device) == torch.float64
    x = (waveform if precise else waveform.cpu()).double()
    x = x - x[:, :1]  # an offset does not even begin
    for b, a in sections.to(x.device, non_blocking=True).unflatten(1, (2, 3)):
        x = lfilter(x, a, b, clamp=False)
    return x.to(waveform)
