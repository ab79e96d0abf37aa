"""Tests of DANet, from the mixture to its sources."""

import pytest
import torch

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.lobes.models.danet import DANet
from speechbrain_kmdanet.lobes.models.embedding import EmbeddingNet
from speechbrain_kmdanet.nnet.attractors import (
    KMeansAttractors,
    OracleAttractors,
)
from speechbrain_kmdanet.nnet.loss.separation import (
    magnitude_loss,
    si_sdr,
    si_sdr_loss,
)
from speechbrain_kmdanet.processing import separation
from speechbrain_kmdanet.processing.stft import STFTDecoder, STFTEncoder

ENCODER, DECODER = STFTEncoder(64, 16), STFTDecoder(64, 16)
NUM_BINS = 33
LENGTHS = torch.tensor([600, 333, 450])

# Masks and metric belong together (Eq. 5a and 5b).
SYSTEMS = [("dot_product", "spherical"), ("distance", "euclidean")]
both_systems = pytest.mark.parametrize("masks, metric", SYSTEMS)


def make_danet(masks="dot_product", metric="spherical", train=None):
    """Small network without dropout; its embeddings are far apart."""
    net = EmbeddingNet(NUM_BINS, 4, hidden_size=16, num_layers=1)
    with torch.no_grad():
        net.output.weight.mul_(10)
    return DANet(
        net,
        train or KMeansAttractors(metric, iterations=5, seed=1),
        KMeansAttractors(metric, iterations=20, seed=0),
        masks,
    )


def make_sources(batch=3, samples=600, num_spks=2):
    """Sources and their mixtures: noise, the one louder than the other."""
    sources = torch.randn(batch, samples, num_spks)
    sources = sources * torch.linspace(1.0, 0.3, num_spks)
    return sources.sum(2), sources


def separate(danet, mixture, **options):
    """Separation of mixtures [B, L]."""
    return separation.separate(ENCODER, danet, DECODER, mixture, **options)


def estimate(danet, mixture, lengths=None, num_spks=None):
    """Sources [B, L, K] of mixtures [B, L]."""
    options = {"num_samples": lengths, "num_spks": num_spks}
    return separate(danet, mixture, **options).estimates


@both_systems
@pytest.mark.parametrize("num_spks", [None, 2, 3, 5])
def test_masks(masks, metric, num_spks):
    danet = make_danet(masks, metric)
    spectrum = ENCODER(make_sources()[0])
    for network in (danet, danet.eval()):
        values = network(spectrum, num_spks=num_spks)
        assert values.shape == (num_spks or 2, *spectrum.shape)
        assert (values >= 0).all()
        torch.testing.assert_close(values.sum(0), torch.ones(spectrum.shape))


@both_systems
@pytest.mark.parametrize("num_spks", [2, 3])
def test_batch_equals_single(masks, metric, num_spks):
    danet = make_danet(masks, metric).eval()
    mixture, _ = make_sources()
    mixture = mixture * (torch.arange(600) < LENGTHS[:, None])
    batch = estimate(danet, mixture, LENGTHS, num_spks)
    for item, length in enumerate(LENGTHS):
        alone = estimate(danet, mixture[item, None, :length], None, num_spks)
        torch.testing.assert_close(
            batch[item, :length], alone[0], rtol=0, atol=1e-4
        )


@both_systems
@pytest.mark.parametrize("factor", [1e-3, 0.5, 7.0, 1e3])
def test_scale_equivariance(masks, metric, factor):
    danet = make_danet(masks, metric).eval()
    mixture, _ = make_sources()
    # each item has its own level
    factors = factor * torch.tensor([1.0, 10.0, 0.1])
    scaled = estimate(danet, factors[:, None] * mixture, LENGTHS)
    torch.testing.assert_close(
        scaled / factors[:, None, None],
        estimate(danet, mixture, LENGTHS),
        rtol=0,
        atol=1e-4,
    )


@both_systems
@pytest.mark.parametrize("num_spks", [2, 3])
def test_silence_is_separated_into_silence(masks, metric, num_spks):
    danet = make_danet(masks, metric).eval()
    mixture, _ = make_sources()
    mixture[1] = 0.0
    sources = estimate(danet, mixture, num_spks=num_spks)
    assert (sources[1] == 0).all()
    assert sources.isfinite().all() and (sources[0] != 0).any()


