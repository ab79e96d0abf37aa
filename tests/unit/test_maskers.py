"""What holds for all maskers: their contract, and what they are trained for."""

import numpy as np
import pytest
import torch
from speechbrain.lobes.models.conv_tasnet import MaskNet

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.lobes.models.danet import DANet
from speechbrain_kmdanet.lobes.models.deep_clustering import (
    DeepClustering,
    EndToEndDeepClustering,
    EnhancementNet,
)
from speechbrain_kmdanet.lobes.models.embedding import EmbeddingNet
from speechbrain_kmdanet.lobes.models.mask_inference import (
    Chimera,
    MaskInference,
)
from speechbrain_kmdanet.lobes.models.masker import check_active_bins
from speechbrain_kmdanet.lobes.models.one_and_rest import OneAndRest
from speechbrain_kmdanet.lobes.models.oracle import OracleMasker
from speechbrain_kmdanet.lobes.models.waveform import WaveformMasker
from speechbrain_kmdanet.nnet.attractors import (
    AttractorEstimator,
    KMeansAttractors,
    OracleAttractors,
)
from speechbrain_kmdanet.nnet.objectives import OBJECTIVES
from speechbrain_kmdanet.processing import separation
from speechbrain_kmdanet.processing.stft import STFTDecoder, STFTEncoder

ENCODER, DECODER = STFTEncoder(64, 16), STFTDecoder(64, 16)
NUM_BINS = 33
LENGTHS = torch.tensor([600, 333, 450])
# System and what it is trained for, in each of its stages.
SYSTEMS = {
    "dpcl": ["affinity", "affinity_energy"],
    "dpcl_plus": ["magnitude", "si_sdr"],
    "chimera": ["chimera"],
    "upit": ["phase_sensitive", "magnitude"],
    "one_and_rest": ["one_and_rest", "si_sdr"],
}
# With attractors, those with a trunk of any kind, and all.
CLUSTERING = ["danet_spherical", "danet_euclidean", "dpcl", "dpcl_plus"]
TRUNKED = [*CLUSTERING, "chimera", "upit", "one_and_rest"]
ALL = [*TRUNKED, "oracle", "waveform"]
every_system = pytest.mark.parametrize("system", SYSTEMS)
every_clustering = pytest.mark.parametrize("system", CLUSTERING)
every_masker = pytest.mark.parametrize("system", ALL)
both_modes = pytest.mark.parametrize("training", [False, True])
every_stage = pytest.mark.parametrize(
    "system, loss",
    [(s, loss) for s, losses in SYSTEMS.items() for loss in losses],
)


def make_trunk(outputs):
    """Small network without dropout; its outputs are far apart."""
    net = EmbeddingNet(NUM_BINS, outputs, hidden_size=16, num_layers=1)
    with torch.no_grad():
        net.output.weight.mul_(10)
    return net


class Cells(torch.nn.Module):
    """Another trunk: a cell for each frequency, which sees the phases, too."""

    def __init__(self, embedding_dim):
        super().__init__()
        self.embedding_dim = embedding_dim
        self.cell = torch.nn.Linear(2 * NUM_BINS, NUM_BINS * embedding_dim)
        self.calls = []

    def forward(self, spectrum, num_frames=None):
        self.calls.append((spectrum, num_frames))
        frames = torch.cat([spectrum.real, spectrum.imag], dim=1)  # [B, 2F, T]
        outputs = self.cell(frames.transpose(1, 2))  # [B, T, F · D]
        return outputs.view(len(spectrum), -1, self.embedding_dim)


def make_masker(system, num_spks=2, make_trunk=make_trunk):
    """Small masker without dropout."""
    outputs = {"chimera": 4 + num_spks, "upit": num_spks, "one_and_rest": 2}
    outputs = outputs.get(system, 4)
    trunk, options = make_trunk(outputs), {"num_spks": num_spks}
    if system.startswith("danet"):
        masks = "distance" if "euclidean" in system else "dot_product"
        estimators = (
            KMeansAttractors(system.removeprefix("danet_"), seed=0)
            for mode in range(2)
        )
        return DANet(trunk, *estimators, masks, **options)
    clustering = KMeansAttractors(seed=0)
    if system == "dpcl":
        return DeepClustering(trunk, clustering, **options)
    if system == "dpcl_plus":
        enhancement = EnhancementNet(NUM_BINS, hidden_size=16)
        parts = trunk, clustering, enhancement
        return EndToEndDeepClustering(*parts, **options)
    if system == "oracle":
        return OracleMasker(**options)
    if system == "waveform":
        masknet = MaskNet(NUM_BINS, B=6, H=8, P=3, X=3, R=2, C=num_spks)
        return WaveformMasker(masknet, min_frames=5, **options)
    makers = {"chimera": Chimera, "one_and_rest": OneAndRest}
    return makers.get(system, MaskInference)(trunk, num_spks)


