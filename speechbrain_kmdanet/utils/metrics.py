"""Scale-invariant signal-to-distortion ratio.

Reference: Le Roux, Wisdom, Erdogan and Hershey, "SDR - half-baked or well
done?".

Authors
 * The speechbrain_kmdanet developers 2026
"""

import torch

# Energies are compared after scaling the reference to unit power: −80 dB.
EPSILON = 1e-8
# Energy that counts as silence: keeps the ratio and its gradient finite.
SILENCE = 1e-24


def zero_padding(waveforms, num_samples=None):
    """Sets samples beyond the length of each item to zero.

    Arguments
    ---------
    waveforms : torch.Tensor
        Waveforms [B, L, K].
    num_samples : torch.Tensor
        Length of each item [B]; L by default.

    Returns
    -------
    torch.Tensor
        Waveforms [B, L, K]; the argument itself is not changed.

    Example
    -------
    >>> zero_padding(torch.ones(1, 3, 1), torch.tensor([2])).flatten()
    tensor([1., 1., 0.])
    """
    if num_samples is None:
        return waveforms
    samples = torch.arange(waveforms.shape[1], device=waveforms.device)
    return waveforms * (samples < num_samples.view(-1, 1)).unsqueeze(2)


def _centre(waveforms, num_samples):
    """Removes the mean of each waveform [B, L, K], padding left out."""
    if num_samples is None:
        return waveforms - waveforms.mean(1, keepdim=True)
    waveforms = zero_padding(waveforms, num_samples)
    mean = waveforms.sum(1, keepdim=True) / num_samples.view(-1, 1, 1)
    return zero_padding(waveforms - mean, num_samples)


def si_sdr(estimates, sources, num_samples=None):
    """Scale-invariant SDR of each estimate with respect to its own source.

    Arguments
    ---------
    estimates : torch.Tensor
        Estimated sources [B, L, K].
    sources : torch.Tensor
        True sources [B, L, K].
    num_samples : torch.Tensor
        Length of each item without padding [B]; L by default.

    Returns
    -------
    torch.Tensor
        SI-SDR in dB [B, K], from −80 (a silent estimate) to 80 dB. That of a
        silent source has no meaning: callers leave it out.

    Example
    -------
    >>> source = torch.tensor([1.0, -1.0, 1.0, -1.0]).view(1, 4, 1)
    >>> noise = torch.tensor([0.1, 0.1, -0.1, -0.1]).view(1, 4, 1)
    >>> si_sdr(5 * (source + noise), source)
    tensor([[20.0000]])
    """
    estimates = _centre(estimates, num_samples)
    sources = _centre(sources, num_samples)
    tiny = torch.finfo(sources.dtype).tiny
    energy = sources.square().sum(1)
    scale = (estimates * sources).sum(1) / energy.clamp_min(tiny)
    target = scale.unsqueeze(1) * sources
    signal = target.square().sum(1)
    noise = (estimates - target).square().sum(1)
    floor = EPSILON * (signal + noise).detach()
    ratio = (signal + floor + EPSILON * SILENCE) / (noise + floor + SILENCE)
    return 10.0 * ratio.log10()


def pairwise_si_sdr(estimates, sources, num_samples=None):
    """Scale-invariant SDR of every estimate with respect to every source.

    Arguments
    ---------
    estimates : torch.Tensor
        Estimated sources [B, L, J].
    sources : torch.Tensor
        True sources [B, L, K].
    num_samples : torch.Tensor
        Length of each item without padding [B]; L by default.

    Returns
    -------
    torch.Tensor
        SI-SDR in dB [B, K, J], the sources first.

    Example
    -------
    >>> sources = torch.eye(4)[None, :, :2]
    >>> pairwise_si_sdr(sources, sources).diagonal(dim1=1, dim2=2) > 60
    tensor([[True, True]])
    """
    estimates = _centre(estimates, num_samples)
    sources = _centre(sources, num_samples)
    tiny = torch.finfo(sources.dtype).tiny
    products = torch.bmm(sources.transpose(1, 2), estimates).square()
    energies = sources.square().sum(1).unsqueeze(2) * estimates.square().sum(
        1
    ).unsqueeze(1)
    # Squared cosine of the angle between source and estimate.
    similarity = products / energies.clamp_min(tiny)
    distortion = (1.0 - similarity).clamp_min(0.0)
    return 10.0 * ((similarity + EPSILON) / (distortion + EPSILON)).log10()
