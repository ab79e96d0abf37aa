"""Losses of separation, with or without the search of a permutation.

References: Cadoux et al., "Closing the training/inference gap for deep
attractor networks" (Eq. 3); Yu, Kolbæk, Tan and Jensen, "Permutation invariant
training of deep models for speaker-independent multi-talker speech
separation"; Le Roux, Wisdom, Erdogan and Hershey, "SDR - half-baked or well
done?"; Hershey, Chen, Le Roux and Watanabe, "Deep clustering: discriminative
embeddings for segmentation and separation" (affinities, Eq. 1 to 3); Erdogan,
Hershey, Watanabe and Le Roux, "Phase-sensitive and recognition-boosted speech
separation using deep recurrent neural networks"; Kolbæk, Yu, Tan and Jensen,
"Multitalker speech separation with utterance-level permutation invariant
training of deep recurrent neural networks" (squared phase-sensitive error);
Wang, Le Roux and Hershey, "Alternative objective functions for deep
clustering" (weights of affinities; absolute error, truncated).
"""

from functools import cache
from itertools import permutations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.processing.bins import (
    at_least_float32,
    full_precision,
    relative_magnitudes,
    tiny,
    valid_mask,
)
from speechbrain_kmdanet.processing.masks import phase_sensitive_masks

# All permutations up to here (24 of them); the Hungarian algorithm above.
MAX_EXHAUSTIVE = 4
LIMIT = 80.0  # dB: SI-SDR is from −80 to 80
# Energy that counts as silence: keeps the ratio and its gradient finite.
SILENCE = 1e-24


def best_permutation(costs: Tensor) -> Tensor:
    """Permutation of least total cost, for each item of a batch.

    Arguments
    ---------
    costs : torch.Tensor
        Cost of giving estimate j to source i [B, K, K], i before j.

    Returns
    -------
    torch.Tensor
        Index of the estimate that each source is given [B, K].

    Example
    -------
    >>> best_permutation(torch.tensor([[[5.0, 1.0], [2.0, 5.0]]]))
    tensor([[1, 0]])
    """
    num_spks = costs.shape[1]
    if num_spks > MAX_EXHAUSTIVE:
        solved = [
            torch.from_numpy(linear_sum_assignment(item)[1])
            for item in costs.detach().cpu()
        ]
        return torch.stack(solved).to(costs.device)
    candidates = _all_permutations(num_spks, costs.device)  # [K!, K]
    sources = torch.arange(num_spks, device=costs.device)
    totals = costs[:, sources, candidates].sum(2)  # [B, K!]
    return candidates[totals.argmin(1)]


@cache
def _all_permutations(num_spks: int, device: torch.device) -> Tensor:
    """All permutations [K!, K]; made once, as a copy waits for the device."""
    with torch.inference_mode(False):
        return torch.tensor(list(permutations(range(num_spks))), device=device)


def permute_sources(
    estimates: Tensor, permutation: Tensor, dim: int = 1
) -> Tensor:
    """Puts estimates into the order of the sources.

    Arguments
    ---------
    estimates : torch.Tensor
        Estimates with the batch first and the sources along ``dim``.
    permutation : torch.Tensor
        Index of the estimate of each source [B, K].
    dim : int
        Dimension of the sources.

    Returns
    -------
    torch.Tensor
        Estimates of the same shape, reordered along ``dim``.

    Example
    -------
    >>> permute_sources(torch.tensor([[7, 8]]), torch.tensor([[1, 0]]))
    tensor([[8, 7]])
    """
    shape = [1] * estimates.dim()
    shape[0], shape[dim] = permutation.shape
    return estimates.gather(dim, permutation.view(shape).expand_as(estimates))


