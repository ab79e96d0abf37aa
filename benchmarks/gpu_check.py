#!/usr/bin/env python3
"""Checks on a GPU what tests on the CPU can only simulate.

python benchmarks/gpu_check.py
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from measure import parse_options, report, seconds, take_turns
from subjects import Separator
from torch import Tensor, nn

from speechbrain_kmdanet.errors import UserError, run_command
from speechbrain_kmdanet.nnet.objectives import OBJECTIVES
from speechbrain_kmdanet.processing.kmeans import kmeans
from speechbrain_kmdanet.processing.masks import distance_masks
from speechbrain_kmdanet.processing.separation import Separation, separate

SYSTEMS = [
    "kmeans_danet",
    "danet",
    "danet_fixed",
    "adanet",
    "dpcl",
    "dpcl_plus",
    "chimera",
    "upit",
    "conv_tasnet",
    "sepformer",
]
SAMPLES = 16000
LENGTHS = torch.tensor([SAMPLES, 12345, 7000, 9001])
HEADER = ["what", "wanted", "found", "met"]


class Check(NamedTuple):
    """What is checked, and what it came to."""

    what: str
    most: float  # what may be found
    found: float
    note: str = ""

    @property
    def met(self) -> bool:
        """Whether it is as it should be; not so of NaN."""
        return self.found <= self.most


class Trainer:
    """Steps of a system on mixtures of noise that comes and goes.

    Arguments
    ---------
    name : str
        Name of the YAML file of the model.
    device : str
        Device.
    """

    def __init__(self, name: str, device: str):
        chain = Separator(name)
        self.encoder: nn.Module = chain.encoder.to(device)
        self.masknet: Any = chain.masknet.to(device)
        self.decoder: nn.Module = chain.decoder.to(device)
        made = self.masknet.outputs
        loss = "si_sdr" if "masks" in made else "affinity"
        self.objective = OBJECTIVES[loss]
        draws = torch.Generator().manual_seed(0)
        noise = torch.randn(len(LENGTHS), SAMPLES, 2, generator=draws)
        rates = torch.tensor([3.0, 5.0]) / SAMPLES
        times = torch.arange(SAMPLES).unsqueeze(1)
        words = (2 * torch.pi * times * rates).sin().square()  # [L, K]
        self.sources = (0.1 * words * noise).to(device)

    def separate(self, lengths: Tensor | None = None) -> Separation:
        """Separates the mixtures in the current mode of the system."""
        return separate(
            self.encoder,
            self.masknet,
            self.decoder,
            self.sources.sum(2),
            num_samples=lengths,
            sources=self.sources,
            outputs=self.objective.needs,
        )

    def step(self, lengths: Tensor | None = None) -> None:
        """Makes gradients; no weight changes."""
        self.masknet.train().zero_grad()
        self.objective(self.separate(lengths)).mean().backward()

    @torch.no_grad()
    def estimates(self, lengths: Tensor | None = None) -> Tensor:
        """Separated sources [B, L, K], on the CPU."""
        self.masknet.eval()
        return self.separate(lengths).estimates.cpu()


@contextmanager
def _refused_waits() -> Iterator[None]:
    """A block in which PyTorch refuses to wait for the GPU."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@contextmanager
def _tensor_float_32(enabled: bool) -> Iterator[None]:
    """A block with or without what SpeechBrain turns on."""
    backends: list[Any] = [torch.backends.cuda.matmul, torch.backends.cudnn]
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = enabled
    try:
        yield
    finally:
        for backend, value in zip(backends, before):
            backend.allow_tf32 = value


def check_waits(device: str) -> Iterator[Check]:
    """Steps in which the host has no reason to wait for the GPU."""
    for name in SYSTEMS:
        trainer = Trainer(name, device)
        for text, lengths in (("no padding", None), ("padding", LENGTHS)):
            trainer.step(lengths)  # libraries start, which may wait
            waits, note = 0, ""
            try:
                with _refused_waits():
                    trainer.step(lengths)
            except RuntimeError as error:
                waits, note = 1, str(error).splitlines()[0]
            yield Check(f"waits, {name}, {text}", 0, waits, note)


