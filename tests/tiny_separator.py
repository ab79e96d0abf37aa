"""A tiny random separator in a folder, as train.py writes it."""

import os

import torch
from recipe_runs import ROOT

from speechbrain_kmdanet.utils.export import write_pretrained
from speechbrain_kmdanet.utils.yaml_layers import load_settings, save_settings

EXPERIMENT = """
layers: [{}]
unrelated: !ref <sample_rate> // 2
window_ms: 16
embedding_dim: 4
hidden_size: 8
num_layers: 1
"""


def write_separator(folder, half=False):
    """Writes a separator; returns the folder that from_hparams takes."""
    experiment = folder / "experiment.yaml"
    layer = ROOT / "hparams" / "kmeans_danet.yaml"
    experiment.write_text(EXPERIMENT.format(os.path.relpath(layer, folder)))
    resolved = folder / "hyperparams.yaml"
    save_settings(experiment, None, resolved)
    hparams = load_settings(experiment)
    generator = torch.Generator().manual_seed(0)
    for parameter in hparams["masknet"].parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data.add_(0.3 * noise)
    write_pretrained(folder / "pretrained", resolved, hparams, half)
    return folder / "pretrained"
