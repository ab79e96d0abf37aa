"""What separators are given: batches of mixtures, checked and made ready."""

import copy
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from speechbrain_kmdanet.dataio.audio import RATES
from speechbrain_kmdanet.errors import UserError, one_line
from speechbrain_kmdanet.processing.bins import valid_mask
from speechbrain_kmdanet.processing.separation import Separation, separate

AUTO = "auto"  # number of talkers: counted
FAINTEST, LOUDEST = 1e-10, 1e10  # peaks whose squares are far from the limits


class Batch(NamedTuple):
    """Mixtures that are ready for the modules of a separator."""

    modules: Any
    mix: Tensor  # [B, L], of a usual level
    num_samples: Tensor  # [B]
    levels: Tensor  # [B, 1], that the mixtures were divided by

    def separate(self, num_spks: int, **options: Any) -> Separation:
        """Separates them, see :func:`.processing.separation.separate`.

        Arguments
        ---------
        num_spks : int
            Number of talkers K.
        **options : dict
            Further arguments of that function.

        Returns
        -------
        Separation
            The separation.
        """
        return separate(
            self.modules.encoder,
            self.modules.masknet,
            self.modules.decoder,
            self.mix,
            num_spks,
            self.num_samples,
            **options,
        )

    def separate_each(self, num_spks: Tensor) -> Tensor:
        """Separates them, each into a number of its own.

        Arguments
        ---------
        num_spks : torch.Tensor
            Numbers of talkers [B].

        Returns
        -------
        torch.Tensor
            Sources [B, L, K] of the largest number K; zeros at the end for
            those who have fewer.
        """
        counts = num_spks.unique().tolist()
        estimates = self.mix.new_zeros(*self.mix.shape, counts[-1])
        embeddings = None
        if len(counts) > 1 and "embeddings" in self.modules.masknet.outputs:
            # The trunk is what takes the time: once for all of them.
            embeddings = self.separate(
                counts[0], outputs=["embeddings"]
            ).embeddings
        for count in counts:
            chosen = num_spks == count
            own = None if embeddings is None else embeddings[chosen]
            separation = self.take(chosen).separate(count, embeddings=own)
            estimates[chosen, :, :count] = separation.estimates
        return estimates

    def finish(self, estimates: Tensor) -> Tensor:
        """Brings sources to the levels of the mixtures, if all is well.

        Arguments
        ---------
        estimates : torch.Tensor
            Sources [B, L, K] of these mixtures.

        Returns
        -------
        torch.Tensor
            The sources [B, L, K], zeros behind the length of a mixture.

        Raises
        ------
        UserError
            If they are not finite.
        """
        estimates = estimates * self.levels.unsqueeze(2)
        bad = ~estimates.isfinite().all(2).all(1)
        if bad.any():
            raise UserError(
                f"the sources of {_name(bad)} have NaN or infinite samples: "
                "the weights of the separator are damaged, or it is too loud"
            )
        valid = valid_mask(self.num_samples, estimates.shape[1])
        return estimates.masked_fill(~valid.unsqueeze(2), 0.0)

    def take(self, chosen: Tensor) -> "Batch":
        """Takes some of the mixtures.

        Arguments
        ---------
        chosen : torch.Tensor
            Which ones [B], bool.

        Returns
        -------
        Batch
            The batch of these.
        """
        parts = [part[chosen] for part in self[1:]]
        return Batch(self.modules, *parts)


def make_batch(
    modules: nn.Module, mix: Tensor, lengths: Tensor | None, sample_rate: int
) -> Batch:
    """A checked batch at a usual level, on the device of the modules.

    Arguments
    ---------
    modules : nn.Module
        The modules of a separator, by name.
    mix : torch.Tensor
        Mixtures [B, L].
    lengths : torch.Tensor
        Relative lengths [B] in (0, 1]; all of full length by default.
    sample_rate : int
        The rate of the separator in Hz.

    Returns
    -------
    Batch
        The batch.

    Raises
    ------
    UserError
        If a mixture is no float tensor of that shape, is shorter than the
        window of the encoder or has samples that are not finite.
    """
    _check_shape(mix)
    modules = without_half_precision(modules)
    encoder: Any = modules.encoder
    # Not to where it was made, which does not follow separator.to(...).
    mix = mix.to(next(chain(encoder.parameters(), encoder.buffers())))
    num_samples = _absolute_lengths(lengths, mix)
    mix = mix.masked_fill(~valid_mask(num_samples, mix.shape[1]), 0.0)
    peaks = mix.abs().amax(1, keepdim=True)  # [B, 1]
    _check_samples(peaks, num_samples, encoder.window_length, sample_rate)
    # Energies of others cannot be told from 0, or from infinity.
    usual = (peaks == 0) | (peaks > FAINTEST) & (peaks < LOUDEST)
    levels = torch.where(usual, torch.ones_like(peaks), peaks)
    return Batch(modules, mix / levels, num_samples, levels)


