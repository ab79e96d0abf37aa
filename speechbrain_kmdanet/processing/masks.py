"""Masks: from embeddings and attractors, and ideal ones of known sources.

Masks of attractors are softmaxes, over the attractors, of the similarity of a
time-frequency bin's embedding to each attractor: they sum to one in every bin.
Ideal masks are what masking could reach if the sources were known.

References: Cadoux et al., "Closing the training/inference gap for deep
attractor networks"; Luo and Mesgarani, "Conv-TasNet: Surpassing ideal
time-frequency magnitude masking for speech separation" (binary, ratio and
Wiener-like masks); Erdogan, Hershey, Watanabe and Le Roux, "Phase-sensitive and
recognition-boosted speech separation using deep recurrent neural networks".
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.processing.bins import (
    MOST,
    check_tensor,
    describe,
    full_precision,
    on_host,
    tiny,
)

# What attractors have in common is taken away where it is so many times as large
# as what they differ by.
FAR = 10.0


def dot_product_masks(embeddings: Tensor, attractors: Tensor) -> Tensor:
    """Softmax of the dot products (Eq. 2 and 5b).

    Arguments
    ---------
    embeddings : torch.Tensor
        Embeddings V [B, N, D].
    attractors : torch.Tensor
        Attractors A [B, K, D].

    Returns
    -------
    torch.Tensor
        Masks [B, K, N].

    Raises
    ------
    UserError
        If the attractors do not fit the embeddings.

    Example
    -------
    >>> embeddings = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    >>> dot_product_masks(embeddings, 200.0 * torch.eye(2)[None])
    tensor([[[1.0000, 0.5000],
             [0.0000, 0.5000]]])
    """
    _check_attractors(embeddings, attractors)
    return _dot_products(embeddings, attractors).softmax(dim=1)


def distance_masks(embeddings: Tensor, attractors: Tensor) -> Tensor:
    """Softmax of −‖v − a‖ (Eq. 5a), see :func:`dot_product_masks`.

    Example
    -------
    >>> embeddings = torch.tensor([[[0.0, 0.0], [25.0, 25.0]]])
    >>> distance_masks(embeddings, 50.0 * torch.eye(2)[None])
    tensor([[[0.5000, 0.5000],
             [0.5000, 0.5000]]])
    """
    _check_attractors(embeddings, attractors)
    embeddings, attractors = _to_origin(embeddings, attractors)
    # The squares nearly cancel beside an attractor: no half precision.
    with full_precision(embeddings.device):
        products = _dot_products(embeddings, attractors)  # [B, K, N]
    squares = (
        embeddings.square().sum(2).unsqueeze(1)
        - 2.0 * products
        + attractors.square().sum(2, keepdim=True)
    )
    # The root has no gradient at 0; rounding can even go below.
    distances = squares.clamp_min(1e-6).sqrt()
    return (-distances).softmax(dim=1)


def _check_attractors(embeddings: Tensor, attractors: Tensor) -> None:
    """Refuses attractors [B, K, D] that do not fit embeddings [B, N, D]."""
    check_tensor(
        "embeddings", embeddings, batch=None, bins=None, dimensions=None
    )
    check_tensor(
        "attractors",
        attractors,
        device=embeddings.device,
        batch=len(embeddings),
        talkers=None,
        dimensions=embeddings.shape[2],
    )


def _to_origin(embeddings: Tensor, attractors: Tensor) -> tuple[Tensor, Tensor]:
    """Both without what the attractors of an item have in common.

    Where it is large, it would cancel in the distances, and leave rounding.
    """
    points = attractors.detach()
    centre = points.mean(1, keepdim=True)  # [B, 1, D]
    spread = (points - centre).square().sum(2).mean(1)  # [B]
    far = centre.square().sum((1, 2)) > FAR**2 * spread
    # Elsewhere, to spare a copy would be to wait for the device.
    if on_host(far) and not far.any():
        return embeddings, attractors
    shift = torch.where(far.view(-1, 1, 1), centre, 0.0)
    return embeddings - shift, attractors - shift


def _dot_products(embeddings: Tensor, attractors: Tensor) -> Tensor:
    """Dot products [B, K, N]."""
    if torch.is_grad_enabled() and embeddings.requires_grad:
        # The gradient of V comes in the order of V, not transposed, which
        # halves the time of the way back; the way there is a little longer.
        products = torch.bmm(embeddings, attractors.transpose(1, 2))
        return products.transpose(1, 2).contiguous()
    return torch.bmm(attractors, embeddings.transpose(1, 2))


# From embeddings [B, N, D] and attractors [B, K, D] to masks [B, K, N].
ATTRACTOR_MASKS = {"dot_product": dot_product_masks, "distance": distance_masks}


def ideal_binary_masks(sources: Tensor) -> Tensor:
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

    Raises
    ------
    UserError
        If the spectra have another shape.

    Example
    -------
    >>> sources = torch.tensor([3.0 + 4.0j, 2.0, 0.0]).view(1, 3, 1, 1)
    >>> ideal_binary_masks(sources).flatten()
    tensor([1., 0., 0.])
    """
    _check_sources(sources, "real or complex")
    magnitudes = sources.abs().transpose(0, 1)  # [K, B, F, T]
    loudest = magnitudes.max(0, keepdim=True).indices  # not argmax: slow
    masks = torch.zeros_like(magnitudes).scatter_(0, loudest, 1.0)
    return masks * (magnitudes > 0)


