"""Attractor estimators: embeddings in, one attractor per talker out.

All estimators are called alike, so that a model can take its attractors from
one in training and from another at inference.

References: Cadoux et al., "Closing the training/inference gap for deep
attractor networks"; Luo, Chen and Mesgarani, "Speaker-independent speech
separation with deep attractor network" (oracle and anchored attractors); Chen,
Luo and Mesgarani, "Deep attractor network for single-microphone speaker
separation" (fixed attractors).
"""

import math
from collections.abc import Callable
from itertools import combinations

import torch
from torch import Tensor, nn

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.nnet.parallel import gather_items
from speechbrain_kmdanet.processing.bins import full_precision, not_compiled
from speechbrain_kmdanet.processing.kmeans import kmeans


class AttractorEstimator(nn.Module):
    """What all estimators have in common: how they are called.

    An estimator implements ``estimate``, which takes the arguments of
    :meth:`forward`. The attribute ``ordered`` says whether, in the current
    mode, attractor l belongs to source l, so that no permutation has to be
    searched; then the sources have to be given.
    """

    ordered = False
    estimate: Callable[..., Tensor]

    def forward(
        self,
        embeddings: Tensor,
        energies: Tensor,
        num_spks: int,
        sources: Tensor | None = None,
        num_bins: Tensor | None = None,
    ) -> Tensor:
        """Computes the attractors.

        Arguments
        ---------
        embeddings : torch.Tensor
            Embeddings V [B, N, D].
        energies : torch.Tensor
            Energies |X|² of the bins of the mixture [B, N], or other weights
            of theirs; 0 in the padding.
        num_spks : int
            Number of attractors K.
        sources : torch.Tensor
            Magnitudes of the sources [B, K, N], which oracle attractors need.
        num_bins : torch.Tensor
            Number of bins of each item that are not padding [B]; all by
            default.

        Returns
        -------
        torch.Tensor
            Attractors A [B, K, D].

        Raises
        ------
        UserError
            If there cannot be so many attractors, or the sources are missing.
        """
        # What it does depends on values: each step would be compiled anew.
        estimate = not_compiled(self.estimate)
        return estimate(embeddings, energies, num_spks, sources, num_bins)


