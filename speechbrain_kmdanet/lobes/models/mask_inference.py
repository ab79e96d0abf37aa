"""Mask inference: a trunk that gives the masks itself, without clusters.

Trained with permutation-invariant training, MaskInference is uPIT-BLSTM; with
a second head that is trained as DPCL, it is Chimera++.

References: Kolbæk, Yu, Tan and Jensen, "Multitalker speech separation with
utterance-level permutation invariant training of deep recurrent neural
networks"; Wang, Le Roux and Hershey, "Alternative objective functions for deep
clustering".
"""

from typing import Any

from torch import Tensor, nn

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.lobes.models.masker import Masker
from speechbrain_kmdanet.processing.bins import unflatten_masks

# From logits [B, K, N] to masks.
ACTIVATIONS = {
    "sigmoid": lambda logits: logits.sigmoid(),
    "softmax": lambda logits: logits.softmax(dim=1),
    "relu": lambda logits: logits.relu(),
}


class MaskInference(Masker):
    """Masks of a fixed number of talkers, the last outputs of a bin.

    Arguments
    ---------
    trunk : nn.Module
        Network with as many outputs a bin as there are talkers, see
        EmbeddingNet.
    num_spks : int
        Number of talkers K.
    activation : str
        "sigmoid", "softmax" over the talkers (the masks sum to one) or "relu".

    Raises
    ------
    UserError
        If the trunk has not the outputs, or the activation is unknown.

    Example
    -------
    >>> import torch
    >>> from speechbrain_kmdanet.lobes.models.embedding import EmbeddingNet
    >>> trunk = EmbeddingNet(num_bins=33, embedding_dim=3, hidden_size=16)
    >>> masker = MaskInference(trunk, num_spks=3)
    >>> masker(torch.randn(2, 33, 10, dtype=torch.complex64)).shape
    torch.Size([3, 2, 33, 10])
    """

    any_number = False

    def __init__(
        self, trunk: nn.Module, num_spks: int = 2, activation: str = "sigmoid"
    ) -> None:
        super().__init__(num_spks)
        self._check_outputs(trunk.embedding_dim)
        if activation not in ACTIVATIONS:
            raise UserError(
                f"activation must be one of {tuple(ACTIVATIONS)}, got "
                f"{activation!r}"
            )
        self.trunk = trunk
        self.activation = activation

    def _check_outputs(self, outputs: Any) -> None:
        """Refuses a trunk with other outputs a bin than the masks."""
        if outputs != self.num_spks:
            raise UserError(
                f"trunk must have num_spks={self.num_spks} outputs a bin, the "
                f"masks, got embedding_dim={outputs}"
            )

    def make(
        self,
        spectrum: Tensor,
        num_frames: Tensor | None,
        num_spks: int,
        *_: object,
    ) -> tuple[Tensor, Tensor | None]:
        """Masks, in float32, and embeddings, see :meth:`Masker.forward`."""
        outputs = self.trunk(spectrum, num_frames).float()  # [B, N, D + K]
        logits = outputs[:, :, -num_spks:].transpose(1, 2)  # [B, K, N]
        masks = ACTIVATIONS[self.activation](logits)
        masks = unflatten_masks(masks, spectrum.shape[1])
        return masks, self._embeddings(outputs[:, :, :-num_spks])

    def _embeddings(self, outputs: Tensor) -> Tensor | None:
        """Embeddings from the outputs that are not masks [B, N, D]: none."""
        return None


class Chimera(MaskInference):
    """Chimera++: masks, and embeddings that help in training.

    The trunk has D + K outputs a bin: an embedding, taken to unit norm, and
    the masks, see :class:`MaskInference` for the arguments.

    Example
    -------
    >>> import torch
    >>> from speechbrain_kmdanet.lobes.models.embedding import EmbeddingNet
    >>> trunk = EmbeddingNet(num_bins=33, embedding_dim=4 + 2, hidden_size=16)
    >>> chimera = Chimera(trunk, num_spks=2)
    >>> spectrum = torch.randn(2, 33, 10, dtype=torch.complex64)
    >>> masks, embeddings = chimera(spectrum, with_embeddings=True)
    >>> masks.shape, embeddings.shape
    (torch.Size([2, 2, 33, 10]), torch.Size([2, 330, 4]))
    """

    outputs = frozenset({"masks", "embeddings"})

    def _check_outputs(self, outputs: Any) -> None:
        """Refuses a trunk without outputs for embeddings."""
        if outputs <= self.num_spks:
            raise UserError(
                "trunk must have D + num_spks outputs a bin for embeddings of "
                f"D dimensions and num_spks={self.num_spks} masks, got "
                f"embedding_dim={outputs}"
            )

    def _embeddings(self, outputs: Tensor) -> Tensor:
        """Embeddings of unit norm [B, N, D]."""
        return nn.functional.normalize(outputs, dim=2)
