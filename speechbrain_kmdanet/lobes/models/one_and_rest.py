"""One talker and the rest, and again of the rest: another way to any number.

References: Takahashi, Parthasaarathy, Goswami and Mitsufuji, "Recursive speech
separation for unknown number of speakers" (one and rest); Kinoshita, Drude,
Delcroix and Nakatani, "Listening to each speaker one by one with recurrent
selective hearing networks" (the residual mask).
"""

import torch
from torch import Tensor, nn

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.lobes.models.masker import Masker
from speechbrain_kmdanet.processing.bins import unflatten_masks

OUTPUTS = 2  # one, and the rest


class OneAndRest(Masker):
    """Masks of one talker after the other, from what is left of the mixture.

    A step splits what is left into one talker and the rest; K talkers take
    K - 1 runs of the trunk, and their masks sum to one. Training goes the same
    way. When to stop is the number of talkers: it is given or, with a counter
    (recipes/Talkers), counted.

    Arguments
    ---------
    trunk : nn.Module
        Network with two outputs a bin, see EmbeddingNet.
    num_spks : int
        Number of talkers when the call does not say.

    Raises
    ------
    UserError
        If the trunk has not two outputs.

    Example
    -------
    >>> from speechbrain_kmdanet.lobes.models.embedding import EmbeddingNet
    >>> masker = OneAndRest(EmbeddingNet(33, embedding_dim=2, hidden_size=16))
    >>> spectrum = torch.randn(2, 33, 10, dtype=torch.complex64)
    >>> masks = masker(spectrum, num_spks=3)
    >>> masks.shape, bool((masks.sum(0) - 1).abs().max() < 1e-5)
    (torch.Size([3, 2, 33, 10]), True)
    """

    def __init__(self, trunk: nn.Module, num_spks: int = 2) -> None:
        super().__init__(num_spks)
        if trunk.embedding_dim != OUTPUTS:
            raise UserError(
                f"trunk must have {OUTPUTS} outputs a bin, one talker and the "
                f"rest, got embedding_dim={trunk.embedding_dim}"
            )
        self.trunk = trunk

    def make(
        self,
        spectrum: Tensor,
        num_frames: Tensor | None,
        num_spks: int,
        *_: object,
    ) -> tuple[Tensor, None]:
        """Masks, in float32, see :meth:`Masker.forward`."""
        left, seen = torch.ones_like(spectrum.real), spectrum  # [B, F, T]
        masks = []
        for _step in range(num_spks - 1):
            logits = self.trunk(seen, num_frames)  # [B, N, 2]
            split = logits.float().softmax(2).transpose(1, 2)  # [B, 2, N]
            one, rest = unflatten_masks(split, spectrum.shape[1])  # [B, F, T]
            masks.append(left * one)
            left = left * rest
            seen = left * spectrum
        return torch.stack([*masks, left]), None
