"""Deep clustering (DPCL), and its end-to-end form DPCL++.

References: Hershey, Chen, Le Roux and Watanabe, "Deep clustering:
discriminative embeddings for segmentation and separation"; Isik, Le Roux,
Chen, Watanabe and Hershey, "Single-channel multi-speaker separation using deep
clustering".

Authors
 * The speechbrain_kmdanet developers 2026
"""

from torch import nn

from speechbrain_kmdanet.processing.bins import (
    check_active_bins,
    relative_magnitudes,
    unflatten_masks,
)
from speechbrain_kmdanet.processing.masks import distance_masks
from speechbrain_kmdanet.processing.soft_kmeans import soft_kmeans


class DeepClustering(nn.Module):
    """DPCL: clusters embeddings of unit norm, and gives each bin to one talker.

    The significant bins, those not far below the loudest, are clustered; then
    every bin goes to the nearest centroid. It is trained on the embeddings
    alone: where these are asked for in training, no masks are made.

    Arguments
    ---------
    embedding_net : nn.Module
        Network that embeds every bin, see EmbeddingNet.
    clustering : nn.Module
        Estimator of the centroids, see KMeansAttractors.
    threshold_db : float
        How far below the loudest bin of the mixture a bin is significant, in
        dB.
    num_spks : int
        Number of talkers when the call does not say.

    Raises
    ------
    ValueError
        If the threshold is not positive.

    Example
    -------
    >>> import torch
    >>> from speechbrain_kmdanet.lobes.models.embedding import EmbeddingNet
    >>> from speechbrain_kmdanet.nnet.attractors import KMeansAttractors
    >>> net = EmbeddingNet(num_bins=33, embedding_dim=4, hidden_size=16)
    >>> dpcl = DeepClustering(net, KMeansAttractors(seed=0))
    >>> spectrum = torch.randn(2, 33, 10, dtype=torch.complex64)
    >>> masks, embeddings = dpcl(spectrum, with_embeddings=True)
    >>> masks is None, embeddings.shape
    (True, torch.Size([2, 330, 4]))
    >>> dpcl.eval()(spectrum, num_spks=3).unique()
    tensor([0., 1.])
    """

    ordered = False

    def __init__(
        self, embedding_net, clustering, threshold_db=40.0, num_spks=2
    ):
        super().__init__()
        if not threshold_db > 0:
            raise ValueError(
                f"threshold_db must be positive, got {threshold_db!r}"
            )
        self.embedding_net = embedding_net
        self.clustering = clustering
        self.threshold_db = threshold_db
        self.num_spks = num_spks

    @property
    def embeds_only(self):
        """Whether the masks take no part in training."""
        return self.training

    def forward(
        self,
        spectrum,
        num_frames=None,
        num_spks=None,
        sources=None,
        with_embeddings=False,
    ):
        """Computes the masks.

        Arguments
        ---------
        spectrum : torch.Tensor
            Complex spectrum of the mixture [B, F, T].
        num_frames : torch.Tensor
            Number of frames of each item that are not padding [B]; None if
            there is no padding.
        num_spks : int
            Number of talkers K; that of the constructor by default.
        sources : torch.Tensor
            Not used.
        with_embeddings : bool
            Whether to return a pair, the embeddings beside the masks.

        Returns
        -------
        masks : torch.Tensor
            Masks [K, B, F, T], real; None in training with embeddings.
        embeddings : torch.Tensor
            Embeddings of unit norm [B, T · F, D], if asked for.

        Raises
        ------
        ValueError
            If an item has fewer significant bins than there are talkers.
        """
        num_spks = self.num_spks if num_spks is None else num_spks
        magnitudes = relative_magnitudes(spectrum, num_frames)
        embeddings = self.embedding_net(magnitudes, num_frames).float()
        embeddings = nn.functional.normalize(embeddings, dim=2)
        if with_embeddings and self.embeds_only:
            return None, embeddings
        significant = self._significant(magnitudes)
        if not self.training:
            check_active_bins(significant, num_spks)
        centroids = self.clustering(embeddings, significant, num_spks)
        masks = self._make_masks(
            embeddings, centroids, significant, magnitudes, num_frames
        )
        masks = unflatten_masks(masks, spectrum.shape[1])
        return (masks, embeddings) if with_embeddings else masks

    def _significant(self, magnitudes):
        """1 for significant bins, 0 for others and for silence [B, N]."""
        magnitudes = magnitudes.flatten(1)
        loudest = magnitudes.amax(1, keepdim=True)
        threshold = loudest * 10 ** (-self.threshold_db / 20)
        return (magnitudes > threshold).to(magnitudes.dtype)

    def _make_masks(
        self, embeddings, centroids, significant, magnitudes, num_frames
    ):
        """Binary masks [B, K, N]: every bin has the nearest centroid."""
        nearest = distance_masks(embeddings, centroids).max(1).indices
        masks = nn.functional.one_hot(nearest, centroids.shape[1])
        return masks.transpose(1, 2).to(embeddings.dtype)


class EndToEndDeepClustering(DeepClustering):
    """DPCL++: soft masks from unfolded k-means, enhanced by another network.

    Soft k-means goes on from the centroids of the hard one. It is trained on
    the masks; but in a pretraining as DPCL, on the embeddings alone.

    Arguments
    ---------
    embedding_net : nn.Module
        Network that embeds every bin, see EmbeddingNet.
    clustering : nn.Module
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
    >>> import torch
    >>> from speechbrain_kmdanet.lobes.models.embedding import EmbeddingNet
    >>> from speechbrain_kmdanet.lobes.models.enhancement import EnhancementNet
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

    def __init__(
        self,
        embedding_net,
        clustering,
        enhancement_net,
        alpha=5.0,
        iterations=5,
        threshold_db=40.0,
        num_spks=2,
    ):
        super().__init__(embedding_net, clustering, threshold_db, num_spks)
        self.enhancement_net = enhancement_net
        self.alpha = alpha
        self.iterations = iterations
        self.pretraining = False

    @property
    def embeds_only(self):
        """Whether the masks take no part in training."""
        return self.training and self.pretraining

    def _make_masks(
        self, embeddings, centroids, significant, magnitudes, num_frames
    ):
        """Enhanced soft masks [B, K, N]."""
        masks = soft_kmeans(
            embeddings,
            centroids.detach(),
            significant,
            self.alpha,
            self.iterations,
        ).memberships
        return self.enhancement_net(magnitudes, masks, num_frames)