def is_auto(num_spks: object) -> bool:
    """Whether talkers are to be counted.

    Arguments
    ---------
    num_spks : object
        A number of talkers, or "auto".

    Returns
    -------
    bool
        True for "auto".

    Raises
    ------
    UserError
        If it is another text.
    """
    if isinstance(num_spks, str) and num_spks != AUTO:
        raise UserError(
            f'num_spks must be an integer >= 1 or "auto", got {num_spks!r}'
        )
    return isinstance(num_spks, str)


def without_half_precision(modules: nn.Module) -> Any:
    """Modules in float32 or more: not all that they do exists in less.

    Arguments
    ---------
    modules : nn.Module
        Modules with weights of any precision.

    Returns
    -------
    nn.Module
        The modules, or a copy of them.
    """
    if all(weights.dtype.itemsize >= 4 for weights in modules.parameters()):
        return modules
    return copy.deepcopy(modules).float()


def check_rate(sample_rate: object) -> int:
    """A sample rate, if it is one.

    Arguments
    ---------
    sample_rate : object
        What was given, in Hz.

    Returns
    -------
    int
        The sample rate.

    Raises
    ------
    UserError
        If it is none, or one that nothing is resampled to.
    """
    low, high = RATES
    if type(sample_rate) is not int or not low <= sample_rate <= high:
        raise UserError(
            f"sample_rate must be an integer from {low} to {high} Hz, got "
            f"{one_line(repr(sample_rate))}"
        )
    return sample_rate


def _check_shape(mix: object) -> None:
    """Refuses what is not a non-empty float tensor [B, L]."""
    if not isinstance(mix, torch.Tensor) or not mix.is_floating_point():
        got = getattr(mix, "dtype", type(mix).__name__)
        raise UserError(
            f"mix must be a floating-point tensor [batch, samples], got {got}"
        )
    if mix.dim() != 2 or 0 in mix.shape:
        raise UserError(
            "mix must be a non-empty batch of mono mixtures [batch, samples], "
            f"got shape {tuple(mix.shape)}"
        )


def _absolute_lengths(lengths: Tensor | None, mix: Tensor) -> Tensor:
    """Lengths of mixtures [B, L] in samples [B], of relative ones."""
    batch, num_samples = mix.shape
    if lengths is None:
        lengths = torch.ones(batch)
    try:
        shares = torch.as_tensor(lengths, device=mix.device).double()
    except (TypeError, ValueError):
        shares = torch.zeros(0)
    if shares.shape != (batch,) or not ((shares > 0) & (shares <= 1)).all():
        raise UserError(
            f"lengths must be {batch} relative lengths in (0, 1] for mix of "
            f"shape {tuple(mix.shape)}, got {one_line(lengths)}"
        )
    return (shares * num_samples).round().long()


def _check_samples(
    peaks: Tensor, num_samples: Tensor, window: int, sample_rate: int
) -> None:
    """Refuses mixtures shorter than a window, or with samples not finite."""
    short, bad = num_samples < window, ~peaks.isfinite().squeeze(1)
    if short.any():
        count = int(num_samples[short][0])
        raise UserError(
            f"{_name(short)} has {count} samples "
            f"({1000 * count / sample_rate:g} ms at {sample_rate} Hz), at "
            f"least {window} samples ({1000 * window / sample_rate:g} ms) are "
            "needed"
        )
    if bad.any():
        raise UserError(f"{_name(bad)} has NaN or infinite samples")


def _name(chosen: Tensor) -> str:
    """Name of the first chosen mixture of a batch [B]."""
    if len(chosen) == 1:
        return "the mixture"
    return f"item {int(chosen.nonzero()[0])} of the batch"