@pytest.mark.parametrize("loss", ["magnitude", "si_sdr"])
@pytest.mark.parametrize("attractors", ["oracle", "spherical", "euclidean"])
@pytest.mark.parametrize("silent", [[1], [0, 1, 2]], ids=["one", "all"])
def test_training_on_silence_has_finite_gradients(loss, attractors, silent):
    train = OracleAttractors() if attractors == "oracle" else None
    danet = make_danet(
        "distance" if attractors == "euclidean" else "dot_product",
        "euclidean" if attractors == "euclidean" else "spherical",
        train,
    )
    _, sources = make_sources()
    sources[silent] = 0.0
    sources[0, :, 1] = 0.0  # a talker who does not speak in the segment
    options = {"num_samples": LENGTHS, "sources": sources}
    separated = separate(danet, sources.sum(2), **options)
    if loss == "magnitude":
        losses = magnitude_loss(
            separated.masked_magnitudes,
            separated.source_spectra.abs(),
            separated.num_frames,
        )
    else:
        losses = si_sdr_loss(separated.estimates, sources, LENGTHS)
    losses.mean().backward()
    assert losses.isfinite().all() and (losses[silent] == 0).all()
    for parameter in danet.parameters():
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("attractors", ["oracle", "spherical", "euclidean"])
def test_the_gradient_reaches_every_parameter(attractors):
    train = OracleAttractors() if attractors == "oracle" else None
    metric = "euclidean" if attractors == "euclidean" else "spherical"
    danet = make_danet("dot_product", metric, train)
    mixture, sources = make_sources()
    separated = separate(danet, mixture, sources=sources)
    magnitude_loss(
        separated.masked_magnitudes, separated.source_spectra.abs()
    ).mean().backward()
    for name, parameter in danet.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad != 0).any(), name


@both_systems
def test_gradients_of_a_batch_are_those_of_its_items(masks, metric):
    # In evaluation mode: batch normalisation is meant to mix items.
    danet = make_danet(masks, metric).eval()
    mixture, sources = make_sources()
    valid = torch.arange(600) < LENGTHS[:, None]
    mixture, sources = mixture * valid, sources * valid.unsqueeze(2)
    gradients = []
    for single in (False, True):
        danet.zero_grad()
        if single:
            for i, length in enumerate(LENGTHS):
                estimates = estimate(danet, mixture[i, None, :length])
                si_sdr_loss(estimates, sources[i, None, :length]).backward()
        else:
            estimates = estimate(danet, mixture, LENGTHS)
            si_sdr_loss(estimates, sources, LENGTHS).sum().backward()
        gradients.append(
            torch.cat([p.grad.flatten() for p in danet.parameters()])
        )
    scale = gradients[0].abs().max()
    assert scale > 0
    torch.testing.assert_close(
        gradients[0] / scale, gradients[1] / scale, rtol=0, atol=1e-4
    )


