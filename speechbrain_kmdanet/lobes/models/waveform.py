"""Waveform-domain separators behind the interface of the others.

A learned filter bank takes the place of the STFT, and a masknet of SpeechBrain
(Conv-TasNet's MaskNet, SepFormer's Dual_Path_Model) or of tasnet.py that of the
embeddings.

References: Luo and Mesgarani, "Conv-TasNet: Surpassing ideal time-frequency
magnitude masking for speech separation"; Subakan, Ravanelli, Cornell, Bronzi
and Zhong, "Attention is all you need in speech separation".
"""

import torch
from speechbrain.lobes.models import dual_path
from torch import Tensor, nn

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.lobes.models.masker import Masker
from speechbrain_kmdanet.processing.bins import tiny
from speechbrain_kmdanet.processing.highpass import HighPass
from speechbrain_kmdanet.processing.stft import Count


class WaveformEncoder(dual_path.Encoder):
    """Learned filter bank: convolution with half-overlapping filters, ReLU.

    SpeechBrain's encoder, but the last samples are not dropped: zeros complete
    their frame. An item has the same frames alone and in a longer batch.

    Arguments
    ---------
    num_filters : int
        Number of filters C.
    kernel_size : int
        Length of the filters in samples; they move by half of it.
    highpass : float
        Frequency in Hz below which nothing is encoded, see HighPass; by
        default, all is.
    sample_rate : int
        Sample rate in Hz.

    Example
    -------
    >>> encoder = WaveformEncoder(num_filters=32, kernel_size=16)
    >>> encoder(torch.randn(2, 8001)).shape
    torch.Size([2, 32, 1000])
    >>> encoder.num_frames(8001)
    1000
    """

    has_magnitudes = False  # only waveforms can be compared

    def __init__(
        self,
        num_filters: int = 256,
        kernel_size: int = 16,
        highpass: float | None = None,
        sample_rate: int = 8000,
    ) -> None:
        super().__init__(kernel_size, num_filters)
        self.highpass = HighPass(highpass, sample_rate)
        self.kernel_size = self.window_length = kernel_size
        self.stride = kernel_size // 2

    def num_frames(self, num_samples: Count) -> Count:
        """Number of frames, see :meth:`.stft.STFTEncoder.num_frames`."""
        rest = num_samples - self.kernel_size
        hops = (rest + self.stride - 1) // self.stride
        return hops * (hops > 0) + 1

    def forward(
        self, mixture: Tensor, num_samples: Tensor | None = None
    ) -> Tensor:
        """Features [B, C, T], see :meth:`.stft.STFTEncoder.forward`."""
        if mixture.dim() != 2 or mixture.shape[1] == 0:
            raise UserError(
                "mixture must be a non-empty batch of mono waveforms "
                f"[batch, samples], got shape {tuple(mixture.shape)}"
            )
        mixture = self.highpass(mixture, num_samples)
        length = mixture.shape[1]
        hops = self.num_frames(length) - 1
        covered = hops * self.stride + self.kernel_size
        padded = nn.functional.pad(mixture, (0, covered - length))
        # As the STFT, the filters stay in full precision under autocast.
        with torch.autocast(mixture.device.type, enabled=False):
            return self._filter(padded.to(self.conv1d.weight.dtype))

    def _filter(self, mixture: Tensor) -> Tensor:
        """Features [B, C, T] of whole frames [B, L]."""
        return super().forward(mixture)


class GatedEncoder(WaveformEncoder):
    """Learned filter bank whose outputs are gated by those of another.

    That of TasNet: the ReLU of one convolution times the sigmoid of the other.

    Arguments
    ---------
    num_filters : int
        Number of filters C.
    kernel_size : int
        Length of the filters in samples; they move by half of it.
    highpass : float
        Frequency in Hz below which nothing is encoded.
    sample_rate : int
        Sample rate in Hz.

    Example
    -------
    >>> encoder = GatedEncoder(num_filters=32, kernel_size=16)
    >>> encoder(torch.randn(2, 8001)).shape
    torch.Size([2, 32, 1000])
    """

    def __init__(
        self,
        num_filters: int = 256,
        kernel_size: int = 16,
        highpass: float | None = None,
        sample_rate: int = 8000,
    ) -> None:
        super().__init__(num_filters, kernel_size, highpass, sample_rate)
        self.gate = nn.Conv1d(
            1, num_filters, kernel_size, stride=self.stride, bias=False
        )

    def _filter(self, mixture: Tensor) -> Tensor:
        """Gated features [B, C, T]; gates see frames of unit norm."""
        frames = mixture.unfold(1, self.kernel_size, self.stride)
        energy = frames.square().sum(2).unsqueeze(1)  # [B, 1, T]
        norm = energy.clamp_min(tiny(energy)).sqrt()
        gates = (self.gate(mixture.unsqueeze(1)) / norm).sigmoid()
        return super()._filter(mixture) * gates


