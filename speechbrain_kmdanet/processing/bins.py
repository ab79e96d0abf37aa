"""Spectra as sets of time-frequency bins, which maskers embed and weight.

The N = T · F bins are ordered by frame, then by frequency.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import torch


def relative_magnitudes(spectrum, num_frames=None):
    """Magnitudes of a mixture relative to its level, their root mean square.

    Who sees these alone does not see how loud a mixture is, which makes
    separation scale-equivariant.

    Arguments
    ---------
    spectrum : torch.Tensor
        Complex spectrum of the mixture [B, F, T].
    num_frames : torch.Tensor
        Number of frames of each item that are not padding [B]; all by default.

    Returns
    -------
    torch.Tensor
        Magnitudes [B, T, F]; 0 in silence and in padded frames.

    Example
    -------
    >>> spectrum = torch.tensor([[[3.0j, 4.0, 9.0]]])
    >>> relative_magnitudes(spectrum, torch.tensor([2])).square().flatten()
    tensor([0.7200, 1.2800, 0.0000])
    """
    magnitudes = spectrum.abs().transpose(1, 2)
    frames = magnitudes.shape[1]
    if num_frames is not None:
        indices = torch.arange(frames, device=magnitudes.device)
        valid = indices < num_frames.view(-1, 1)
        magnitudes = magnitudes * valid.unsqueeze(2)
        frames = num_frames.view(-1, 1, 1)
    energy = magnitudes.square().sum((1, 2), keepdim=True)
    level = (energy / (frames * magnitudes.shape[2])).sqrt()
    return magnitudes / level.clamp_min(torch.finfo(level.dtype).tiny)


def flatten_bins(spectra):
    """Puts the bins of spectra or of masks in one row.

    Arguments
    ---------
    spectra : torch.Tensor
        Spectra [..., F, T].

    Returns
    -------
    torch.Tensor
        Their bins [..., N].

    Example
    -------
    >>> flatten_bins(torch.tensor([[1, 3], [2, 4]]))
    tensor([1, 2, 3, 4])
    """
    return spectra.transpose(-2, -1).flatten(-2)


def unflatten_masks(masks, num_bins):
    """Turns masks of bins in a row into masks of a spectrum.

    Arguments
    ---------
    masks : torch.Tensor
        Masks [B, K, N].
    num_bins : int
        Number of frequency bins F.

    Returns
    -------
    torch.Tensor
        Masks [K, B, F, T].

    Example
    -------
    >>> unflatten_masks(torch.tensor([[[1, 2, 3, 4]]]), num_bins=2)
    tensor([[[[1, 3],
              [2, 4]]]])
    """
    return masks.unflatten(2, (-1, num_bins)).permute(1, 0, 3, 2)


def check_active_bins(weights, num_spks):
    """Refuses more talkers than bins that count; silence is let through.

    Arguments
    ---------
    weights : torch.Tensor
        Weights of the bins in a clustering [B, N].
    num_spks : int
        Number of talkers.

    Raises
    ------
    ValueError
        If an item has fewer bins of positive weight, but some.
    """
    active = (weights > 0).sum(1)
    scarce = (active > 0) & (active < num_spks)
    if scarce.any():
        item = int(scarce.nonzero()[0])
        raise ValueError(
            f"num_spks={num_spks} talkers cannot be told apart in item {item} "
            f"of the batch, of which only {int(active[item])} time-frequency "
            "bins have enough energy: ask for fewer talkers or give a longer "
            "mixture"
        )
