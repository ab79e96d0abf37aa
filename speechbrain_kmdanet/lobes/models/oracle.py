"""Oracle: a masker that looks at the sources, the ceiling of all maskers."""

from torch import Tensor

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.lobes.models.masker import Masker
from speechbrain_kmdanet.processing.masks import IDEAL_MASKS


class OracleMasker(Masker):
    """Ideal masks, of the true sources; there is nothing to train.

    It is never called without the sources.

    Arguments
    ---------
    mask : str
        "binary", "ratio", "wiener", "phase_sensitive" (truncated to [0, 1]) or
        "phase_sensitive_untruncated", see processing.masks.
    num_spks : int
        Number of talkers when the call does not say.

    Raises
    ------
    UserError
        If the mask is unknown.

    Example
    -------
    >>> import torch
    >>> sources = torch.randn(1, 2, 33, 10, dtype=torch.complex64)
    >>> masker = OracleMasker("phase_sensitive_untruncated")
    >>> masks = masker(sources.sum(1), sources=sources)
    >>> torch.allclose(masks.sum(0), torch.ones(1, 33, 10), atol=1e-4)
    True
    """

    ordered = True  # mask l belongs to source l

    def __init__(self, mask: str = "ratio", num_spks: int = 2) -> None:
        super().__init__(num_spks)
        if mask not in IDEAL_MASKS:
            raise UserError(
                f"mask must be one of {tuple(IDEAL_MASKS)}, got {mask!r}"
            )
        self.mask = mask

    def make(
        self,
        spectrum: Tensor,
        num_frames: Tensor | None,
        num_spks: int,
        sources: Tensor | None,
        *_: object,
    ) -> tuple[Tensor, None]:
        """Masks; frames have masks of their own, see :meth:`Masker.forward`."""
        if sources is None:
            raise UserError(
                "sources must be given, the spectra [B, K, F, T] of the true "
                "sources: an oracle makes its masks from them and separates "
                "no mixture without, got None"
            )
        batch, num_bins, max_frames = spectrum.shape
        expected = (batch, num_spks, num_bins, max_frames)
        if sources.shape != expected:
            raise UserError(
                f"sources must have shape {expected} for num_spks={num_spks} "
                f"and a mixture of shape {tuple(spectrum.shape)}, got "
                f"{tuple(sources.shape)}"
            )
        return IDEAL_MASKS[self.mask](sources, spectrum), None
