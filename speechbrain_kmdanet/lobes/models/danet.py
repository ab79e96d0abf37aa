"""Deep attractor network: the masker of all attractor-based separators.

DANet and k-means DANet are the same network; they differ in where the
attractors come from in training and at inference.

Reference: Cadoux et al., "Closing the training/inference gap for deep
attractor networks".
"""

from typing import Any

import torch
from torch import Tensor, nn

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.lobes.models.masker import (
    Masker,
    check_active_bins,
    fit_attractors,
)
from speechbrain_kmdanet.nnet.attractors import AttractorEstimator
from speechbrain_kmdanet.processing.bins import (
    flatten_bins,
    relative_magnitudes,
    unflatten_masks,
)
from speechbrain_kmdanet.processing.masks import ATTRACTOR_MASKS


class DANet(Masker):
    """Masks of the talkers from the spectrum of their mixture.

    Arguments
    ---------
    embedding_net : nn.Module
        Trunk that embeds every bin, see EmbeddingNet.
    train_attractors : AttractorEstimator
        Attractor estimator in training mode.
    infer_attractors : AttractorEstimator
        Attractor estimator in evaluation mode.
    masks : str
        "dot_product" (Eq. 2 and 5b) or "distance" (Eq. 5a).
    num_spks : int
        Number of talkers when the call does not say.
    remainder : bool
        Whether one attractor more is learned, of what is no talker: noise has
        a mask then, which is not among those returned, and little weight
        among those that are clustered.

    Raises
    ------
    UserError
        If the kind of masks is unknown, or has no remainder.

    Example
    -------
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
    >>> danet(spectrum, attractors=torch.randn(2, 4, 4)).shape
    torch.Size([4, 2, 33, 10])
    """

    takes_attractors = True
    outputs = frozenset({"masks", "embeddings"})

    def __init__(
        self,
        embedding_net: nn.Module,
        train_attractors: AttractorEstimator,
        infer_attractors: AttractorEstimator,
        masks: str = "dot_product",
        num_spks: int = 2,
        remainder: bool = False,
    ) -> None:
        super().__init__(num_spks)
        if masks not in ATTRACTOR_MASKS:
            raise UserError(
                f"masks must be one of {tuple(ATTRACTOR_MASKS)}, got {masks!r}"
            )
        self.embedding_net = embedding_net
        self.train_attractors = train_attractors
        self.infer_attractors = infer_attractors
        self.masks = masks
        self.remainder = None
        if remainder:
            if masks != "dot_product":
                raise UserError(
                    "remainder must be False, unless masks are dot_product, "
                    f"got {masks!r}"
                )
            dim: Any = embedding_net.embedding_dim
            self.remainder = nn.Parameter(torch.zeros(1, 1, dim))
            self.register_load_state_dict_pre_hook(_keep_remainder)

    @property
    def attractors(self) -> AttractorEstimator:
        """The attractor estimator of the current mode."""
        return self.train_attractors if self.training else self.infer_attractors

    @property
    def ordered(self) -> bool:  # type: ignore[override]
        """Whether, in the current mode, mask l belongs to source l."""
        return self.attractors.ordered

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
        """Masks and embeddings, see :meth:`Masker.forward`."""
        num_bins = spectrum.shape[1]
        embeddings, energies = self.embed(spectrum, num_frames, embeddings)
        if not with_masks:
            return None, embeddings
        found = attractors is None
        if attractors is None:
            if not self.training:
                check_active_bins(energies, num_spks)
            attractors = self.attractors(
                embeddings,
                energies * self.speech_shares(embeddings),
                num_spks,
                None if sources is None else flatten_bins(sources.abs()),
                None if num_frames is None else num_frames * num_bins,
            )  # [B, K, D]
        attractors = fit_attractors(attractors, embeddings)
        if self.remainder is not None:
            remainder = self.remainder.to(attractors)
            remainder = remainder.expand(len(attractors), -1, -1)
            attractors = torch.cat([attractors, remainder], 1)
        masks = ATTRACTOR_MASKS[self.masks](embeddings, attractors)
        masks = masks[:, :num_spks]  # [B, K, N]
        if found and not self.training and not self.ordered:
            masks = loudest_first(masks, energies)
        return unflatten_masks(masks, num_bins), embeddings

    def speech_shares(self, embeddings: Tensor) -> Tensor | float:
        """What of each bin counts in a clustering, for it is no noise.

        Arguments
        ---------
        embeddings : torch.Tensor
            Embeddings V [B, N, D].

        Returns
        -------
        torch.Tensor
            Shares [B, N], without a gradient; 1 if there is no remainder.
        """
        if self.remainder is None:
            return 1.0
        with torch.no_grad():
            remainder = self.remainder[0, 0].to(embeddings)
            return 1.0 - (embeddings @ remainder).sigmoid()

    def embed(
        self,
        spectrum: Tensor,
        num_frames: Tensor | None = None,
        embeddings: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Embeds the bins of a mixture.

        Arguments
        ---------
        spectrum : torch.Tensor
            Complex spectrum of the mixture [B, F, T].
        num_frames : torch.Tensor
            Number of frames of each item that are not padding [B].
        embeddings : torch.Tensor
            The embeddings, if they were made before.

        Returns
        -------
        embeddings : torch.Tensor
            Embeddings V [B, T · F, D], in float32.
        energies : torch.Tensor
            Energies |X|² of the bins [B, T · F] relative to the mean of the
            item; 0 in padded frames.
        """
        if embeddings is None:
            embeddings = self.embedding_net(spectrum, num_frames).float()
        magnitudes = relative_magnitudes(spectrum, num_frames)  # [B, T, F]
        return embeddings, magnitudes.square().flatten(1)


def _keep_remainder(
    module: Any, state: dict[str, Tensor], prefix: str, *_: Any
) -> None:
    """Lets weights of a separator without a remainder start one with it."""
    if state:
        state.setdefault(f"{prefix}remainder", module.remainder.detach())


def loudest_first(masks: Tensor, energies: Tensor) -> Tensor:
    """Puts masks in the order of what they let through.

    The order that a clustering finds talkers in is a matter of chance.

    Arguments
    ---------
    masks : torch.Tensor
        Masks [B, K, N].
    energies : torch.Tensor
        Energies of the bins [B, N].

    Returns
    -------
    torch.Tensor
        The masks [B, K, N], the loudest talker first.

    Example
    -------
    >>> masks = torch.tensor([[[0.1, 0.2], [0.9, 0.8]]])
    >>> loudest_first(masks, torch.ones(1, 2))
    tensor([[[0.9000, 0.8000],
             [0.1000, 0.2000]]])
    """
    loudness = torch.bmm(masks.float(), energies.float().unsqueeze(2))
    order = loudness.argsort(dim=1, descending=True, stable=True)  # [B, K, 1]
    return masks.gather(1, order.expand_as(masks))
