"""Tests of SpeechBrain's waveform-domain separators behind our interface."""

import pytest
import torch
from speechbrain.lobes.models.conv_tasnet import MaskNet
from speechbrain.lobes.models.dual_path import (
    Decoder,
    Dual_Path_Model,
    Encoder,
    SBTransformerBlock,
)
from speechbrain.lobes.models.resepformer import (
    MemLSTM,
    ResourceEfficientSeparator,
    SBTransformerBlock_wnormandskip,
    SegLSTM,
)

from speechbrain_kmdanet.lobes.models.tasnet import (
    GatedMaskNet,
    RecurrentMaskNet,
)
from speechbrain_kmdanet.lobes.models.waveform import (
    GatedEncoder,
    WaveformDecoder,
    WaveformEncoder,
    WaveformMasker,
)
from speechbrain_kmdanet.nnet.loss.separation import si_sdr_loss
from speechbrain_kmdanet.processing import separation

FILTERS = 8


def conv_tasnet(num_spks=2):
    masknet = MaskNet(FILTERS, B=6, H=8, P=3, X=3, R=2, C=num_spks)
    return WaveformMasker(masknet, num_spks, min_frames=5)


def sepformer(num_spks=2):
    blocks = [
        SBTransformerBlock(
            1, FILTERS, 2, 16, dropout=0.0, use_positional_encoding=True
        )
        for _ in range(2)
    ]
    masknet = Dual_Path_Model(
        FILTERS,
        FILTERS,
        *blocks,
        num_layers=1,
        K=10,
        num_spks=num_spks,
        linear_layer_after_inter_intra=False,
    )
    return WaveformMasker(masknet, num_spks)


def blstm_tasnet(num_spks=2):
    return WaveformMasker(RecurrentMaskNet(FILTERS, num_spks, 8, 3), num_spks)


def furcanext(num_spks=2):
    sizes = dict(num_blocks=3, num_repeats=1)
    return WaveformMasker(
        GatedMaskNet(FILTERS, num_spks, 6, 8, **sizes), num_spks
    )


def skim(num_spks=2):
    masknet = ResourceEfficientSeparator(
        FILTERS,
        causal=False,
        num_spk=num_spks,
        layer=2,
        unit=8,
        segment_size=10,
        seg_model=SegLSTM(FILTERS, 8, bidirectional=True, norm_type="gln"),
        mem_model=MemLSTM(8, bidirectional=True, norm_type="gln"),
    )
    return WaveformMasker(masknet, num_spks, one_by_one=True)


def resepformer(num_spks=2):
    block = SBTransformerBlock_wnormandskip(
        1, FILTERS, 2, 16, dropout=0.0, use_positional_encoding=True
    )
    masknet = ResourceEfficientSeparator(
        FILTERS,
        causal=False,
        num_spk=num_spks,
        layer=2,
        segment_size=10,
        mem_type="av",
        seg_model=block,
        mem_model=block,
    )
    return WaveformMasker(masknet, num_spks, one_by_one=True)


NETWORKS = [
    *(conv_tasnet, sepformer, blstm_tasnet, furcanext, skim, resepformer)
]
every_network = pytest.mark.parametrize("network", NETWORKS)


def separator(network):
    """Function from mixtures [B, L] to sources [B, L, K]."""
    gated = network is blstm_tasnet
    encoder = (GatedEncoder if gated else WaveformEncoder)(FILTERS, 16)
    decoder = WaveformDecoder(FILTERS, 16)
    masker = network()

    def separate(mixture, num_samples=None):
        return separation.separate(
            encoder, masker, decoder, mixture, num_samples=num_samples
        ).estimates

    separate.modules = torch.nn.ModuleList([encoder, masker, decoder])
    return separate


