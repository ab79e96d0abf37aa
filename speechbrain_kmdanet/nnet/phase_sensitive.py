"""Phase-sensitive mask inference.

References: Erdogan, Hershey, Watanabe and Le Roux, "Phase-sensitive and
recognition-boosted speech separation using deep recurrent neural networks";
Kolbæk, Yu, Tan and Jensen, "Multitalker speech separation with utterance-level
permutation invariant training of deep recurrent neural networks" (squared
error); Wang, Le Roux and Hershey, "Alternative objective functions for deep
clustering" (absolute error, truncated).

Authors
 * The speechbrain_kmdanet developers 2026
"""

import torch

from speechbrain_kmdanet.nnet.permutation import (
    best_permutation,
    permute_sources,
)
from speechbrain_kmdanet.processing.bins import relative_magnitudes
from speechbrain_kmdanet.processing.ideal_masks import phase_sensitive_masks


def phase_sensitive_loss(
    masks, spectrum, sources, num_frames=None, power=2, pit=True
):
    """Error of the masked magnitudes from the phase-sensitive ones.

    The target of source i is what of it is in phase with the mixture,
    |S_i| cos(∠S_i − ∠X), truncated to [0, |X|]. The error |·|^p, averaged over
    the sources, is relative to that of silence from the mixture, Σ |X|^p: the
    loss does not depend on the level of the mixture.

    Arguments
    ---------
    masks : torch.Tensor
        Masks M [K, B, F, T].
    spectrum : torch.Tensor
        Complex spectrum X of the mixture [B, F, T].
    sources : torch.Tensor
        Complex spectra S of the sources [B, K, F, T].
    num_frames : torch.Tensor
        Number of frames of each item that are not padding [B]; all by default.
    power : int
        2 for squared (uPIT), 1 for absolute errors (Chimera++).
    pit : bool
        Whether to search the permutation of least error; without it, mask l
        belongs to source l.

    Returns
    -------
    torch.Tensor
        Loss of each item [B]; 0 for silence.

    Raises
    ------
    ValueError
        If the shapes do not fit, or the power is another.

    Example
    -------
    >>> sources = torch.tensor([3.0 + 1.0j, 1.0 - 1.0j]).view(1, 2, 1, 1)
    >>> masks = torch.tensor([0.5, 0.5]).view(2, 1, 1, 1)
    >>> phase_sensitive_loss(masks, sources.sum(1), sources, power=1)
    tensor([0.2500])
    """
    if power not in (1, 2):
        raise ValueError(f"power must be 1 or 2, got {power!r}")
    masks = masks.transpose(0, 1)
    if masks.shape != sources.shape:
        raise ValueError(
            "masks [K, B, F, T] must fit sources [B, K, F, T] of shape "
            f"{tuple(sources.shape)}, got {tuple(masks.transpose(0, 1).shape)}"
        )
    targets = phase_sensitive_masks(sources, spectrum).transpose(0, 1)
    magnitudes = relative_magnitudes(spectrum, num_frames)
    magnitudes = magnitudes.transpose(1, 2).unsqueeze(1)

    def distance(one, other):
        """Sums |·|^p over the bins of pairs of sources."""
        error = (one - other) * magnitudes
        return error.abs().pow(power).sum((2, 3))

    if pit:
        with torch.no_grad():
            costs = [distance(target, masks) for target in targets.split(1, 1)]
            permutation = best_permutation(torch.stack(costs, dim=1))
        masks = permute_sources(masks, permutation)
    whole = masks.shape[1] * magnitudes.pow(power).sum((1, 2, 3))
    error = distance(masks, targets).sum(1)
    return error / whole.clamp_min(torch.finfo(whole.dtype).tiny)