def make_inputs(system, frames=7, num_spks=2):
    """Arguments of a masker: a spectrum, and the sources if it needs them."""
    shape = 3, num_spks, NUM_BINS, frames
    sources = torch.randn(shape, dtype=torch.complex64)
    if system == "oracle":
        return {"spectrum": sources.sum(1), "sources": sources}
    spectrum = sources.sum(1)
    return {"spectrum": spectrum.abs() if system == "waveform" else spectrum}


def make_sources():
    """Noises [3, 600, 2], the one louder than the other, and zero padding."""
    sources = torch.randn(3, 600, 2) * torch.tensor([1.0, 0.3])
    return sources * (torch.arange(600) < LENGTHS[:, None]).unsqueeze(2)


def separate(masker, mixture, **options):
    """Separation of mixtures [B, L]."""
    return separation.separate(ENCODER, masker, DECODER, mixture, **options)


def losses_of(masker, sources, loss, lengths=LENGTHS):
    """Loss of each mixture of sources [B, L, K]."""
    objective = OBJECTIVES[loss]
    options = {"sources": sources, "outputs": objective.needs}
    mixture = sources.sum(2)
    return objective(separate(masker, mixture, num_samples=lengths, **options))


def estimate(masker, mixture, lengths=None, **options):
    """Sources [B, L, K] of mixtures [B, L]."""
    return separate(masker, mixture, num_samples=lengths, **options).estimates


def assert_batch_equals_single(masker):
    """Every item has the sources that it has alone."""
    mixture = make_sources().sum(2)
    batch = estimate(masker, mixture, LENGTHS)
    for item, length in enumerate(LENGTHS):
        alone = estimate(masker, mixture[item, None, :length])
        torch.testing.assert_close(
            batch[item, :length], alone[0], rtol=0, atol=1e-4
        )


@every_system
def test_batch_equals_single(system):
    assert_batch_equals_single(make_masker(system).eval())


@every_system
@pytest.mark.parametrize("factor", [1e-3, 0.5, 1e3])
def test_scale_equivariance(system, factor):
    masker = make_masker(system).eval()
    mixture = make_sources().sum(2)
    factors = factor * torch.tensor([1.0, 10.0, 0.1])
    scaled = estimate(masker, factors[:, None] * mixture, LENGTHS)
    torch.testing.assert_close(
        scaled / factors[:, None, None],
        estimate(masker, mixture, LENGTHS),
        rtol=0,
        atol=1e-4,
    )


@every_system
def test_silence_is_separated_into_silence(system):
    masker = make_masker(system).eval()
    mixture = make_sources().sum(2)
    mixture[1] = 0.0
    sources = estimate(masker, mixture)
    assert (sources[1] == 0).all()
    assert sources.isfinite().all() and (sources[0] != 0).any()


@every_stage
@pytest.mark.parametrize("silent", [[1], [0, 1, 2]], ids=["one", "all"])
def test_training_on_silence_has_finite_gradients(system, loss, silent):
    masker = make_masker(system)
    sources = make_sources()
    sources[silent] = 0.0
    sources[0, :, 1] = 0.0  # a talker who does not speak in the segment
    losses = losses_of(masker, sources, loss)
    losses.mean().backward()
    assert losses.isfinite().all() and (losses[silent] == 0).all()
    for parameter in masker.parameters():
        assert parameter.grad.isfinite().all()


@every_stage
def test_the_gradient_reaches_every_parameter(system, loss):
    masker = make_masker(system)
    losses_of(masker, make_sources(), loss).mean().backward()
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
            lengths = LENGTHS[item]
            some = sources[item, : int(lengths.max())]
            losses_of(masker, some, loss, lengths).sum().backward()
        gradients.append(
            torch.cat([p.grad.flatten() for p in masker.parameters()])
        )
    scale = gradients[0].abs().max()
    assert scale > 0
    torch.testing.assert_close(
        gradients[0] / scale, gradients[1] / scale, rtol=0, atol=1e-4
    )


