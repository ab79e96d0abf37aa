"""What the benchmarks measure: training steps, separators, loader, processes.

And what on: points, and synthetic speech, whose bins are as sparse as those
of real one.
"""

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataio import read_audio
from speechbrain.dataio.dataloader import SaveableDataLoader
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from speechbrain_kmdanet.dataio.corpus import index_corpus, read_index
from speechbrain_kmdanet.dataio.mixture_dataset import DynamicMixing
from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.nnet.attractors import AttractorEstimator
from speechbrain_kmdanet.nnet.objectives import OBJECTIVES
from speechbrain_kmdanet.processing.separation import separate
from speechbrain_kmdanet.utils.yaml_layers import load_settings

ROOT = Path(__file__).resolve().parents[1]
MODULES = ("encoder", "masknet", "decoder")
SAMPLE_RATE = 8000
TALKERS = 2
SENTENCES = 20  # of each talker, about a minute
BATCH, SECONDS = 16, 4.0  # the paper's
# The points of such a batch, and the L of its clustering.
POINTS, DIMENSIONS, ITERATIONS = 64250, 20, 10
# Of dynamic mixing
SPEAKERS, RECORDINGS, RECORDING_SECONDS = 10, 5, 5
SPEEDS = (0.9, 0.95, 1.0, 1.05, 1.1)
WORKERS = 2
WARM_UP, MEASURED = 4, 8  # batches
STEPS = 3  # of a process in a round, behind one that does not count


def make_points() -> tuple[Tensor, Tensor]:
    """Makes points that do not fall into clusters.

    Returns
    -------
    x : torch.Tensor
        Points [B, N, D].
    initial : torch.Tensor
        Centroids to start from, one a talker [B, K, D].
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH, POINTS, DIMENSIONS, generator=generator)
    return x, x[:, :TALKERS].clone()


def make_sources(batch: int = BATCH, seconds: float = SECONDS) -> Tensor:
    """Makes talkers who speak without a pause; they start again at the end.

    Arguments
    ---------
    batch : int
        Number of mixtures.
    seconds : float
        Their length.

    Returns
    -------
    torch.Tensor
        Sources [batch, samples, TALKERS].
    """
    samples = round(seconds * SAMPLE_RATE)
    total = batch * samples
    voices = [x.repeat(-(-total // len(x)))[:total] for x in _read_aloud()]
    return torch.stack(voices, dim=1).unflatten(0, (batch, samples))


@cache
def _read_aloud() -> list[Tensor]:
    """What each of MiniMix's first talkers says [samples]."""
    options = {
        "num_spks": [2],
        "speakers": [TALKERS, 2, 2],
        "utterances": [SENTENCES],
        "mixtures": [1, 1, 1],
        "seed": [0],
    }
    script = ROOT / "recipes" / "MiniMix" / "prepare.py"
    command = [sys.executable, str(script)]
    for name, values in options.items():
        command += [f"--{name}", *map(str, values)]
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.run(
            [*command, folder], capture_output=True, text=True
        )
        if process.returncode:
            raise UserError(process.stderr.strip().rpartition("\n")[2])
        return [
            torch.cat([read_audio(str(path)) for path in _as_said(talker)])
            for talker in sorted(Path(folder, "corpus", "tr").iterdir())
        ]


def _as_said(folder: Path) -> list[Path]:
    """Recordings of a talker in the order in which they were made."""
    return sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)


class ConstantAttractors(AttractorEstimator):
    """Attractors that cost nothing: what is left of a step without k-means."""

    def estimate(
        self, embeddings: Tensor, energies: Tensor, num_spks: int, *_: object
    ) -> Tensor:
        """Embeddings of the first bins [B, K, D]."""
        return embeddings[:, :num_spks]


class PeerAttractors(AttractorEstimator):
    """Attractors of the k-means of another project, within the graph.

    Arguments
    ---------
    kmeans : callable
        One of the functions in peers.py.
    iterations : int
        Number of iterations.
    """

    def __init__(
        self, kmeans: Callable[[Tensor, Tensor, int], Tensor], iterations: int
    ):
        super().__init__()
        self.kmeans = kmeans
        self.iterations = iterations

    def estimate(
        self, embeddings: Tensor, energies: Tensor, num_spks: int, *_: object
    ) -> Tensor:
        """Centroids [B, K, D], from the first bins on."""
        initial = embeddings[:, :num_spks].detach()
        return self.kmeans(embeddings, initial, self.iterations)


