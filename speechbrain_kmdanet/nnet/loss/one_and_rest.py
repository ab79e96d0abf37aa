"""Loss of a recursion: one talker and the rest, and again of the rest.

Reference: Takahashi, Parthasaarathy, Goswami and Mitsufuji, "Recursive speech
separation for unknown number of speakers" (OR-PIT).
"""

import torch
from torch import Tensor

from speechbrain_kmdanet.nnet.loss.separation import (
    LIMIT,
    check_shapes,
    si_sdr,
    zero_padding,
)


def one_and_rest_loss(
    estimates: Tensor,
    sources: Tensor,
    num_samples: Tensor | None = None,
    limit: float = LIMIT,
) -> Tensor:
    """Loss of a recursion that takes one talker off the rest (OR-PIT).

    Step n should give the talker whom it comes nearest to, of those that are
    left, and the sum of the others: the least of -SDR(one) - SDR(rest) / N over
    the talkers, N of whom are in the rest (Takahashi et al., 2019, Eq. 1).

    Arguments
    ---------
    estimates : torch.Tensor
        Estimates [B, L, K] in the order of the recursion; what is left after a
        step is the sum of those behind it.
    sources : torch.Tensor
        Sources [B, L, K]. Silent ones are left out.
    num_samples : torch.Tensor
        Length of each item without padding [B]; L by default.
    limit : float
        SI-SDR in dB that is approached softly.

    Returns
    -------
    torch.Tensor
        Loss of each item [B], the mean over the steps.

    Raises
    ------
    UserError
        If the shapes differ.

    Example
    -------
    >>> t = torch.arange(800) / 8000
    >>> tones = [(f * t).sin() for f in (400, 900, 1500)]
    >>> tones = torch.stack(tones, dim=1)[None]
    >>> bool(one_and_rest_loss(tones.flip(2), tones) < -60)
    True
    """
    check_shapes(estimates, sources)
    estimates = zero_padding(estimates, num_samples)
    sources = zero_padding(sources, num_samples)
    options = num_samples, limit
    left = sources.square().sum(1) > 0  # [B, K]: whom no step has taken
    losses, taken = [], []
    for step in range(max(1, sources.shape[2] - 1)):
        one = estimates[:, :, step : step + 1].expand_as(sources)
        rest = estimates[:, :, step + 1 :].sum(2, keepdim=True)
        others = left.sum(1, keepdim=True) - 1  # [B, 1]
        total = (sources * left.unsqueeze(1)).sum(2, keepdim=True)
        loss = -si_sdr(one, sources, *options)  # [B, K]
        if sources.shape[2] > 1:
            of_rest = si_sdr(rest.expand_as(sources), total - sources, *options)
            loss = loss - of_rest * (others > 0) / others.clamp_min(1)
        chosen = loss.masked_fill(~left, torch.inf).argmin(1, keepdim=True)
        known = left.gather(1, chosen)  # [B, 1]
        losses.append(loss.gather(1, chosen) * known)
        taken.append(known)
        left = left.scatter(1, chosen, False)
    steps = torch.cat(taken, 1).sum(1).clamp_min(1)
    return torch.cat(losses, 1).sum(1) / steps
