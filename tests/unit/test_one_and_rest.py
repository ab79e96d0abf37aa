"""Tests of one talker and the rest: the recursion and its loss."""

from itertools import permutations

import pytest
import torch

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.inference.separation import AttractorSeparation
from speechbrain_kmdanet.lobes.models.counting import TalkerCounter
from speechbrain_kmdanet.lobes.models.embedding import EmbeddingNet
from speechbrain_kmdanet.lobes.models.one_and_rest import OneAndRest
from speechbrain_kmdanet.nnet.loss.one_and_rest import one_and_rest_loss
from speechbrain_kmdanet.nnet.loss.separation import si_sdr
from speechbrain_kmdanet.processing.stft import STFTDecoder, STFTEncoder


def make_masker():
    return OneAndRest(EmbeddingNet(33, embedding_dim=2, hidden_size=16)).eval()


@pytest.mark.parametrize("num_spks", [1, 2, 3, 5])
def test_masks_are_those_of_the_recursion(num_spks):
    masker = make_masker()
    spectrum = torch.randn(2, 33, 12, dtype=torch.complex64)
    masks = masker(spectrum, num_spks=num_spks)
    assert masks.shape == (num_spks, 2, 33, 12)
    torch.testing.assert_close(masks.sum(0), torch.ones(2, 33, 12))
    if num_spks == 1:
        return
    # The first one is the same whatever the number; the others separate
    # what is left.
    pair = masker(spectrum, num_spks=2)
    torch.testing.assert_close(masks[0], pair[0])
    others = masker(pair[1] * spectrum, num_spks=num_spks - 1)
    torch.testing.assert_close(masks[1:], pair[1] * others)


def test_the_trunk_runs_once_for_each_but_the_last(monkeypatch):
    masker = make_masker()
    runs = []
    masker.trunk.register_forward_hook(lambda *_: runs.append(1))
    for num_spks in (1, 2, 4):
        runs.clear()
        masker(torch.randn(1, 33, 9, dtype=torch.complex64), num_spks=num_spks)
        assert len(runs) == num_spks - 1


def test_trunks_of_other_outputs_are_refused():
    with pytest.raises(UserError, match="must have 2 outputs.*embedding_dim=3"):
        OneAndRest(EmbeddingNet(33, embedding_dim=3, hidden_size=16))


def naive_loss(estimates, sources):
    """Of one item [L, K]: the first steps by all orders of the talkers."""
    left, losses = list(range(sources.shape[1])), []
    for step in range(sources.shape[1] - 1):
        rest = estimates[:, step + 1 :].sum(1)
        costs = {}
        for one in left:
            others = [i for i in left if i != one]
            pairs = (
                (estimates[:, step], sources[:, one], 1.0),
                (rest, sources[:, others].sum(1), 1.0 / len(others)),
            )
            costs[one] = -sum(
                weight * si_sdr(*(x.view(1, -1, 1) for x in (made, true)))
                for made, true, weight in pairs
            )
        one = min(costs, key=costs.get)
        losses.append(costs[one].item())
        left.remove(one)
    return sum(losses) / len(losses)


@pytest.mark.parametrize("num_spks", [2, 3, 4])
def test_loss_by_its_definition(num_spks):
    sources = torch.randn(3, 400, num_spks)
    estimates = sources.flip(2) + 0.7 * torch.randn(3, 400, num_spks)
    losses = one_and_rest_loss(estimates, sources)
    for loss, *item in zip(losses.tolist(), estimates, sources):
        assert loss == pytest.approx(naive_loss(*item), rel=1e-4)


def test_any_order_of_the_talkers_is_right():
    sources = torch.randn(1, 400, 3)
    for order in permutations(range(3)):
        assert one_and_rest_loss(sources[:, :, order], sources) < -70


def test_the_rest_counts_as_one():
    # The first is right; what is left is in its place, but mixed up.
    sources = torch.randn(1, 4000, 3)
    mixed = sources.clone()
    mixed[..., 1] = mixed[..., 2] = (sources[..., 1] + sources[..., 2]) / 2
    right = one_and_rest_loss(sources, sources)
    first = one_and_rest_loss(mixed, sources)
    assert right < -70 and -70 < first < -40


def test_silent_talkers_and_padding_are_left_out():
    sources = torch.randn(2, 400, 3)
    sources[0, :, 1] = 0.0
    sources[1] = 0.0
    noise = torch.randn(2, 400, 3)
    estimates = (sources + 0.5 * noise).requires_grad_()
    losses = one_and_rest_loss(estimates, sources)
    assert losses.isfinite().all() and losses[1] == 0
    losses.sum().backward()
    assert estimates.grad.isfinite().all()
    lengths = torch.tensor([250, 400])
    changed = estimates.detach().clone()
    changed[0, 250:] = 5.0
    torch.testing.assert_close(
        one_and_rest_loss(changed, sources, lengths)[0],
        one_and_rest_loss(changed[:1, :250], sources[:1, :250])[0],
    )


def test_one_talker_alone():
    sources = torch.randn(2, 400, 1)
    estimates = sources + 0.3 * torch.randn(2, 400, 1)
    torch.testing.assert_close(
        one_and_rest_loss(estimates, sources), -si_sdr(estimates, sources)[:, 0]
    )


def test_a_counter_says_when_to_stop():
    encoder = STFTEncoder(n_fft=64, hop_length=16)
    modules = {
        "encoder": encoder,
        "masknet": make_masker(),
        "decoder": STFTDecoder(n_fft=64, hop_length=16),
        "counter": TalkerCounter(num_bins=33, channels=(4, 4, 4)),
    }
    hparams = {"sample_rate": 8000, "num_spks": 2}
    separator = AttractorSeparation(modules, hparams)
    mixture = torch.randn(1, 3000)
    last = separator.mods.counter.output[-1]
    for count in (1, 3, 4):
        with torch.no_grad():
            last.bias.copy_(100.0 * (torch.arange(4) == count - 1))
        sources = separator.separate_batch(mixture, num_spks="auto").cpu()
        assert sources.shape == (1, 3000, count)
        torch.testing.assert_close(sources.sum(2), mixture, atol=1e-4, rtol=0)
