"""Rows about a training step: the iterations of k-means, and k-means itself.

Authors
 * The speechbrain_kmdanet developers 2026
"""

from functools import partial

from memory import peak_memory
from peers import one_hot_kmeans, plain_kmeans
from rows import Row
from steps import ConstantAttractors, PeerAttractors, TrainingStep
from timing import compare, summarise

ITERATIONS = 5  # L of the paper's Table 3


def _times(make_one, make_other, names, repeats):
    """Ratio of the times of two steps."""
    steps = make_one(), make_other()
    return compare(dict(zip(names, steps)), repeats)


def _memory(repeats):
    """Ratio of the peaks of memory at L = 20 and at L = 1."""
    steps = {f"L = {L}": TrainingStep(L) for L in (20, 1)}
    peaks = {name: [] for name in steps}
    for _ in range(min(repeats, 2)):  # What is allocated does not vary.
        for name, step in steps.items():
            step()  # The optimizer takes its memory in the first step.
            peaks[name].append(peak_memory(step))
    return summarise(peaks, "MB")


def _peer(name, kmeans):
    """Makes the row of the k-means of another project."""
    theirs = partial(
        TrainingStep, attractors=PeerAttractors(kmeans, ITERATIONS)
    )
    ours = partial(TrainingStep, ITERATIONS)
    return Row(
        f"training step with {name} k-means, over ours, L = {ITERATIONS}",
        1.3,
        False,
        partial(_times, theirs, ours, (name, "ours")),
    )


ROWS = [
    Row(
        "training step, L = 20 over L = 1",
        1.10,
        True,
        partial(
            _times,
            partial(TrainingStep, 20),
            partial(TrainingStep, 1),
            ("L = 20", "L = 1"),
        ),
    ),
    Row("its peak memory, L = 20 over L = 1", 1.02, True, _memory),
    Row(
        "training step, L = 10 over constant attractors",
        1.10,
        True,
        partial(
            _times,
            partial(TrainingStep, 10),
            partial(TrainingStep, attractors=ConstantAttractors()),
            ("L = 10", "constant"),
        ),
    ),
    _peer("ESPnet's", plain_kmeans),
    _peer("tky823's", one_hot_kmeans),
]
