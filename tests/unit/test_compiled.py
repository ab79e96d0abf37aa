"""Compiled maskers are not compiled anew for each length, or each step."""

import pytest
import torch

from speechbrain_kmdanet.lobes.models.danet import DANet
from speechbrain_kmdanet.lobes.models.dual_path_trunk import DualPathNet
from speechbrain_kmdanet.lobes.models.embedding import EmbeddingNet
from speechbrain_kmdanet.nnet.attractors import KMeansAttractors


@pytest.mark.parametrize(
    "trunk, padded",
    [(EmbeddingNet(9, 4, 8, 1), True), (DualPathNet(9, 4, 8, 8, 1), False)],
    ids=["blstm", "dual_path"],
)
def test_graphs_are_for_all_lengths(trunk, padded):
    kmeans = KMeansAttractors("spherical", 3)
    masker = DANet(trunk, kmeans, KMeansAttractors(seed=0))
    graphs = []

    def count(graph, _):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(masker, backend=count)
    counts = []
    for step, frames in enumerate((20, 23, 31, 26, 40)):
        kmeans.step_seed = step
        spectrum = torch.randn(2, 9, frames, dtype=torch.complex64)
        lengths = torch.tensor([frames, frames - 2]) if padded else None
        masks = compiled(spectrum, lengths)
        masks.square().sum().backward()
        torch.testing.assert_close(masks, masker(spectrum, lengths))
        counts.append(len(graphs))
    # The first length is taken for the only one, the second for one of many.
    assert counts[0] > 0 and counts[1:] == counts[1:2] * 4
