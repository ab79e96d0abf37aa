"""The separator that users load.

Authors
 * The speechbrain_kmdanet developers 2026
"""

from itertools import chain
from pathlib import Path

import numpy as np
import torch
from speechbrain.inference.interfaces import Pretrained
from speechbrain.utils.logger import get_logger

from speechbrain_kmdanet.dataio.mixing import resample
from speechbrain_kmdanet.dataio.source_files import (
    LOCATE,
    RESTORE,
    UnusableSource,
    read_recording,
)
from speechbrain_kmdanet.inference.checks import (
    absolute_lengths,
    check_finite,
    check_num_bins,
    check_num_samples,
    check_num_spks,
    check_shape,
)
from speechbrain_kmdanet.processing.separate import decode_sources

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
    def from_hparams(cls, source, hparams_file="hyperparams.yaml", **kwargs):
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
        ValueError
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
            raise ValueError(
                f"source={source!r} is not a folder, seen from {Path.cwd()}, "
                f"and could not be loaded from elsewhere ({reason[0]})"
            ) from error

    @torch.no_grad()
    def separate_batch(self, mix, num_spks=None, lengths=None):
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
        ValueError
            If a mixture is no float tensor of that shape, is shorter than the
            window of the encoder or has samples that are not finite, or
            num_spks is no integer from 1 to the number of time-frequency bins
            of a mixture.
        """
        encoder = self.mods.encoder
        num_spks = check_num_spks(
            self.hparams.num_spks if num_spks is None else num_spks
        )
        check_shape(mix)
        # Not to self.device, which does not follow separator.to(...).
        mix = mix.to(next(chain(encoder.parameters(), encoder.buffers())))
        num_samples = absolute_lengths(lengths, mix)
        check_num_samples(
            num_samples, encoder.window_length, self.hparams.sample_rate
        )
        samples = torch.arange(mix.shape[1], device=mix.device)
        padding = samples >= num_samples.unsqueeze(1)
        mix = mix.masked_fill(padding, 0.0)
        check_finite(mix)
        frames = encoder.num_frames(num_samples)

        self.eval()
        spectrum = encoder(mix)
        check_num_bins(num_spks, frames * spectrum.shape[1])
        # Lengths are None without padding: recurrent layers run faster.
        num_frames = frames if padding.any() else None
        masks = self.mods.masknet(spectrum, num_frames, num_spks)
        sources = decode_sources(
            masks, spectrum, self.mods.decoder, mix.shape[1]
        )
        return sources.masked_fill(padding.unsqueeze(2), 0.0)

    def separate_file(self, path, num_spks=None):
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
        ValueError
            If the file cannot be used, or as :meth:`separate_batch`; it names
            the file.
        """
        try:
            signal, sample_rate = read_recording(path)
        except UnusableSource as problem:
            remedy = REMEDIES.get(problem.remedy, problem.remedy)
            raise ValueError(
                f"cannot separate {path}: {problem.reason} ({remedy})"
            ) from problem
        if _is_clipped(signal):
            logger.warning(
                f"{path} is clipped (runs of samples at full scale): expect a "
                "worse separation there, or record it again at a lower level"
            )
        mixture = resample(
            signal.mean(axis=1), sample_rate, self.hparams.sample_rate
        )
        mixture = torch.from_numpy(mixture).float().unsqueeze(0)
        try:
            return self.separate_batch(mixture, num_spks)
        except ValueError as error:
            raise ValueError(f"cannot separate {path}: {error}") from error

    def forward(self, mix, num_spks=None, lengths=None):
        """Separates a batch of mixtures, see :meth:`separate_batch`."""
        return self.separate_batch(mix, num_spks, lengths)


def _check_folder(folder, hparams_file):
    """Refuses a folder without a separator, before anything in it is run."""
    path = Path(folder, hparams_file)
    expected = "expected the folder 'pretrained' that train.py writes"
    if not path.is_file():
        raise ValueError(f"{folder} holds no {hparams_file}: {expected}")
    # The hyperparameters of a training have the same name.
    lines = path.read_text(encoding="utf-8").splitlines()
    if not any(line.startswith("pretrainer:") for line in lines):
        raise ValueError(f"{path} has no key 'pretrainer': {expected}")


def _is_clipped(signal):
    """Whether a signal [time, channels] has runs of full-scale samples."""
    held = (np.abs(signal[1:]) >= FULL_SCALE) & (signal[1:] == signal[:-1])
    runs = np.lib.stride_tricks.sliding_window_view
    return len(held) >= CLIPPED_RUN - 1 and bool(
        runs(held, CLIPPED_RUN - 1, axis=0).all(axis=-1).any()
    )
