"""The chain of every separator: encode, mask, decode.

Training, inference, benchmarks and tests call :func:`separate`; what a caller
does not ask of the record that it returns is not computed.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.processing.bins import check_tensor

OUTPUTS = ("masks", "embeddings", "magnitudes")


@dataclass
class Separation:
    """Separation of a batch of mixtures, with the truth beside it if known.

    Arguments
    ---------
    mixture : torch.Tensor
        Mixtures [B, L].
    spectrum : torch.Tensor
        Encoded mixture: complex [B, F, T] in the time-frequency plane, real
        features of that shape in the waveform domain.
    encode : callable
        Encoder, waveforms [·, L] to spectra [·, F, T].
    decode : callable
        Decoder, spectra [·, F, T] to waveforms.
    num_samples : torch.Tensor
        Length of each item without padding [B]; None if nobody said.
    num_frames : torch.Tensor
        Number of frames of each item without padding [B]; None if no item is
        padded.
    ordered : bool
        Whether mask l is known to belong to source l: no permutation is
        searched.
    sources : torch.Tensor
        True sources [B, L, K]; None at inference.
    masks : torch.Tensor
        Masks [K, B, F, T]; None if they were not asked for.
    embeddings : torch.Tensor
        Embeddings of the bins [B, T · F, D]; None if they were not asked for.
    """

    mixture: Tensor
    spectrum: Tensor
    encode: Callable[..., Tensor]
    decode: Callable[[Tensor], Tensor]
    num_samples: Tensor | None = None
    num_frames: Tensor | None = None
    ordered: bool = False
    # None where nobody gave it or asked for it:
    sources: Tensor = None  # type: ignore[assignment]
    masks: Tensor = None  # type: ignore[assignment]
    embeddings: Tensor = None  # type: ignore[assignment]

    @cached_property
    def source_spectra(self) -> Tensor:
        """Spectra of the true sources [B, K, F, T]."""
        sources = self.sources.transpose(1, 2)  # [B, K, L]
        num_samples = self.num_samples
        if num_samples is not None:
            num_samples = num_samples.repeat_interleave(sources.shape[1])
        spectra = self.encode(sources.flatten(0, 1), num_samples)
        return spectra.unflatten(0, sources.shape[:2])  # [B, K, F, T]

    @cached_property
    def estimates(self) -> Tensor:
        """Waveforms of the estimated sources [B, L, K]."""
        estimates = decode_sources(
            self.masks, self.spectrum, self.decode, self.mixture.shape[1]
        )
        audible = _inside(self.encode).highpass(self.mixture, self.num_samples)
        if audible is self.mixture:
            return estimates
        rest = (self.mixture - audible) / estimates.shape[2]
        return estimates + rest.unsqueeze(2)

    @cached_property
    def masked_magnitudes(self) -> Tensor:
        """Masked magnitudes of the mixture [B, K, F, T]."""
        masks = self.masks.transpose(0, 1)  # [B, K, F, T]
        return masks * self.spectrum.abs().unsqueeze(1)


def separate(
    encoder: nn.Module,
    masknet: nn.Module,
    decoder: nn.Module,
    mixture: Tensor,
    num_spks: int | None = None,
    num_samples: Tensor | None = None,
    sources: Tensor | None = None,
    attractors: Tensor | None = None,
    embeddings: Tensor | None = None,
    outputs: Collection[str] = ("masks",),
) -> Separation:
    """Separates a batch of mixtures.

    What the encoder does not hear of a mixture, an offset or rumble, says
    nothing of talkers: the sources have equal parts of it.

    Arguments
    ---------
    encoder, masknet, decoder : nn.Module
        The modules of a separator, also inside DistributedDataParallel.
    mixture : torch.Tensor
        Mixtures [B, L].
    num_spks : int
        Number of talkers K; that of the sources, of the attractors or of the
        masker by default.
    num_samples : torch.Tensor
        Length of each item without padding [B], best on the CPU; L by default.
    sources : torch.Tensor
        True sources [B, L, K], which oracles need.
    attractors : torch.Tensor
        Attractors [B, K, D], instead of estimated ones.
    embeddings : torch.Tensor
        Embeddings [B, T · F, D] that the masker made of these mixtures before.
    outputs : collection of str
        What the masker shall make: "masks", "embeddings"; "magnitudes" are
        there in any case.

    Returns
    -------
    Separation
        Record of what was made; waveforms are decoded when they are read.

    Raises
    ------
    UserError
        As the encoder and the masker, or if an output is unknown.

    Example
    -------
    >>> import torch
    >>> from speechbrain_kmdanet.lobes.models.oracle import OracleMasker
    >>> from speechbrain_kmdanet.processing.stft import STFTDecoder, STFTEncoder
    >>> sources = torch.randn(2, 1000, 3)
    >>> separation = separate(
    ...     STFTEncoder(),
    ...     OracleMasker(),
    ...     STFTDecoder(),
    ...     sources.sum(2),
    ...     sources=sources,
    ... )
    >>> separation.estimates.shape
    torch.Size([2, 1000, 3])
    """
    unknown = {*outputs} - {*OUTPUTS}
    if unknown:
        raise UserError(
            f"outputs must be some of {OUTPUTS}, got {sorted(unknown)}"
        )
    spectrum, num_frames = encode(encoder, mixture, num_samples)
    separation = Separation(
        mixture,
        spectrum,  # [B, F, T]
        encoder,
        decoder,
        _beside(mixture, num_samples),
        _beside(mixture, num_frames),
        # Attractors that were handed in are in nobody's order.
        attractors is None and bool(_inside(masknet).ordered),
    )
    if sources is not None:
        separation.sources = sources
        num_spks = sources.shape[2] if num_spks is None else num_spks
    oracle = separation.ordered and sources is not None
    made = masknet(
        separation.spectrum,
        num_frames,
        num_spks,
        separation.source_spectra if oracle else None,
        attractors,
        with_embeddings="embeddings" in outputs,
        with_masks="masks" in outputs,
        embeddings=embeddings,
    )
    # What is not asked for is not kept: embeddings are large.
    if "embeddings" in outputs:
        separation.masks, separation.embeddings = made
    else:
        separation.masks = made
    return separation


def encode(
    encoder: nn.Module, mixture: Tensor, num_samples: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Encodes a batch of mixtures.

    Arguments
    ---------
    encoder : nn.Module
        The encoder, also inside DistributedDataParallel.
    mixture : torch.Tensor
        Mixtures [B, L].
    num_samples : torch.Tensor
        Length of each item without padding [B], best on the CPU; L by default.

    Returns
    -------
    spectrum : torch.Tensor
        Spectra [B, F, T].
    num_frames : torch.Tensor
        Number of frames of each item without padding [B], where the lengths
        are; None if no item is padded.

    Example
    -------
    >>> import torch
    >>> from speechbrain_kmdanet.processing.stft import STFTEncoder
    >>> lengths = torch.tensor([1000, 300])
    >>> encode(STFTEncoder(), torch.randn(2, 1000), lengths)[1]
    tensor([11,  6])
    """
    num_frames = None
    # Frames are None without padding: recurrent layers run faster. On the CPU
    # nobody waits for the device to know that, or how to pack the frames.
    if num_samples is not None and (num_samples < mixture.shape[1]).any():
        num_frames = _inside(encoder).num_frames(num_samples)  # [B]
    spectrum = encoder(mixture, _beside(mixture, num_samples))
    return spectrum, num_frames


