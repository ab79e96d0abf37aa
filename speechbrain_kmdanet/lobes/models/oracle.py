"""Oracle: a masker that looks at the sources, the ceiling of all maskers.

Authors
 * The speechbrain_kmdanet developers 2026
"""

from functools import partial

from torch import nn

from speechbrain_kmdanet.processing.ideal_masks import (
    ideal_binary_masks,
    ideal_ratio_masks,
    phase_sensitive_masks,
    wiener_like_masks,
)

# From the spectra of the sources and of the mixture to masks.
IDEAL_MASKS = {
    "binary": lambda sources, mixture: ideal_binary_masks(sources),
    "ratio": lambda sources, mixture: ideal_ratio_masks(sources),
    "wiener": lambda sources, mixture: wiener_like_masks(sources),
    "phase_sensitive": phase_sensitive_masks,
    "phase_sensitive_untruncated": partial(
        phase_sensitive_masks, truncate=False
    ),
}


class OracleMasker(nn.Module):
    """Ideal masks, of the true sources; there is nothing to train.

    Called as the other maskers, but never without the sources.

    Arguments
    ---------
    mask : str
        "binary", "ratio", "wiener", "phase_sensitive" (truncated to [0, 1]) or
        "phase_sensitive_untruncated", see processing.ideal_masks.
    num_spks : int
        Number of talkers when the call does not say.

    Raises
    ------
    ValueError
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

    def __init__(self, mask="ratio", num_spks=2):
        super().__init__()
        if mask not in IDEAL_MASKS:
            raise ValueError(
                f"mask must be one of {tuple(IDEAL_MASKS)}, got {mask!r}"
            )
        self.mask = mask
        self.num_spks = num_spks

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
            Number of frames of each item that are not padding [B]; frames have
            masks of their own, so that it changes nothing.
        num_spks : int
            Number of talkers K; that of the constructor by default.
        sources : torch.Tensor
            Complex spectra of the sources [B, K, F, T].
        with_embeddings : bool
            Whether to return a pair, beside the masks None for embeddings.

        Returns
        -------
        torch.Tensor
            Masks [K, B, F, T], real.

        Raises
        ------
        ValueError
            If there are no sources, or they do not fit.
        """
        if sources is None:
            raise ValueError(
                "sources must be given, the spectra [B, K, F, T] of the true "
                "sources: an oracle makes its masks from them and separates "
                "no mixture without, got None"
            )
        num_spks = self.num_spks if num_spks is None else num_spks
        batch, num_bins, max_frames = spectrum.shape
        expected = (batch, num_spks, num_bins, max_frames)
        if sources.shape != expected:
            raise ValueError(
                f"sources must have shape {expected} for num_spks={num_spks} "
                f"and a mixture of shape {tuple(spectrum.shape)}, got "
                f"{tuple(sources.shape)}"
            )
        masks = IDEAL_MASKS[self.mask](sources, spectrum)
        return (masks, None) if with_embeddings else masks
