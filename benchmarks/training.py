"""Rows about a training step: the iterations of k-means, and k-means itself.

Authors
 * The speechbrain_kmdanet developers 2026
"""

from pathlib import Path

import torch
from hyperpyyaml import load_hyperpyyaml
from rows import Row
from timing import compare
from torch import nn

from speechbrain_kmdanet.nnet.objectives import OBJECTIVES, Separation

MODEL = Path(__file__).resolve().parents[1] / "hparams" / "kmeans_danet.yaml"
# The paper's batch: 16 segments of 4 s of two talkers.
BATCH, SAMPLES, TALKERS = 16, 32000, 2


class ConstantAttractors(nn.Module):
    """Attractors that cost nothing: what is left of a step without k-means."""

    ordered = False

    def forward(self, embeddings, weights, num_spks, *_):
        """Returns the embeddings of the first bins [B, K, D]."""
        return embeddings[:, :num_spks]


def make_step(iterations):
    """Training step of the paper's network, without the loader.

    Arguments
    ---------
    iterations : int
        Iterations L of k-means; none for constant attractors.

    Returns
    -------
    callable
        Makes one step.
    """
    torch.manual_seed(0)
    overrides = {"train_iterations": iterations or 1}
    with open(MODEL, encoding="utf-8") as file:
        model = load_hyperpyyaml(file, overrides)
    encode, decode, masknet = (
        model[name] for name in ("encoder", "decoder", "masknet")
    )
    if not iterations:
        masknet.train_attractors = ConstantAttractors()
    optimizer = torch.optim.Adam(masknet.parameters(), lr=1e-3)
    sources = torch.randn(BATCH, SAMPLES, TALKERS)
    lengths = torch.full((BATCH,), SAMPLES)

    def step():
        separation = Separation(
            encode(sources.sum(2)), sources, lengths, None, False, encode,
            decode,
        )  # fmt: skip
        separation.masks = masknet(separation.spectrum)
        OBJECTIVES["magnitude"](separation).mean().backward()
        nn.utils.clip_grad_norm_(masknet.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def _compare(one, other):
    """Makes the measurement of two numbers of iterations."""

    def run(repeats):
        names = {L: f"L = {L}" if L else "constant" for L in (one, other)}
        steps = {name: make_step(L) for L, name in names.items()}
        return compare(steps, repeats)

    return run


ROWS = [
    Row("training step, L = 20 over L = 1", 1.10, True, _compare(20, 1)),
    Row(
        "training step, L = 10 over constant attractors",
        1.10,
        True,
        _compare(10, 0),
    ),
]