class WaveformDecoder(dual_path.Decoder):
    """Learned synthesis: transposed convolution, without the ReLU's inverse.

    Arguments
    ---------
    num_filters : int
        Number of filters C.
    kernel_size : int
        Length of the filters in samples; they move by half of it.

    Example
    -------
    >>> decoder = WaveformDecoder(num_filters=32, kernel_size=16)
    >>> decoder(torch.randn(2, 32, 1000)).shape
    torch.Size([2, 8008])
    """

    def __init__(self, num_filters: int = 256, kernel_size: int = 16) -> None:
        super().__init__(
            num_filters, 1, kernel_size, kernel_size // 2, bias=False
        )

    def forward(self, features: Tensor) -> Tensor:
        """Waveforms of features, see :meth:`.stft.STFTDecoder.forward`."""
        with torch.autocast(features.device.type, enabled=False):
            return super().forward(features.to(self.weight.dtype))


class WaveformMasker(Masker):
    """Masks of the talkers from a masknet of SpeechBrain.

    The masknet sees features relative to the item's own level, which makes the
    separation scale-equivariant; SpeechBrain's are so only down to the constant
    1e-8 in their normalisations.

    These normalisations and the attention look at all frames. Therefore items
    of a padded batch are run one by one, each on its own frames. Batches
    without padding go through at once.

    Arguments
    ---------
    masknet : nn.Module
        From features [B, C, T] to masks [K, B, C, T].
    num_spks : int
        Number of talkers K that the masknet is made for.
    min_frames : int
        Least number of frames that the masknet takes; shorter mixtures are
        given silent ones.
    one_by_one : bool
        Whether the masknet mixes the items of a batch, so that all are run one
        by one.

    Example
    -------
    >>> from speechbrain.lobes.models.conv_tasnet import MaskNet
    >>> masker = WaveformMasker(MaskNet(32, B=8, H=8, P=3, X=2, R=1, C=2))
    >>> masker(torch.rand(3, 32, 50)).shape
    torch.Size([2, 3, 32, 50])
    """

    any_number = False

    def __init__(
        self,
        masknet: nn.Module,
        num_spks: int = 2,
        min_frames: int = 1,
        one_by_one: bool = False,
    ) -> None:
        super().__init__(num_spks)
        self.one_by_one = one_by_one
        self.masknet = masknet
        self.min_frames = min_frames

    def make(
        self,
        features: Tensor,
        num_frames: Tensor | None,
        *_: object,
    ) -> tuple[Tensor, None]:
        """Masks [K, B, C, T], 0 in padding, see :meth:`Masker.forward`."""
        frames = [features.shape[2]] * len(features)
        if num_frames is not None:
            frames = num_frames.tolist()
        elif not self.one_by_one:
            return self._masks(features), None
        masks = torch.zeros_like(features).repeat(self.num_spks, 1, 1, 1)
        for item, count in enumerate(frames):
            own = self._masks(features[item : item + 1, :, :count])
            masks[:, item, :, :count] = own[:, 0]
        return masks, None

    def _masks(self, features: Tensor) -> Tensor:
        """Masks of items without padding [B, C, T]."""
        power = features.float().square().mean((1, 2), keepdim=True)
        # Limited before the root, which has no gradient at 0.
        level = power.clamp_min(tiny(power)).sqrt()
        num_frames = features.shape[2]
        missing = max(self.min_frames - num_frames, 0)
        relative = (features / level).to(features.dtype)
        relative = nn.functional.pad(relative, (0, missing))
        return self.masknet(relative)[..., :num_frames]
