"""Spectra as sets of time-frequency bins, and guards for silence and padding.

The N = T · F bins are ordered by frame, then by frequency.
"""

import torch
from torch import Tensor


def tiny(x: Tensor) -> float:
    """Smallest normal number of the type of x: a guard for divisions.

    Arguments
    ---------
    x : torch.Tensor
        Tensor of a floating-point type.

    Returns
    -------
    float
        The number.
    """
    return torch.finfo(x.dtype).tiny


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision as float32, in which clustering and transforms run.

    Arguments
    ---------
    x : torch.Tensor
        Tensor of a floating-point type.

    Returns
    -------
    torch.Tensor
        The same in float32 or more.
    """
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def valid_mask(lengths: Tensor, size: int) -> Tensor:
    """Which samples, or frames, of each item are not padding.

    Arguments
    ---------
    lengths : torch.Tensor
        Length of each item [B].
    size : int
        Length of the padded batch.

    Returns
    -------
    torch.Tensor
        True where there is no padding [B, size].

    Example
    -------
    >>> valid_mask(torch.tensor([2, 1]), 2)
    tensor([[ True,  True],
            [ True, False]])
    """
    return torch.arange(size, device=lengths.device) < lengths.view(-1, 1)


def relative_magnitudes(
    spectrum: Tensor, num_frames: Tensor | None = None
) -> Tensor:
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
    magnitudes = spectrum.abs().transpose(1, 2)  # [B, T, F]
    frames: int | Tensor = magnitudes.shape[1]
    if num_frames is not None:
        valid = valid_mask(num_frames, magnitudes.shape[1])  # [B, T]
        magnitudes = magnitudes * valid.unsqueeze(2)
        frames = num_frames.view(-1, 1, 1)
    energy = magnitudes.square().sum((1, 2), keepdim=True)  # [B, 1, 1]
    level = (energy / (frames * magnitudes.shape[2])).sqrt()
    return magnitudes / level.clamp_min(tiny(level))


def flatten_bins(spectra: Tensor) -> Tensor:
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


def unflatten_masks(masks: Tensor, num_bins: int) -> Tensor:
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