class Bands(torch.nn.Module):
    """Embeds low and high frequencies on two axes."""

    def forward(self, spectrum, num_frames=None):
        band = (torch.arange(NUM_BINS) > NUM_BINS // 2).long()
        embeddings = 8.0 * torch.eye(2)[band]
        return embeddings.repeat(len(spectrum), spectrum.shape[2], 1)


@both_systems
def test_good_embeddings_separate_tones(masks, metric):
    time = torch.arange(800.0)
    sources = torch.stack([(0.3 * time).sin(), 0.5 * (2.5 * time).sin()], 1)
    kmeans = KMeansAttractors(metric, seed=0)
    danet = DANet(Bands(), OracleAttractors(), kmeans, masks)
    mixture, sources = sources.sum(1)[None], sources[None]
    trained = separate(danet.train(), mixture, sources=sources)
    inferred = separate(danet.eval(), mixture)
    # Oracle attractors are in the order of the sources, centroids in any.
    if inferred.masks[0, 0, 0].sum() < inferred.masks[1, 0, 0].sum():
        inferred.masks = inferred.masks.flip(0)
    for separated in (trained, inferred):
        # what is left is the splatter of the ends of the tones
        assert (si_sdr(separated.estimates, sources) > 20).all()


def test_loss_of_permuted_sources_is_the_same_after_training_attractors():
    # The oracle follows the sources: swapped sources give swapped masks.
    danet = make_danet(train=OracleAttractors())
    mixture, sources = make_sources()
    torch.testing.assert_close(
        separate(danet, mixture, sources=sources.flip(2)).masks,
        separate(danet, mixture, sources=sources).masks.flip(0),
    )


def make_remainder(direction=(0.0, 0.0, 0.0, 3.0)):
    """DANet with an attractor of what is no talker."""
    plain = make_danet()
    danet = DANet(
        plain.embedding_net,
        plain.train_attractors,
        plain.infer_attractors,
        remainder=True,
    )
    with torch.no_grad():
        danet.remainder[:] = torch.tensor(direction)
    return danet.eval()


def test_talkers_and_remainder_share_each_bin():
    danet, (mixture, _) = make_remainder(), make_sources()
    spectrum = ENCODER(mixture)
    embeddings, energies = danet.embed(spectrum)
    shares = 1 - torch.sigmoid(embeddings @ danet.remainder[0, 0])
    attractors = danet.infer_attractors(embeddings, energies * shares, 3)
    masks = danet(spectrum, attractors=attractors)
    together = torch.cat([attractors, danet.remainder.expand(3, 1, 4)], 1)
    whole = torch.softmax(together @ embeddings.transpose(1, 2), 1)
    whole = whole.unflatten(2, (-1, NUM_BINS)).permute(1, 0, 3, 2)
    torch.testing.assert_close(masks, whole[:3])
    torch.testing.assert_close(1 - masks.sum(0), whole[3])
    # Those that are found are the same, in the order of their loudness.
    found = danet(spectrum, num_spks=3)
    torch.testing.assert_close(
        found.sort(0).values, masks.sort(0).values, atol=1e-5, rtol=1e-5
    )


def test_a_talker_alone_has_all_but_the_remainder():
    danet, (mixture, _) = make_remainder((0.0,) * 4), make_sources()
    spectrum = ENCODER(mixture)
    attractor = torch.randn(3, 1, 4)
    masks = danet(spectrum, attractors=attractor)
    embeddings, _ = danet.embed(spectrum)
    expected = torch.sigmoid(embeddings @ attractor.transpose(1, 2))
    expected = expected.view(3, -1, NUM_BINS).transpose(1, 2)
    torch.testing.assert_close(masks[0], expected)


def test_the_remainder_learns():
    danet, (mixture, sources) = make_remainder(), make_sources()
    danet.train()
    separated = separate(danet, mixture, sources=sources)
    si_sdr_loss(separated.estimates, sources).mean().backward()
    assert danet.remainder.grad.abs().sum() > 0
    assert "remainder" in danet.state_dict()
    assert "remainder" not in make_danet().state_dict()


def test_the_remainder_needs_dot_products():
    plain = make_danet()
    parts = plain.embedding_net, plain.train_attractors, plain.infer_attractors
    with pytest.raises(UserError, match="remainder must be False.*'distance'"):
        DANet(*parts, masks="distance", remainder=True)


def test_talkers_come_in_the_order_of_their_loudness():
    danet, (mixture, _) = make_danet().eval(), make_sources(num_spks=3)
    spectrum = ENCODER(mixture)
    masks = danet(spectrum, num_spks=3)  # [K, B, F, T]
    loudness = (masks * spectrum.abs().square()).sum((2, 3))
    assert (loudness[:-1] >= loudness[1:]).all()
    assert (loudness[0] > loudness[-1]).all()
    # Those that are handed in have an order of their own.
    attractors = torch.randn(3, 3, 4)
    forward = danet(spectrum, attractors=attractors)
    torch.testing.assert_close(
        danet(spectrum, attractors=attractors.flip(1)), forward.flip(0)
    )


def test_silence_before_does_not_change_the_order():
    danet, (mixture, _) = make_danet().eval(), make_sources()
    plain = estimate(danet, mixture)
    for samples in (16, 160):  # whole hops
        later = estimate(danet, torch.nn.functional.pad(mixture, (samples, 0)))
        same, swapped = (
            (later[:, samples:] - x).square().sum()
            for x in (plain, plain.flip(2))
        )
        assert same < swapped