def ideal_ratio_masks(sources: Tensor, power: float = 1.0) -> Tensor:
    """Gives each source its part of every bin, |S_i|^p / Σ_j |S_j|^p.

    Arguments
    ---------
    sources : torch.Tensor
        Complex spectra S of the sources [B, K, F, T].
    power : float
        Power p: 1 for ratio masks, 2 for Wiener-like ones.

    Returns
    -------
    torch.Tensor
        Masks [K, B, F, T], which sum to one; 0 in silent bins.

    Raises
    ------
    UserError
        If the spectra have another shape, or the power is not positive.

    Example
    -------
    >>> sources = torch.tensor([3.0j, 1.0]).view(1, 2, 1, 1)
    >>> ideal_ratio_masks(sources).flatten()
    tensor([0.7500, 0.2500])
    """
    _check_sources(sources, "real or complex")
    if not isinstance(power, int | float) or not 0.0 < power <= MOST:
        raise UserError(
            f"power must be positive and at most {MOST:.0e}, got "
            f"{describe(power)}"
        )
    magnitudes = sources.abs().transpose(0, 1)  # [K, B, F, T]
    # Relative to the loudest, powers neither underflow nor overflow.
    least = tiny(magnitudes)
    magnitudes = magnitudes / magnitudes.amax(0).clamp_min(least)
    powers = magnitudes.pow(power)
    return powers / powers.sum(0).clamp_min(least)


def wiener_like_masks(sources: Tensor) -> Tensor:
    """By the energies, |S_i|² / Σ_j |S_j|², see :func:`ideal_ratio_masks`.

    Example
    -------
    >>> sources = torch.tensor([3.0j, 1.0]).view(1, 2, 1, 1)
    >>> wiener_like_masks(sources).flatten()
    tensor([0.9000, 0.1000])
    """
    return ideal_ratio_masks(sources, power=2.0)


def phase_sensitive_masks(
    sources: Tensor, mixture: Tensor, truncate: bool = True
) -> Tensor:
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

    Raises
    ------
    UserError
        If the spectra are not complex, or do not fit each other.

    Example
    -------
    >>> sources = torch.tensor([3.0 + 1.0j, -1.0 - 1.0j]).view(1, 2, 1, 1)
    >>> mixture = sources.sum(1)
    >>> phase_sensitive_masks(sources, mixture).flatten()
    tensor([1., 0.])
    >>> phase_sensitive_masks(sources, mixture, truncate=False).flatten()
    tensor([ 1.5000, -0.5000])
    """
    _check_sources(sources, "complex")
    check_tensor(
        "mixture",
        mixture,
        "complex",
        sources.device,
        batch=len(sources),
        bins=sources.shape[2],
        frames=sources.shape[3],
    )
    magnitudes = mixture.abs()
    magnitudes = magnitudes.clamp_min(tiny(magnitudes))  # [B, F, T]
    # Real numbers, as complex ones divide badly when they are tiny.
    cosines = (mixture.real / magnitudes).unsqueeze(1)
    sines = (mixture.imag / magnitudes).unsqueeze(1)
    projections = sources.real * cosines + sources.imag * sines
    # Where the sources cancel down to rounding, the masks stay finite.
    floor = torch.finfo(magnitudes.dtype).eps * sources.abs().amax(1)
    masks = projections / magnitudes.maximum(floor).unsqueeze(1)
    if truncate:
        masks = masks.clamp(0.0, 1.0)
    return masks.transpose(0, 1)  # [K, B, F, T]


def _check_sources(sources: Tensor, kind: str) -> None:
    """Refuses what are no spectra of sources."""
    check_tensor(
        "sources",
        sources,
        kind,
        batch=None,
        talkers=None,
        bins=None,
        frames=None,
    )


# From the spectra of the sources and of the mixture to masks.
IDEAL_MASKS: dict[str, Callable[..., Tensor]] = {
    "binary": lambda sources, mixture: ideal_binary_masks(sources),
    "ratio": lambda sources, mixture: ideal_ratio_masks(sources),
    "wiener": lambda sources, mixture: wiener_like_masks(sources),
    "phase_sensitive": phase_sensitive_masks,
    "phase_sensitive_untruncated": partial(
        phase_sensitive_masks, truncate=False
    ),
}
