"""Tests of the mask enhancement network.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import pytest
import torch

from speechbrain_kmdanet.lobes.models.enhancement import EnhancementNet

NUM_FRAMES = torch.tensor([7, 4])


def make_batch(num_spks=3):
    """A network, magnitudes and masks of 2 items of 7 frames of 5 bins."""
    net = EnhancementNet(num_bins=5, hidden_size=8)
    masks = torch.randn(2, num_spks, 35).softmax(1)
    return net, torch.rand(2, 7, 5), masks.requires_grad_()


@pytest.mark.parametrize("num_spks", [1, 2, 4])
def test_masks_of_any_number_of_talkers(num_spks):
    net, magnitudes, masks = make_batch(num_spks)
    enhanced = net(magnitudes, masks)
    assert enhanced.shape == masks.shape and (enhanced >= 0).all()
    torch.testing.assert_close(enhanced.sum(1), torch.ones(2, 35))


def test_talkers_are_treated_alike():
    net, magnitudes, masks = make_batch()
    order = [2, 0, 1]
    torch.testing.assert_close(
        net(magnitudes, masks[:, order], NUM_FRAMES),
        net(magnitudes, masks, NUM_FRAMES)[:, order],
    )


def test_padding_does_not_matter_and_items_do_not_talk():
    net, magnitudes, masks = make_batch()
    batch = net(magnitudes, masks, NUM_FRAMES)
    for item, frames in enumerate(NUM_FRAMES):
        bins = int(frames) * 5
        alone = net(
            magnitudes[item : item + 1, :frames],
            masks[item : item + 1, :, :bins],
        )
        torch.testing.assert_close(batch[item, :, :bins], alone[0])


def test_masks_belong_to_their_bins():
    net, magnitudes, masks = make_batch()
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


def test_the_gradient_reaches_masks_and_parameters():
    net, magnitudes, masks = make_batch()
    net(magnitudes, masks)[:, 0].sum().backward()
    for value in (masks, *net.parameters()):
        assert value.grad.isfinite().all() and (value.grad != 0).any()


def test_an_untrained_network_leaves_the_masks_about_as_they_are():
    net, magnitudes, masks = make_batch()
    binary = (masks == masks.amax(1, keepdim=True)).float()
    assert (net(magnitudes, binary) - binary).abs().max() < 0.01
    with torch.no_grad():
        net.output.weight.zero_()
        net.output.bias.zero_()
    torch.testing.assert_close(net(magnitudes, masks), masks)


def test_silence():
    net, magnitudes, masks = make_batch()
    enhanced = net(0.0 * magnitudes, masks)
    enhanced[:, 0].sum().backward()
    assert enhanced.isfinite().all() and masks.grad.isfinite().all()
