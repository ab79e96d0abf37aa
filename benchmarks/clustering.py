"""Rows about k-means: memory traffic, and peers.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import torch
from peers import plain_kmeans, sklearn_kmeans, torch_kmeans
from rows import Row
from timing import compare

from speechbrain_kmdanet.processing.kmeans import kmeans

# A batch of the paper's training: 16 segments of 4 s, D = 20.
BATCH, POINTS, DIMENSIONS, CLUSTERS, ITERATIONS = 16, 64250, 20, 2, 10


def make_points():
    """Points [B, N, D] that do not fall into clusters, and where to start."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH, POINTS, DIMENSIONS, generator=generator)
    return x, x[:, :CLUSTERS].clone()


def _ours(x, initial):
    """Our k-means of the same."""
    return lambda: kmeans(
        x, CLUSTERS, initial_centroids=initial, iterations=ITERATIONS
    )


def against_reading(repeats):
    """k-means against reading its points once an iteration.

    Arguments
    ---------
    repeats : int
        Number of rounds.

    Returns
    -------
    Ratio
        Ours to reading.
    """
    x, initial = make_points()

    def read():
        for _ in range(ITERATIONS):
            x.sum()

    return compare({"kmeans": _ours(x, initial), "reading": read}, repeats)


def _against(name, peer):
    """Makes the row of a peer."""

    def run(repeats):
        x, initial = make_points()
        functions = {
            name: lambda: peer(x, initial, ITERATIONS),
            "kmeans": _ours(x, initial),
        }
        return compare(functions, repeats)

    what = f"{name}, over `kmeans`"
    return Row(what, 2.5, False, run)


ROWS = [
    Row(
        "`kmeans`, 10 iterations, over reading its input as often",
        4.0,
        True,
        against_reading,
    ),
    _against("scikit-learn", sklearn_kmeans),
    _against("torch_kmeans", torch_kmeans),
    _against("a plain PyTorch loop", plain_kmeans),
]
