"""Tests of deep clustering and its end-to-end form.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import pytest
import torch

from speechbrain_kmdanet.lobes.models.deep_clustering import (
    DeepClustering,
    EndToEndDeepClustering,
)
from speechbrain_kmdanet.lobes.models.embedding import EmbeddingNet
from speechbrain_kmdanet.lobes.models.enhancement import EnhancementNet
from speechbrain_kmdanet.nnet.attractors import KMeansAttractors

NUM_BINS = 9


class Recorder(torch.nn.Module):
    """Clustering that remembers what it was called with."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, embeddings, weights, num_spks):
        self.calls.append((embeddings, weights, num_spks))
        return embeddings[:, :num_spks]


class Directions(torch.nn.Module):
    """Embeds every frame in the direction that a table gives for it."""

    def __init__(self, table):
        super().__init__()
        self.table = table

    def forward(self, magnitudes, num_frames=None):
        frames = self.table.repeat_interleave(NUM_BINS, 0)
        return frames.expand(len(magnitudes), -1, -1)


class Unchanged(torch.nn.Module):
    """Enhancement that leaves the masks as they are."""

    def forward(self, magnitudes, masks, num_frames=None):
        return masks


def make_net():
    """Small embedding network."""
    return EmbeddingNet(NUM_BINS, 3, hidden_size=8, num_layers=1)


def make_spectrum(batch=2, frames=7):
    """Random spectrum."""
    return torch.randn(batch, NUM_BINS, frames, dtype=torch.complex64)


def test_training_on_embeddings_does_not_cluster():
    dpcl = DeepClustering(make_net(), Recorder(), num_spks=3)
    masks, embeddings = dpcl(make_spectrum(), with_embeddings=True)
    assert masks is None and embeddings.shape == (2, 63, 3)
    assert not dpcl.clustering.calls
    # Without the embeddings, and at inference, the masks are wanted.
    assert dpcl(make_spectrum()).shape == (3, 2, NUM_BINS, 7)
    masks, _ = dpcl.eval()(make_spectrum(), None, 2, with_embeddings=True)
    assert masks.shape == (2, 2, NUM_BINS, 7)
    assert [call[2] for call in dpcl.clustering.calls] == [3, 2]


def test_end_to_end_training_does_not_cluster_in_pretraining():
    dpcl = EndToEndDeepClustering(make_net(), Recorder(), Unchanged())
    for pretraining, training in ((0, 1), (1, 1), (1, 0)):
        dpcl.train(bool(training)).pretraining = bool(pretraining)
        masks, _ = dpcl(make_spectrum(), with_embeddings=True)
        assert (masks is None) == bool(pretraining and training)


def test_embeddings_have_unit_norm():
    dpcl = DeepClustering(make_net(), Recorder()).eval()
    _, embeddings = dpcl(make_spectrum(), with_embeddings=True)
    norms = torch.linalg.vector_norm(embeddings, dim=2)
    torch.testing.assert_close(norms, torch.ones(2, 63))
    assert dpcl.clustering.calls[0][0] is embeddings


def test_bins_go_to_the_nearest_centroid():
    # The centroids are the embeddings of the first three bins.
    dpcl = DeepClustering(make_net(), Recorder(), num_spks=3).eval()
    masks, embeddings = dpcl(make_spectrum(), with_embeddings=True)
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    assert (masks.sum(0) == 1).all()
    for frame, frequency in ((0, 0), (6, 8), (5, 3)):
        point = embeddings[1, frame * NUM_BINS + frequency]
        distances = (embeddings[1, :3] - point).square().sum(1)
        assert masks[distances.argmin(), 1, frequency, frame] == 1


