"""What holds for all maskers that are trained for clusters or for masks.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import pytest
import torch

from speechbrain_kmdanet.lobes.models.chimera import Chimera
from speechbrain_kmdanet.lobes.models.deep_clustering import (
    DeepClustering,
    EndToEndDeepClustering,
)
from speechbrain_kmdanet.lobes.models.embedding import EmbeddingNet
from speechbrain_kmdanet.lobes.models.enhancement import EnhancementNet
from speechbrain_kmdanet.lobes.models.mask_inference import MaskInference
from speechbrain_kmdanet.nnet.attractors import KMeansAttractors
from speechbrain_kmdanet.nnet.objectives import OBJECTIVES, Separation
from speechbrain_kmdanet.processing.separate import decode_sources
from speechbrain_kmdanet.processing.stft import STFTDecoder, STFTEncoder

ENCODER, DECODER = STFTEncoder(64, 16), STFTDecoder(64, 16)
LENGTHS = torch.tensor([600, 333, 450])
# System and what it is trained for, in each of its stages.
SYSTEMS = {
    "dpcl": ["affinity", "affinity_energy"],
    "dpcl_plus": ["magnitude", "si_sdr"],
    "chimera": ["chimera"],
    "upit": ["phase_sensitive", "magnitude"],
}
every_system = pytest.mark.parametrize("system", SYSTEMS)
every_stage = pytest.mark.parametrize(
    "system, loss",
    [(s, loss) for s, losses in SYSTEMS.items() for loss in losses],
)


def make_masker(system):
    """Small masker without dropout; its outputs are far apart."""
    outputs = {"chimera": 6, "upit": 2}.get(system, 4)
    net = EmbeddingNet(33, outputs, hidden_size=16, num_layers=1)
    with torch.no_grad():
        net.output.weight.mul_(10)
    clustering = KMeansAttractors(seed=0)
    if system == "dpcl":
        return DeepClustering(net, clustering)
    if system == "dpcl_plus":
        enhancement = EnhancementNet(33, hidden_size=16)
        return EndToEndDeepClustering(net, clustering, enhancement)
    return {"chimera": Chimera, "upit": MaskInference}[system](net)


def make_sources():
    """Noises [3, 600, 2], the one louder than the other, and zero padding."""
    sources = torch.randn(3, 600, 2) * torch.tensor([1.0, 0.3])
    return sources * (torch.arange(600) < LENGTHS[:, None]).unsqueeze(2)


def separation_of(masker, sources, lengths=LENGTHS):
    """What the masker makes of the mixtures, beside the truth."""
    frames = ENCODER.num_frames(lengths)
    separation = Separation(
        ENCODER(sources.sum(2)), sources, lengths, frames, masker.ordered,
        ENCODER, DECODER,
    )  # fmt: skip
    separation.masks, separation.embeddings = masker(
        separation.spectrum, frames, 2, with_embeddings=True
    )
    return separation


def separate(masker, mixture, lengths=None):
    """Sources [B, L, K] of mixtures [B, L]."""
    spectrum = ENCODER(mixture)
    frames = None if lengths is None else ENCODER.num_frames(lengths)
    masks = masker(spectrum, frames)
    return decode_sources(masks, spectrum, DECODER, mixture.shape[1])


@every_system
def test_batch_equals_single(system):
    masker = make_masker(system).eval()
    mixture = make_sources().sum(2)
    batch = separate(masker, mixture, LENGTHS)
    for item, length in enumerate(LENGTHS):
        alone = separate(masker, mixture[item, None, :length])
        torch.testing.assert_close(
            batch[item, :length], alone[0], rtol=0, atol=1e-4
        )


@every_system
@pytest.mark.parametrize("factor", [1e-3, 0.5, 1e3])
def test_scale_equivariance(system, factor):
    masker = make_masker(system).eval()
    mixture = make_sources().sum(2)
    factors = factor * torch.tensor([1.0, 10.0, 0.1])
    scaled = separate(masker, factors[:, None] * mixture, LENGTHS)
    torch.testing.assert_close(
        scaled / factors[:, None, None],
        separate(masker, mixture, LENGTHS),
        rtol=0,
        atol=1e-4,
    )


@every_system
def test_silence_is_separated_into_silence(system):
    masker = make_masker(system).eval()
    mixture = make_sources().sum(2)
    mixture[1] = 0.0
    sources = separate(masker, mixture)
    assert (sources[1] == 0).all()
    assert sources.isfinite().all() and (sources[0] != 0).any()


@every_stage
@pytest.mark.parametrize("silent", [[1], [0, 1, 2]], ids=["one", "all"])
def test_training_on_silence_has_finite_gradients(system, loss, silent):
    masker = make_masker(system)
    sources = make_sources()
    sources[silent] = 0.0
    sources[0, :, 1] = 0.0  # a talker who does not speak in the segment
    losses = OBJECTIVES[loss](separation_of(masker, sources))
    losses.mean().backward()
    assert losses.isfinite().all() and (losses[silent] == 0).all()
    for parameter in masker.parameters():
        assert parameter.grad.isfinite().all()


@every_stage
def test_the_gradient_reaches_every_parameter(system, loss):
    masker = make_masker(system)
    losses = OBJECTIVES[loss](separation_of(masker, make_sources()))
    losses.mean().backward()
    for name, parameter in masker.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad != 0).any(), name


@every_stage
def test_gradients_of_a_batch_are_those_of_its_items(system, loss):
    # In evaluation mode: batch normalisation is meant to mix items.
    masker = make_masker(system).eval()
    sources = make_sources()
    gradients = []
    for items in ([slice(None)], [slice(i, i + 1) for i in range(3)]):
        masker.zero_grad()
        for item in items:
            longest = int(LENGTHS[item].max())
            separation = separation_of(
                masker, sources[item, :longest], LENGTHS[item]
            )
            OBJECTIVES[loss](separation).sum().backward()
        gradients.append(
            torch.cat([p.grad.flatten() for p in masker.parameters()])
        )
    scale = gradients[0].abs().max()
    assert scale > 0
    torch.testing.assert_close(
        gradients[0] / scale, gradients[1] / scale, rtol=0, atol=1e-4
    )


@every_system
@pytest.mark.parametrize("training", [False, True])
def test_autocast(system, training):
    masker = make_masker(system).train(training)
    spectrum = ENCODER(make_sources().sum(2))
    with torch.autocast("cpu", torch.bfloat16):
        masks = masker(spectrum, ENCODER.num_frames(LENGTHS))
    assert masks.dtype == torch.float32 and masks.isfinite().all()
    if masks.requires_grad:
        masks[0].sum().backward()
        for parameter in masker.embedding_net.parameters():
            assert parameter.grad.isfinite().all()
