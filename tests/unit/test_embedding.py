"""Tests of the embedding network."""

import pytest
import torch

from speechbrain_kmdanet.lobes.models import embedding as module
from speechbrain_kmdanet.lobes.models.embedding import (
    LOG_FLOOR,
    EmbeddingNet,
    FrameEncoder,
    PaddedBatchNorm,
)

NUM_FRAMES = torch.tensor([12, 5, 9])


def make_net(**options):
    """Small network without dropout."""
    options = {"num_bins": 9, "embedding_dim": 3, "hidden_size": 8, **options}
    return EmbeddingNet(num_layers=2, dropout=0.0, **options)


def make_spectrum(batch=3):
    """Random spectrum."""
    return torch.randn(batch, 9, 12, dtype=torch.complex64)


def garble(spectrum, num_frames=NUM_FRAMES):
    """Writes what must not matter into the padded frames."""
    spectrum = spectrum.clone()
    for item, frames in enumerate(num_frames):
        spectrum[item, :, frames:] = 50 * torch.rand(9, 1)
    return spectrum


def valid_bins():
    """True for the bins that are not padding [3, 12 · 9]."""
    return (torch.arange(12) < NUM_FRAMES[:, None]).repeat_interleave(9, 1)


def test_the_network_of_the_paper():
    with torch.device("meta"):
        net = EmbeddingNet()
    assert net.blstm.num_layers == 3 and net.blstm.bidirectional
    assert net.blstm.hidden_size == 256
    linear = [m for m in net.modules() if isinstance(m, torch.nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [
        (257, 512),
        (512, 512),
        (2 * 512, 512),  # with the skip connection
        (512, 257 * 20),
    ]
    assert net.embedding_dim == 20


def test_bins_are_ordered_by_frame_then_frequency():
    net = make_net().eval()
    frames, inputs = [], []
    net.output.register_forward_hook(lambda m, i, output: frames.append(output))
    net.encoder[0].register_forward_pre_hook(lambda m, x: inputs.append(x[0]))
    spectrum = make_spectrum(2)
    embeddings = net(spectrum)
    assert embeddings.shape == (2, 12 * 9, 3)
    expected = frames[0][1, 7].view(9, 3)  # item 1, frame 7
    assert (embeddings[1, 7 * 9 : 8 * 9] == expected).all()
    # and so is what the first layer is given, up to the level of the item
    levels = spectrum[1].abs().log().T
    offset = (inputs[0][1] / 0.5 - 3.5) - levels
    torch.testing.assert_close(offset, offset[:1, :1].expand(12, 9))


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_levels_and_phases_are_not_seen(factor):
    net = make_net().eval()
    spectrum = make_spectrum()
    other = factor * torch.polar(spectrum.abs(), 6 * torch.rand(3, 9, 12))
    torch.testing.assert_close(net(other), net(spectrum), rtol=0, atol=1e-5)


@pytest.mark.parametrize("frames", [1, 7])
def test_batch_equals_single(frames):
    net = make_net().eval()
    spectrum = make_spectrum()
    num_frames = NUM_FRAMES.clone()
    num_frames[1] = frames
    batch = net(garble(spectrum, num_frames), num_frames)
    for item in range(3):
        length = int(num_frames[item])
        alone = net(spectrum[item : item + 1, :, :length])
        torch.testing.assert_close(
            batch[item, : length * 9], alone[0], rtol=0, atol=1e-5
        )


def test_lengths_without_padding_change_nothing():
    spectrum = make_spectrum()
    for net in (make_net(), make_net().eval()):
        torch.testing.assert_close(
            net(spectrum), net(spectrum, torch.tensor([12, 12, 12]))
        )


def test_batch_normalisation_ignores_padded_frames():
    encoder = FrameEncoder(4, 6, torch.nn.Identity())
    frames = torch.randn(3, 12, 4)
    valid = torch.arange(12) < NUM_FRAMES[:, None]
    frames[~valid] = 100.0
    encoded = encoder(frames, valid)
    linear = frames[valid] @ encoder.linear.weight.T
    torch.testing.assert_close(encoder.norm.running_mean, 0.1 * linear.mean(0))
    torch.testing.assert_close(
        encoder.norm.running_var, 0.9 + 0.1 * linear.var(0)
    )
    torch.testing.assert_close(
        encoded[valid],
        (linear - linear.mean(0)) / (linear.var(0, False) + 1e-5).sqrt(),
        rtol=0,
        atol=1e-5,
    )


@pytest.mark.parametrize("padded", [False, True])
def test_batch_normalisation_is_that_of_pytorch(padded):
    theirs = torch.nn.BatchNorm1d(4, dtype=torch.float64)
    torch.nn.init.normal_(theirs.weight)
    torch.nn.init.normal_(theirs.bias)
    ours = PaddedBatchNorm(4).double()
    ours.load_state_dict(theirs.state_dict())
    valid = torch.arange(12) < NUM_FRAMES[:, None] + 12 * (not padded)
    found = []
    for norm in (theirs, ours):
        frames = torch.arange(3 * 12 * 4, dtype=torch.float64).cos()
        frames = frames.view(3, 12, 4).requires_grad_()
        if norm is theirs:
            normed = norm(frames[valid])
            evaluated = norm.eval()(frames.flatten(0, 1)).view_as(frames)
        else:
            normed = norm(frames, valid if padded else None)[valid]
            evaluated = norm.eval()(frames)
        normed.square().sin().sum().backward()
        found.append([normed, evaluated, *norm.state_dict().values()])
        found[-1] += [x.grad for x in (frames, norm.weight, norm.bias)]
    exact = {} if padded else {"rtol": 0, "atol": 0}
    torch.testing.assert_close(found[1], found[0], **exact)


def test_batch_normalisation_keeps_the_type():
    frames = torch.randn(3, 12, 4, dtype=torch.bfloat16)
    valid = torch.arange(12) < NUM_FRAMES[:, None]
    norm = PaddedBatchNorm(4)
    assert norm(frames, valid).dtype == torch.bfloat16
    one = PaddedBatchNorm(4)(frames[:1, :1], valid[:1, :1])
    assert one.isfinite().all()  # a single frame has no variance
    nothing = PaddedBatchNorm(4)
    assert nothing(frames, torch.zeros_like(valid)).isfinite().all()
    for name in ("running_mean", "running_var"):
        assert nothing.get_buffer(name).isfinite().all()


def test_padded_frames_do_not_matter_in_training():
    spectrum = make_spectrum()
    net = make_net()
    outputs, gradients = [], []
    for batch in (spectrum, garble(spectrum)):
        net.zero_grad()
        embeddings = net(batch, NUM_FRAMES)[valid_bins()]
        embeddings.square().sum().backward()
        outputs.append(embeddings)
        gradients.append(
            torch.cat([p.grad.flatten() for p in net.parameters()])
        )
    assert (outputs[0] == outputs[1]).all()
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-5)


def test_time_is_modelled_in_both_directions():
    net = make_net().eval()
    inputs = []  # of the first layer: all frames have a part in the level
    net.encoder[0].register_forward_pre_hook(lambda m, x: inputs.append(x[0]))
    embeddings = net(make_spectrum(1)).view(12, -1)
    for frame in (0, 11):
        (gradient,) = torch.autograd.grad(
            embeddings[frame].sum(), inputs[0], retain_graph=True
        )
        assert (gradient[0].abs().sum(1) > 0).all()


def test_silence_and_what_is_below_the_floor_are_alike(monkeypatch):
    net = make_net().eval()
    silent = net(torch.zeros(1, 9, 12) + 0j)
    # The magnitudes as they are: faint ones alone would be taken to the level.
    monkeypatch.setattr(
        module, "relative_magnitudes", lambda x, frames: x.transpose(1, 2)
    )
    silence = torch.zeros(1, 9, 12, requires_grad=True)
    embeddings = net(silence)
    assert (embeddings == silent).all()
    assert (embeddings == net(torch.full((1, 9, 12), LOG_FLOOR / 2))).all()
    assert (embeddings != net(torch.full((1, 9, 12), LOG_FLOOR * 2))).any()
    embeddings.sum().backward()
    assert (silence.grad == 0).all()


def test_odd_hidden_size():
    with pytest.raises(ValueError, match="hidden_size .*9"):
        make_net(hidden_size=9)
