"""What a voice is like, whatever is said: a small ECAPA-TDNN.

Reference: Desplanques, Thienpondt and Demuynck, "ECAPA-TDNN: emphasized channel
attention, propagation and aggregation in TDNN based speaker verification".
"""

from collections.abc import Sequence
from typing import Any

import torch
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
from torch import Tensor, nn

from speechbrain_kmdanet.processing.bins import tiny

SCALE = 15.0  # dB: about the spread of log-mel energies


class VoiceNet(nn.Module):
    """Vectors of voices: those of one talker have a large cosine.

    What all voices have in common, the buffer ``centre`` [E], is taken away; it
    is zero until a training sets it.

    Arguments
    ---------
    sample_rate : int
        Rate of the speech in Hz.
    num_mels : int
        Mel bands.
    channels : sequence of int
        Channels of the layers of the network.
    size : int
        Length E of the vectors.

    Example
    -------
    >>> import torch
    >>> net = VoiceNet(channels=(16, 16, 16, 48), size=8).eval()
    >>> torch.allclose(net(torch.randn(2, 8000)).norm(dim=1), torch.ones(2))
    True
    """

    def __init__(
        self,
        sample_rate: int = 8000,
        num_mels: int = 40,
        channels: Sequence[int] = (128, 128, 128, 384),
        size: int = 96,
    ) -> None:
        super().__init__()
        self.size = size
        self.fbank = Fbank(
            sample_rate=sample_rate,
            n_fft=round(0.032 * sample_rate),
            n_mels=num_mels,
            win_length=32,
            hop_length=16,
            f_max=sample_rate / 2,
        )
        layers = len(channels)
        self.net = ECAPA_TDNN(
            num_mels,
            lin_neurons=size,
            channels=list(channels),
            kernel_sizes=[5, *[3] * (layers - 2), 1],
            dilations=[1, *range(2, layers), 1],
            attention_channels=channels[0] // 2,
            res2net_scale=4,
            se_channels=channels[0] // 2,
        )
        self.centre: Tensor
        self.register_buffer("centre", torch.zeros(size))
        self.register_load_state_dict_pre_hook(_without_a_centre)

    def forward(self, speech: Tensor) -> Tensor:
        """Describes voices.

        Arguments
        ---------
        speech : torch.Tensor
            Speech of one talker each [B, L], at any level.

        Returns
        -------
        torch.Tensor
            Vectors [B, E] of unit length.
        """
        power = speech.square().mean(1, keepdim=True)
        speech = speech / power.clamp_min(tiny(power)).sqrt()
        # SpeechBrain's filters are of the default type, whatever the weights are.
        usual = speech.to(torch.get_default_dtype())
        x = self.fbank(usual).to(speech)  # [B, T, M], dB
        x = (x - x.mean(1, keepdim=True)) / SCALE
        voices = nn.functional.normalize(self.net(x).squeeze(1), dim=1)
        return nn.functional.normalize(voices - self.centre, dim=1)  # [B, E]


def _without_a_centre(
    module: Any, state: dict[str, Tensor], prefix: str, *_: Any
) -> None:
    """Takes older weights, of when nothing was taken away.

    A hook of PyTorch's load_state_dict.
    """
    if any(name.startswith(prefix) for name in state):
        state.setdefault(f"{prefix}centre", torch.zeros_like(module.centre))
