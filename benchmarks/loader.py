"""Row about dynamic mixing: its loader against the step that it feeds.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from rows import Row
from speech import SAMPLE_RATE, TALKERS
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataloader import SaveableDataLoader
from steps import BATCH, SECONDS, TrainingStep
from timing import summarise

from speechbrain_kmdanet.dataio.dynamic_mixing import (
    DynamicMixing,
    index_corpus,
    read_index,
)

SPEAKERS, RECORDINGS, RECORDING_SECONDS = 10, 5, 5
WORKERS = 2
WARM_UP, MEASURED = 4, 8  # batches


def write_corpus(folder):
    """Writes noise that comes and goes like words, one folder a speaker.

    Arguments
    ---------
    folder : pathlib.Path
        Where to.
    """
    rng = np.random.default_rng(0)
    samples = RECORDING_SECONDS * SAMPLE_RATE
    words = np.abs(np.sin(np.arange(samples) * 2 * np.pi / SAMPLE_RATE))
    for speaker in range(SPEAKERS):
        (folder / f"speaker{speaker}").mkdir()
        for number in range(RECORDINGS):
            soundfile.write(
                folder / f"speaker{speaker}" / f"{number}.flac",
                0.1 * words * rng.standard_normal(samples),
                SAMPLE_RATE,
            )


def batch_seconds(dataset):
    """Time in which the workers make a batch, at full speed.

    Arguments
    ---------
    dataset : torch.utils.data.Dataset
        Mixtures.

    Returns
    -------
    float
        Seconds a batch.
    """
    loader = SaveableDataLoader(
        dataset, BATCH, num_workers=WORKERS, collate_fn=PaddedBatch
    )
    began = None
    for number, _ in enumerate(loader, 1):
        if number == WARM_UP:
            began = time.perf_counter()
    return (time.perf_counter() - began) / MEASURED


def against_step(repeats):
    """The loader of dynamic mixing against a training step.

    Arguments
    ---------
    repeats : int
        Number of rounds.

    Returns
    -------
    Ratio
        Of the loader to the step.
    """
    step = TrainingStep()
    step()
    seconds = {"loader": [], "step": []}
    with tempfile.TemporaryDirectory() as folder:
        corpus, index = Path(folder), Path(folder) / "corpus.csv"
        write_corpus(corpus)
        index_corpus(corpus, index)
        dataset = DynamicMixing(
            corpus, read_index(index), TALKERS, SAMPLE_RATE, SECONDS,
            epoch_size=BATCH * (WARM_UP + MEASURED),
            speeds=(0.9, 0.95, 1.0, 1.05, 1.1),
        )  # fmt: skip
        for _ in range(repeats):
            seconds["loader"].append(batch_seconds(dataset))
            began = time.perf_counter()
            step()
            seconds["step"].append(time.perf_counter() - began)
    return summarise(seconds)


ROWS = [
    Row(
        "loader of dynamic mixing, two workers, speeds, over a training step",
        0.10,
        True,
        against_step,
    )
]