def zero_padding(waveforms: Tensor, num_samples: Tensor | None) -> Tensor:
    """Sets samples beyond the length of each item to zero.

    Arguments
    ---------
    waveforms : torch.Tensor
        Waveforms [B, L, K].
    num_samples : torch.Tensor
        Length of each item [B]; None for L.

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
    return waveforms * valid_mask(num_samples, waveforms.shape[1]).unsqueeze(2)


def _centre(waveforms: Tensor, num_samples: Tensor | None) -> Tensor:
    """Removes the mean of each waveform [B, L, K], padding left out."""
    if num_samples is None:
        return waveforms - waveforms.mean(1, keepdim=True)
    waveforms = zero_padding(waveforms, num_samples)
    mean = waveforms.sum(1, keepdim=True) / num_samples.view(-1, 1, 1)
    return zero_padding(waveforms - mean, num_samples)


def _share(limit: float) -> float:
    """The share of an energy that is that many dB less."""
    return 10.0 ** (-limit / 10.0)


def si_sdr(
    estimates: Tensor,
    sources: Tensor,
    num_samples: Tensor | None = None,
    limit: float = LIMIT,
) -> Tensor:
    """Scale-invariant SDR of each estimate with respect to its own source.

    Arguments
    ---------
    estimates : torch.Tensor
        Estimated sources [B, L, K].
    sources : torch.Tensor
        True sources [B, L, K].
    num_samples : torch.Tensor
        Length of each item without padding [B]; L by default.
    limit : float
        Largest value in dB, which is approached softly.

    Returns
    -------
    torch.Tensor
        SI-SDR in dB [B, K], from −limit (a silent estimate) to the limit. That
        of a silent source has no meaning: callers leave it out.

    Example
    -------
    >>> source = torch.tensor([1.0, -1.0, 1.0, -1.0]).view(1, 4, 1)
    >>> noise = torch.tensor([0.1, 0.1, -0.1, -0.1]).view(1, 4, 1)
    >>> si_sdr(5 * (source + noise), source)
    tensor([[20.0000]])
    """
    estimates = _centre(estimates, num_samples)
    sources = _centre(sources, num_samples)
    energy = sources.square().sum(1)  # [B, K]
    scale = (estimates * sources).sum(1) / energy.clamp_min(tiny(sources))
    target = scale.unsqueeze(1) * sources  # [B, L, K]
    signal = target.square().sum(1)
    noise = (estimates - target).square().sum(1)
    epsilon = _share(limit)
    floor = epsilon * (signal + noise).detach()
    ratio = (signal + floor + epsilon * SILENCE) / (noise + floor + SILENCE)
    return 10.0 * ratio.log10()


def pairwise_si_sdr(
    estimates: Tensor, sources: Tensor, num_samples: Tensor | None = None
) -> Tensor:
    """SI-SDR of all pairs [B, K, J], sources first, see :func:`si_sdr`.

    Example
    -------
    >>> sources = torch.eye(4)[None, :, :2]
    >>> pairwise_si_sdr(sources, sources).diagonal(dim1=1, dim2=2) > 60
    tensor([[True, True]])
    """
    estimates = _centre(estimates, num_samples)
    sources = _centre(sources, num_samples)
    products = torch.bmm(sources.transpose(1, 2), estimates).square()
    energies = sources.square().sum(1).unsqueeze(2)  # [B, K, 1]
    energies = energies * estimates.square().sum(1).unsqueeze(1)  # [B, K, J]
    # Squared cosine of the angle between source and estimate.
    similarity = products / energies.clamp_min(tiny(sources))
    distortion = (1.0 - similarity).clamp_min(0.0)
    epsilon = _share(LIMIT)
    return 10.0 * ((similarity + epsilon) / (distortion + epsilon)).log10()


def si_sdr_loss(
    estimates: Tensor,
    sources: Tensor,
    num_samples: Tensor | None = None,
    pit: bool = True,
    limit: float = LIMIT,
) -> Tensor:
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
        Whether to search the permutation of highest SI-SDR; without it,
        estimate l belongs to source l.
    limit : float
        SI-SDR in dB that is approached softly: beyond it nothing is gained.

    Returns
    -------
    torch.Tensor
        Loss of each item, the mean over its sources [B].

    Raises
    ------
    UserError
        If the shapes differ.

    Example
    -------
    >>> t = torch.arange(800) / 8000
    >>> tones = torch.stack([(400 * t).sin(), (900 * t).sin()], dim=1)[None]
    >>> bool(si_sdr_loss(tones.flip(2), tones) < -60)
    True
    """
    check_shapes(estimates, sources)
    estimates = zero_padding(estimates, num_samples)
    sources = zero_padding(sources, num_samples)
    active = sources.square().sum(1) > 0  # [B, K]
    if pit:
        with torch.no_grad():
            scores = pairwise_si_sdr(estimates, sources, num_samples)
            permutation = best_permutation(-scores * active.unsqueeze(2))
        estimates = permute_sources(estimates, permutation, dim=2)
    scores = si_sdr(estimates, sources, num_samples, limit) * active
    return -scores.sum(1) / active.sum(1).clamp_min(1)


def check_shapes(estimates: Tensor, sources: Tensor) -> None:
    """Refuses estimates that do not fit the sources.

    Arguments
    ---------
    estimates, sources : torch.Tensor
        Estimates and sources.

    Raises
    ------
    UserError
        If their shapes differ.
    """
    if estimates.shape != sources.shape:
        raise UserError(
            f"estimates of shape {tuple(estimates.shape)} do not fit sources "
            f"of shape {tuple(sources.shape)}"
        )


