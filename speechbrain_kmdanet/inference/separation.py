"""The separator that users load."""

import copy
import os
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speechbrain.inference.interfaces import Pretrained
from speechbrain.utils.logger import get_logger
from torch import Tensor, nn

from speechbrain_kmdanet.dataio.audio import (
    LOCATE,
    REPLACE,
    RESTORE,
    UnusableSource,
    as_path,
    name_path,
    read_recording,
    resample,
)
from speechbrain_kmdanet.errors import UserError, one_line
from speechbrain_kmdanet.inference.loading import (
    FETCH_OPTIONS,
    Overrides,
    Source,
    load_separator,
)
from speechbrain_kmdanet.processing.bins import valid_mask
from speechbrain_kmdanet.processing.separation import separate

logger = get_logger(__name__)

# Remedies for one file, where those for a whole corpus do not fit.
REMEDIES = {
    LOCATE: "check the path; only local files are read, download others first",
    RESTORE: "record, copy or convert the file again",
    REPLACE: (
        "record, copy or convert the file again: it is damaged, cut short or "
        "no audio"
    ),
}
FULL_SCALE = 0.99  # 8-bit files only reach 127/128
FAINTEST, LOUDEST = 1e-10, 1e10  # peaks whose squares are far from the limits
CANCELLED = 0.1  # of the power that the mean of independent channels has
ROUNDING = 1e-24  # of the power of float64
CLIPPED_RUN = 3  # equal samples in a row: rarely chance at full scale


