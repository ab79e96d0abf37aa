"""Tests of a trunk on another."""

import pytest
import torch

from speechbrain_kmdanet.lobes.models.danet import DANet
from speechbrain_kmdanet.lobes.models.dual_path_trunk import DualPathNet
from speechbrain_kmdanet.lobes.models.embedding import EmbeddingNet
from speechbrain_kmdanet.lobes.models.stacked_trunk import StackedNet
from speechbrain_kmdanet.nnet.attractors import KMeansAttractors

BINS, FRAMES, DIM = 33, 12, 4
NUM_FRAMES = torch.tensor([12, 3, 7])


def make_first():
    return EmbeddingNet(BINS, DIM, hidden_size=8, num_layers=1)


def make_net(correcting=True):
    """A small network whose second trunk has learned something, or not."""
    sizes = {"channels": 8, "hidden_size": 6, "num_blocks": 1, "frame_size": 4}
    net = StackedNet(
        make_first(), DualPathNet(BINS, DIM, **sizes, num_hints=DIM)
    )
    if correcting:
        torch.nn.init.normal_(net.second.decoder.weight)
    return net.eval()


def make_spectrum(batch=3):
    return torch.randn(batch, BINS, FRAMES, dtype=torch.complex64)


def test_batch_equals_single():
    net, spectrum = make_net(), make_spectrum()
    garbled = spectrum.clone()
    for item, frames in enumerate(NUM_FRAMES):
        garbled[item, :, frames:] = 50 * torch.rand(BINS, 1)
    batch = net(garbled, NUM_FRAMES)
    for item, frames in enumerate(NUM_FRAMES):
        alone = net(spectrum[item, None, :, :frames])[0]
        torch.testing.assert_close(
            batch[item, : frames * BINS], alone, rtol=0, atol=1e-4
        )


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_the_level_is_not_seen(factor):
    net, spectrum = make_net(), make_spectrum()
    torch.testing.assert_close(
        net(factor * spectrum), net(spectrum), rtol=0, atol=1e-4
    )


def test_silence_is_finite_and_trains():
    net, spectrum = make_net(), make_spectrum()
    spectrum[1] = 0.0
    embeddings = net(spectrum, NUM_FRAMES)
    embeddings.square().sum().backward()
    assert embeddings.isfinite().all()
    for name, parameter in net.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert (parameter.grad != 0).any(), name


def make_danet(trunk, **options):
    kmeans = KMeansAttractors("spherical", seed=0)
    return DANet(trunk, kmeans, kmeans, **options).eval()


def test_starts_from_a_separator_of_the_first():
    trained = make_danet(make_first())
    danet = make_danet(make_net(correcting=False), remainder=True)
    danet.load_state_dict(trained.state_dict())
    assert not danet.remainder.any()
    spectrum, attractors = make_spectrum(), torch.randn(3, 2, DIM)
    embeddings, _ = danet.embed(spectrum)
    assert torch.equal(embeddings, trained.embed(spectrum)[0])
    # The remainder begins in the middle of the space, and not without a part.
    parts = danet(spectrum, attractors=attractors).sum(0)
    assert ((parts > 0) & (parts < 1)).all()
    # Its own weights are its own.
    other = make_danet(make_net(), remainder=True)
    torch.nn.init.normal_(other.remainder)
    danet.load_state_dict(other.state_dict())
    for a, b in zip(danet.parameters(), other.parameters()):
        assert torch.equal(a, b)


@pytest.mark.parametrize("change", ["missing", "another"])
def test_refuses_weights_that_are_neither(change):
    danet = make_danet(make_net())
    state = make_danet(make_first()).state_dict()
    name = "embedding_net.output.weight"
    if change == "missing":
        del state[name]
    else:
        state[f"{name}s"] = state[name]
    with pytest.raises(RuntimeError, match="loading state_dict"):
        danet.load_state_dict(state)
    with pytest.raises(RuntimeError, match="Missing key"):
        danet.load_state_dict({})


def test_what_is_frozen_stays():
    net = make_net()
    frozen = StackedNet(net.first, net.second, frozen=True).train()
    torch.nn.init.normal_(frozen.second.decoder.weight)
    before = {k: v.clone() for k, v in frozen.first.state_dict().items()}
    frozen(make_spectrum()).square().sum().backward()
    assert all(p.grad is None for p in frozen.first.parameters())
    assert any((p.grad != 0).any() for p in frozen.second.parameters())
    # Statistics of normalisations, too.
    for name, value in frozen.first.state_dict().items():
        assert torch.equal(value, before[name])
    assert frozen.second.training and not frozen.first.training
