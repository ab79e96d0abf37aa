"""Ideal masks: what masking could reach if the sources were known.

References: Luo and Mesgarani, "Conv-TasNet: Surpassing ideal time-frequency
magnitude masking for speech separation" (binary, ratio and Wiener-like masks);
Erdogan, Hershey, Watanabe and Le Roux, "Phase-sensitive and recognition-boosted
speech separation using deep recurrent neural networks".

Authors
 * The speechbrain_kmdanet developers 2026
"""

import torch


def ideal_binary_masks(sources):
    """Gives every bin to its loudest source.

    Arguments
    ---------
    sources : torch.Tensor
        Complex spectra S of the sources [B, K, F, T].

    Returns
    -------
    torch.Tensor
        Masks of zeros and ones [K, B, F, T]: the first of equally loud sources
        has the bin, nobody has a silent one.

    Example
    -------
    >>> sources = torch.tensor([3.0 + 4.0j, 2.0, 0.0]).view(1, 3, 1, 1)
    >>> ideal_binary_masks(sources).flatten()
    tensor([1., 0., 0.])
    """
    magnitudes = sources.abs().transpose(0, 1)
    loudest = magnitudes.max(0, keepdim=True).indices  # not argmax: slow
    masks = torch.zeros_like(magnitudes).scatter_(0, loudest, 1.0)
    return masks * (magnitudes > 0)


def ideal_ratio_masks(sources, power=1.0):
    """Shares every bin by the magnitudes of the sources, |S_i| / Σ_j |S_j|.

    Arguments
    ---------
    sources : torch.Tensor
        Complex spectra S of the sources [B, K, F, T].
    power : float
        Power of the magnitudes in the ratio.

    Returns
    -------
    torch.Tensor
        Masks [K, B, F, T], which sum to one; 0 in silent bins.

    Example
    -------
    >>> sources = torch.tensor([3.0j, 1.0]).view(1, 2, 1, 1)
    >>> ideal_ratio_masks(sources).flatten()
    tensor([0.7500, 0.2500])
    """
    magnitudes = sources.abs().transpose(0, 1)
    # Relative to the loudest, powers neither underflow nor overflow.
    tiny = torch.finfo(magnitudes.dtype).tiny
    magnitudes = magnitudes / magnitudes.amax(0).clamp_min(tiny)
    shares = magnitudes.pow(power)
    return shares / shares.sum(0).clamp_min(tiny)


def wiener_like_masks(sources):
    """Shares every bin by the energies of the sources, |S_i|² / Σ_j |S_j|².

    Arguments
    ---------
    sources : torch.Tensor
        Complex spectra S of the sources [B, K, F, T].

    Returns
    -------
    torch.Tensor
        Masks [K, B, F, T], which sum to one; 0 in silent bins.

    Example
    -------
    >>> sources = torch.tensor([3.0j, 1.0]).view(1, 2, 1, 1)
    >>> wiener_like_masks(sources).flatten()
    tensor([0.9000, 0.1000])
    """
    return ideal_ratio_masks(sources, power=2.0)


def phase_sensitive_masks(sources, mixture, truncate=True):
    """Projects every source on the mixture, Re(S_i / X).

    No real masks are nearer to the sources, |S_i − M_i X|²: without truncation
    those of any size, with it those from 0 to 1.

    Arguments
    ---------
    sources : torch.Tensor
        Complex spectra S of the sources [B, K, F, T].
    mixture : torch.Tensor
        Complex spectrum X of the mixture [B, F, T].
    truncate : bool
        Whether to limit the masks to [0, 1], where those of networks are.

    Returns
    -------
    torch.Tensor
        Masks [K, B, F, T]; 0 where the mixture is silent. They sum to one
        if they are not truncated and the sources sum to the mixture.

    Example
    -------
    >>> sources = torch.tensor([3.0 + 1.0j, -1.0 - 1.0j]).view(1, 2, 1, 1)
    >>> mixture = sources.sum(1)
    >>> phase_sensitive_masks(sources, mixture).flatten()
    tensor([1., 0.])
    >>> phase_sensitive_masks(sources, mixture, truncate=False).flatten()
    tensor([ 1.5000, -0.5000])
    """
    limits = torch.finfo(mixture.real.dtype)
    magnitudes = mixture.abs().clamp_min(limits.tiny)
    # Real numbers, as complex ones divide badly when they are tiny.
    cosines = (mixture.real / magnitudes).unsqueeze(1)
    sines = (mixture.imag / magnitudes).unsqueeze(1)
    projections = sources.real * cosines + sources.imag * sines
    # Where the sources cancel down to rounding, the masks stay finite.
    floor = limits.eps * sources.abs().amax(1)
    masks = projections / magnitudes.maximum(floor).unsqueeze(1)
    if truncate:
        masks = masks.clamp(0.0, 1.0)
    return masks.transpose(0, 1)
