"""Objectives: what a system is trained for, chosen by name.

An objective takes all that a system made of a batch and picks what it needs;
what it does not ask for is not computed.

Authors
 * The speechbrain_kmdanet developers 2026
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import torch

from speechbrain_kmdanet.nnet.affinity import affinity_loss
from speechbrain_kmdanet.nnet.losses import magnitude_loss, si_sdr_loss
from speechbrain_kmdanet.nnet.phase_sensitive import phase_sensitive_loss
from speechbrain_kmdanet.processing.bins import (
    flatten_bins,
    relative_magnitudes,
)
from speechbrain_kmdanet.processing.ideal_masks import ideal_binary_masks
from speechbrain_kmdanet.processing.separate import decode_sources

CHIMERA_ALPHA = 0.975  # share of the affinity (Wang et al.)
# Objectives for maskers that make none of these.
ALTERNATIVES = {"masks": "affinity", "embeddings": "phase_sensitive"}


@dataclass
class Separation:
    """Separation of a batch of mixtures, with the truth beside it.

    Arguments
    ---------
    spectrum : torch.Tensor
        Encoded mixture: complex [B, F, T] in the time-frequency plane, real
        features of that shape in the waveform domain.
    sources : torch.Tensor
        True sources [B, L, K].
    num_samples : torch.Tensor
        Length of each item without padding [B].
    num_frames : torch.Tensor
        Number of frames of each item without padding [B]; None if no item is
        padded.
    ordered : bool
        Whether mask l is known to belong to source l: no permutation is
        searched.
    encode : callable
        Encoder, waveforms [·, L] to spectra [·, F, T].
    decode : callable
        Decoder, spectra [·, F, T] to waveforms [·, L].
    masks : torch.Tensor
        Masks [K, B, F, T]; None if the masker made none in training.
    embeddings : torch.Tensor
        Embeddings of the bins [B, T · F, D]; None if there are none.
    """

    spectrum: torch.Tensor
    sources: torch.Tensor
    num_samples: torch.Tensor
    num_frames: torch.Tensor | None
    ordered: bool
    encode: Callable
    decode: Callable
    masks: torch.Tensor | None = None
    embeddings: torch.Tensor | None = None

    @cached_property
    def source_spectra(self):
        """Spectra of the true sources [B, K, F, T]."""
        batch, _, num_spks = self.sources.shape
        spectra = self.encode(self.sources.transpose(1, 2).flatten(0, 1))
        return spectra.unflatten(0, (batch, num_spks))

    @cached_property
    def estimates(self):
        """Waveforms of the estimated sources [B, L, K]."""
        masks = _made(self, "masks")
        return decode_sources(
            masks, self.spectrum, self.decode, self.sources.shape[1]
        )

    @cached_property
    def masked_magnitudes(self):
        """Masked magnitudes of the mixture [B, K, F, T]."""
        masks = _made(self, "masks")
        return masks.transpose(0, 1) * self.spectrum.abs().unsqueeze(1)


def _magnitude(separation):
    """Squared error of the magnitudes (Cadoux et al., Eq. 3)."""
    return magnitude_loss(
        separation.masked_magnitudes,
        separation.source_spectra.abs(),
        separation.num_frames,
        pit=not separation.ordered,
    )


def _si_sdr(separation):
    """Negative SI-SDR of the waveforms."""
    return si_sdr_loss(
        separation.estimates,
        separation.sources,
        separation.num_samples,
        pit=not separation.ordered,
    )


def _affinity(separation, power=1):
    """Affinities of the embeddings, bins weighted by their magnitudes |X|^p."""
    magnitudes = relative_magnitudes(separation.spectrum, separation.num_frames)
    talkers = ideal_binary_masks(separation.source_spectra).transpose(0, 1)
    return affinity_loss(
        _made(separation, "embeddings"),
        flatten_bins(talkers).transpose(1, 2),
        magnitudes.flatten(1).pow(power),
    )


def _phase_sensitive(separation, power=2):
    """Error of the phase-sensitive magnitudes, squared as that of uPIT."""
    return phase_sensitive_loss(
        _made(separation, "masks"),
        separation.spectrum,
        separation.source_spectra,
        separation.num_frames,
        power=power,
        pit=not separation.ordered,
    )


def _chimera(separation):
    """Affinities and absolute phase-sensitive errors (Wang et al., Chimera++).

    Both are relative to the mixture, and so is their sum: weighted means over
    pairs of bins, and over bins, with the same weights |X|.
    """
    affinity = CHIMERA_ALPHA * _affinity(separation)
    return affinity + (1 - CHIMERA_ALPHA) * _phase_sensitive(separation, 1)


def _made(separation, name):
    """Returns what an objective needs, if the masker has made it."""
    value = getattr(separation, name)
    if value is None:
        raise ValueError(
            f"loss needs {name}, and this masker makes none in training: "
            f"choose another, such as {ALTERNATIVES[name]}"
        )
    return value


# From a separation to the loss of each item [B].
OBJECTIVES = {
    "magnitude": _magnitude,
    "si_sdr": _si_sdr,
    "affinity": _affinity,
    "affinity_energy": partial(_affinity, power=2),
    "phase_sensitive": _phase_sensitive,
    "chimera": _chimera,
}