class AttractorSeparation(Pretrained):
    """Separates mixtures of any number of talkers with a trained separator.

    Arguments
    ---------
    modules : dict
        The modules encoder, masknet and decoder, see STFTEncoder, DANet and
        STFTDecoder.
    hparams : dict
        Hyperparameters: sample_rate in Hz and num_spks, the number of talkers
        when a call does not say.
    **options : dict
        Further arguments of SpeechBrain's Pretrained, e.g. run_opts.

    Example
    -------
    >>> from speechbrain_kmdanet.lobes.models.danet import DANet
    >>> from speechbrain_kmdanet.lobes.models.embedding import EmbeddingNet
    >>> from speechbrain_kmdanet.nnet.attractors import KMeansAttractors
    >>> from speechbrain_kmdanet.processing.stft import STFTDecoder, STFTEncoder
    >>> kmeans = KMeansAttractors("spherical", seed=0)
    >>> net = EmbeddingNet(num_bins=65, embedding_dim=4, hidden_size=8)
    >>> modules = {
    ...     "encoder": STFTEncoder(n_fft=128, hop_length=32),
    ...     "masknet": DANet(net, kmeans, kmeans),
    ...     "decoder": STFTDecoder(n_fft=128, hop_length=32),
    ... }
    >>> hparams = {"sample_rate": 8000, "num_spks": 2}
    >>> separator = AttractorSeparation(modules, hparams)
    >>> mix = torch.randn(1, 4000)
    >>> separator.separate_batch(mix).shape
    torch.Size([1, 4000, 2])
    >>> sources = separator.separate_batch(mix, num_spks=3)
    >>> torch.allclose(sources.sum(2).cpu(), mix, atol=1e-4)
    True
    """

    MODULES_NEEDED = ["encoder", "masknet", "decoder"]
    HPARAMS_NEEDED = ["sample_rate", "num_spks"]

    @classmethod
    def from_hparams(
        cls,
        source: Source,
        hparams_file: str = "hyperparams.yaml",
        trust: bool = False,
        overrides: Overrides = None,
        overrides_must_match: bool = True,
        **kwargs: Any,
    ) -> "AttractorSeparation":
        """Loads a separator from a folder or from Hugging Face.

        Nothing that is in the folder is run: its YAML file makes the modules
        of a separator and nothing else, its weights are numbers, and all lies
        inside of the folder. SpeechBrain's own loaders, and this one with
        ``trust=True``, run whatever the YAML file says.

        A local folder is read where it is: nothing is copied, linked or
        written. The network is used only for a source that says so.

        Arguments
        ---------
        source : str, pathlib.Path or FetchSource
            Folder that train.py wrote (pretrained);
            ``"hf://ORGANISATION/NAME"`` for a repository on Hugging Face, or
            a web address.
        hparams_file : str
            Name of the hyperparameters file in it.
        trust : bool
            Whether the folder may run what it wants, because you trust who
            made it: modules of your own, or of other packages, need that.
        overrides : str or dict
            Values that replace those of the hyperparameters file.
        overrides_must_match : bool
            Whether only values that are in the file may be replaced.
        **kwargs : dict
            Further arguments of this class, e.g. run_opts, and of
            SpeechBrain's fetch, e.g. savedir for what is downloaded.

        Returns
        -------
        AttractorSeparation
            The separator.

        Raises
        ------
        UserError
            If the source holds no separator, one that would run something
            else, or weights that do not fit or are not finite.
        """
        fetching = {key: kwargs.pop(key) for key in FETCH_OPTIONS & {*kwargs}}
        hparams = load_separator(
            source,
            hparams_file,
            cls.MODULES_NEEDED,
            cls.HPARAMS_NEEDED,
            trust,
            overrides,
            overrides_must_match,
            **fetching,
        )
        return cls(hparams["modules"], hparams, **kwargs)

    @torch.no_grad()
    def separate_batch(
        self,
        mix: Tensor,
        num_spks: int | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Separates a batch of mixtures.

        Weights in half precision save memory, not time: they are computed with
        in float32. ``torch.autocast`` saves time.

        Arguments
        ---------
        mix : torch.Tensor
            Mixtures [B, L] at the sample rate of the model.
        num_spks : int
            Number of talkers K, 1 to 100; that of the model by default.
        lengths : torch.Tensor
            Relative lengths [B] in (0, 1] of the mixtures, as SpeechBrain's
            padded batches have them; all of full length by default.

        Returns
        -------
        torch.Tensor
            Sources [B, L, K] on the device of the model, which sum to the
            mixtures; zeros behind the length of a mixture.

        Raises
        ------
        UserError
            If a mixture is no float tensor of that shape, is shorter than the
            window of the encoder or has samples that are not finite, if its
            sources would have such, or num_spks is no integer from 1 to the
            number of time-frequency bins of a mixture.
        """
        _check_shape(mix)
        modules = _without_half_precision(self.eval().mods)
        encoder = modules.encoder
        # Not to self.device, which does not follow separator.to(...).
        mix = mix.to(next(chain(encoder.parameters(), encoder.buffers())))
        num_samples = _absolute_lengths(lengths, mix)
        padding = ~valid_mask(num_samples, mix.shape[1])
        mix = mix.masked_fill(padding, 0.0)
        peaks = mix.abs().amax(1, keepdim=True)  # [B, 1]
        _check_samples(
            peaks, num_samples, encoder.window_length, self.hparams.sample_rate
        )
        # Energies of others cannot be told from 0, or from infinity.
        usual = (peaks == 0) | (peaks > FAINTEST) & (peaks < LOUDEST)
        levels = torch.where(usual, torch.ones_like(peaks), peaks)
        estimates = separate(
            encoder,
            modules.masknet,
            modules.decoder,
            mix / levels,
            self.hparams.num_spks if num_spks is None else num_spks,
            num_samples,
        ).estimates
        estimates = estimates * levels.unsqueeze(2)
        bad = ~estimates.isfinite().all(2).all(1)
        if bad.any():
            raise UserError(
                f"the sources of {_name(bad)} have NaN or infinite samples: "
                "the weights of the separator are damaged, or it is too loud"
            )
        return estimates.masked_fill(padding.unsqueeze(2), 0.0)

    def separate_file(
        self, path: str | bytes | Path, num_spks: int | None = None
    ) -> Tensor:
        """Separates a recording of any sample rate and number of channels.

        Channels are averaged. The sources keep their level: they sum to the
        mixture at the sample rate of the model. Nothing is written.

        Arguments
        ---------
        path : str, bytes or pathlib.Path
            Local file, WAV, FLAC or whatever else libsndfile reads.
        num_spks : int
            Number of talkers K, 1 to 100; that of the model by default.

        Returns
        -------
        torch.Tensor
            Sources [1, L, K] at the sample rate of the model
            (``separator.hparams.sample_rate``), on its device.

        Raises
        ------
        UserError
            If the file cannot be used, its channels cancel each other, or as
            :meth:`separate_batch`; it names the file.
        """
        source = as_path(path)
        name = name_path(os.fsdecode(path))  # a Path makes one slash of two
        try:
            signal, sample_rate = read_recording(source)
            if _is_clipped(signal):
                logger.warning(
                    f"{name} is clipped (runs of samples at full scale): "
                    "expect a worse separation there, or record it again at a "
                    "lower level"
                )
            mixture = resample(
                _downmix(signal), sample_rate, self.hparams.sample_rate
            )
            return self.separate_batch(
                torch.from_numpy(mixture).float().unsqueeze(0), num_spks
            )
        except UserError as error:
            reason = str(error)
            if isinstance(error, UnusableSource):
                remedy = REMEDIES.get(error.remedy, error.remedy)
                reason = f"{error.reason} ({remedy})"
            raise UserError(f"cannot separate {name}: {reason}") from error

    def forward(
        self,
        mix: Tensor,
        num_spks: int | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Separates a batch of mixtures, see :meth:`separate_batch`."""
        return self.separate_batch(mix, num_spks, lengths)


def _without_half_precision(modules: nn.Module) -> Any:
    """Modules in float32 or more: not all that they do exists in less."""
    if all(weights.dtype.itemsize >= 4 for weights in modules.parameters()):
        return modules
    return copy.deepcopy(modules).float()


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


def _downmix(signal: np.ndarray) -> np.ndarray:
    """Mean of the channels of a signal [time, channels]: [time]."""
    mixture = signal.mean(axis=1)
    channels = signal.shape[1]
    if channels == 1:
        return mixture
    with np.errstate(over="ignore", invalid="ignore"):
        power = signal.var(axis=0).mean()
        least = CANCELLED * power / channels
        # Constants vary by rounding alone.
        rounding = ROUNDING * np.square(signal).mean()
        if power > rounding and mixture.var() < least:
            raise UserError(
                f"its {channels} channels cancel each other when they are "
                "averaged, some have the opposite sign of others: give one "
                "channel, or turn their signs"
            )
    return mixture


def _is_clipped(signal: np.ndarray) -> bool:
    """Whether a signal [time, channels] has runs of full-scale samples."""
    held = (np.abs(signal[1:]) >= FULL_SCALE) & (signal[1:] == signal[:-1])
    runs = np.lib.stride_tricks.sliding_window_view
    return len(held) >= CLIPPED_RUN - 1 and bool(
        runs(held, CLIPPED_RUN - 1, axis=0).all(axis=-1).any()
    )