@every_system
@both_modes
def test_autocast(system, training):
    masker = make_masker(system).train(training)
    spectrum = ENCODER(make_sources().sum(2))
    with torch.autocast("cpu", torch.bfloat16):
        masks = masker(spectrum, ENCODER.num_frames(LENGTHS))
    assert masks.dtype == torch.float32 and masks.isfinite().all()
    if masks.requires_grad:
        masks[0].sum().backward()
        (trunk,) = (m for m in masker.modules() if isinstance(m, EmbeddingNet))
        for parameter in trunk.parameters():
            assert parameter.grad.isfinite().all()


@every_masker
def test_outputs_are_what_can_be_trained(system):
    masker = make_masker(system)
    masks, embeddings = masker(**make_inputs(system), with_embeddings=True)
    made = {"masks": masks, "embeddings": embeddings}
    trained = {
        name
        for name, value in made.items()
        if value is not None and value.requires_grad
    }
    if system == "oracle":  # nothing is
        assert not trained
    else:
        assert masker.outputs == trained
    for loss in SYSTEMS.get(system, []):
        trained = masker.outputs | {"magnitudes"}
        # DPCL++ begins as DPCL.
        assert OBJECTIVES[loss].needs <= trained


@every_clustering
@both_modes
def test_without_masks_nothing_is_estimated(system, training):
    masker = make_masker(system).train(training)
    calls = watch_estimators(masker)
    inputs = {**make_inputs(system), "with_embeddings": True}
    masks, embeddings = masker(**inputs, with_masks=False)
    assert masks is None and not calls
    masks, same = masker(**inputs)
    assert masks is not None and len(calls) == 1
    assert torch.equal(embeddings, same)


def watch_estimators(masker):
    """List of the attractors that are estimated from now on."""
    calls = []
    for module in masker.modules():
        if isinstance(module, AttractorEstimator):
            module.register_forward_hook(lambda m, x, y: calls.append(y))
    return calls


@every_clustering
@both_modes
def test_given_attractors_are_not_estimated(system, training):
    masker = make_masker(system).train(training)
    calls = watch_estimators(masker)
    spectrum = make_inputs(system)["spectrum"]
    num_frames = torch.tensor([7, 4, 6])
    masks = masker(spectrum, num_frames, 3)
    (attractors,) = calls
    assert attractors.shape == (3, 3, 4)
    # The number of talkers is that of the attractors, not of the constructor.
    for num_spks in (None, 3):
        given = masker(spectrum, num_frames, num_spks, attractors=attractors)
        # Those that are found come in the order of their loudness.
        assert torch.equal(given.sort(0).values, masks.sort(0).values)
    assert len(calls) == 1


@every_clustering
@pytest.mark.parametrize("num_spks", [1, 2, 5])
def test_attractors_of_any_number_of_talkers(system, num_spks):
    masker = make_masker(system).eval()
    calls = watch_estimators(masker)
    attractors = torch.randn(3, num_spks, 4)
    mixture = make_sources().sum(2)
    options = {"attractors": attractors, "num_samples": LENGTHS}
    separated = separate(masker, mixture, **options)
    masks, sources = separated.masks, separated.estimates
    assert sources.shape == (3, 600, num_spks) and not calls
    torch.testing.assert_close(masks.sum(0), torch.ones_like(masks[0]))
    # each item has its own, in their order
    order = torch.randperm(num_spks)
    for item, length in enumerate(LENGTHS):
        alone = estimate(
            masker,
            mixture[item, None, :length],
            attractors=attractors[item, None, order],
        )
        torch.testing.assert_close(
            sources[item, :length, order], alone[0], rtol=0, atol=1e-4
        )


def test_given_attractors_take_the_place_of_the_oracle():
    estimators = OracleAttractors(), KMeansAttractors()
    danet = DANet(make_trunk(4), *estimators).train()
    calls = watch_estimators(danet)
    spectrum = make_inputs("danet")["spectrum"]
    masks = danet(spectrum, attractors=torch.randn(3, 4, 4))
    assert masks.shape == (4, *spectrum.shape) and not calls


@pytest.mark.parametrize("system", [s for s in ALL if s not in CLUSTERING])
def test_attractors_where_there_is_no_use_for_them(system):
    inputs = make_inputs(system)
    for num_spks in (None, 2):
        with pytest.raises(UserError, match="attractors must be None: this "):
            make_masker(system)(
                **inputs, num_spks=num_spks, attractors=torch.randn(3, 2, 4)
            )