def energetic_bins(
    energies: Tensor, num_bins: Tensor | None = None, share: float = 0.9
) -> Tensor:
    """Index e of Eq. 1: the most energetic bins of a mixture, never silence.

    Arguments
    ---------
    energies : torch.Tensor
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
        left_out = energies.shape[1] - math.ceil(share * energies.shape[1])
        threshold = energies.kthvalue(left_out + 1, dim=1, keepdim=True).values
    else:
        ranked = energies.sort(dim=1, descending=True).values
        kept = (share * num_bins).ceil().long()
        kept = kept.to(energies.device, non_blocking=True)
        threshold = ranked.gather(1, kept.unsqueeze(1) - 1)
    return (energies >= threshold) & (energies > 0)


def _check_share(share: float) -> float:
    """The share of the bins that count, if it is one."""
    if not 0.0 < share <= 1.0:
        raise UserError(f"energetic must be in (0, 1], got {share}")
    return share


class OracleAttractors(AttractorEstimator):
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

    ordered = True

    def __init__(self, energetic: float = 0.9) -> None:
        super().__init__()
        self.energetic = _check_share(energetic)

    def estimate(
        self,
        embeddings: Tensor,
        energies: Tensor,
        num_spks: int,
        sources: Tensor | None,
        num_bins: Tensor | None,
    ) -> Tensor:
        """Means of the dominated bins, see :meth:`AttractorEstimator.forward`."""
        if sources is None or sources.shape[1] != num_spks:
            got = None if sources is None else tuple(sources.shape)
            raise UserError(
                "oracle attractors need the magnitudes of the sources "
                f"[batch, num_spks={num_spks}, bins], got {got}"
            )
        loud = energetic_bins(energies, num_bins, self.energetic)
        # On the CPU, argmax takes twenty times as long as max.
        dominant = sources.max(1, keepdim=True).indices  # [B, 1, N]
        talkers = torch.arange(num_spks, device=dominant.device).view(-1, 1)
        members = (dominant == talkers) & loud.unsqueeze(1)
        members = members.to(embeddings.dtype)  # [B, K, N]
        counts = members.sum(2, keepdim=True)
        with full_precision(embeddings.device):
            sums = torch.bmm(members, embeddings)  # [B, K, D]
        return sums / counts.clamp_min(1.0)


class KMeansAttractors(AttractorEstimator):
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
        Bins below this times the mean energy wait for the last iteration,
        see :func:`~speechbrain_kmdanet.processing.kmeans.kmeans`; 0: none.
    seed : int
        Seed of the initialisation, which makes the result a function of the
        input alone. Without it, that of the training step is used, which all
        of its processes are to share, or the global random state.

    Example
    -------
    >>> estimator = KMeansAttractors("spherical", iterations=5)
    >>> estimator(torch.randn(3, 100, 20), torch.rand(3, 100), 2).shape
    torch.Size([3, 2, 20])
    """

    # Written by a training before each step, if its draws are to be its own.
    step_seed: int | None = None

    def __init__(
        self,
        metric: str = "euclidean",
        iterations: int = 20,
        init: str = "kmeans++",
        num_init: int = 1,
        negligible: float = 0.03,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.metric = metric
        self.iterations = iterations
        self.init = init
        self.num_init = num_init
        self.negligible = negligible
        self.seed = seed

    def estimate(
        self, embeddings: Tensor, energies: Tensor, num_spks: int, *_: object
    ) -> Tensor:
        """Centroids of the bins, see :meth:`AttractorEstimator.forward`."""
        return kmeans(
            embeddings,
            num_spks,
            weights=energies,
            metric=self.metric,
            iterations=self.iterations,
            init=self.init,
            num_init=self.num_init,
            negligible=self.negligible,
            with_inertia=False,
            generator=self.step_seed if self.seed is None else self.seed,
        ).centroids


class AnchoredAttractors(AttractorEstimator):
    """ADANet: attractors refined from trainable anchors, in both modes (E3).

    Each subset of K of the N anchors makes one set of attractors: every bin is
    softly assigned to the anchors of the subset by its dot products with them,
    and the attractors are the means of the embeddings so weighted; zeros for a
    silent item. Each item takes the set whose most similar pair of attractors
    is least similar.

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

    def __init__(
        self,
        embedding_dim: int = 20,
        num_anchors: int = 6,
        energetic: float = 0.9,
    ) -> None:
        super().__init__()
        self.anchors = nn.Parameter(torch.randn(num_anchors, embedding_dim))
        self.energetic = _check_share(energetic)

    def estimate(
        self,
        embeddings: Tensor,
        energies: Tensor,
        num_spks: int,
        sources: Tensor | None,
        num_bins: Tensor | None,
    ) -> Tensor:
        """The best set's means, see :meth:`AttractorEstimator.forward`."""
        num_anchors = len(self.anchors)
        if num_spks > num_anchors:
            raise UserError(
                f"num_spks={num_spks} needs at least that many anchors, got "
                f"num_anchors={num_anchors}: train a model with more of them"
            )
        # Such a copy does not wait for what the device has to do before.
        subsets = torch.tensor(list(combinations(range(num_anchors), num_spks)))
        subsets = subsets.to(embeddings.device, non_blocking=True)
        loud = energetic_bins(energies, num_bins, self.energetic)
        with full_precision(embeddings.device):
            # The choice has no gradient: only the chosen set needs a graph.
            with torch.no_grad():
                scores = _scores(self.anchors, embeddings)  # [B, N anchors, N]
                similarities = [
                    _in_set_similarity(
                        _refine(scores[:, subset], embeddings, loud)
                    )
                    for subset in subsets
                ]
            chosen = subsets[torch.stack(similarities).argmin(0)]  # [B, K]
            scores = _scores(self.anchors[chosen], embeddings)  # [B, K, N]
            return _refine(scores, embeddings, loud)


def _scores(anchors: Tensor, embeddings: Tensor) -> Tensor:
    """Dot products [B, K, N] of anchors [..., K, D] with the embeddings."""
    return anchors @ embeddings.transpose(1, 2)


def _refine(scores: Tensor, embeddings: Tensor, loud: Tensor) -> Tensor:
    """Means [B, K, D] of the embeddings, weighted by their soft assignment.

    The weights are normalised as logarithms: an anchor far from all bins has
    assignments that are too small to be represented.
    """
    assignment = scores.log_softmax(dim=1)
    lowest = torch.finfo(assignment.dtype).min
    logarithms = assignment.masked_fill(~loud.unsqueeze(1), lowest)
    means = logarithms.softmax(dim=2) @ embeddings
    return means * loud.any(1).view(-1, 1, 1)  # 0 in silence


def _in_set_similarity(attractors: Tensor) -> Tensor:
    """Largest dot product of two of the attractors [B, K, D]; −∞ for K = 1."""
    products = attractors @ attractors.transpose(1, 2)
    same = torch.eye(
        products.shape[1], dtype=torch.bool, device=products.device
    )
    return products.masked_fill(same, -torch.inf).amax((1, 2))


class FixedAttractors(AttractorEstimator):
    """Oracle attractors in training, the same for every mixture after it (E1).

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

    recorded: Tensor
    fitted: Tensor

    def __init__(
        self,
        embedding_dim: int = 20,
        max_spks: int = 3,
        memory: int = 250,
        energetic: float = 0.9,
    ) -> None:
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
    def ordered(self) -> bool:  # type: ignore[override]
        """Whether, in the current mode, attractor l belongs to source l."""
        return self.training and self.oracle.ordered

    def estimate(
        self,
        embeddings: Tensor,
        energies: Tensor,
        num_spks: int,
        sources: Tensor | None,
        num_bins: Tensor | None,
    ) -> Tensor:
        """Oracle ones or centroids, see :meth:`AttractorEstimator.forward`."""
        if not 1 <= num_spks <= self.max_spks:
            raise UserError(
                f"num_spks must be from 1 to max_spks={self.max_spks}, got "
                f"{num_spks}"
            )
        if not self.training:
            centroids = self._fit(num_spks)
            return centroids.expand(embeddings.shape[0], -1, -1)
        attractors = self.oracle(
            embeddings, energies, num_spks, sources, num_bins
        )
        self._record(attractors)
        return attractors

    @torch.no_grad()
    def _record(self, attractors: Tensor) -> None:
        """Writes attractors [B, K, D] over the oldest, if all K are defined."""
        num_spks = attractors.shape[1]
        seen = self.get_buffer(f"seen_{num_spks}")
        recorded = self.recorded[num_spks - 1]
        attractors = gather_items(attractors)[: self.memory].to(seen)
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
    def _fit(self, num_spks: int) -> Tensor:
        """Centroids [K, D], found anew if there were recordings since."""
        recorded = int(self.recorded[num_spks - 1])
        if recorded == 0:
            raise UserError(
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
