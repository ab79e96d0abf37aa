"""Chimera++: mask inference with a second head that is trained as DPCL.

Reference: Wang, Le Roux and Hershey, "Alternative objective functions for deep
clustering".

Authors
 * The speechbrain_kmdanet developers 2026
"""

from torch import nn

from speechbrain_kmdanet.lobes.models.mask_inference import MaskInference


class Chimera(MaskInference):
    """Masks of a fixed number of talkers, and embeddings that help in training.

    The network has D + K outputs a bin: an embedding, taken to unit norm, and
    the masks. At inference the masks are those of their head.

    Arguments
    ---------
    embedding_net : nn.Module
        Network with more outputs a bin than there are talkers, see
        EmbeddingNet.
    num_spks : int
        Number of talkers K.
    activation : str
        "sigmoid", "softmax" over the talkers (the masks sum to one) or "relu".

    Example
    -------
    >>> import torch
    >>> from speechbrain_kmdanet.lobes.models.embedding import EmbeddingNet
    >>> net = EmbeddingNet(num_bins=33, embedding_dim=4 + 2, hidden_size=16)
    >>> chimera = Chimera(net, num_spks=2)
    >>> spectrum = torch.randn(2, 33, 10, dtype=torch.complex64)
    >>> masks, embeddings = chimera(spectrum, with_embeddings=True)
    >>> masks.shape, embeddings.shape
    (torch.Size([2, 2, 33, 10]), torch.Size([2, 330, 4]))
    """

    def _check_outputs(self, outputs, num_spks):
        """Refuses a network without outputs for embeddings."""
        if outputs <= num_spks:
            raise ValueError(
                "embedding_net must have D + num_spks outputs a bin for "
                f"embeddings of D dimensions and num_spks={num_spks} masks, "
                f"got embedding_dim={outputs}"
            )

    def _embeddings(self, outputs):
        """Embeddings of unit norm [B, N, D]."""
        return nn.functional.normalize(outputs, dim=2)
