"""A second trunk, as a user would write one: each bin by itself."""

import torch
from torch import Tensor, nn

from speechbrain_kmdanet.processing.bins import relative_magnitudes

# Its YAML file: what a trunk costs beside its class.
SETTINGS = """\
layers: [{stft}]
embedding_dim: 20
width: 8

trunk_net: !new:tiny_trunk.TinyTrunk
    num_bins: !ref <num_bins>
    embedding_dim: !ref <embedding_dim>
    width: !ref <width>
"""


class TinyTrunk(nn.Module):
    """Embeds bins by their log-magnitudes and their frequencies."""

    def __init__(self, num_bins=257, embedding_dim=20, width=8):
        super().__init__()
        self.embedding_dim = embedding_dim
        self.frequencies = nn.Parameter(0.1 * torch.randn(num_bins, width))
        self.scale = nn.Linear(1, width)
        self.output = nn.Linear(width, embedding_dim)

    def forward(self, spectrum: Tensor, num_frames: Tensor | None = None):
        magnitudes = relative_magnitudes(spectrum, num_frames)  # [B, T, F]
        x = magnitudes.clamp_min(1e-3).log().unsqueeze(3)
        x = (self.scale(x) + self.frequencies).relu()  # [B, T, F, W]
        return self.output(x).flatten(1, 2)
