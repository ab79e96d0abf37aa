"""Tests of the chain of every separator, and of what it computes when."""

import pytest
import torch

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.lobes.models.danet import DANet
from speechbrain_kmdanet.lobes.models.dual_path_trunk import DualPathNet
from speechbrain_kmdanet.lobes.models.embedding import EmbeddingNet
from speechbrain_kmdanet.lobes.models.masker import Masker
from speechbrain_kmdanet.lobes.models.oracle import OracleMasker
from speechbrain_kmdanet.nnet.attractors import (
    KMeansAttractors,
    OracleAttractors,
)
from speechbrain_kmdanet.processing.separation import decode_sources, separate
from speechbrain_kmdanet.processing.stft import STFTDecoder, STFTEncoder


class Counted(torch.nn.Module):
    """A module inside another, as in DistributedDataParallel, and its calls."""

    def __init__(self, module):
        super().__init__()
        self.module = module
        self.calls = []

    def forward(self, *inputs, **options):
        self.calls.append((*inputs, *options.values()))
        return self.module(*inputs, **options)


class Halves(Masker):
    """Equal masks, and no embeddings."""

    def make(self, spectrum, num_frames, num_spks, *_):
        return torch.full((num_spks, *spectrum.shape), 1 / num_spks), None


def make_modules(masker):
    """Encoder, masker and decoder, each inside another."""
    modules = STFTEncoder(64, 16), masker, STFTDecoder(64, 16)
    return tuple(Counted(module) for module in modules)


@pytest.mark.parametrize("wrapped", [False, True])
def test_encode_mask_decode(wrapped):
    modules = make_modules(OracleMasker())
    if not wrapped:
        modules = [module.module for module in modules]
    sources = torch.randn(2, 300, 3)
    sources = sources - sources.mean(1, keepdim=True)
    mixture = sources.sum(2)
    separation = separate(*modules, mixture, sources=sources)
    spectra = [modules[0](sources[..., k]) for k in range(3)]
    torch.testing.assert_close(
        separation.source_spectra, torch.stack(spectra, dim=1)
    )
    masks = modules[1](separation.spectrum, None, 3, separation.source_spectra)
    assert torch.equal(separation.masks, masks) and separation.ordered is True
    magnitudes = masks.transpose(0, 1) * separation.spectrum.abs()[:, None]
    assert torch.equal(separation.masked_magnitudes, magnitudes)
    estimates = decode_sources(masks, separation.spectrum, modules[2], 300)
    torch.testing.assert_close(separation.estimates, estimates)


def test_what_nobody_asks_for_is_not_computed():
    encoder, masker, decoder = make_modules(Halves())
    sources = torch.randn(2, 300, 2)
    modules = encoder, masker, decoder
    separation = separate(*modules, sources.sum(2), sources=sources)
    assert separation.ordered is False and separation.embeddings is None
    assert (len(encoder.calls), len(decoder.calls)) == (1, 0)
    for _ in range(2):
        assert separation.estimates.shape == (2, 300, 2)
        assert separation.source_spectra.shape[:2] == (2, 2)
    assert (len(encoder.calls), len(decoder.calls)) == (2, 1)
    # a masker is not given sources that it does not need
    assert masker.calls[0][3] is None
    assert masker.calls[0][-2] is True  # masks are wanted
    separate(*modules, sources.sum(2), outputs=["embeddings"])
    assert masker.calls[1][-2] is False


def test_frames_are_counted_where_there_is_padding():
    mixture = torch.randn(2, 300)
    modules = make_modules(Halves())
    for lengths in (None, torch.tensor([300, 300])):
        separation = separate(*modules, mixture, num_samples=lengths)
        assert separation.num_frames is None
        assert separation.num_samples is lengths
    lengths = torch.tensor([300, 90])
    separation = separate(*modules, mixture, num_samples=lengths)
    expected = modules[0].module.num_frames(lengths)
    assert torch.equal(separation.num_frames, expected)
    assert modules[1].calls[-1][1] is separation.num_frames


@pytest.mark.parametrize("num_spks, given", [(None, 3), (2, 2), (4, 4)])
def test_the_number_of_talkers_is_that_of_the_sources(num_spks, given):
    sources = torch.randn(1, 300, 3)
    modules = make_modules(Halves())
    options = {"num_spks": num_spks, "sources": sources}
    separation = separate(*modules, sources.sum(2), **options)
    assert separation.estimates.shape == (1, 300, given)
    # without sources, that of the masker
    separation = separate(*modules, sources.sum(2), num_spks)
    assert len(separation.masks) == (num_spks or 2)


def make_danet():
    """DANet, whose attractors are those of the sources in training."""
    net = EmbeddingNet(33, 4, hidden_size=8, num_layers=1)
    return DANet(net, OracleAttractors(), KMeansAttractors(seed=0))


