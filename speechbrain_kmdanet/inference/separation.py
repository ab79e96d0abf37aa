"""The separator that users load."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from speechbrain.inference.interfaces import Pretrained
from torch import Tensor, nn

from speechbrain_kmdanet.dataio.audio import (
    LOCATE,
    REPLACE,
    RESTORE,
    UnusableSource,
    as_path,
    name_path,
)
from speechbrain_kmdanet.dataio.recording import read_blocks, warn_if_clipped
from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.inference.batch import (
    Batch,
    check_rate,
    is_auto,
    make_batch,
    without_half_precision,
)
from speechbrain_kmdanet.inference.loading import (
    FETCH_OPTIONS,
    Overrides,
    Source,
    load_separator,
)
from speechbrain_kmdanet.processing.bands import resample, restore_sources
from speechbrain_kmdanet.processing.separation import encode

# Remedies for one file, where those for a whole corpus do not fit.
REMEDIES = {
    LOCATE: "check the path; only local files are read, download others first",
    RESTORE: "record, copy or convert the file again",
    REPLACE: (
        "record, copy or convert the file again: it is damaged, cut short or "
        "no audio"
    ),
}


class Count(NamedTuple):
    """Numbers of talkers of a batch.

    Arguments
    ---------
    num_spks : torch.Tensor
        Number of talkers of each mixture [B].
    confidence : torch.Tensor
        How likely each of these is [B], from 0 to 1.
    chances : torch.Tensor
        How likely 1 to M talkers are [B, M].
    """

    num_spks: Tensor
    confidence: Tensor
    chances: Tensor


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
        source: Source = None,
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
            Folder that train.py wrote (pretrained), or the name of a separator
            in this package, unless a folder has that name: by default, its
            only one, "kmeans_wide";
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
        num_spks: int | str | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Separates a batch of mixtures.

        Weights in half precision save memory, not time: they are computed with
        in float32. ``torch.autocast`` saves time.

        Arguments
        ---------
        mix : torch.Tensor
            Mixtures [B, L] at the sample rate of the model.
        num_spks : int or str
            Number of talkers K, 1 to 100, or "auto": those of each mixture are
            counted. That of the model by default.
        lengths : torch.Tensor
            Relative lengths [B] in (0, 1] of the mixtures, as SpeechBrain's
            padded batches have them; all of full length by default.

        Returns
        -------
        torch.Tensor
            Sources [B, L, K] on the device of the model, which sum to the
            mixtures (less the noise, of a separator that keeps it out); zeros
            behind the length of a mixture. Where talkers are counted, K is the
            largest number; a mixture of fewer has silent sources at the end.

        Raises
        ------
        UserError
            If a mixture is no float tensor of that shape, is shorter than the
            window of the encoder or has samples that are not finite, if its
            sources would have such, or num_spks is neither "auto" nor an
            integer from 1 to the number of time-frequency bins of a mixture.
        """
        if num_spks is None:
            num_spks = self.hparams.num_spks
        if is_auto(num_spks):
            return self.separate_counted(mix, lengths)[0]
        batch = self._prepare(mix, lengths)
        return batch.finish(batch.separate(num_spks).estimates)  # type: ignore[arg-type]

    @torch.no_grad()
    def separate_counted(
        self,
        mix: Tensor,
        lengths: Tensor | None = None,
        most: int | None = None,
    ) -> tuple[Tensor, Count]:
        """Separates mixtures of talkers that are counted.

        Arguments
        ---------
        mix : torch.Tensor
            Mixtures [B, L] at the sample rate of the model.
        lengths : torch.Tensor
            Relative lengths [B] in (0, 1], see :meth:`separate_batch`.
        most : int
            Largest number of talkers; what the separator counts to by default.

        Returns
        -------
        sources : torch.Tensor
            Sources [B, L, K] of the largest number K of talkers; a mixture of
            fewer has silent sources at the end.
        Count
            Numbers of talkers, with how sure each is.

        Raises
        ------
        UserError
            As :meth:`separate_batch`, or if the separator cannot count.
        """
        batch = self._prepare(mix, lengths)
        found = self._count(batch, most)
        return batch.finish(batch.separate_each(found.num_spks)), found

    @torch.no_grad()
    def count_batch(self, mix: Tensor, lengths: Tensor | None = None) -> Count:
        """Counts the talkers of mixtures.

        Arguments
        ---------
        mix : torch.Tensor
            Mixtures [B, L] at the sample rate of the model.
        lengths : torch.Tensor
            Relative lengths [B] in (0, 1], see :meth:`separate_batch`.

        Returns
        -------
        Count
            Numbers of talkers, with how sure each is.

        Raises
        ------
        UserError
            As :meth:`separate_batch`, or if the separator cannot count.
        """
        return self._count(self._prepare(mix, lengths))

    def _prepare(self, mix: Tensor, lengths: Tensor | None) -> Batch:
        """A checked batch at a usual level, on the device of the model."""
        return make_batch(
            self.eval().mods, mix, lengths, self.hparams.sample_rate
        )

    @property
    def can_count(self) -> bool:
        """Whether the separator counts talkers, for num_spks="auto"."""
        return "counter" in self.mods

    @property
    def voice_size(self) -> int:
        """Length of the vector of a voice; 1 if the separator knows none."""
        return self.mods.voice.size if "voice" in self.mods else 1

    @torch.no_grad()
    def voice(self, speech: Tensor) -> np.ndarray:
        """What a talker's voice is like.

        Arguments
        ---------
        speech : torch.Tensor
            Speech of one talker [L] at the sample rate of the model.

        Returns
        -------
        numpy.ndarray
            Vector of unit length [E]; those of one talker have a larger cosine
            than those of two. Zeros of a separator that knows no voices.
        """
        if "voice" not in self.mods:
            return np.zeros(1)
        net = without_half_precision(self.eval().mods.voice)
        speech = speech.to(next(net.parameters()))
        vector: np.ndarray = net(speech.unsqueeze(0))[0].double().cpu().numpy()
        return vector

    def _needs_counter(self) -> nn.Module:
        """What counts the talkers."""
        if not self.can_count:
            raise UserError(
                'num_spks="auto" needs a separator that can count, which this '
                "one cannot: give the number of talkers, or take another"
            )
        return self.mods.counter

    def _count(self, batch: Batch, most: int | None = None) -> Count:
        """Counts the talkers of a batch."""
        counter = without_half_precision(self._needs_counter())
        spectra = encode(batch.modules.encoder, batch.mix, batch.num_samples)
        logits = counter(*spectra)  # [B, M]
        chances = logits[:, :most].softmax(1)
        confidence, most_likely = chances.max(1)
        return Count(most_likely + 1, confidence, chances)

    def separate_file(
        self,
        path: str | bytes | Path,
        num_spks: int | str | None = None,
        sample_rate: int | None = None,
    ) -> Tensor:
        """Separates a recording of any sample rate and number of channels.

        Channels are averaged. The sources have the level, the rate and the
        length of the recording, and sum to it (less the noise, of a separator
        that keeps it out); what lies above what the model hears is shared
        out, see :func:`~speechbrain_kmdanet.processing.bands.restore_band`.
        Nothing is written. Long recordings are for
        :func:`~speechbrain_kmdanet.inference.recordings.separate_recording`.

        Arguments
        ---------
        path : str, bytes or pathlib.Path
            Local file, WAV, FLAC or whatever else libsndfile reads.
        num_spks : int or str
            Number of talkers K, 1 to 100, or "auto": they are counted. That of
            the model by default.
        sample_rate : int
            Rate of the sources in Hz: that of the recording by default. At
            that of the model (``separator.hparams.sample_rate``) nothing has
            to be shared out.

        Returns
        -------
        torch.Tensor
            Sources [1, L, K], on the device of the model.

        Raises
        ------
        UserError
            If the file cannot be used, its channels cancel each other, or as
            :meth:`separate_batch`; it names the file.
        """
        source = as_path(path)
        try:
            with read_blocks(source) as recording:
                mixture = np.concatenate(list(recording.blocks()))
                warn_if_clipped(recording)
                rate = recording.sample_rate
            own_rate = self.hparams.sample_rate
            heard = torch.from_numpy(resample(mixture, rate, own_rate))
            sources = self.separate_batch(heard.float().unsqueeze(0), num_spks)
            wanted = rate if sample_rate is None else check_rate(sample_rate)
            if wanted == own_rate:
                return sources
            restored = restore_sources(
                sources[0].cpu().numpy().astype(np.float64),
                heard.numpy(),
                own_rate,
                resample(mixture, rate, wanted),
                wanted,
            )
            return torch.from_numpy(restored[None]).to(sources)
        except UserError as error:
            raise explain(error, path) from error

    def forward(
        self,
        mix: Tensor,
        num_spks: int | str | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Separates a batch of mixtures, see :meth:`separate_batch`."""
        return self.separate_batch(mix, num_spks, lengths)


def explain(error: UserError, path: str | bytes | Path) -> UserError:
    """An error about one recording, with its name and what to do about it.

    Arguments
    ---------
    error : UserError
        What is wrong.
    path : str, bytes or pathlib.Path
        The recording.

    Returns
    -------
    UserError
        The error to raise.
    """
    reason = str(error)
    if isinstance(error, UnusableSource):
        remedy = REMEDIES.get(error.remedy, error.remedy)
        reason = f"{error.reason} ({remedy})"
    name = name_path(os.fsdecode(path))  # a Path makes one slash of two
    return UserError(f"cannot separate {name}: {reason}")
