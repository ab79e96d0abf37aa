"""The separator that users load."""

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speechbrain.inference.interfaces import Pretrained
from speechbrain.utils.logger import get_logger
from torch import Tensor

from speechbrain_kmdanet.dataio.audio import (
    LOCATE,
    RESTORE,
    UnusableSource,
    read_recording,
    resample,
)
from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.processing.bins import valid_mask
from speechbrain_kmdanet.processing.separation import separate

logger = get_logger(__name__)

# Remedies for one file, where those for a whole corpus do not fit.
REMEDIES = {
    LOCATE: "check the path; only local files are read, download others first",
    RESTORE: "record, copy or convert the file again",
}
FULL_SCALE = 0.99  # 8-bit files only reach 127/128
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
        source: str | Path,
        hparams_file: str = "hyperparams.yaml",
        **kwargs: Any,
    ) -> "AttractorSeparation":
        """Loads a separator from a folder or from Hugging Face.

        A local folder is read where it is: nothing is copied, linked or
        written.

        Arguments
        ---------
        source : str or pathlib.Path
            Folder that train.py wrote (pretrained), or whatever else
            SpeechBrain's from_hparams takes.
        hparams_file : str
            Name of the hyperparameters file in it.
        **kwargs : dict
            Further arguments of SpeechBrain's from_hparams, e.g. run_opts.

        Returns
        -------
        AttractorSeparation
            The separator.

        Raises
        ------
        UserError
            If the source holds no separator.
        """
        if isinstance(source, Path):
            source = str(source)
        if isinstance(source, str) and Path(source).is_dir():
            _check_folder(source, hparams_file)
            # Files that lie in savedir are taken from there as they are, in
            # all versions of SpeechBrain.
            kwargs.setdefault("savedir", source)
        try:
            return super().from_hparams(source, hparams_file, **kwargs)
        except (OSError, ValueError) as error:
            if not isinstance(source, str) or Path(source).is_dir():
                raise
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(
                f"source={source!r} is not a folder, seen from {Path.cwd()}, "
                f"and could not be loaded from elsewhere ({reason[0]})"
            ) from error

    @torch.no_grad()
    def separate_batch(
        self,
        mix: Tensor,
        num_spks: int | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Separates a batch of mixtures.

        Arguments
        ---------
        mix : torch.Tensor
            Mixtures [B, L] at the sample rate of the model.
        num_spks : int
            Number of talkers K, at least 1; that of the model by default.
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
            window of the encoder or has samples that are not finite, or
            num_spks is no integer from 1 to the number of time-frequency bins
            of a mixture.
        """
        encoder = self.mods.encoder
        _check_shape(mix)
        # Not to self.device, which does not follow separator.to(...).
        mix = mix.to(next(chain(encoder.parameters(), encoder.buffers())))
        num_samples = _absolute_lengths(lengths, mix)
        padding = ~valid_mask(num_samples, mix.shape[1])
        mix = mix.masked_fill(padding, 0.0)
        _check_samples(
            mix, num_samples, encoder.window_length, self.hparams.sample_rate
        )
        self.eval()
        estimates = separate(
            encoder,
            self.mods.masknet,
            self.mods.decoder,
            mix,
            self.hparams.num_spks if num_spks is None else num_spks,
            num_samples,
        ).estimates
        return estimates.masked_fill(padding.unsqueeze(2), 0.0)

    def separate_file(
        self, path: str | Path, num_spks: int | None = None
    ) -> Tensor:
        """Separates a recording of any sample rate and number of channels.

        Channels are averaged. The sources keep their level: they sum to the
        mixture at the sample rate of the model. Nothing is written.

        Arguments
        ---------
        path : str or pathlib.Path
            Local file, WAV, FLAC or whatever else libsndfile reads.
        num_spks : int
            Number of talkers K, at least 1; that of the model by default.

        Returns
        -------
        torch.Tensor
            Sources [1, L, K] at the sample rate of the model
            (``separator.hparams.sample_rate``), on its device.

        Raises
        ------
        UserError
            If the file cannot be used, or as :meth:`separate_batch`; it names
            the file.
        """
        try:
            signal, sample_rate = read_recording(path)
            if _is_clipped(signal):
                logger.warning(
                    f"{path} is clipped (runs of samples at full scale): "
                    "expect a worse separation there, or record it again at a "
                    "lower level"
                )
            mixture = resample(
                signal.mean(axis=1), sample_rate, self.hparams.sample_rate
            )
            return self.separate_batch(
                torch.from_numpy(mixture).float().unsqueeze(0), num_spks
            )
        except UserError as error:
            reason = str(error)
            if isinstance(error, UnusableSource):
                remedy = REMEDIES.get(error.remedy, error.remedy)
                reason = f"{error.reason} ({remedy})"
            raise UserError(f"cannot separate {path}: {reason}") from error

    def forward(
        self,
        mix: Tensor,
        num_spks: int | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Separates a batch of mixtures, see :meth:`separate_batch`."""
        return self.separate_batch(mix, num_spks, lengths)


def _check_folder(folder: str, hparams_file: str) -> None:
    """Refuses a folder without a separator, before anything in it is run."""
    path = Path(folder, hparams_file)
    expected = "expected the folder 'pretrained' that train.py writes"
    if not path.is_file():
        raise UserError(f"{folder} holds no {hparams_file}: {expected}")
    # The hyperparameters of a training have the same name.
    lines = path.read_text(encoding="utf-8").splitlines()
    if not any(line.startswith("pretrainer:") for line in lines):
        raise UserError(f"{path} has no key 'pretrainer': {expected}")


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
    lengths = torch.as_tensor(lengths, device=mix.device).double()
    if lengths.shape != (batch,) or not ((lengths > 0) & (lengths <= 1)).all():
        raise UserError(
            f"lengths must be {batch} relative lengths in (0, 1] for mix of "
            f"shape {tuple(mix.shape)}, got {lengths.tolist()}"
        )
    return (lengths * num_samples).round().long()


def _check_samples(
    mix: Tensor, num_samples: Tensor, window: int, sample_rate: int
) -> None:
    """Refuses mixtures shorter than a window, or with samples not finite."""
    short, bad = num_samples < window, ~mix.isfinite().all(dim=1)
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


def _is_clipped(signal: np.ndarray) -> bool:
    """Whether a signal [time, channels] has runs of full-scale samples."""
    held = (np.abs(signal[1:]) >= FULL_SCALE) & (signal[1:] == signal[:-1])
    runs = np.lib.stride_tricks.sliding_window_view
    return len(held) >= CLIPPED_RUN - 1 and bool(
        runs(held, CLIPPED_RUN - 1, axis=0).all(axis=-1).any()
    )
