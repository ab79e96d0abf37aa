"""Tests of the dual-path trunk."""

import pytest
import torch

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.lobes.models.dual_path_trunk import DualPathNet

BINS, FRAMES, DIM = 33, 12, 5
NUM_FRAMES = torch.tensor([12, 1, 7])


def make_net(**options):
    """A small network."""
    sizes = {"channels": 8, "hidden_size": 6, "num_blocks": 2}
    options = {**sizes, "frame_size": 6, **options}
    return DualPathNet(BINS, DIM, **options).eval()


def make_spectrum(batch=3):
    """Random spectrum."""
    return torch.randn(batch, BINS, FRAMES, dtype=torch.complex64)


@pytest.mark.parametrize("bins_per_band", [1, 2, 4, 5, 8, 40])
def test_every_bin_has_an_embedding(bins_per_band):
    net = make_net(bins_per_band=bins_per_band)
    spectrum = make_spectrum()
    assert net(spectrum).shape == (3, FRAMES * BINS, DIM)
    bands = -(-BINS // bins_per_band)
    assert net.features(spectrum).shape == (3, FRAMES, bands, 8)


def test_batch_equals_single():
    net = make_net()
    spectrum = make_spectrum()
    garbled = spectrum.clone()
    for item, frames in enumerate(NUM_FRAMES):
        garbled[item, :, frames:] = 50 * torch.rand(BINS, 1)
    batch = net(garbled, NUM_FRAMES)
    for item, frames in enumerate(NUM_FRAMES):
        alone = net(spectrum[item, None, :, :frames])[0]
        torch.testing.assert_close(
            batch[item, : frames * BINS], alone, rtol=0, atol=1e-5
        )


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_the_level_is_not_seen(factor):
    net, spectrum = make_net(), make_spectrum()
    torch.testing.assert_close(
        net(factor * spectrum), net(spectrum), rtol=0, atol=1e-5
    )


def test_phases_are_seen():
    net, spectrum = make_net(), make_spectrum()
    turned = torch.polar(spectrum.abs(), 6 * torch.rand(spectrum.shape))
    assert (net(turned) - net(spectrum)).abs().max() > 1e-3


def test_bins_are_ordered_by_frame_then_frequency():
    # A bin moves the embeddings near it most: those of its frame and band.
    net = make_net(num_blocks=1)
    spectrum = make_spectrum(1)
    other = spectrum.clone()
    frame, low, high = 4, 8, 12
    other[0, low:high, frame] = 0.0
    change = (net(other) - net(spectrum)).abs().view(FRAMES, BINS, DIM).sum(2)
    at = divmod(int(change.argmax()), BINS)
    assert abs(at[0] - frame) <= 1 and low - 8 <= at[1] < high + 8


@pytest.mark.parametrize("path", ["bands", "time"])
def test_everything_depends_on_everything(path):
    net = make_net(num_blocks=1)
    spectrum = make_spectrum(1).requires_grad_()
    bins = net(spectrum).view(FRAMES, BINS, DIM)
    # The first and the last, in both directions.
    for place in (0, -1):
        picked = bins[FRAMES // 2, place] if path == "bands" else bins[place]
        (gradient,) = torch.autograd.grad(
            picked.sum(), spectrum, retain_graph=True
        )
        reached = gradient[0].abs().sum(1 if path == "bands" else 0)
        assert (reached > 0).all()


@pytest.mark.parametrize("silent", [[1], [0, 1, 2]])
def test_silence_is_finite_and_trains(silent):
    net, spectrum = make_net(), make_spectrum()
    spectrum[silent] = 0.0
    spectrum.requires_grad_()
    embeddings = net(spectrum, NUM_FRAMES)
    embeddings.square().sum().backward()
    assert embeddings.isfinite().all()
    for name, parameter in net.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert len(silent) == 3 or (parameter.grad != 0).any(), name


def test_the_same_weights_for_any_number_of_bands_and_frames():
    sizes = [
        sum(p.numel() for p in DualPathNet(bins, DIM).parameters())
        for bins in (65, 129, 257)
    ]
    assert len(set(sizes)) == 1


@pytest.mark.parametrize("name", ["num_blocks", "bins_per_band"])
def test_sizes_that_cannot_be(name):
    with pytest.raises(UserError, match=f"{name} must be at least 1, got 0"):
        make_net(**{name: 0})
