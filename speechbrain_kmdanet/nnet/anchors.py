"""Anchored attractors: ADANet.

Reference: Luo, Chen and Mesgarani, "Speaker-independent speech separation with
deep attractor network", on the anchored deep attractor network; E3 of Cadoux
et al., "Closing the training/inference gap for deep attractor networks".

Authors
 * The speechbrain_kmdanet developers 2026
"""

from itertools import combinations

import torch
from torch import nn

from speechbrain_kmdanet.nnet.attractors import check_energetic, energetic_bins


class AnchoredAttractors(nn.Module):
    """Attractors refined from trainable anchors, the same way in both modes.

    Each subset of K of the N anchors makes one set of attractors: every bin is
    softly assigned to the anchors of the subset by its dot products with them,
    and the attractors are the means of the embeddings so weighted. Each item
    takes the set whose most similar pair of attractors is least similar.

    Arguments
    ---------
    embedding_dim : int
        Dimension D of the embeddings.
    num_anchors : int
        Number of anchors N, the largest number of talkers.
    energetic : float
        Share of the bins that count, the most energetic first, in (0, 1].

    Example
    -------
    >>> estimator = AnchoredAttractors(embedding_dim=2, num_anchors=3)
    >>> anchors = torch.tensor([[500.0, 0.0], [0.0, 500.0], [400.0, 0.0]])
    >>> _ = estimator.anchors.data.copy_(anchors)
    >>> embeddings = torch.tensor([[[1.0, 0.0], [3.0, 0.0], [0.0, 5.0]]])
    >>> estimator(embeddings, torch.ones(1, 3), 2)
    tensor([[[2., 0.],
             [0., 5.]]], grad_fn=<MulBackward0>)
    """

    ordered = False

    def __init__(self, embedding_dim=20, num_anchors=6, energetic=0.9):
        super().__init__()
        self.anchors = nn.Parameter(torch.randn(num_anchors, embedding_dim))
        self.energetic = check_energetic(energetic)

    def forward(
        self, embeddings, weights, num_spks, sources=None, num_bins=None
    ):
        """Computes the attractors.

        Arguments
        ---------
        embeddings : torch.Tensor
            Embeddings [B, N, D].
        weights : torch.Tensor
            Energies |X|² of the bins of the mixture [B, N].
        num_spks : int
            Number of attractors K.
        sources : torch.Tensor
            Not used.
        num_bins : torch.Tensor
            Number of bins of each item that are not padding [B]; all by
            default.

        Returns
        -------
        torch.Tensor
            Attractors [B, K, D]; zeros for a silent item.

        Raises
        ------
        ValueError
            If there are fewer anchors than attractors.
        """
        num_anchors = len(self.anchors)
        if num_spks > num_anchors:
            raise ValueError(
                f"num_spks={num_spks} needs at least that many anchors, got "
                f"num_anchors={num_anchors}: train a model with more of them"
            )
        # Such a copy does not wait for what the device has to do before.
        subsets = torch.tensor(list(combinations(range(num_anchors), num_spks)))
        subsets = subsets.to(embeddings.device, non_blocking=True)
        energetic = energetic_bins(weights, num_bins, self.energetic)
        with torch.autocast(embeddings.device.type, enabled=False):
            # The choice has no gradient: only the chosen set needs a graph.
            with torch.no_grad():
                scores = _scores(self.anchors, embeddings)
                similarities = [
                    _in_set_similarity(
                        _refine(scores[:, subset], embeddings, energetic)
                    )
                    for subset in subsets
                ]
            chosen = subsets[torch.stack(similarities).argmin(0)]
            scores = _scores(self.anchors[chosen], embeddings)
            return _refine(scores, embeddings, energetic)


def _scores(anchors, embeddings):
    """Dot products [B, K, N] of anchors [..., K, D] with the embeddings."""
    return anchors @ embeddings.transpose(1, 2)


def _refine(scores, embeddings, energetic):
    """Means [B, K, D] of the embeddings, weighted by their soft assignment.

    The weights are normalised as logarithms: an anchor far from all bins has
    assignments that are too small to be represented.
    """
    assignment = scores.log_softmax(dim=1)
    lowest = torch.finfo(assignment.dtype).min
    logarithms = assignment.masked_fill(~energetic.unsqueeze(1), lowest)
    means = logarithms.softmax(dim=2) @ embeddings
    return means * energetic.any(1).view(-1, 1, 1)  # 0 in silence


def _in_set_similarity(attractors):
    """Largest dot product of two of the attractors [B, K, D]; −∞ for K = 1."""
    products = attractors @ attractors.transpose(1, 2)
    same = torch.eye(
        products.shape[1], dtype=torch.bool, device=products.device
    )
    return products.masked_fill(same, -torch.inf).amax((1, 2))