def check_precision(device: str) -> Iterator[Check]:
    """Clustering is in float32, whatever the precision of the rest."""
    draws = torch.Generator().manual_seed(0)
    points = torch.randn(2, 5000, 20, generator=draws)
    points[:, ::2, 0] += 12.0
    exact = kmeans(points.double(), 2, initial_centroids=points[:, :2].double())
    with _tensor_float_32(True):
        x = points.to(device)
        found = kmeans(x, 2, initial_centroids=x[:, :2])
        masks = distance_masks(x, found.centroids)
        error = found.centroids.cpu() - exact.centroids
        error = error.abs().max() / exact.centroids.abs().max()
        yield Check("error of centroids", 1e-5, float(error))
        wrong = (found.assignments.cpu() != exact.assignments).sum()
        yield Check("points assigned otherwise", 0, float(wrong))
        error = masks.cpu() - distance_masks(points.double(), exact.centroids)
        yield Check("error of distance masks", 1e-4, float(error.abs().max()))


def check_results(device: str) -> Iterator[Check]:
    """The same on the CPU, alone, in a batch and again."""
    trainer = Trainer("kmeans_danet", device)
    with _tensor_float_32(False):
        batch = trainer.estimates(LENGTHS)
        again = (trainer.estimates(LENGTHS) - batch).abs().max()
        yield Check("difference of two runs", 0, float(again))
        errors = []
        sources = trainer.sources
        for item, length in enumerate(LENGTHS.tolist()):
            trainer.sources = sources[item : item + 1, :length]
            alone = trainer.estimates()
            errors.append((batch[item, :length] - alone[0]).abs().max())
        peak = batch.abs().max()
        error = torch.stack(errors).max() / peak
        yield Check("batch from single items", 1e-3, float(error))
        error = Trainer("kmeans_danet", "cpu").estimates(LENGTHS) - batch
        yield Check("from the CPU", 1e-3, float(error.abs().max() / peak))


def check_compilation(device: str) -> Iterator[Check]:
    """New lengths are not compiled anew."""
    trainer = Trainer("kmeans_danet", device)
    graphs = []

    def count(graph: Any, _: Any) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    masknet = torch.compile(trainer.masknet.train(), backend=count)
    spectrum = trainer.encoder(trainer.sources.sum(2)).detach()
    frames = spectrum.shape[2]
    for number in range(8):
        if number == 2:
            before = len(graphs)
        masknet(spectrum[..., : frames - 5 * number]).sum().backward()
    yield Check("graphs compiled for new lengths", 0, len(graphs) - before)


def check_speed(device: str, rounds: int) -> Iterator[Check]:
    """What padding costs, which recurrent layers have to be told of."""
    trainer = Trainer("kmeans_danet", device)
    gauges = {
        name: partial(seconds, partial(trainer.step, lengths))
        for name, lengths in (("none", None), ("padded", LENGTHS))
    }
    times = take_turns(gauges, rounds, warm_up=2)
    medians = {name: statistics.median(x) for name, x in times.items()}
    found = medians["padded"] / medians["none"]
    note = f"{1000 * medians['padded']:.0f} ms, {1000 * medians['none']:.0f} ms"
    yield Check("step with padding over one without", 2.0, found, note)


def run(arguments: list[str]) -> None:
    """Checks, prints and writes.

    Arguments
    ---------
    arguments : list of str
        Command line without the program.

    Raises
    ------
    UserError
        If something is not as it should be.
    """
    parser = argparse.ArgumentParser(
        description="Checks on a GPU that clustering is in full precision, "
        "that results are those of the CPU, that lengths are not compiled "
        "anew, that a training step waits for nothing, and what padding costs. "
        "Writes RESULTS/gpu_check_DEVICE.md; exit status 2 if a check fails."
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    text = "cuda, or cpu for the first three (default: cuda if there is one)"
    parser.add_argument("--device", default=device, help=text)
    options = parse_options(parser, 9, arguments)
    device = options.device
    kind = torch.device(device).type
    groups = [check_precision(device), check_results(device)]
    groups.append(check_compilation(device))
    if kind == "cuda":
        groups += [check_waits(device), check_speed(device, options.repeats)]
    checks = [check for group in groups for check in group]
    lines = [
        [
            check.what,
            f"at most {check.most:g}",
            f"{check.found:.3g} {check.note}".rstrip(),
            "yes" if check.met else "no",
        ]
        for check in checks
    ]
    about = "With TensorFloat-32 where it says nothing else."
    file = options.results / f"gpu_check_{kind}.md"
    report(file, "Checks on a GPU", [about, (HEADER, lines)], device)
    failed = [check.what for check in checks if not check.met]
    if failed:
        raise UserError(f"{len(failed)} checks failed: {'; '.join(failed)}")


if __name__ == "__main__":
    sys.exit(run_command("gpu_check.py", run))
