"""Deep attractor network: the masker of all attractor-based separators.

DANet and k-means DANet are the same network; they differ in where the
attractors come from in training and at inference.

Reference: Cadoux et al., "Closing the training/inference gap for deep
attractor networks".

Authors
 * The speechbrain_kmdanet developers 2026
"""

from torch import nn

from speechbrain_kmdanet.processing.bins import (
    check_active_bins,
    flatten_bins,
    relative_magnitudes,
    unflatten_masks,
)
from speechbrain_kmdanet.processing.masks import (
    distance_masks,
    dot_product_masks,
)

MASKS = {"dot_product": dot_product_masks, "distance": distance_masks}


class DANet(nn.Module):
    """Masks of the talkers from the spectrum of their mixture.

    Called as the masknet of SpeechBrain's separators: spectrum in, masks with
    the sources first out.

    Arguments
    ---------
    embedding_net : nn.Module
        Network that embeds every bin, see EmbeddingNet.
    train_attractors : nn.Module
        Attractor estimator in training mode.
    infer_attractors : nn.Module
        Attractor estimator in evaluation mode.
    masks : str
        "dot_product" (Eq. 2 and 5b) or "distance" (Eq. 5a).
    num_spks : int
        Number of talkers when the call does not say.

    Example
    -------
    >>> import torch
    >>> from speechbrain_kmdanet.lobes.models.embedding import EmbeddingNet
    >>> from speechbrain_kmdanet.nnet.attractors import KMeansAttractors
    >>> danet = DANet(
    ...     EmbeddingNet(num_bins=33, embedding_dim=4, hidden_size=16),
    ...     train_attractors=KMeansAttractors("spherical", iterations=5),
    ...     infer_attractors=KMeansAttractors("spherical", iterations=20),
    ... )
    >>> spectrum = torch.randn(2, 33, 10, dtype=torch.complex64)
    >>> danet(spectrum).shape
    torch.Size([2, 2, 33, 10])
    >>> danet(spectrum, num_spks=3).shape
    torch.Size([3, 2, 33, 10])
    """

    def __init__(
        self,
        embedding_net,
        train_attractors,
        infer_attractors,
        masks="dot_product",
        num_spks=2,
    ):
        super().__init__()
        if masks not in MASKS:
            raise ValueError(
                f"masks must be one of {tuple(MASKS)}, got {masks!r}"
            )
        self.embedding_net = embedding_net
        self.train_attractors = train_attractors
        self.infer_attractors = infer_attractors
        self.masks = masks
        self.num_spks = num_spks

    @property
    def attractors(self):
        """The attractor estimator of the current mode."""
        return self.train_attractors if self.training else self.infer_attractors

    @property
    def ordered(self):
        """Whether, in the current mode, mask l belongs to source l.

        Then the sources have to be given.
        """
        return self.attractors.ordered

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
            Complex spectra of the sources [B, K, F, T], which only oracle
            attractors need.
        with_embeddings : bool
            Whether to return a pair, the embeddings beside the masks.

        Returns
        -------
        masks : torch.Tensor
            Masks [K, B, F, T], real.
        embeddings : torch.Tensor
            Embeddings [B, T · F, D], if asked for.

        Raises
        ------
        ValueError
            If an item has fewer bins with energy than there are talkers.
        """
        num_spks = self.num_spks if num_spks is None else num_spks
        num_bins = spectrum.shape[1]
        embeddings, weights = self.embed(spectrum, num_frames)
        if not self.training:
            check_active_bins(weights, num_spks)
        if sources is not None:
            sources = flatten_bins(sources.abs())
        attractors = self.attractors(
            embeddings,
            weights,
            num_spks,
            sources,
            None if num_frames is None else num_frames * num_bins,
        )
        masks = MASKS[self.masks](embeddings, attractors)
        masks = unflatten_masks(masks, num_bins)
        return (masks, embeddings) if with_embeddings else masks

    def embed(self, spectrum, num_frames=None):
        """Embeds the bins of a mixture.

        Arguments
        ---------
        spectrum : torch.Tensor
            Complex spectrum of the mixture [B, F, T].
        num_frames : torch.Tensor
            Number of frames of each item that are not padding [B].

        Returns
        -------
        embeddings : torch.Tensor
            Embeddings V [B, T · F, D], in float32.
        weights : torch.Tensor
            Energies |X|² of the bins [B, T · F] relative to the mean of the
            item; 0 in padded frames.
        """
        magnitudes = relative_magnitudes(spectrum, num_frames)
        embeddings = self.embedding_net(magnitudes, num_frames)
        return embeddings.float(), magnitudes.square().flatten(1)
