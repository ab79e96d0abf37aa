#!/usr/bin/env python3
"""A first lesson: separate, count, look at embeddings, train, compare.

    python recipes/MiniMix/prepare.py DATA
    python tutorials/first_lesson.py DATA LESSON

LESSON then holds what was heard and seen on the way. The training takes some
five minutes; options of train.py after a -- take the place of the lesson's own.
"""

import argparse
import subprocess
import sys
from itertools import islice
from pathlib import Path

import soundfile
import torch

from speechbrain_kmdanet import EXAMPLE
from speechbrain_kmdanet.dataio.audio import read_source
from speechbrain_kmdanet.errors import UserError, run_command
from speechbrain_kmdanet.inference.separation import AttractorSeparation
from speechbrain_kmdanet.processing.bins import flatten_bins
from speechbrain_kmdanet.processing.separation import separate
from speechbrain_kmdanet.utils.evaluation import evaluate_utterance
from speechbrain_kmdanet.utils.plots_embeddings import (
    plot_embeddings,
    view_embeddings,
)

RECIPE = Path(__file__).parents[1] / "recipes" / "WSJ0Mix" / "separation"
SMALL = [
    *("--loss", "si_sdr", "--number_of_epochs", "4", "--epoch_size", "1200"),
    *("--batch_size", "8", "--segment_seconds", "2", "--dropout", "0"),
    *("--hidden_size", "256", "--num_layers", "2", "--num_examples", "0"),
]
COMPARED = 20  # mixtures


def read_example() -> tuple[torch.Tensor, int]:
    """The mixture that comes with the package [1, L], and its rate."""
    samples, rate = read_source(EXAMPLE)
    return torch.from_numpy(samples).float().unsqueeze(0), rate


def separate_and_count(separator: AttractorSeparation, folder: Path) -> None:
    """Lesson 1: a recording in, one track a talker out; how many are they?"""
    mixture, rate = read_example()
    sources, count = separator.separate_counted(mixture)  # [1, L, K]
    for talker, source in enumerate(sources[0].unbind(1), 1):
        soundfile.write(folder / f"talker{talker}.wav", source.numpy(), rate)
    say(
        f"1. {int(count.num_spks)} talkers, {100 * float(count.confidence):.0f} % "
        f"sure: {folder}/talker1.wav, ..."
    )


def look_at_embeddings(separator: AttractorSeparation, folder: Path) -> None:
    """Lesson 2: a bin a dot; each talker is a cloud, its centre an attractor."""
    mixture, _ = read_example()
    modules = separator.eval().mods
    with torch.no_grad():
        separation = separate(
            modules.encoder,
            modules.masknet,
            modules.decoder,
            mixture,
            num_spks=2,
            outputs=("masks", "embeddings"),
        )
    embeddings = separation.embeddings
    energies = flatten_bins(separation.spectrum.abs().square())
    # What is noise has no say in who talks.
    weights = energies * modules.masknet.speech_shares(embeddings)
    view = view_embeddings(
        embeddings[0],
        energies[0],
        # The truth is not known here: talkers are whom the masks say.
        flatten_bins(separation.masked_magnitudes[0]),
        attractors=modules.masknet.infer_attractors(embeddings, weights, 2)[0],
    )
    plot_embeddings(view, folder / "embeddings.png", "Two talkers")
    say(f"2. What the clustering sees: {folder}/embeddings.png")


def train(data: Path, folder: Path, options: list[str]) -> AttractorSeparation:
    """Lesson 3: a separator of one's own, which has heard synthetic voices."""
    say("3. Training a small separator (some five minutes)")
    command = [
        sys.executable,
        "train.py",
        "hparams/kmeans_danet_spherical.yaml",
    ]
    command += ["--data_folder", str(data.resolve() / "2speakers")]
    command += ["--dynamic_mixing", str(data.resolve() / "corpus" / "tr")]
    command += ["--output_folder", str(folder.resolve() / "own")]
    if subprocess.run([*command, *(options or SMALL)], cwd=RECIPE).returncode:
        raise UserError("the training failed: it says why above")
    return AttractorSeparation.from_hparams(folder / "own" / "pretrained")


def improvement(separator: AttractorSeparation, data: Path) -> float:
    """Mean SI-SDRi in dB on mixtures of talkers that nobody has heard."""
    folder = data / "2speakers" / "wav8k" / "min" / "tt"
    gains = []
    for path in islice(sorted((folder / "mix").glob("*.wav")), COMPARED):
        mixture, *sources = (
            torch.from_numpy(read_source(folder / part / path.name)[0]).float()
            for part in ("mix", "s1", "s2")
        )
        made = separator.separate_batch(mixture.unsqueeze(0), 2)[0]
        scores, _ = evaluate_utterance(mixture, torch.stack(sources, 1), made)
        gains.append(scores["si_sdri"])
    return sum(gains) / len(gains)


def say(text: str) -> None:
    """Tells the pupil something."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def run(arguments: list[str]) -> None:
    """The four lessons, as the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("data", type=Path, metavar="DATA", help="folder of MiniMix")
    add("folder", type=Path, metavar="LESSON", help="folder to write to")
    add("options", nargs="*", metavar="OPTION", help="after --, of train.py")
    options = parser.parse_args(arguments)
    if not (options.data / "2speakers").is_dir():
        raise UserError(
            f"there is no MiniMix in {options.data}: make it by "
            "python recipes/MiniMix/prepare.py"
        )
    options.folder.mkdir(parents=True, exist_ok=True)
    packaged = AttractorSeparation.from_hparams()
    separate_and_count(packaged, options.folder)
    look_at_embeddings(packaged, options.folder)
    own = train(options.data, options.folder, options.options)
    figures = [improvement(each, options.data) for each in (own, packaged)]
    say(
        f"4. On synthetic voices, your separator gains {figures[0]:.1f} dB, "
        f"the packaged one, which has heard people only, {figures[1]:.1f} dB"
    )


def main() -> int:
    """Runs the command line; returns the exit status."""
    return run_command("first_lesson.py", run)


if __name__ == "__main__":
    sys.exit(main())
