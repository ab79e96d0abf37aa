"""Masks from embeddings and attractors.

Masks are softmaxes, over the attractors, of the similarity of a
time-frequency bin's embedding to each attractor: they sum to one in every bin.

Reference: Cadoux et al., "Closing the training/inference gap for deep
attractor networks".

Authors
 * The speechbrain_kmdanet developers 2026
"""

import torch


def dot_product_masks(embeddings, attractors):
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

    Example
    -------
    >>> embeddings = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    >>> dot_product_masks(embeddings, 200.0 * torch.eye(2)[None])
    tensor([[[1.0000, 0.5000],
             [0.0000, 0.5000]]])
    """
    return _dot_products(embeddings, attractors).softmax(dim=1)


def distance_masks(embeddings, attractors):
    """Softmax of the negative Euclidean distances (Eq. 5a).

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

    Example
    -------
    >>> embeddings = torch.tensor([[[0.0, 0.0], [25.0, 25.0]]])
    >>> distance_masks(embeddings, 50.0 * torch.eye(2)[None])
    tensor([[[0.5000, 0.5000],
             [0.5000, 0.5000]]])
    """
    # The squares nearly cancel beside an attractor: no half precision.
    with torch.autocast(embeddings.device.type, enabled=False):
        products = _dot_products(embeddings, attractors)
    squares = (
        embeddings.square().sum(2).unsqueeze(1)
        - 2.0 * products
        + attractors.square().sum(2, keepdim=True)
    )
    # The root has no gradient at 0; rounding can even go below.
    distances = squares.clamp_min(1e-6).sqrt()
    return (-distances).softmax(dim=1)


def _dot_products(embeddings, attractors):
    """Dot products [B, K, N]."""
    if torch.is_grad_enabled() and embeddings.requires_grad:
        # The gradient of V comes in the order of V, not transposed, which
        # halves the time of the way back; the way there is a little longer.
        products = torch.bmm(embeddings, attractors.transpose(1, 2))
        return products.transpose(1, 2).contiguous()
    return torch.bmm(attractors, embeddings.transpose(1, 2))
