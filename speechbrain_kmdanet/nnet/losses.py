"""Separation losses, with or without the search of a permutation.

References: Cadoux et al., "Closing the training/inference gap for deep
attractor networks" (Eq. 3); Le Roux, Wisdom, Erdogan and Hershey, "SDR -
half-baked or well done?".

Authors
 * The speechbrain_kmdanet developers 2026
"""

import torch

from speechbrain_kmdanet.nnet.permutation import (
    best_permutation,
    permute_sources,
)
from speechbrain_kmdanet.utils.metrics import (
    pairwise_si_sdr,
    si_sdr,
    zero_padding,
)


def magnitude_loss(estimates, sources, num_frames=None, pit=True):
    """Mean squared error of the magnitude spectra (Eq. 3).

    Arguments
    ---------
    estimates : torch.Tensor
        Masked magnitudes of the mixture X∘M [B, K, F, T].
    sources : torch.Tensor
        Magnitudes of the sources S [B, K, F, T].
    num_frames : torch.Tensor
        Number of frames of each item that are not padding [B]; all by default.
    pit : bool
        Whether to search the permutation of least error; without it, estimate
        l belongs to source l.

    Returns
    -------
    torch.Tensor
        Loss of each item [B].

    Raises
    ------
    ValueError
        If the shapes differ.

    Example
    -------
    >>> sources = torch.rand(2, 3, 5, 7)
    >>> magnitude_loss(sources.flip(1), sources)
    tensor([0., 0.])
    """
    _check_shapes(estimates, sources)
    num_spks, num_bins, max_frames = sources.shape[1:]
    if num_frames is None:
        num_frames = max_frames
    else:
        frames = torch.arange(max_frames, device=sources.device)
        valid = frames < num_frames.view(-1, 1, 1, 1)
        estimates, sources = estimates * valid, sources * valid
    if pit:
        # The sources are reordered, which are not differentiated.
        with torch.no_grad():
            # ‖Y_i − S_j‖² up to terms that no permutation changes.
            products = torch.bmm(
                estimates.flatten(2), sources.flatten(2).transpose(1, 2)
            )
            sources = permute_sources(sources, best_permutation(-products))
    error = (sources - estimates).square().sum((1, 2, 3))
    return error / (num_spks * num_bins * num_frames)


def si_sdr_loss(estimates, sources, num_samples=None, pit=True):
    """Negative scale-invariant SDR of the waveforms, in dB.

    Sources that are silent in the segment have no SDR and are left out; an
    item of silent sources only has loss 0.

    Arguments
    ---------
    estimates : torch.Tensor
        Estimated sources [B, L, K].
    sources : torch.Tensor
        Sources [B, L, K].
    num_samples : torch.Tensor
        Length of each item without padding [B]; L by default.
    pit : bool
        Whether to search the permutation of highest SI-SDR.

    Returns
    -------
    torch.Tensor
        Loss of each item, the mean over its sources [B].

    Raises
    ------
    ValueError
        If the shapes differ.

    Example
    -------
    >>> t = torch.arange(800) / 8000
    >>> tones = torch.stack([(400 * t).sin(), (900 * t).sin()], dim=1)[None]
    >>> bool(si_sdr_loss(tones.flip(2), tones) < -60)
    True
    """
    _check_shapes(estimates, sources)
    estimates = zero_padding(estimates, num_samples)
    sources = zero_padding(sources, num_samples)
    active = sources.square().sum(1) > 0
    if pit:
        with torch.no_grad():
            scores = pairwise_si_sdr(estimates, sources, num_samples)
            permutation = best_permutation(-scores * active.unsqueeze(2))
        estimates = permute_sources(estimates, permutation, dim=2)
    scores = si_sdr(estimates, sources, num_samples) * active
    return -scores.sum(1) / active.sum(1).clamp_min(1)


def _check_shapes(estimates, sources):
    """Refuses estimates that do not fit the sources."""
    if estimates.shape != sources.shape:
        raise ValueError(
            f"estimates of shape {tuple(estimates.shape)} do not fit sources "
            f"of shape {tuple(sources.shape)}"
        )