def _beside(mixture: Tensor, lengths: Tensor | None) -> Tensor | None:
    """Lengths [B], if there are any, where the mixture is."""
    if lengths is None:
        return None
    return lengths.to(mixture.device, non_blocking=True)


def _inside(module: Any) -> Any:
    """The module that DistributedDataParallel wraps."""
    return getattr(module, "module", module)


def decode_sources(
    masks: Tensor,
    spectrum: Tensor,
    decoder: Callable[[Tensor], Tensor],
    num_samples: int,
) -> Tensor:
    """Applies masks to the spectrum of a mixture and decodes the sources.

    Arguments
    ---------
    masks : torch.Tensor
        Masks [K, B, F, T].
    spectrum : torch.Tensor
        Spectrum of the mixture [B, F, T].
    decoder : callable
        Turns spectra [K · B, F, T] into waveforms.
    num_samples : int
        Length L of the mixture.

    Returns
    -------
    torch.Tensor
        Sources [B, L, K].

    Raises
    ------
    UserError
        If the masks do not fit the spectrum, or it has not that many samples.

    Example
    -------
    >>> import torch
    >>> from speechbrain_kmdanet.processing.stft import STFTDecoder, STFTEncoder
    >>> mixture = torch.randn(2, 1000)
    >>> spectrum = STFTEncoder()(mixture)
    >>> masks = torch.full((3, *spectrum.shape), 1 / 3)
    >>> sources = decode_sources(masks, spectrum, STFTDecoder(), 1000)
    >>> torch.allclose(sources.sum(2), mixture, atol=1e-5)
    True
    """
    check_tensor(
        "spectrum",
        spectrum,
        "real or complex",
        batch=None,
        bins=None,
        frames=None,
    )
    batch, bins, frames = spectrum.shape
    check_tensor(
        "masks",
        masks,
        "real or complex",
        talkers=None,
        batch=batch,
        bins=bins,
        frames=frames,
    )
    masked = (masks * spectrum).flatten(0, 1)  # [K · B, F, T]
    waveforms = decoder(masked)  # [K · B, L or more]
    if not 0 < num_samples <= waveforms.shape[1]:
        raise UserError(
            f"num_samples must be from 1 to {waveforms.shape[1]}, the samples "
            f"of {frames} frames, got {num_samples}"
        )
    waveforms = waveforms[:, :num_samples]  # [K · B, L]
    return waveforms.unflatten(0, masks.shape[:2]).permute(1, 2, 0)