@pytest.mark.parametrize("threshold_db", [20.0, 40.0])
def test_significant_bins(threshold_db):
    dpcl = DeepClustering(make_net(), Recorder(), threshold_db).eval()
    # 1 dB a frame, at another level in each item
    levels = torch.tensor([1e-3, 1e3]).view(2, 1, 1)
    decibels = -torch.arange(50.0).expand(2, NUM_BINS, 50)
    spectrum = levels * 10 ** (decibels / 20) + 0j
    dpcl(spectrum, torch.tensor([50, 10]))
    weights = dpcl.clustering.calls[0][1].view(2, 50, NUM_BINS)
    frames = torch.tensor([int(threshold_db), 10]).view(2, 1, 1)
    expected = torch.arange(50).view(1, 50, 1) < frames
    # rounding decides about the bins at the threshold
    weights[0, int(threshold_db)] = 0.0
    assert (weights == expected.expand_as(weights)).all()


def test_bins_that_are_not_significant_do_not_move_the_centroids():
    # Two talkers, and faint frames in a direction of their own.
    directions = torch.tensor([[1.0, 0.0, 0.0]] * 3 + [[0.0, 2.0, 0.0]] * 3)
    faint = torch.tensor([[0.1, 0.0, -1.0]] * 20)
    net = Directions(torch.cat([directions, faint]))
    dpcl = DeepClustering(net, KMeansAttractors(seed=0)).eval()
    spectrum = make_spectrum(1, 26).sgn()
    spectrum[:, :, 6:] *= 1e-3
    masks = dpcl(spectrum)[:, 0, 0]
    assert (masks[:, :3] == masks[:, :1]).all()
    assert (masks[:, 3:6] == 1 - masks[:, :1]).all()
    assert (masks[:, 6:] == masks[:, :1]).all()  # the nearer of the two


def test_soft_masks_go_on_from_the_centroids():
    directions = torch.tensor([[1.0, 0.0]] * 4 + [[0.0, 1.0]] * 4)
    net = Directions(directions + 0.1 * torch.randn(8, 2))
    parts = net, KMeansAttractors(seed=0)
    spectrum = make_spectrum(1, 8)
    hard = DeepClustering(*parts).eval()(spectrum)
    for alpha in (1.0, 1e4):
        soft = EndToEndDeepClustering(*parts, Unchanged(), alpha).eval()
        masks = soft(spectrum)
        torch.testing.assert_close(masks.sum(0), torch.ones(1, NUM_BINS, 8))
        assert (masks.round() == hard).all()
        is_hard = ((masks - hard).abs() < 1e-3).all()
        assert is_hard == (alpha == 1e4)


def test_the_gradient_goes_through_the_clustering():
    net = make_net()
    dpcl = EndToEndDeepClustering(net, KMeansAttractors(seed=0), Unchanged())
    dpcl(make_spectrum())[0].square().sum().backward()
    assert all((p.grad != 0).any() for p in net.parameters())


def test_more_talkers_than_significant_bins():
    dpcl = DeepClustering(make_net(), KMeansAttractors(seed=0)).eval()
    spectrum = make_spectrum(3)
    spectrum[1] *= 1e-3
    spectrum[1, 4, 2] = spectrum[1, 5, 2] = 1.0
    spectrum[2] = 0.0  # silence has nothing to tell apart
    dpcl(spectrum, num_spks=2)
    with pytest.raises(ValueError, match="num_spks=3 .*item 1 .*only 2 "):
        dpcl(spectrum, num_spks=3)


@pytest.mark.parametrize("threshold_db", [0.0, -40.0])
def test_threshold_that_leaves_nothing(threshold_db):
    with pytest.raises(ValueError, match="threshold_db must be positive, got"):
        DeepClustering(make_net(), Recorder(), threshold_db)


def test_the_enhancement_is_given_the_soft_masks():
    net = EnhancementNet(NUM_BINS, hidden_size=8)
    seen = []
    net.register_forward_hook(lambda module, inputs, _: seen.append(inputs))
    parts = make_net(), KMeansAttractors(seed=0)
    dpcl = EndToEndDeepClustering(*parts, net).eval()
    spectrum, frames = make_spectrum(), torch.tensor([7, 4])
    dpcl(spectrum, frames, num_spks=3)
    ((magnitudes, masks, num_frames),) = seen
    assert num_frames is frames and masks.shape == (2, 3, 63)
    levels = magnitudes[1, :4].square().mean().sqrt()
    assert levels == pytest.approx(1.0) and (magnitudes[1, 4:] == 0).all()