def test_given_attractors_need_no_sources_and_have_no_order():
    encoder, decoder = STFTEncoder(64, 16), STFTDecoder(64, 16)
    sources = torch.randn(2, 300, 2)
    attractors = torch.randn(2, 2, 4)
    masker = make_danet().train()
    for given in (None, sources):
        separation = separate(
            encoder,
            masker,
            decoder,
            sources.sum(2),
            sources=given,
            attractors=attractors,
        )
        assert not separation.ordered
        assert separation.estimates.shape == sources.shape
    ordered = separate(
        encoder, masker, decoder, sources.sum(2), sources=sources
    )
    assert ordered.ordered


@pytest.mark.parametrize("masker", [OracleMasker, make_danet])
def test_missing_sources_are_named(masker):
    modules = STFTEncoder(64, 16), masker().train(), STFTDecoder(64, 16)
    with pytest.raises(UserError, match="sources"):
        separate(*modules, torch.randn(2, 300))


def test_numbers_and_outputs_that_cannot_be():
    modules = STFTEncoder(64, 16), Halves(), STFTDecoder(64, 16)
    mixture, sources = torch.randn(1, 300), torch.randn(1, 300, 2)
    with pytest.raises(UserError, match="num_spks must be an integer >= 1"):
        separate(*modules, mixture, num_spks=0, sources=sources)
    for outputs in (["mask"], "masks"):
        with pytest.raises(UserError, match="outputs must be some of"):
            separate(*modules, mixture, outputs=outputs)


@pytest.mark.parametrize("training", [False, True])
def test_it_can_be_compiled(training):
    net = EmbeddingNet(33, 4, hidden_size=8, num_layers=1)
    kmeans = KMeansAttractors("spherical", 3, seed=0)
    masker = DANet(net, kmeans, kmeans).train(training)
    spectrum = STFTEncoder(64, 16)(torch.randn(2, 300))
    compiled = torch.compile(masker, backend="eager")
    torch.testing.assert_close(compiled(spectrum), masker(spectrum))


def rumble(seconds, frequency, amplitude):
    time = torch.arange(round(8000 * seconds)) / 8000
    return amplitude * torch.sin(2 * torch.pi * frequency * time)


@pytest.mark.parametrize("trunk", ["blstm", "dual_path"])
@pytest.mark.parametrize(
    "inaudible",
    [torch.tensor(0.05), torch.tensor(-3.0), rumble(0.5, 3.0, 0.3)],
    ids=["offset", "large offset", "rumble"],
)
def test_what_is_inaudible_is_shared_out(trunk, inaudible):
    kmeans = KMeansAttractors("spherical", seed=0)
    modules = (
        STFTEncoder(64, 16, highpass=30),
        DANet(make_trunk(trunk), kmeans, kmeans).eval(),
        STFTDecoder(64, 16),
    )
    lengths = torch.tensor([4000, 2500])
    valid = torch.arange(4000) < lengths[:, None]
    mixture = torch.randn(2, 4000)
    for num_samples in (None, lengths):
        present = torch.ones(2, 4000) if num_samples is None else valid
        plain, other = (
            separate(*modules, x * present, num_samples=num_samples).estimates
            for x in (mixture, mixture + inaudible)
        )
        shared = (inaudible * present).unsqueeze(2) / 2
        torch.testing.assert_close(
            (other - shared) * present.unsqueeze(2),
            plain * present.unsqueeze(2),
            atol=2e-3,
            rtol=0,
        )
        total = (mixture + inaudible) * present
        torch.testing.assert_close(
            other.sum(2) * present, total, atol=1e-4, rtol=0
        )


def test_batch_and_single_hear_the_same():
    modules = STFTEncoder(64, 16, highpass=30), Halves(), STFTDecoder(64, 16)
    mixture = torch.randn(2, 600) + 0.5
    mixture[1, 333:] = 0.0
    lengths = torch.tensor([600, 333])
    sources = torch.randn(2, 600, 2)
    both = separate(*modules, mixture, num_samples=lengths, sources=sources)
    alone = separate(*modules, mixture[1:, :333], sources=sources[1:, :333])
    for name in ("spectrum", "source_spectra"):
        one, other = getattr(both, name)[1:], getattr(alone, name)
        torch.testing.assert_close(one[..., : other.shape[-1]], other)
    torch.testing.assert_close(both.estimates[1:, :333], alone.estimates)


def make_trunk(name):
    if name == "blstm":
        return EmbeddingNet(33, 4, hidden_size=16, num_layers=1).eval()
    return DualPathNet(33, 4, channels=8, hidden_size=8, num_blocks=1).eval()
