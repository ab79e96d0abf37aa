"""Training steps of the paper's network, to be measured.

Authors
 * The speechbrain_kmdanet developers 2026
"""

from pathlib import Path

import torch
from hyperpyyaml import load_hyperpyyaml
from speech import SAMPLE_RATE, make_sources
from torch import nn

import speechbrain_kmdanet
from speechbrain_kmdanet.nnet.objectives import OBJECTIVES, Separation

# That of the package that is measured, which may be an older one.
ROOT = Path(speechbrain_kmdanet.__file__).resolve().parents[1]
MODEL = ROOT / "hparams" / "kmeans_danet.yaml"
BATCH, SECONDS = 16, 4.0  # the paper's


class ConstantAttractors(nn.Module):
    """Attractors that cost nothing: what is left of a step without k-means."""

    ordered = False

    def forward(self, embeddings, weights, num_spks, *_):
        """Returns the embeddings of the first bins [B, K, D]."""
        return embeddings[:, :num_spks]


class PeerAttractors(nn.Module):
    """Attractors of the k-means of another project, within the graph.

    Arguments
    ---------
    kmeans : callable
        One of the functions in peers.py.
    iterations : int
        Number of iterations.
    """

    ordered = False

    def __init__(self, kmeans, iterations):
        super().__init__()
        self.kmeans = kmeans
        self.iterations = iterations

    def forward(self, embeddings, weights, num_spks, *_):
        """Returns centroids [B, K, D], from the first bins on."""
        initial = embeddings[:, :num_spks].detach()
        return self.kmeans(embeddings, initial, self.iterations)


class TrainingStep:
    """A training step without the loader; called, it makes one.

    Arguments
    ---------
    iterations : int
        Iterations L of k-means in training.
    attractors : nn.Module
        What replaces k-means, if anything does.
    batch : int
        Number of mixtures.
    seconds : float
        Their length.
    device : str
        Device.
    precision : str
        "fp32" or, for the network, "bf16".
    wrap : callable
        What is made of the masker before it is trained, such as DDP.
    """

    def __init__(
        self,
        iterations=5,
        attractors=None,
        batch=BATCH,
        seconds=SECONDS,
        device="cpu",
        precision="fp32",
        wrap=None,
    ):
        torch.manual_seed(0)
        with open(MODEL, encoding="utf-8") as file:
            model = load_hyperpyyaml(file, {"train_iterations": iterations})
        self.encode, self.decode, masknet = (
            model[name].to(device) for name in ("encoder", "decoder", "masknet")
        )
        if attractors is not None:
            masknet.train_attractors = attractors
        self.parameters = list(masknet.parameters())
        self.masknet = wrap(masknet) if wrap else masknet
        self.optimizer = torch.optim.Adam(self.parameters, lr=1e-3)
        samples = round(seconds * SAMPLE_RATE)
        self.sources = make_sources(batch, samples).to(device)
        self.lengths = torch.full((batch,), samples, device=device)
        self.autocast = torch.autocast(
            torch.device(device).type,
            torch.bfloat16,
            enabled=precision == "bf16",
        )

    def __call__(self):
        with self.autocast:
            separation = Separation(
                self.encode(self.sources.sum(2)), self.sources, self.lengths,
                None, False, self.encode, self.decode,
            )  # fmt: skip
            separation.masks = self.masknet(separation.spectrum)
            loss = OBJECTIVES["magnitude"](separation).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 5.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
