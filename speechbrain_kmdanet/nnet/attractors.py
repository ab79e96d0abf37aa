"""Attractor estimators: embeddings in, one attractor per talker out.

All estimators are called alike, so that a model can take its attractors from
one in training and from another at inference.

References: Cadoux et al., "Closing the training/inference gap for deep
attractor networks"; Luo, Chen and Mesgarani, "Speaker-independent speech
separation with deep attractor network".

Authors
 * The speechbrain_kmdanet developers 2026
"""

import math

import torch
from torch import nn

from speechbrain_kmdanet.processing.kmeans import kmeans


def check_energetic(share):
    """Returns the share of the bins that count, if it is one.

    Arguments
    ---------
    share : float
        Share of the bins, the most energetic first.

    Returns
    -------
    float
        The share.

    Raises
    ------
    ValueError
        If it is not in (0, 1].

    Example
    -------
    >>> check_energetic(0.9)
    0.9
    """
    if not 0.0 < share <= 1.0:
        raise ValueError(f"energetic must be in (0, 1], got {share}")
    return share


def energetic_bins(weights, num_bins=None, share=0.9):
    """Index e of Eq. 1: the most energetic bins of a mixture, never silence.

    Arguments
    ---------
    weights : torch.Tensor
        Energies |X|² of the bins [B, N]; 0 in the padding.
    num_bins : torch.Tensor
        Number of bins of each item that are not padding [B]; all by default.
    share : float
        Share of these bins that count, in (0, 1].

    Returns
    -------
    torch.Tensor
        Whether each bin counts [B, N], bool.

    Example
    -------
    >>> energetic_bins(torch.tensor([[3.0, 0.0, 1.0, 2.0]]), share=0.5)
    tensor([[ True, False, False,  True]])
    """
    if num_bins is None:
        # Five times as fast as sorting, but of one rank for all items.
        left_out = weights.shape[1] - math.ceil(share * weights.shape[1])
        threshold = weights.kthvalue(left_out + 1, dim=1, keepdim=True).values
    else:
        ranked = weights.sort(dim=1, descending=True).values
        kept = (share * num_bins).ceil().long()
        threshold = ranked.gather(1, kept.unsqueeze(1) - 1)
    return (weights >= threshold) & (weights > 0)


class OracleAttractors(nn.Module):
    """Attractors from the ground truth (Eq. 1): training of classic DANet.

    The attractor of a source is the mean embedding of the bins where that
    source dominates, among the most energetic bins of the mixture.

    Arguments
    ---------
    energetic : float
        Share of the bins that count, the most energetic first, in (0, 1].

    Example
    -------
    >>> embeddings = torch.tensor([[[1.0], [3.0], [7.0]]])
    >>> sources = torch.tensor([[[2.0, 2.0, 0.0], [1.0, 1.0, 1.0]]])
    >>> estimator = OracleAttractors(energetic=1.0)
    >>> estimator(embeddings, torch.ones(1, 3), 2, sources)
    tensor([[[2.],
             [7.]]])
    """

    # Attractor l belongs to source l: no permutation has to be searched.
    ordered = True

    def __init__(self, energetic=0.9):
        super().__init__()
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
            Magnitudes of the sources [B, K, N].
        num_bins : torch.Tensor
            Number of bins of each item that are not padding [B]; all by
            default.

        Returns
        -------
        torch.Tensor
            Attractors [B, K, D].

        Raises
        ------
        ValueError
            If there are no sources, or not as many as attractors.
        """
        if sources is None or sources.shape[1] != num_spks:
            got = None if sources is None else tuple(sources.shape)
            raise ValueError(
                "oracle attractors need the magnitudes of the sources "
                f"[batch, num_spks={num_spks}, bins], got {got}"
            )
        energetic = energetic_bins(weights, num_bins, self.energetic)
        # On the CPU, argmax takes twenty times as long as max.
        dominant = sources.max(1, keepdim=True).indices
        talkers = torch.arange(num_spks, device=dominant.device).view(-1, 1)
        members = (dominant == talkers) & energetic.unsqueeze(1)
        members = members.to(embeddings.dtype)
        counts = members.sum(2, keepdim=True)
        with torch.autocast(embeddings.device.type, enabled=False):
            sums = torch.bmm(members, embeddings)
        return sums / counts.clamp_min(1.0)


class KMeansAttractors(nn.Module):
    """Attractors that are centroids of a weighted k-means (Algorithm 1, Eq. 6).

    Differentiable: in training, this is the unfolded k-means of k-means DANet.

    Arguments
    ---------
    metric : str
        "euclidean" or "spherical".
    iterations : int
        Number of iterations: L in training.
    init : str
        Initialisation, "kmeans++" or "random".
    num_init : int
        Number of restarts, the best of which is kept.
    negligible : float
        Bins below this share of the mean energy wait for the last iteration,
        see :func:`~speechbrain_kmdanet.processing.kmeans.kmeans`; 0: none.
    seed : int
        Seed of the initialisation, which makes the result a function of the
        input alone. Without it, the global random state is used.

    Example
    -------
    >>> estimator = KMeansAttractors("spherical", iterations=5)
    >>> estimator(torch.randn(3, 100, 20), torch.rand(3, 100), 2).shape
    torch.Size([3, 2, 20])
    """

    ordered = False

    def __init__(
        self,
        metric="euclidean",
        iterations=20,
        init="kmeans++",
        num_init=1,
        negligible=0.03,
        seed=None,
    ):
        super().__init__()
        self.metric = metric
        self.iterations = iterations
        self.init = init
        self.num_init = num_init
        self.negligible = negligible
        self.seed = seed

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
            Not used: padding has weight 0.

        Returns
        -------
        torch.Tensor
            Attractors [B, K, D].
        """
        generator = None
        if self.seed is not None:
            # On the CPU whatever the device: the same draws everywhere.
            generator = torch.Generator().manual_seed(self.seed)
        return kmeans(
            embeddings,
            num_spks,
            weights=weights,
            metric=self.metric,
            iterations=self.iterations,
            init=self.init,
            num_init=self.num_init,
            negligible=self.negligible,
            with_inertia=False,
            generator=generator,
        ).centroids
