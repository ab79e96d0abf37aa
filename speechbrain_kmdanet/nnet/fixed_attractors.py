"""Fixed attractors: the centroids of those seen in training.

References: Chen, Luo and Mesgarani, "Deep attractor network for
single-microphone speaker separation"; E1 of Cadoux et al., "Closing the
training/inference gap for deep attractor networks".

Authors
 * The speechbrain_kmdanet developers 2026
"""

import torch
from torch import nn

from speechbrain_kmdanet.nnet.attractors import OracleAttractors
from speechbrain_kmdanet.processing.kmeans import kmeans


class FixedAttractors(nn.Module):
    """Oracle attractors in training, the same for every mixture afterwards.

    In training mode, the oracle attractors of the last mixtures are kept for
    each number of talkers. In evaluation mode, the attractors are the k-means
    centroids of those. All of it is in the state dict.

    Arguments
    ---------
    embedding_dim : int
        Dimension D of the embeddings.
    max_spks : int
        Largest number of talkers.
    memory : int
        Number of mixtures whose attractors are kept.
    energetic : float
        Share of the bins that count for the oracle attractors, the most
        energetic first, in (0, 1].

    Example
    -------
    >>> estimator = FixedAttractors(embedding_dim=1, max_spks=2)
    >>> embeddings = torch.tensor([[[1.0], [7.0]], [[5.0], [1.0]]])
    >>> sources = torch.eye(2).expand(2, 2, 2)
    >>> estimator(embeddings, torch.ones(2, 2), 2, sources)[0]
    tensor([[1.],
            [7.]])
    >>> _ = estimator.eval()
    >>> attractors = estimator(torch.randn(3, 9, 1), torch.rand(3, 9), 2)
    >>> attractors[0].sort(dim=0).values
    tensor([[1.],
            [6.]])
    """

    def __init__(self, embedding_dim=20, max_spks=3, memory=250, energetic=0.9):
        super().__init__()
        self.oracle = OracleAttractors(energetic)
        self.max_spks = max_spks
        self.memory = memory
        for k in range(1, max_spks + 1):
            seen = torch.zeros(memory, k, embedding_dim)
            self.register_buffer(f"seen_{k}", seen)
            self.register_buffer(f"centroids_{k}", torch.zeros_like(seen[0]))
        # Mixtures of each number of talkers recorded so far, and when the
        # centroids were found.
        counts = torch.zeros(max_spks, dtype=torch.long)
        self.register_buffer("recorded", counts)
        self.register_buffer("fitted", counts.clone())

    @property
    def ordered(self):
        """Whether, in the current mode, attractor l belongs to source l."""
        return self.training and self.oracle.ordered

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
            Magnitudes of the sources [B, K, N], in training mode only.
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
            If there are no sources in training mode, or no mixture of so many
            talkers was seen in training before.
        """
        if not 1 <= num_spks <= self.max_spks:
            raise ValueError(
                f"num_spks must be from 1 to max_spks={self.max_spks}, got "
                f"{num_spks}"
            )
        if not self.training:
            centroids = self._fit(num_spks)
            return centroids.expand(embeddings.shape[0], -1, -1)
        attractors = self.oracle(
            embeddings, weights, num_spks, sources, num_bins
        )
        self._record(attractors)
        return attractors

    @torch.no_grad()
    def _record(self, attractors):
        """Writes attractors [B, K, D] over the oldest, if all K are defined."""
        num_spks = attractors.shape[1]
        seen = self.get_buffer(f"seen_{num_spks}")
        recorded = self.recorded[num_spks - 1]
        attractors = attractors[: self.memory].to(seen)
        # The oracle gives zeros to a source that dominates nowhere.
        norms = torch.linalg.vector_norm(attractors, dim=2)
        defined = (norms > 0).all(1)  # not so of NaN either
        # Those first, and behind them what the places hold already: no shape
        # depends on a value, for which the host would have to wait.
        order = (~defined).long().argsort(stable=True)
        items = torch.arange(len(defined), device=defined.device)
        places = (recorded + items) % self.memory
        seen[places] = torch.where(
            defined[order].view(-1, 1, 1), attractors[order], seen[places]
        )
        recorded += defined.sum()

    @torch.no_grad()
    def _fit(self, num_spks):
        """Centroids [K, D], found anew if there were recordings since."""
        recorded = int(self.recorded[num_spks - 1])
        if recorded == 0:
            raise ValueError(
                f"the fixed attractors of num_spks={num_spks} were never "
                f"fitted: train on mixtures of {num_spks} talkers first"
            )
        centroids = self.get_buffer(f"centroids_{num_spks}")
        if recorded != int(self.fitted[num_spks - 1]):
            seen = self.get_buffer(f"seen_{num_spks}")[:recorded]
            found = kmeans(
                seen.flatten(0, 1).unsqueeze(0),
                num_spks,
                num_init=10,
                generator=torch.Generator().manual_seed(0),
            )
            centroids.copy_(found.centroids[0])
            self.fitted[num_spks - 1] = recorded
        return centroids
