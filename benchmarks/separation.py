"""Rows about separation: SpeechBrain's separators, and the network alone.

Authors
 * The speechbrain_kmdanet developers 2026
"""

from functools import cache
from pathlib import Path

import torch
from hyperpyyaml import load_hyperpyyaml
from rows import Row
from speech import make_sources
from timing import compare

from speechbrain_kmdanet.processing.separate import decode_sources

MODELS = Path(__file__).resolve().parents[1] / "hparams"
SAMPLES = 80000  # 10 s


@cache
def make_separator(name):
    """Separator of the sizes of its recipe, with random weights.

    Arguments
    ---------
    name : str
        Name of the YAML file of the model.

    Returns
    -------
    callable
        From mixtures [B, L], and a number of talkers, to sources [B, L, K].
    """
    torch.manual_seed(0)
    with open(MODELS / f"{name}.yaml", encoding="utf-8") as file:
        model = load_hyperpyyaml(file)
    encode, decode = model["encoder"].eval(), model["decoder"].eval()
    masknet = model["masknet"].eval()

    @torch.no_grad()
    def separate(mixture, num_spks=None):
        spectrum = encode(mixture)
        masks = masknet(spectrum, num_spks=num_spks)
        return decode_sources(masks, spectrum, decode, mixture.shape[1])

    separate.masknet, separate.encode = masknet, encode
    return separate


def make_mixture(samples=SAMPLES):
    """A mixture of speech.

    Arguments
    ---------
    samples : int
        Its length, at 8 kHz.

    Returns
    -------
    torch.Tensor
        The mixture [1, samples].
    """
    return make_sources(1, samples).sum(2)


def _against(name, label, goal):
    """Makes the row of another separator."""

    def run(repeats):
        mixture = make_mixture()
        ours, theirs = make_separator("kmeans_danet"), make_separator(name)
        functions = {
            label: lambda: theirs(mixture),
            "k-means DANet": lambda: ours(mixture),
        }
        return compare(functions, repeats)

    return Row(f"{label} over k-means DANet, 10 s", goal, False, run)


def against_network(repeats):
    """Separation against the embedding network alone.

    Arguments
    ---------
    repeats : int
        Number of rounds.

    Returns
    -------
    Ratio
        Of the whole to the network.
    """
    mixture, separate = make_mixture(), make_separator("kmeans_danet")

    @torch.no_grad()
    def embed():
        separate.masknet.embed(separate.encode(mixture))

    functions = {"whole": lambda: separate(mixture), "network": embed}
    return compare(functions, repeats)


ROWS = [
    _against("sepformer", "SepFormer", 60.0),
    _against("conv_tasnet", "Conv-TasNet", 15.0),
    Row("k-means DANet over its network, 10 s", 1.3, True, against_network),
]
