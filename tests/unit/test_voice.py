"""Tests of the vectors of voices."""

import torch

from speechbrain_kmdanet.lobes.models.voice import VoiceNet


def make_voice():
    torch.manual_seed(0)
    return VoiceNet(channels=(16, 16, 16, 48), size=8).eval()


def test_voices_have_unit_length_at_any_level():
    net = make_voice()
    speech = torch.randn(3, 6000)
    speech[2] = 0.0
    vectors = net(speech)
    assert vectors.shape == (3, 8)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(net(1e3 * speech), vectors, rtol=0, atol=1e-4)
    alone = torch.cat([net(x[None]) for x in speech])
    torch.testing.assert_close(alone, vectors, rtol=0, atol=1e-5)


@torch.no_grad()
def test_what_all_voices_share_is_taken_away():
    net, speech = make_voice(), torch.randn(20, 4000)
    before = net(speech)  # [B, E]
    net.centre.copy_(before.mean(0))
    expected = torch.nn.functional.normalize(before - before.mean(0), dim=1)
    after = net(speech)
    torch.testing.assert_close(after, expected)
    assert after.mean(0).norm() < 0.5 * before.mean(0).norm()


def test_older_weights_have_no_centre():
    net = make_voice()
    state = net.state_dict()
    del state["centre"]
    net.centre.fill_(1.0)
    net.load_state_dict(state)
    assert not net.centre.any()
