"""Tests of deep clustering, its end-to-end form, and its enhancement."""

import pytest
import torch

from speechbrain_kmdanet.lobes.models.deep_clustering import (
    DeepClustering,
    EndToEndDeepClustering,
    EnhancementNet,
)
from speechbrain_kmdanet.lobes.models.embedding import EmbeddingNet
from speechbrain_kmdanet.nnet.attractors import (
    AttractorEstimator,
    KMeansAttractors,
)

NUM_BINS = 9
NUM_FRAMES = torch.tensor([7, 4])


class Recorder(AttractorEstimator):
    """Clustering that remembers what it was called with."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def estimate(self, embeddings, energies, num_spks, *_):
        self.calls.append((embeddings, energies, num_spks))
        return embeddings[:, :num_spks]


class Directions(torch.nn.Module):
    """Embeds every frame in the direction that a table gives for it."""

    def __init__(self, table):
        super().__init__()
        self.table = table

    def forward(self, spectrum, num_frames=None):
        frames = self.table.repeat_interleave(NUM_BINS, 0)
        return frames.expand(len(spectrum), -1, -1)


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
    options = {"with_embeddings": True, "with_masks": False}
    masks, embeddings = dpcl(make_spectrum(), **options)
    assert masks is None and embeddings.shape == (2, 63, 3)
    assert not dpcl.clustering.calls
    # Otherwise, and at inference, the masks are wanted.
    assert dpcl(make_spectrum()).shape == (3, 2, NUM_BINS, 7)
    masks, _ = dpcl.eval()(make_spectrum(), None, 2, with_embeddings=True)
    assert masks.shape == (2, 2, NUM_BINS, 7)
    assert [call[2] for call in dpcl.clustering.calls] == [3, 2]


@pytest.mark.parametrize("training", [False, True])
def test_end_to_end_training_does_not_cluster_in_pretraining(training):
    enhanced = []
    dpcl = EndToEndDeepClustering(make_net(), Recorder(), Unchanged())
    dpcl.enhancement_net.register_forward_hook(lambda *call: enhanced.append(1))
    dpcl.train(training)
    for count, with_masks in enumerate((False, True)):
        masks, embeddings = dpcl(
            make_spectrum(), with_embeddings=True, with_masks=with_masks
        )
        assert (masks is not None) == with_masks and embeddings is not None
        assert len(dpcl.clustering.calls) == len(enhanced) == count


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
    significance = dpcl.clustering.calls[0][1].view(2, 50, NUM_BINS)
    frames = torch.tensor([int(threshold_db), 10]).view(2, 1, 1)
    expected = torch.arange(50).view(1, 50, 1) < frames
    # rounding decides about the bins at the threshold
    significance[0, int(threshold_db)] = 0.0
    assert (significance == expected.expand_as(significance)).all()


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
    dpcl(make_spectrum(), NUM_FRAMES, num_spks=3)
    ((magnitudes, masks, num_frames),) = seen
    assert num_frames is NUM_FRAMES and masks.shape == (2, 3, 63)
    levels = magnitudes[1, :4].square().mean().sqrt()
    assert levels == pytest.approx(1.0) and (magnitudes[1, 4:] == 0).all()


def make_enhancement(num_spks=3):
    """A network, magnitudes and masks of 2 items of 7 frames of 5 bins."""
    net = EnhancementNet(num_bins=5, hidden_size=8)
    masks = torch.randn(2, num_spks, 35).softmax(1)
    return net, torch.rand(2, 7, 5), masks.requires_grad_()


@pytest.mark.parametrize("num_spks", [1, 2, 4])
def test_enhanced_masks_of_any_number_of_talkers(num_spks):
    net, magnitudes, masks = make_enhancement(num_spks)
    enhanced = net(magnitudes, masks)
    assert enhanced.shape == masks.shape and (enhanced >= 0).all()
    torch.testing.assert_close(enhanced.sum(1), torch.ones(2, 35))


def test_the_enhancement_treats_talkers_alike():
    net, magnitudes, masks = make_enhancement()
    order = [2, 0, 1]
    torch.testing.assert_close(
        net(magnitudes, masks[:, order], NUM_FRAMES),
        net(magnitudes, masks, NUM_FRAMES)[:, order],
    )


def test_padding_does_not_matter_to_the_enhancement():
    net, magnitudes, masks = make_enhancement()
    batch = net(magnitudes, masks, NUM_FRAMES)
    for item, frames in enumerate(NUM_FRAMES):
        bins = int(frames) * 5
        alone = net(
            magnitudes[item : item + 1, :frames],
            masks[item : item + 1, :, :bins],
        )
        torch.testing.assert_close(batch[item, :, :bins], alone[0])


def test_enhanced_masks_belong_to_their_bins():
    net, magnitudes, masks = make_enhancement()
    inputs, outputs = [], []
    net.blstm.register_forward_hook(lambda m, x, y: inputs.append(x[0]))
    net.output.register_forward_hook(lambda m, x, y: outputs.append(y))
    enhanced = net(magnitudes, masks)
    item, frame, frequency = 1, 4, 2
    bin_, rows = frame * 5 + frequency, slice(item * 3, item * 3 + 3)
    magnitude = magnitudes[item, frame, frequency]
    # 0 at the floor of -60 dB, 1 at the level of the mixture
    features = inputs[0][rows, frame]
    masked = magnitude * masks[item, :, bin_]
    for column, value in ((frequency, magnitude), (5 + frequency, masked)):
        expected = 1 + (20 * value.log10() / 60).clamp_min(-1.0)
        torch.testing.assert_close(
            features[:, column], expected.expand(3), rtol=1e-4, atol=1e-5
        )
    logits = outputs[0][rows, frame, frequency]
    expected = (masks[item, :, bin_] * logits.exp()).log().softmax(0)
    torch.testing.assert_close(enhanced[item, :, bin_], expected)


def test_the_gradient_of_the_enhancement():
    net, magnitudes, masks = make_enhancement()
    net(magnitudes, masks)[:, 0].sum().backward()
    for value in (masks, *net.parameters()):
        assert value.grad.isfinite().all() and (value.grad != 0).any()


def test_an_untrained_network_leaves_the_masks_about_as_they_are():
    net, magnitudes, masks = make_enhancement()
    binary = (masks == masks.amax(1, keepdim=True)).float()
    assert (net(magnitudes, binary) - binary).abs().max() < 0.01
    with torch.no_grad():
        net.output.weight.zero_()
        net.output.bias.zero_()
    torch.testing.assert_close(net(magnitudes, masks), masks)


def test_the_enhancement_of_silence():
    net, magnitudes, masks = make_enhancement()
    enhanced = net(0.0 * magnitudes, masks)
    enhanced[:, 0].sum().backward()
    assert enhanced.isfinite().all() and masks.grad.isfinite().all()