class TrainingStep:
    """A step of k-means DANet without the loader; called, it makes one.

    Arguments
    ---------
    iterations : int
        Iterations L of k-means in training.
    attractors : AttractorEstimator
        What replaces k-means, if anything does.
    sources : torch.Tensor
        What is mixed [B, L, K]; a batch of the paper's size by default.
    device : str
        Device.
    precision : str
        "fp32" or, for the network, "bf16".
    wrap : callable
        What is made of the masker before it is trained, such as DDP.
    trunk : str
        Name of its YAML file; the paper's by default.
    """

    def __init__(
        self,
        iterations: int = 5,
        attractors: AttractorEstimator | None = None,
        sources: Tensor | None = None,
        device: str = "cpu",
        precision: str = "fp32",
        wrap: Callable[[nn.Module], nn.Module] | None = None,
        trunk: str = "blstm",
    ):
        self.encoder, self.masknet, self.decoder = (
            module.to(device)
            for module in _make_modules(
                "kmeans_danet", train_iterations=iterations, trunk=trunk
            )
        )
        if attractors is not None:
            self.masknet.train_attractors = attractors
        self.parameters = list(self.masknet.parameters())
        if wrap is not None:
            self.masknet = wrap(self.masknet)
        self.optimizer = torch.optim.Adam(self.parameters, lr=1e-3)
        sources = make_sources() if sources is None else sources
        self.sources = sources.to(device)
        self.autocast = torch.autocast(
            torch.device(device).type,
            torch.bfloat16,
            enabled=precision == "bf16",
        )

    def __call__(self) -> None:
        """Makes a step."""
        with self.autocast:
            separation = separate(
                self.encoder,
                self.masknet,
                self.decoder,
                self.sources.sum(2),
                sources=self.sources,
            )
            loss = OBJECTIVES["magnitude"](separation).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 5.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


class Separator:
    """A separator of the sizes of its recipe, with random weights.

    Arguments
    ---------
    name : str
        Name of the YAML file of the model.
    **options : dict
        Values that replace those of the file.
    """

    def __init__(self, name: str = "kmeans_danet", **options: object):
        self.encoder, self.masknet, self.decoder = (
            module.eval() for module in _make_modules(name, **options)
        )

    @torch.no_grad()
    def __call__(self, mixture: Tensor, num_spks: int | None = None) -> Tensor:
        """Separates mixtures [B, L] into sources [B, L, K]."""
        chain = self.encoder, self.masknet, self.decoder
        return separate(*chain, mixture, num_spks).estimates

    @torch.no_grad()
    def embed(self, mixture: Tensor) -> Tensor:
        """Runs the network alone, on mixtures [B, L]: [B, T · F, D]."""
        return self.masknet.embed(self.encoder(mixture))[0]


def _make_modules(name: str, **overrides: object) -> list[Any]:
    """Encoder, masker and decoder of a model, always the same."""
    torch.manual_seed(0)
    settings = load_settings(ROOT / "hparams" / f"{name}.yaml", overrides)
    return [settings[module] for module in MODULES]


class Loader:
    """The loader of dynamic mixing, of a corpus that goes with it.

    The corpus is noise that comes and goes like words.
    """

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        corpus = Path(self.folder.name)
        index = corpus / "corpus.csv"
        rng = np.random.default_rng(0)
        samples = RECORDING_SECONDS * SAMPLE_RATE
        words = np.abs(np.sin(np.arange(samples) * 2 * np.pi / SAMPLE_RATE))
        for speaker in range(SPEAKERS):
            (corpus / f"speaker{speaker}").mkdir()
            for number in range(RECORDINGS):
                path = corpus / f"speaker{speaker}" / f"{number}.flac"
                noise = 0.1 * words * rng.standard_normal(samples)
                soundfile.write(path, noise, SAMPLE_RATE)
        index_corpus(corpus, index)
        self.dataset = DynamicMixing(
            corpus,
            read_index(index),
            TALKERS,
            SAMPLE_RATE,
            SECONDS,
            epoch_size=BATCH * (WARM_UP + MEASURED),
            speeds=SPEEDS,
        )

    def batch_seconds(self) -> float:
        """Measures how long the workers take for a batch, at full speed.

        Returns
        -------
        float
            Seconds a batch.
        """
        loader = SaveableDataLoader(
            self.dataset, BATCH, num_workers=WORKERS, collate_fn=PaddedBatch
        )
        began = 0.0
        for number, _ in enumerate(loader, 1):
            if number == WARM_UP:
                began = time.perf_counter()
        return (time.perf_counter() - began) / MEASURED


def step_seconds(world_size: int) -> float:
    """Measures steps of some processes, each with a batch of its own.

    Arguments
    ---------
    world_size : int
        Number of processes, of one thread each.

    Returns
    -------
    float
        Seconds of the steps.
    """
    with socket.socket() as probe:  # finds a port that nothing listens on
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "seconds"
        arguments = world_size, address, make_sources(), file
        multiprocessing.spawn(_train, arguments, world_size)
        return float(file.read_text())


def _train(
    rank: int, world_size: int, address: str, sources: Tensor, file: Path
) -> None:
    """Makes steps in one of several processes, and writes their seconds."""
    torch.set_num_threads(1)
    wrap = None
    if world_size > 1:
        distributed.init_process_group(
            "gloo", address, rank=rank, world_size=world_size
        )
        wrap = DistributedDataParallel
    step = TrainingStep(sources=sources, wrap=wrap)
    step()
    began = time.perf_counter()
    for _ in range(STEPS):
        step()
    if rank == 0:
        file.write_text(repr(time.perf_counter() - began))
    if world_size > 1:
        distributed.destroy_process_group()
