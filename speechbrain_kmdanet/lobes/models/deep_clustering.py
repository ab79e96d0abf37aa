"""Deep clustering (DPCL), and its end-to-end form DPCL++.

References: Hershey, Chen, Le Roux and Watanabe, "Deep clustering:
discriminative embeddings for segmentation and separation"; Isik, Le Roux,
Chen, Watanabe and Hershey, "Single-channel multi-speaker separation using deep
clustering".
"""

import math

import torch
from torch import Tensor, nn

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.lobes.models.embedding import LOG_FLOOR
from speechbrain_kmdanet.lobes.models.masker import (
    Masker,
    check_active_bins,
    fit_attractors,
)
from speechbrain_kmdanet.nnet.attractors import AttractorEstimator
from speechbrain_kmdanet.nnet.recurrent import PaddedBLSTM
from speechbrain_kmdanet.processing.bins import (
    loud_bins,
    relative_magnitudes,
    unflatten_masks,
)
from speechbrain_kmdanet.processing.kmeans import soft_kmeans
from speechbrain_kmdanet.processing.masks import distance_masks


class DeepClustering(Masker):
    """DPCL: clusters embeddings of unit norm, and gives each bin to one talker.

    The significant bins, those not far below the loudest, are clustered; then
    every bin goes to the nearest centroid. It is trained on the embeddings
    alone.

    Arguments
    ---------
    embedding_net : nn.Module
        Trunk that embeds every bin, see EmbeddingNet.
    clustering : AttractorEstimator
        Estimator of the centroids, see KMeansAttractors.
    threshold_db : float
        How far below the loudest bin of the mixture a bin is significant, in
        dB.
    num_spks : int
        Number of talkers when the call does not say.

    Raises
    ------
    UserError
        If the threshold is not positive.

    Example
    -------
    >>> from speechbrain_kmdanet.lobes.models.embedding import EmbeddingNet
    >>> from speechbrain_kmdanet.nnet.attractors import KMeansAttractors
    >>> net = EmbeddingNet(num_bins=33, embedding_dim=4, hidden_size=16)
    >>> dpcl = DeepClustering(net, KMeansAttractors(seed=0))
    >>> spectrum = torch.randn(2, 33, 10, dtype=torch.complex64)
    >>> dpcl(spectrum, num_spks=3).unique()
    tensor([0., 1.])
    """

    takes_attractors = True
    outputs = frozenset({"embeddings"})

    def __init__(
        self,
        embedding_net: nn.Module,
        clustering: AttractorEstimator,
        threshold_db: float = 40.0,
        num_spks: int = 2,
    ) -> None:
        super().__init__(num_spks)
        if not threshold_db > 0:
            raise UserError(
                f"threshold_db must be positive, got {threshold_db!r}"
            )
        self.embedding_net = embedding_net
        self.clustering = clustering
        self.threshold_db = threshold_db

    def make(
        self,
        spectrum: Tensor,
        num_frames: Tensor | None,
        num_spks: int,
        sources: Tensor | None,
        attractors: Tensor | None,
        with_masks: bool,
        embeddings: Tensor | None,
    ) -> tuple[Tensor | None, Tensor]:
        """Masks and embeddings of unit norm, see :meth:`Masker.forward`."""
        if embeddings is None:
            embeddings = self.embedding_net(spectrum, num_frames).float()
            embeddings = nn.functional.normalize(embeddings, dim=2)
        if not with_masks:
            return None, embeddings
        magnitudes = relative_magnitudes(spectrum, num_frames)  # [B, T, F]
        significance = loud_bins(
            magnitudes.flatten(1), self.threshold_db
        )  # [B, N]
        if attractors is None:
            if not self.training:
                check_active_bins(significance, num_spks)
            attractors = self.clustering(embeddings, significance, num_spks)
        attractors = fit_attractors(attractors, embeddings)
        masks = self._make_masks(
            embeddings, attractors, significance, magnitudes, num_frames
        )  # [B, K, N]
        return unflatten_masks(masks, spectrum.shape[1]), embeddings

    def _make_masks(
        self,
        embeddings: Tensor,
        centroids: Tensor,
        significance: Tensor,
        magnitudes: Tensor,
        num_frames: Tensor | None,
    ) -> Tensor:
        """Binary masks [B, K, N]: every bin has the nearest centroid."""
        nearest = distance_masks(embeddings, centroids).max(1).indices
        masks = nn.functional.one_hot(nearest, centroids.shape[1])
        return masks.transpose(1, 2).to(embeddings.dtype)


