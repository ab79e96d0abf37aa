"""Refinement: masks that were found by attractors are made complex and better.

A network that is told what one talker's mask lets through looks at the mixture
again, for each talker alike, and corrects the mask. The talker is found and not
enrolled: otherwise it is what target-speaker extraction does.
"""

from typing import Any

import torch
from torch import Tensor, nn

from speechbrain_kmdanet.lobes.models.dual_path_trunk import (
    DualPathNet,
    spectral_parts,
)
from speechbrain_kmdanet.lobes.models.masker import Masker

HINTS = 4  # of a bin: a mask, and the parts of what it lets through
CORRECTION = 2  # numbers of a bin: a complex one


class RefinedMasker(Masker):
    """Masks of another masker, which stays as it is, corrected.

    At the beginning the correction is nothing. What a talker gains others
    lose, in proportion to their masks, so that the sources sum to what they
    summed to; but what the masks leave to nobody, noise, may be drawn from.

    Arguments
    ---------
    masker : Masker
        A trained masker of the time-frequency plane.
    refiner : DualPathNet
        Network with 2 outputs and 4 hints a bin.

    Example
    -------
    >>> from speechbrain_kmdanet.lobes.models.danet import DANet
    >>> from speechbrain_kmdanet.lobes.models.embedding import EmbeddingNet
    >>> from speechbrain_kmdanet.nnet.attractors import KMeansAttractors
    >>> kmeans = KMeansAttractors("spherical", seed=0)
    >>> danet = DANet(EmbeddingNet(33, 4, 16), kmeans, kmeans).eval()
    >>> refiner = DualPathNet(33, 2, channels=8, hidden_size=8, num_hints=4)
    >>> masker = RefinedMasker(danet, refiner).eval()
    >>> spectrum = torch.randn(2, 33, 10, dtype=torch.complex64)
    >>> masks = masker(spectrum, num_spks=3)
    >>> torch.allclose(masks.real, danet(spectrum, num_spks=3), atol=1e-5)
    True
    >>> masks.imag.any()
    tensor(False)
    """

    def __init__(self, masker: Masker, refiner: DualPathNet) -> None:
        super().__init__(masker.num_spks)
        self.masker = masker.requires_grad_(False)
        self.refiner = refiner
        self.any_number = masker.any_number
        self.takes_attractors = masker.takes_attractors
        nn.init.zeros_(refiner.decoder.weight)
        nn.init.zeros_(refiner.decoder.bias)  # type: ignore[arg-type]
        self.register_load_state_dict_pre_hook(_start_from_the_masker)

    def train(self, mode: bool = True) -> "RefinedMasker":
        """Sets the mode; the masker finds its talkers as in evaluation.

        Arguments
        ---------
        mode : bool
            Whether the network is trained.

        Returns
        -------
        RefinedMasker
            The network.
        """
        super().train(mode)
        self.masker.eval()
        return self

    def make(
        self,
        spectrum: Tensor,
        num_frames: Tensor | None,
        num_spks: int,
        sources: Tensor | None,
        attractors: Tensor | None,
        with_masks: bool,
        embeddings: Tensor | None = None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Masks and embeddings, see :meth:`.masker.Masker.forward`."""
        with torch.no_grad():
            masks, embeddings = self.masker.make(
                spectrum,
                num_frames,
                num_spks,
                sources,
                attractors,
                with_masks,
                embeddings,
            )
        if masks is None:
            return None, embeddings
        return self.refine(masks, spectrum, num_frames), embeddings

    def refine(
        self, masks: Tensor, spectrum: Tensor, num_frames: Tensor | None = None
    ) -> Tensor:
        """Corrects masks.

        Arguments
        ---------
        masks : torch.Tensor
            Masks [K, B, F, T], real.
        spectrum : torch.Tensor
            Complex spectrum of the mixture [B, F, T].
        num_frames : torch.Tensor
            Number of frames of each item that are not padding [B]; None if
            there is no padding.

        Returns
        -------
        torch.Tensor
            Masks [K, B, F, T], complex.
        """
        talkers = masks.shape[:2]
        each = spectrum.repeat(len(masks), 1, 1)  # [K · B, F, T]
        frames = None if num_frames is None else num_frames.repeat(len(masks))
        kept = (
            masks.flatten(0, 1).transpose(1, 2).unsqueeze(1)
        )  # [K·B, 1, T, F]
        parts = spectral_parts(each, frames, kept)  # [K · B, 3, T, F]
        hints = torch.cat([kept, parts], 1).flatten(2).transpose(1, 2)
        correction = self.refiner(each, frames, hints).float()  # [K·B, T·F, 2]
        correction = torch.view_as_complex(correction.contiguous())
        correction = correction.unflatten(1, kept.shape[2:]).transpose(1, 2)
        correction = correction.unflatten(0, talkers)  # [K, B, F, T]
        return masks + correction - masks * correction.sum(0)


def _start_from_the_masker(
    module: Any, state: dict[str, Tensor], prefix: str, *_: Any
) -> None:
    """Takes weights of the masker alone: the correction is nothing then.

    A hook of PyTorch's load_state_dict.
    """
    names = [name for name in state if name.startswith(prefix)]
    parts = {name[len(prefix) :].split(".")[0] for name in names}
    if not names or parts & {"masker", "refiner"}:
        return
    for name in names:
        state[f"{prefix}masker.{name[len(prefix) :]}"] = state.pop(name)
    for name, value in module.state_dict().items():
        if name.startswith("refiner."):
            state[prefix + name] = value