def magnitude_loss(
    estimates: Tensor,
    sources: Tensor,
    num_frames: Tensor | None = None,
    pit: bool = True,
) -> Tensor:
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
    UserError
        If the shapes differ.

    Example
    -------
    >>> sources = torch.rand(2, 3, 5, 7)
    >>> magnitude_loss(sources.flip(1), sources)
    tensor([0., 0.])
    """
    check_shapes(estimates, sources)
    num_spks, num_bins, max_frames = sources.shape[1:]
    frames: int | Tensor = max_frames
    if num_frames is not None:
        frames = num_frames
        valid = valid_mask(num_frames, max_frames).view(-1, 1, 1, max_frames)
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
    return error / (num_spks * num_bins * frames)


def affinity_loss(
    embeddings: Tensor, memberships: Tensor, weights: Tensor
) -> Tensor:
    """Weighted mean squared error of the affinities of all pairs of bins.

    That of bins i and j, v_i·v_j, should be 1 if one talker dominates both and
    0 otherwise. The mean over the N × N pairs, weighted by w_i w_j, comes from
    products of D and K columns: ‖VᵀWV‖² − 2 ‖VᵀWY‖² + ‖YᵀWY‖², Σw = 1.

    Arguments
    ---------
    embeddings : torch.Tensor
        Embeddings V of unit norm [B, N, D]. Half precision is taken to
        float32.
    memberships : torch.Tensor
        One-hot dominant talker Y of each bin [B, N, K].
    weights : torch.Tensor
        Non-negative weights w of the bins [B, N], on any scale: their
        magnitudes (the magnitude ratio of Wang et al.) or energies; 0 in
        the padding.

    Returns
    -------
    torch.Tensor
        Loss of each item [B], at most 1 for embeddings in one orthant; 0 if
        all weights are.

    Raises
    ------
    UserError
        If the shapes do not fit.

    Example
    -------
    >>> talkers = torch.eye(2).unsqueeze(0)  # one bin each
    >>> affinity_loss(talkers, talkers, torch.ones(1, 2))
    tensor([0.])
    >>> # with one embedding for both, the two mixed pairs of four are wrong
    >>> affinity_loss(torch.ones(1, 2, 1), talkers, torch.ones(1, 2))
    tensor([0.5000])
    """
    bins = embeddings.shape[:2]
    if memberships.shape[:2] != bins or weights.shape != bins:
        raise UserError(
            f"memberships [B, N, K] and weights [B, N] must have the bins of "
            f"embeddings of shape {tuple(embeddings.shape)}, got "
            f"{tuple(memberships.shape)} and {tuple(weights.shape)}"
        )
    with full_precision(embeddings.device):
        embeddings = at_least_float32(embeddings)
        memberships = memberships.to(embeddings.dtype)
        weights = weights.to(embeddings.dtype).unsqueeze(2)  # [B, N, 1]
        total = weights.sum(1, keepdim=True)
        weights = weights / total.clamp_min(tiny(total))
        columns = embeddings.transpose(1, 2)  # [B, D, N]
        weighted = weights * memberships  # [B, N, K]
        return (
            _energy(columns @ (weights * embeddings))
            - 2.0 * _energy(columns @ weighted)
            + _energy(memberships.transpose(1, 2) @ weighted)
        )


def _energy(matrices: Tensor) -> Tensor:
    """Squared Frobenius norms [B]."""
    return matrices.square().sum((1, 2))


def phase_sensitive_loss(
    masks: Tensor,
    spectrum: Tensor,
    sources: Tensor,
    num_frames: Tensor | None = None,
    power: int = 2,
    pit: bool = True,
    truncate: bool = True,
) -> Tensor:
    """Error of the masked magnitudes from the phase-sensitive ones.

    The target of source i is what of it is in phase with the mixture,
    |S_i| cos(∠S_i − ∠X), by default truncated to [0, |X|]. The error |·|^p, averaged over
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
    truncate : bool
        Whether targets are limited to what masks from 0 to 1 can reach.

    Returns
    -------
    torch.Tensor
        Loss of each item [B]; 0 for silence.

    Raises
    ------
    UserError
        If the shapes do not fit, or the power is another.

    Example
    -------
    >>> sources = torch.tensor([3.0 + 1.0j, 1.0 - 1.0j]).view(1, 2, 1, 1)
    >>> masks = torch.tensor([0.5, 0.5]).view(2, 1, 1, 1)
    >>> phase_sensitive_loss(masks, sources.sum(1), sources, power=1)
    tensor([0.2500])
    """
    if power not in (1, 2):
        raise UserError(f"power must be 1 or 2, got {power!r}")
    masks = masks.transpose(0, 1)  # [B, K, F, T]
    if masks.shape != sources.shape:
        raise UserError(
            "masks [K, B, F, T] must fit sources [B, K, F, T] of shape "
            f"{tuple(sources.shape)}, got {tuple(masks.transpose(0, 1).shape)}"
        )
    targets = phase_sensitive_masks(sources, spectrum, truncate)
    targets = targets.transpose(0, 1)  # [B, K, F, T]
    magnitudes = relative_magnitudes(spectrum, num_frames)
    magnitudes = magnitudes.transpose(1, 2).unsqueeze(1)  # [B, 1, F, T]

    def distance(one: Tensor, other: Tensor) -> Tensor:
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
    return error / whole.clamp_min(tiny(whole))