class EndToEndDeepClustering(DeepClustering):
    """DPCL++: soft masks from unfolded k-means, enhanced by another network.

    Soft k-means goes on from the centroids of the hard one. It is trained on
    the masks, after a pretraining as DPCL, on the embeddings alone.

    Arguments
    ---------
    embedding_net : nn.Module
        Trunk that embeds every bin, see EmbeddingNet.
    clustering : AttractorEstimator
        Estimator of the initial centroids, see KMeansAttractors.
    enhancement_net : nn.Module
        Network that enhances the masks, see EnhancementNet.
    alpha : float
        Hardness of soft k-means.
    iterations : int
        Number of iterations of soft k-means, in training and at inference.
    threshold_db : float
        How far below the loudest bin of the mixture a bin is significant, in
        dB.
    num_spks : int
        Number of talkers when the call does not say.

    Example
    -------
    >>> from speechbrain_kmdanet.lobes.models.embedding import EmbeddingNet
    >>> from speechbrain_kmdanet.nnet.attractors import KMeansAttractors
    >>> dpcl = EndToEndDeepClustering(
    ...     EmbeddingNet(num_bins=33, embedding_dim=4, hidden_size=16),
    ...     KMeansAttractors(seed=0),
    ...     EnhancementNet(num_bins=33, hidden_size=16),
    ... )
    >>> spectrum = torch.randn(2, 33, 10, dtype=torch.complex64)
    >>> masks, embeddings = dpcl(spectrum, with_embeddings=True)
    >>> masks.shape, embeddings.shape
    (torch.Size([2, 2, 33, 10]), torch.Size([2, 330, 4]))
    """

    outputs = frozenset({"masks", "embeddings"})

    def __init__(
        self,
        embedding_net: nn.Module,
        clustering: AttractorEstimator,
        enhancement_net: nn.Module,
        alpha: float = 5.0,
        iterations: int = 5,
        threshold_db: float = 40.0,
        num_spks: int = 2,
    ) -> None:
        super().__init__(embedding_net, clustering, threshold_db, num_spks)
        self.enhancement_net = enhancement_net
        self.alpha = alpha
        self.iterations = iterations

    def _make_masks(
        self,
        embeddings: Tensor,
        centroids: Tensor,
        significance: Tensor,
        magnitudes: Tensor,
        num_frames: Tensor | None,
    ) -> Tensor:
        """Enhanced soft masks [B, K, N]."""
        masks = soft_kmeans(
            embeddings,
            centroids.detach(),
            significance,
            self.alpha,
            self.iterations,
        ).memberships
        return self.enhancement_net(magnitudes, masks, num_frames)


class EnhancementNet(nn.Module):
    """New masks from the mixture and what the first masks make of it.

    The same BLSTM looks at every talker by itself, at the log-magnitudes of
    the mixture and of the masked mixture. Its outputs meet in a softmax over
    the talkers, of whom there may be any number. Unlike the paper's, they are
    added to the logarithms of the first masks: a network that has not learned
    anything yet leaves these about as they are, instead of dropping them.

    Arguments
    ---------
    num_bins : int
        Number of frequency bins F.
    hidden_size : int
        Cells of the BLSTM, both directions together.
    num_layers : int
        Number of BLSTM layers.
    dropout : float
        Dropout between the layers.

    Example
    -------
    >>> net = EnhancementNet(num_bins=33, hidden_size=16)
    >>> masks = torch.rand(2, 3, 10 * 33).softmax(dim=1)
    >>> net(torch.rand(2, 10, 33), masks).shape
    torch.Size([2, 3, 330])
    """

    def __init__(
        self,
        num_bins: int = 257,
        hidden_size: int = 300,
        num_layers: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.blstm = PaddedBLSTM(2 * num_bins, hidden_size, num_layers, dropout)
        self.output = nn.Linear(hidden_size, num_bins)

    def forward(
        self,
        magnitudes: Tensor,
        masks: Tensor,
        num_frames: Tensor | None = None,
    ) -> Tensor:
        """Enhances masks.

        Arguments
        ---------
        magnitudes : torch.Tensor
            Magnitudes of the mixture [B, T, F], relative to its level.
        masks : torch.Tensor
            Masks of the bins [B, K, T · F].
        num_frames : torch.Tensor
            Number of frames of each item that are not padding [B]; None if
            there is no padding.

        Returns
        -------
        torch.Tensor
            Masks [B, K, T · F] in float32, which sum to one over the talkers.
        """
        num_spks = masks.shape[1]
        mixture = magnitudes.unsqueeze(1).expand(-1, num_spks, -1, -1)
        masked = masks.reshape(mixture.shape) * mixture  # [B, K, T, F]
        x = torch.cat([mixture, masked], dim=3).clamp_min(LOG_FLOOR).log()
        x = 1.0 - x / math.log(LOG_FLOOR)  # 0 for silence, 1 at the level
        # The BLSTM sees the talkers as items of a larger batch.
        if num_frames is not None:
            num_frames = num_frames.repeat_interleave(num_spks)
        x = self.output(
            self.blstm(x.flatten(0, 1), num_frames)
        )  # [B · K, T, F]
        skip = masks.clamp_min(LOG_FLOOR).log()
        return (skip + x.float().view_as(masks)).softmax(dim=1)
