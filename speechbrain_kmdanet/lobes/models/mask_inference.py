"""Mask inference: a network that gives the masks themselves, without clusters.

Trained with permutation-invariant training, this is uPIT-BLSTM.

Reference: Kolbæk, Yu, Tan and Jensen, "Multitalker speech separation with
utterance-level permutation invariant training of deep recurrent neural
networks".

Authors
 * The speechbrain_kmdanet developers 2026
"""

from torch import nn

from speechbrain_kmdanet.processing.bins import (
    relative_magnitudes,
    unflatten_masks,
)

# From logits [B, K, N] to masks.
ACTIVATIONS = {
    "sigmoid": lambda logits: logits.sigmoid(),
    "softmax": lambda logits: logits.softmax(dim=1),
    "relu": lambda logits: logits.relu(),
}


class MaskInference(nn.Module):
    """Masks of a fixed number of talkers, the last outputs of a bin.

    Arguments
    ---------
    embedding_net : nn.Module
        Network with as many outputs a bin as there are talkers, see
        EmbeddingNet.
    num_spks : int
        Number of talkers K.
    activation : str
        "sigmoid", "softmax" over the talkers (the masks sum to one) or "relu".

    Raises
    ------
    ValueError
        If the network has not the outputs, or the activation is unknown.

    Example
    -------
    >>> import torch
    >>> from speechbrain_kmdanet.lobes.models.embedding import EmbeddingNet
    >>> net = EmbeddingNet(num_bins=33, embedding_dim=3, hidden_size=16)
    >>> masker = MaskInference(net, num_spks=3)
    >>> masker(torch.randn(2, 33, 10, dtype=torch.complex64)).shape
    torch.Size([3, 2, 33, 10])
    """

    ordered = False

    def __init__(self, embedding_net, num_spks=2, activation="sigmoid"):
        super().__init__()
        self._check_outputs(embedding_net.embedding_dim, num_spks)
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"activation must be one of {tuple(ACTIVATIONS)}, got "
                f"{activation!r}"
            )
        self.embedding_net = embedding_net
        self.num_spks = num_spks
        self.activation = activation

    def _check_outputs(self, outputs, num_spks):
        """Refuses a network with other outputs a bin than the masks."""
        if outputs != num_spks:
            raise ValueError(
                f"embedding_net must have num_spks={num_spks} outputs a bin, "
                f"the masks, got embedding_dim={outputs}"
            )

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
            Number of talkers, that of the constructor.
        sources : torch.Tensor
            Not used.
        with_embeddings : bool
            Whether to return a pair, the embeddings beside the masks.

        Returns
        -------
        masks : torch.Tensor
            Masks [K, B, F, T], real, in float32.
        embeddings : torch.Tensor
            Embeddings [B, T · F, D], if asked for; None if there are none.

        Raises
        ------
        ValueError
            If another number of talkers is asked for.
        """
        if num_spks not in (None, self.num_spks):
            raise ValueError(
                f"this network separates num_spks={self.num_spks} talkers "
                f"only, got num_spks={num_spks}: train one for them, or use "
                "one that clusters embeddings"
            )
        magnitudes = relative_magnitudes(spectrum, num_frames)
        outputs = self.embedding_net(magnitudes, num_frames).float()
        logits = outputs[:, :, -self.num_spks :].transpose(1, 2)
        masks = ACTIVATIONS[self.activation](logits)
        masks = unflatten_masks(masks, spectrum.shape[1])
        if not with_embeddings:
            return masks
        return masks, self._embeddings(outputs[:, :, : -self.num_spks])

    def _embeddings(self, outputs):
        """Embeddings from the outputs that are not masks [B, N, D]: none."""
        return None
