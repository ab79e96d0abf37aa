"""Checks of what a separator is asked to separate.

Each refusal is a ValueError of one sentence that names the argument, what was
expected and what came.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import operator

import torch


def check_num_spks(num_spks):
    """Returns a number of talkers as an int.

    Arguments
    ---------
    num_spks : object
        What was asked for.

    Returns
    -------
    int
        The number, at least 1.

    Raises
    ------
    ValueError
        If it is no integer >= 1.

    Example
    -------
    >>> check_num_spks(2)
    2
    """
    try:
        count = operator.index(num_spks)
    except TypeError:
        count = 0
    if count < 1 or isinstance(num_spks, bool):
        raise ValueError(f"num_spks must be an integer >= 1, got {num_spks!r}")
    return count


def check_shape(mix):
    """Refuses what is not a float tensor [B, L].

    Arguments
    ---------
    mix : object
        What was given as a batch of mixtures.

    Raises
    ------
    ValueError
        If it is something else, or empty.
    """
    if not isinstance(mix, torch.Tensor) or not mix.is_floating_point():
        got = getattr(mix, "dtype", type(mix).__name__)
        raise ValueError(
            f"mix must be a floating-point tensor [batch, samples], got {got}"
        )
    if mix.dim() != 2 or 0 in mix.shape:
        raise ValueError(
            "mix must be a non-empty batch of mono mixtures [batch, samples], "
            f"got shape {tuple(mix.shape)}"
        )


def absolute_lengths(lengths, mix):
    """Lengths of mixtures in samples.

    Arguments
    ---------
    lengths : torch.Tensor
        Relative lengths [B] in (0, 1]; None if all are of full length.
    mix : torch.Tensor
        Mixtures [B, L].

    Returns
    -------
    torch.Tensor
        Lengths in samples [B], int64, on the device of the mixtures.

    Raises
    ------
    ValueError
        If the lengths do not fit.

    Example
    -------
    >>> absolute_lengths([1.0, 0.5], torch.zeros(2, 800))
    tensor([800, 400])
    """
    batch, num_samples = mix.shape
    if lengths is None:
        lengths = torch.ones(batch)
    lengths = torch.as_tensor(lengths, device=mix.device).double()
    if lengths.shape != (batch,) or not ((lengths > 0) & (lengths <= 1)).all():
        raise ValueError(
            f"lengths must be {batch} relative lengths in (0, 1] for mix of "
            f"shape {tuple(mix.shape)}, got {lengths.tolist()}"
        )
    return (lengths * num_samples).round().long()


def check_num_samples(num_samples, n_fft, sample_rate):
    """Refuses mixtures that are shorter than one window.

    Arguments
    ---------
    num_samples : torch.Tensor
        Lengths of the mixtures in samples [B].
    n_fft : int
        Length of the window in samples.
    sample_rate : int
        Sample rate in Hz.

    Raises
    ------
    ValueError
        If a mixture is too short.
    """
    short = num_samples < n_fft
    if short.any():
        count = int(num_samples[short][0])
        raise ValueError(
            f"{_name(short)} has {count} samples "
            f"({1000 * count / sample_rate:g} ms at {sample_rate} Hz), at "
            f"least {n_fft} samples ({1000 * n_fft / sample_rate:g} ms) are "
            "needed"
        )


def check_finite(mix):
    """Refuses mixtures with NaN or infinite samples.

    Arguments
    ---------
    mix : torch.Tensor
        Mixtures [B, L].

    Raises
    ------
    ValueError
        If a sample is not finite.
    """
    bad = ~mix.isfinite().all(dim=1)
    if bad.any():
        raise ValueError(f"{_name(bad)} has NaN or infinite samples")


def check_num_bins(num_spks, num_bins):
    """Refuses more talkers than time-frequency bins.

    Arguments
    ---------
    num_spks : int
        Number of talkers.
    num_bins : torch.Tensor
        Number of bins of each mixture [B].

    Raises
    ------
    ValueError
        If a mixture has fewer bins.
    """
    scarce = num_bins < num_spks
    if scarce.any():
        raise ValueError(
            f"num_spks={num_spks} talkers cannot be told apart in the "
            f"{int(num_bins[scarce][0])} time-frequency bins of "
            f"{_name(scarce)}: ask for fewer talkers or give a longer mixture"
        )


def _name(chosen):
    """Name of the first chosen mixture of a batch [B]."""
    if len(chosen) == 1:
        return "the mixture"
    return f"item {int(chosen.nonzero()[0])} of the batch"