@every_clustering
def test_attractors_that_do_not_fit(system):
    masker, inputs = make_masker(system), make_inputs(system)
    attractors = torch.randn(3, 2, 4)
    for wrong, num_spks in (
        (attractors, 3),
        (attractors[0], 2),
        (attractors[0], None),
        (attractors[:1], 2),
    ):
        with pytest.raises(UserError, match="attractors must have shape"):
            masker(**inputs, num_spks=num_spks, attractors=wrong)
    with pytest.raises(UserError, match="attractors must have 4 dimensions"):
        masker(**inputs, attractors=torch.randn(3, 2, 5))
    with pytest.raises(UserError, match="num_spks must be an integer >= 1"):
        masker(**inputs, num_spks=True, attractors=attractors[:, :1])


@every_masker
@pytest.mark.parametrize("num_spks", [0, -1, True, 2.5, "2"])
def test_no_number_of_talkers(system, num_spks):
    with pytest.raises(
        UserError, match="num_spks must be an integer >= 1"
    ) as e:
        make_masker(system)(**make_inputs(system), num_spks=num_spks)
    message = str(e.value)
    assert message.endswith(f"got {num_spks!r}") and "\n" not in message


@every_masker
def test_numbers_of_talkers(system):
    masker = make_masker(system)
    inputs = make_inputs(system)
    masks = [
        masker(**inputs, num_spks=two)
        for two in (None, 2, np.int64(2), torch.tensor(2))
    ]
    assert all(torch.equal(each, masks[0]) for each in masks)
    assert masks[0].shape == (2, *inputs["spectrum"].shape)
    # of more talkers it is the constructor, or the call, that says so
    inputs = make_inputs(system, num_spks=3)
    assert make_masker(system, 3)(**inputs).shape[0] == 3
    if masker.any_number:
        assert masker(**inputs, num_spks=3).shape[0] == 3
    else:
        with pytest.raises(
            UserError, match="num_spks=2 .*only, got num_spks=3"
        ):
            masker(**inputs, num_spks=3)


@every_masker
def test_more_talkers_than_bins(system):
    masker = make_masker(system, 34).eval()
    inputs = make_inputs(system, frames=2, num_spks=34)
    masker(**inputs)
    lengths = torch.tensor([2, 1, 2])
    message = "num_spks=34 talkers .* 33 time-frequency bins of "
    with pytest.raises(UserError, match=message + "item 1 of the batch: "):
        masker(num_frames=lengths, **inputs)
    short = {name: value[:1, ..., :1] for name, value in inputs.items()}
    with pytest.raises(UserError, match=message + "the mixture: "):
        masker(**short)
    if masker.takes_attractors:
        with pytest.raises(UserError, match=message + "the mixture: "):
            masker(**short, attractors=torch.randn(1, 34, 4))


def test_more_talkers_than_active_bins():
    weights = torch.tensor([[1.0, 1.0, 1.0], [0.0, 2.0, 1.0], [0.0, 0.0, 0.0]])
    check_active_bins(weights, 2)
    with pytest.raises(ValueError, match="num_spks=3 .*item 1 .*only 2 "):
        check_active_bins(weights, 3)


@pytest.mark.parametrize("system", TRUNKED)
def test_another_trunk(system):
    masker = make_masker(system, make_trunk=Cells)
    (trunk,) = (m for m in masker.modules() if isinstance(m, Cells))
    # It is given the spectrum as it is, with its phases.
    spectrum, num_frames = (
        make_inputs(system)["spectrum"],
        torch.tensor([7, 4, 6]),
    )
    masks = masker(spectrum, num_frames)
    assert masks.shape == (2, *spectrum.shape) and masks.isfinite().all()
    ((given, frames),) = trunk.calls
    assert given is spectrum and frames is num_frames
    # It is trained, and gives an item alone what it has in a batch.
    losses = ["phase_sensitive"] if "masks" in masker.outputs else ["affinity"]
    for loss in SYSTEMS.get(system, losses):
        masker.zero_grad()
        losses_of(masker, make_sources(), loss).mean().backward()
        for parameter in masker.parameters():
            assert parameter.grad.isfinite().all()
            assert (parameter.grad != 0).any()
    assert_batch_equals_single(masker.eval())
