#!/usr/bin/env python3
"""Trains what a separator knows of talkers: their number, and their voices.

    python train_talkers.py counter CORPUS... --noise FOLDER --separator FOLDER
    python train_talkers.py voice CORPUS... --noise FOLDER --separator FOLDER

The separator stays as it is: a module is added to its folder. Both are small,
and trained for some minutes of CPU time, over which the learning rate falls.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from counted_sets import read_counted
from speechbrain.lobes.models.ECAPA_TDNN import Classifier
from speechbrain.nnet.losses import AdditiveAngularMargin, LogSoftmaxWrapper
from talkers_data import (
    NUM_SPKS,
    RATE,
    CountedMixtures,
    Voices,
    read_recordings,
)
from torch import Tensor, nn
from tqdm import tqdm

from speechbrain_kmdanet.errors import UserError, run_command
from speechbrain_kmdanet.inference.separation import AttractorSeparation
from speechbrain_kmdanet.lobes.models.counting import TalkerCounter
from speechbrain_kmdanet.lobes.models.voice import VoiceNet
from speechbrain_kmdanet.utils.export import add_module

SEED = 1234
CONSTANT = 0.4  # share of the time after which the learning rate falls
WARM_UP = 100  # steps
MARGIN = 0.2  # between voices, after a third of the training
CENTRING = 100  # batches that the mean of all voices is taken of
SCALE = 30.0  # of cosines, for their softmax


class Counting(nn.Module):
    """How a counter is trained: by the cross-entropy of its numbers.

    Arguments
    ---------
    separator : AttractorSeparation
        The separator, whose spectra it counts in.
    """

    name, batch_size, lr = "counter", 16, 2e-3

    def __init__(self, separator: AttractorSeparation) -> None:
        super().__init__()
        self.encoder: Any = separator.mods.encoder
        self.options: dict[str, Any] = {
            "num_bins": self.encoder.n_fft // 2 + 1,
            "max_spks": max(NUM_SPKS),
            "channels": [16, 24, 32],
            "hidden_size": 128,
        }
        self.network = TalkerCounter(**self.options)

    def forward(self, mixtures: Tensor, labels: Tensor, done: float) -> Tensor:
        """Loss of mixtures [B, L] with labels [B]."""
        logits = self.network(self.encoder(mixtures))
        return nn.functional.cross_entropy(logits, labels, label_smoothing=0.03)


class VoiceTraining(nn.Module):
    """How voices are learned: by telling the talkers of the corpora apart.

    Arguments
    ---------
    num_voices : int
        Number of the voices.
    """

    name, batch_size, lr = "voice", 32, 1.5e-3

    def __init__(self, num_voices: int) -> None:
        super().__init__()
        self.options: dict[str, Any] = {
            "sample_rate": RATE,
            "channels": [128, 128, 128, 384],
            "size": 96,
        }
        self.network = VoiceNet(**self.options)
        self.classifier = Classifier(96, out_neurons=num_voices)

    def forward(self, speech: Tensor, labels: Tensor, done: float) -> Tensor:
        """Loss of speech [B, L] with labels [B]."""
        cosines = self.classifier(self.network(speech).unsqueeze(1))
        margin = 0.0 if done < 1 / 3 else MARGIN
        loss = LogSoftmaxWrapper(AdditiveAngularMargin(margin, SCALE))
        return loss(cosines, labels.unsqueeze(1))


def train(
    training: Any,
    batches: Iterator[tuple[Tensor, Tensor]],
    minutes: float,
    precision: torch.dtype = torch.float32,
) -> int:
    """Trains for some minutes of CPU time; returns the number of steps.

    Arguments
    ---------
    training : nn.Module
        Counting or VoiceTraining.
    batches : iterator
        Batches of signals [B, L] and labels [B].
    minutes : float
        CPU time in minutes.
    precision : torch.dtype
        What the network computes in, torch.bfloat16 where that is faster.

    Returns
    -------
    int
        Number of steps.
    """
    optimizer = torch.optim.AdamW(training.parameters(), weight_decay=1e-2)
    began, step = time.process_time(), 0
    training.train()
    with tqdm(total=round(60 * minutes), unit="s", dynamic_ncols=True) as bar:
        while (spent := time.process_time() - began) < 60 * minutes:
            done = spent / (60 * minutes)
            falling = min(1.0, (1.0 - done) / (1.0 - CONSTANT))
            for group in optimizer.param_groups:
                group["lr"] = training.lr * falling * min(1.0, step / WARM_UP)
            signals, labels = next(batches)
            with torch.autocast("cpu", precision, precision != torch.float32):
                loss = training(signals, labels, done)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(training.parameters(), 5.0)
            optimizer.step()
            step += 1
            bar.update(int(spent) - bar.n)
            bar.set_postfix(step=step, loss=f"{float(loss):.2f}", refresh=False)
    return step


def centre(training: VoiceTraining, data: Voices) -> None:
    """Has the vectors of voices have no mean, that of all corpora alike.

    Arguments
    ---------
    training : VoiceTraining
        Trained voices.
    data : Voices
        What they were trained on.
    """
    network: Any = training.network.eval()
    network.centre.zero_()
    vectors, corpora = [], []
    with torch.no_grad():
        for signals, labels in islice(data, CENTRING):
            vectors.append(network(signals))
            corpora += [data.corpus_of(int(label)) for label in labels]
    voices = torch.cat(vectors)  # [N, E]
    means = [
        voices[[x == corpus for x in corpora]].mean(0)
        for corpus in sorted(set(corpora))
    ]
    network.centre.copy_(torch.stack(means).mean(0))


def calibrate(training: Counting, folders: Sequence[str]) -> None:
    """Fits the scale and the offsets of the logits to mixtures of cv.

    Numbers beyond those of the mixtures get the offset of the largest.

    Arguments
    ---------
    training : Counting
        A trained counter.
    folders : sequence of str
        Data folders in the layout of WSJ0-mix.
    """
    counter: Any = training.network.eval()
    labels, logits = [], []
    with torch.no_grad():
        for each in tqdm(read_counted(folders, "cv"), "Calibrating"):
            logits.append(counter(training.encoder(each.mixture.unsqueeze(0))))
            labels.append(each.sources.shape[1] - 1)
    truth = torch.tensor(labels)
    scale = torch.ones(1, requires_grad=True)
    offsets = torch.zeros(max(labels) + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([scale, offsets], max_iter=100)
    # All numbers alike, whatever the sets hold.
    counts = truth.bincount(minlength=counter.max_spks)
    weights = 1.0 / counts.clamp_min(1)

    def loss() -> Tensor:
        optimizer.zero_grad()
        fitted = scale * torch.cat(logits) + _extended(offsets, len(counts))
        value = nn.functional.cross_entropy(fitted, truth, weights)
        value.backward()
        return value

    optimizer.step(loss)
    last = counter.output[-1]
    with torch.no_grad():
        last.weight.mul_(scale)
        last.bias.mul_(scale).add_(_extended(offsets, len(counts)))


def _extended(offsets: Tensor, count: int) -> Tensor:
    """Offsets of all numbers [count]."""
    return torch.cat([offsets, offsets[-1:].expand(count - len(offsets))])


def _trained(separator: AttractorSeparation, name: str) -> nn.Module:
    """What a separator has under a name."""
    if name not in separator.mods:
        raise UserError(
            f"--go_on needs a separator with a {name}, which this one has not: "
            "leave --go_on out"
        )
    module: nn.Module = separator.mods[name].float()
    return module


def run(arguments: list[str]) -> None:
    """Trains and writes, as the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("what", choices=["counter", "voice"], help="what to train")
    add(
        "corpora",
        nargs="+",
        metavar="CORPUS",
        help="one folder a talker in each",
    )
    add(
        "--noise",
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="recorded sounds",
    )
    add(
        "--separator", required=True, metavar="FOLDER", help="where it is added"
    )
    add("--minutes", type=float, default=40.0, help="CPU time (default: 40)")
    add(
        "--precision",
        choices=["fp32", "bf16"],
        default="fp32",
        help="bf16 is faster where the processor has it (default: fp32)",
    )
    add(
        "--go_on",
        action="store_true",
        help="start from the counter or voice that the separator has",
    )
    add(
        "--calibrate",
        nargs="+",
        metavar="DATA",
        help="fit a counter's logits to the mixtures of cv in these",
    )
    add(
        "--save",
        default="save",
        metavar="DIR",
        help="for lists (default: save)",
    )
    options = parser.parse_args(arguments)
    torch.manual_seed(SEED)
    separator = AttractorSeparation.from_hparams(options.separator)
    speech = read_recordings(options.corpora, "corpus", options.save)
    noise = read_recordings(options.noise, "noise", options.save)
    training: Any
    if options.what == "counter":
        training = Counting(separator)
        data: Any = CountedMixtures(speech, noise, training.batch_size, SEED)
    else:
        data = Voices(speech, noise, VoiceTraining.batch_size, SEED)
        training = VoiceTraining(data.num_voices)
    if options.go_on:
        training.network.load_state_dict(
            _trained(separator, training.name).state_dict()
        )
    precision = torch.bfloat16 if options.precision == "bf16" else torch.float32
    train(training, iter(data), options.minutes, precision)
    if options.what == "voice":
        centre(training, data)
    elif options.calibrate:
        calibrate(training, options.calibrate)
    add_module(
        Path(options.separator),
        training.name,
        training.network,
        training.options,
    )


def main() -> int:
    """Runs the command line; returns the exit status."""
    return run_command("train_talkers.py", run)


if __name__ == "__main__":
    sys.exit(main())