@pytest.mark.parametrize("kernel_size", [2, 16, 20])
@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 24, 25, 100])
def test_frames_cover_all_samples(kernel_size, length):
    encoder = WaveformEncoder(FILTERS, kernel_size)
    frames = encoder.num_frames(length)
    assert encoder(torch.randn(3, length)).shape == (3, FILTERS, frames)
    counts = encoder.num_frames(torch.tensor([length, 1]))
    assert counts.tolist() == [frames, 1]
    decoded = WaveformDecoder(FILTERS, kernel_size)(torch.ones(1, FILTERS, 3))
    assert decoded.shape == (1, 2 * kernel_size)
    covered = (frames - 1) * (kernel_size // 2) + kernel_size
    # Every sample is in a frame, and no frame is of padding alone.
    assert covered >= length and covered - length < kernel_size


def test_filters_are_speechbrains():
    encoder, decoder = WaveformEncoder(FILTERS, 16), WaveformDecoder(FILTERS)
    theirs = Encoder(16, FILTERS)
    theirs.load_state_dict(encoder.state_dict())
    mixture = torch.randn(2, 16 + 8 * 5)  # whole frames
    features = encoder(mixture)
    assert torch.equal(features, theirs(mixture))
    synthesis = Decoder(FILTERS, 1, 16, stride=8, bias=False)
    synthesis.load_state_dict(decoder.state_dict())
    assert torch.equal(decoder(features), synthesis(features))


def test_the_end_of_a_signal_is_not_lost():
    encoder = WaveformEncoder(FILTERS, 16)
    mixture = torch.randn(1, 20, requires_grad=True)
    encoder(mixture).sum().backward()
    assert (mixture.grad != 0).all()


@every_network
def test_masks_are_those_of_the_masknet(network):
    masker = network(num_spks=3).eval()
    features = torch.rand(2, FILTERS, 37)
    masks = masker(features, sources=torch.randn(2, 3, FILTERS, 37))
    assert masks.shape == (3, 2, FILTERS, 37) and masks.amin() >= 0
    for item in range(2):
        level = features[item].square().mean().sqrt()
        alone = masker.masknet(features[item : item + 1] / level)
        torch.testing.assert_close(masks[:, item], alone[:, 0])
    pair = masker(features, num_spks=3, with_embeddings=True)
    assert torch.equal(pair[0], masks) and pair[1] is None
    assert masker.ordered is False


@every_network
def test_a_batch_gives_each_item_what_it_alone_gives(network):
    separate = separator(network)
    lengths = torch.tensor([700, 433, 16])
    mixtures = [torch.randn(int(length)) for length in lengths]
    batch = torch.nn.utils.rnn.pad_sequence(mixtures, batch_first=True)
    separated = separate(batch, lengths)
    for mixture, sources in zip(mixtures, separated):
        alone = separate(mixture[None])[0]
        torch.testing.assert_close(sources[: len(mixture)], alone)


@every_network
def test_padding_has_no_influence(network):
    masker = network()
    features = torch.rand(2, FILTERS, 40, requires_grad=True)
    num_frames = torch.tensor([40, 25])
    masks = masker(features, num_frames)
    assert (masks[:, 1, :, 25:] == 0).all()
    masks.square().sum().backward()
    assert (features.grad[1, :, 25:] == 0).all()
    assert (features.grad[1, :, :25] != 0).any()
    noise = features.detach().clone()
    noise[1, :, 25:] = torch.nan
    assert torch.equal(masker(noise, num_frames), masks)


@every_network
def test_gradients_of_a_batch_are_those_of_its_items(network):
    separate = separator(network)
    sources = torch.randn(2, 400, 2)
    sources[1, 300:] = 0
    lengths = torch.tensor([400, 300])
    estimates = separate(sources.sum(2), lengths)
    si_sdr_loss(estimates, sources, lengths).sum().backward()
    together = [p.grad.clone() for p in separate.modules.parameters()]
    separate.modules.zero_grad()
    for item, length in zip(sources, lengths):
        item = item[None, :length]
        si_sdr_loss(separate(item.sum(2)), item).sum().backward()
    for parameter, gradient in zip(separate.modules.parameters(), together):
        torch.testing.assert_close(
            gradient, parameter.grad, rtol=1e-3, atol=1e-5
        )
        assert gradient.abs().sum() > 0


@pytest.mark.parametrize("scale", [1e-6, 1e6])
@every_network
def test_scale_equivariance(network, scale):
    separate = separator(network)
    mixture = torch.randn(2, 500)
    mixture[0] *= 10  # items of a batch have levels of their own
    torch.testing.assert_close(
        separate(scale * mixture) / scale, separate(mixture)
    )


@every_network
def test_silence(network):
    separate = separator(network)
    sources = torch.randn(2, 400, 2)
    sources[0] = 0
    estimates = separate(sources.sum(2))
    assert (estimates[0] == 0).all() and (estimates[1] != 0).any()
    si_sdr_loss(estimates, sources).sum().backward()
    for parameter in separate.modules.parameters():
        assert parameter.grad.isfinite().all()


@every_network
@pytest.mark.parametrize("length", [1, 16, 30, 60])
def test_short_mixtures(network, length):
    sources = separator(network)(torch.randn(2, length))
    assert sources.shape == (2, length, 2) and sources.isfinite().all()


@every_network
def test_full_precision_at_both_ends_under_autocast(network):
    separate = separator(network)
    mixture = torch.randn(2, 400)
    with torch.autocast("cpu", torch.bfloat16):
        features = separate.modules[0](mixture)
        sources = separate(mixture)
    assert torch.equal(features, separate.modules[0](mixture))
    assert sources.dtype == torch.float32
    # The masks alone are rounded, to 8 bits layer by layer.
    error, exact = sources - separate(mixture), separate(mixture)
    assert 0 < error.square().mean() < 1e-3 * exact.square().mean()


@every_network
def test_another_number_of_talkers(network):
    masker = network(num_spks=3)
    with pytest.raises(
        ValueError, match="num_spks=3 talkers only, got num_spks=2"
    ):
        masker(torch.rand(1, FILTERS, 30), num_spks=2)


@pytest.mark.parametrize("shape", [(100,), (2, 100, 1), (2, 0)])
def test_bad_shapes(shape):
    with pytest.raises(ValueError, match="mixture must be .*got shape"):
        WaveformEncoder()(torch.zeros(shape))


def test_gates_let_features_through():
    encoder = GatedEncoder(FILTERS, 16)
    mixture = torch.randn(2, 200)
    ungated = WaveformEncoder(FILTERS, 16)
    ungated.conv1d.load_state_dict(encoder.conv1d.state_dict())
    features, plain = encoder(mixture), ungated(mixture)
    active = plain > 0
    shares = features[active] / plain[active]
    assert (features[~active] == 0).all()
    assert shares.amin() > 0 and shares.amax() < 1
    # What they are does not depend on the level.
    torch.testing.assert_close(encoder(1024 * mixture), 1024 * features)


def test_masks_of_blstm_tasnet_share_out_the_mixture():
    masks = blstm_tasnet(3)(torch.rand(2, FILTERS, 30))
    torch.testing.assert_close(masks.sum(0), torch.ones(2, FILTERS, 30))


def test_gated_convolutions_see_both_sides_alone():
    masknet = GatedMaskNet(FILTERS, 2, 6, 8, num_blocks=2, num_repeats=1)
    for module in masknet.modules():  # these look at all frames
        if isinstance(module, torch.nn.GroupNorm):
            module.forward = lambda x: x
    features = torch.rand(1, FILTERS, 30, requires_grad=True)
    masknet.layers(features)[..., 15].sum().backward()
    (seen,) = features.grad.abs().sum((0, 1)).nonzero(as_tuple=True)
    # One frame at dilation 1, and two at 2
    assert seen.tolist() == list(range(12, 19))
