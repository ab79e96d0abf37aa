"""Objectives: what a system is trained for, chosen by name.

An objective takes all that a system made of a batch and says what it needs of
it; what nobody asks for is not computed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from speechbrain_kmdanet.nnet.loss.one_and_rest import one_and_rest_loss
from speechbrain_kmdanet.nnet.loss.separation import (
    LIMIT,
    affinity_loss,
    magnitude_loss,
    phase_sensitive_loss,
    si_sdr_loss,
)
from speechbrain_kmdanet.processing.bins import (
    flatten_bins,
    loud_bins,
    relative_magnitudes,
)
from speechbrain_kmdanet.processing.masks import ideal_binary_masks
from speechbrain_kmdanet.processing.separation import Separation

CHIMERA_ALPHA = 0.975  # share of the affinity (Wang et al.)


@dataclass(frozen=True)
class Objective:
    """What a system is trained for.

    Arguments
    ---------
    loss : callable
        From a Separation to the loss of each item [B].
    needs : frozenset of str
        What the system has to make: "masks", "embeddings", and "magnitudes"
        if spectra are compared, which the waveform domain has not.
    """

    loss: Callable[[Separation], Tensor]
    needs: frozenset[str]

    def __call__(self, separation: Separation) -> Tensor:
        """Loss of each item [B] of a Separation."""
        return self.loss(separation)


def _magnitude(separation: Separation) -> Tensor:
    """Squared error of the magnitudes (Cadoux et al., Eq. 3)."""
    return magnitude_loss(
        separation.masked_magnitudes,
        separation.source_spectra.abs(),
        separation.num_frames,
        pit=not separation.ordered,
    )


def _si_sdr(separation: Separation, limit: float = LIMIT) -> Tensor:
    """Negative SI-SDR of the waveforms, up to a limit in dB."""
    return si_sdr_loss(
        separation.estimates,
        separation.sources,
        separation.num_samples,
        pit=not separation.ordered,
        limit=limit,
    )


def _affinity(
    separation: Separation, weigh: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Affinities of the embeddings, bins weighted by what magnitudes are."""
    magnitudes = relative_magnitudes(separation.spectrum, separation.num_frames)
    weights = magnitudes.flatten(1)
    talkers = ideal_binary_masks(separation.source_spectra).transpose(0, 1)
    return affinity_loss(
        separation.embeddings,
        flatten_bins(talkers).transpose(1, 2),
        weights if weigh is None else weigh(weights),
    )


def _phase_sensitive(
    separation: Separation, power: int = 2, truncate: bool = True
) -> Tensor:
    """Error of the phase-sensitive magnitudes, squared as that of uPIT."""
    return phase_sensitive_loss(
        separation.masks,
        separation.spectrum,
        separation.source_spectra,
        separation.num_frames,
        power=power,
        pit=not separation.ordered,
        truncate=truncate,
    )


def _chimera(separation: Separation) -> Tensor:
    """Affinities and absolute phase-sensitive errors (Wang et al., Chimera++).

    Both are relative to the mixture, and so is their sum: weighted means over
    pairs of bins, and over bins, with the same weights |X|.
    """
    affinity = CHIMERA_ALPHA * _affinity(separation)
    return affinity + (1 - CHIMERA_ALPHA) * _phase_sensitive(separation, 1)


def _one_and_rest(separation: Separation) -> Tensor:
    """Negative SI-SDR of one talker and of the rest, step by step."""
    return one_and_rest_loss(
        separation.estimates, separation.sources, separation.num_samples
    )


_MASKS = frozenset({"masks", "magnitudes"})
_EMBEDDINGS = frozenset({"embeddings", "magnitudes"})

OBJECTIVES = {
    "magnitude": Objective(_magnitude, _MASKS),
    "si_sdr": Objective(_si_sdr, frozenset({"masks"})),
    # Where single talkers are trained on: they have no end of decibels.
    "si_sdr_30": Objective(partial(_si_sdr, limit=30.0), frozenset({"masks"})),
    "affinity": Objective(_affinity, _EMBEDDINGS),
    "affinity_energy": Objective(
        partial(_affinity, weigh=torch.square), _EMBEDDINGS
    ),
    # As Hershey et al. have it: all bins within 40 dB of the loudest alike.
    "affinity_binary": Objective(
        partial(_affinity, weigh=loud_bins), _EMBEDDINGS
    ),
    "phase_sensitive": Objective(_phase_sensitive, _MASKS),
    "phase_sensitive_untruncated": Objective(
        partial(_phase_sensitive, truncate=False), _MASKS
    ),
    "chimera": Objective(_chimera, _MASKS | _EMBEDDINGS),
    "one_and_rest": Objective(_one_and_rest, frozenset({"masks"})),
}
