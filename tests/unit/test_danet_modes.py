"""Tests of what DANet hands to its attractor estimators, and of its errors."""

import pytest
import torch

from speechbrain_kmdanet.lobes.models.danet import DANet
from speechbrain_kmdanet.lobes.models.embedding import EmbeddingNet
from speechbrain_kmdanet.nnet.attractors import (
    AttractorEstimator,
    KMeansAttractors,
)

NUM_BINS, MAX_FRAMES = 9, 7
NUM_FRAMES = torch.tensor([7, 4])


class Recorder(AttractorEstimator):
    """Attractor estimator that remembers what it was called with."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def estimate(self, embeddings, energies, num_spks, sources, num_bins):
        self.calls.append((embeddings, energies, num_spks, sources, num_bins))
        return embeddings[:, :num_spks]


def make_danet(**options):
    """Small network with two recorders."""
    net = EmbeddingNet(NUM_BINS, 3, hidden_size=8, num_layers=1)
    return DANet(net, Recorder(), Recorder(), **options)


def make_spectrum(batch=2):
    """Random spectrum, with something in the padding."""
    return torch.randn(batch, NUM_BINS, MAX_FRAMES, dtype=torch.complex64)


def test_the_mode_chooses_the_attractors():
    danet = make_danet()
    for _ in range(2):
        danet.train()(make_spectrum())
    danet.eval()(make_spectrum())
    assert len(danet.train_attractors.calls) == 2
    assert len(danet.infer_attractors.calls) == 1


def test_what_the_estimator_is_given():
    danet = make_danet(num_spks=3)
    spectrum = make_spectrum()
    sources = torch.rand(2, 3, NUM_BINS, MAX_FRAMES)
    danet(spectrum, NUM_FRAMES, sources=sources)
    embeddings, energies, num_spks, given, num_bins = (
        danet.train_attractors.calls[0]
    )
    assert num_spks == 3
    assert embeddings.shape == (2, MAX_FRAMES * NUM_BINS, 3)
    assert (num_bins == NUM_FRAMES * NUM_BINS).all()
    # energies and sources are ordered as the embeddings: frame, frequency
    assert (given[1, 2].view(MAX_FRAMES, NUM_BINS) == sources[1, 2].T).all()
    energies = energies.view(2, MAX_FRAMES, NUM_BINS)
    squares = spectrum.abs().square().transpose(1, 2)
    for item, frames in enumerate(NUM_FRAMES):
        expected = squares[item, :frames] / squares[item, :frames].mean()
        torch.testing.assert_close(energies[item, :frames], expected)
        assert (energies[item, frames:] == 0).all()


def test_masks_belong_to_their_bins():
    # The attractors are the embeddings of the first two bins.
    danet = make_danet().eval()
    spectrum = make_spectrum()
    masks = danet(spectrum)
    embeddings = danet.infer_attractors.calls[0][0]
    frame, frequency = 5, 3
    vector = embeddings[1, frame * NUM_BINS + frequency]
    expected = (embeddings[1, :2] @ vector).softmax(0)
    found = masks[:, 1, frequency, frame]
    if (found - expected).abs().max() > 0.01:  # the louder talker comes first
        expected = expected.flip(0)
    torch.testing.assert_close(found, expected)


def test_the_call_chooses_the_number_of_talkers():
    danet = make_danet(num_spks=2)
    danet(make_spectrum())
    danet(make_spectrum(), num_spks=4)
    assert [call[2] for call in danet.train_attractors.calls] == [2, 4]


@pytest.mark.parametrize("masks", ["dot_product", "distance"])
@pytest.mark.parametrize("training", [False, True])
def test_autocast_clusters_in_float32(masks, training):
    net = EmbeddingNet(NUM_BINS, 3, hidden_size=8, num_layers=1)
    danet = DANet(net, *(KMeansAttractors(seed=0) for _ in range(2)), masks)
    danet.train(training)
    types = []
    for estimator in (danet.train_attractors, danet.infer_attractors):
        estimator.register_forward_hook(
            lambda module, inputs, output: types.extend(
                [inputs[0].dtype, inputs[1].dtype, output.dtype]
            )
        )
    with torch.autocast("cpu", torch.bfloat16):
        values = danet(make_spectrum(), NUM_FRAMES)
    assert types == 3 * [torch.float32]
    # two roundings to the 8 bits of bfloat16
    torch.testing.assert_close(
        values.float().sum(0), torch.ones(values.shape[1:]), rtol=0, atol=8e-3
    )
    values.float()[0].sum().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_more_talkers_than_bins_with_energy():
    danet = make_danet().eval()
    spectrum = make_spectrum(3)
    spectrum[1] = 0.0
    spectrum[1, 4, 2] = spectrum[1, 5, 2] = 1.0
    spectrum[2] = 0.0  # silence has nothing to tell apart
    danet(spectrum, num_spks=2)
    with pytest.raises(ValueError, match="num_spks=3 .*item 1 .*only 2 "):
        danet(spectrum, num_spks=3)
    # a training goes on
    danet.train()(spectrum, num_spks=3)


def test_unknown_masks():
    with pytest.raises(ValueError, match="masks .*'sigmoid'"):
        make_danet(masks="sigmoid")
