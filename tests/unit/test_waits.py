"""In a training step the host does not wait for the device.

On the device "meta" tensors have no values: who asks for one gets an error. It
also stands for a GPU in what the code does elsewhere than on the CPU.
"""

from contextlib import nullcontext

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from speechbrain_kmdanet.lobes.models.danet import DANet
from speechbrain_kmdanet.lobes.models.deep_clustering import (
    DeepClustering,
    EndToEndDeepClustering,
    EnhancementNet,
)
from speechbrain_kmdanet.lobes.models.dual_path_trunk import DualPathNet
from speechbrain_kmdanet.lobes.models.embedding import EmbeddingNet
from speechbrain_kmdanet.lobes.models.mask_inference import (
    Chimera,
    MaskInference,
)
from speechbrain_kmdanet.lobes.models.stacked_trunk import StackedNet
from speechbrain_kmdanet.nnet.attractors import (
    AnchoredAttractors,
    FixedAttractors,
    KMeansAttractors,
    OracleAttractors,
)
from speechbrain_kmdanet.nnet.objectives import OBJECTIVES
from speechbrain_kmdanet.nnet.recurrent import PaddedBLSTM
from speechbrain_kmdanet.processing import highpass
from speechbrain_kmdanet.processing.separation import separate
from speechbrain_kmdanet.processing.stft import STFTDecoder, STFTEncoder

LENGTHS = torch.tensor([70, 110])


class Waits(TorchDispatchMode):
    """Refuses what waits for a device, but needs no value of it here."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        packet = function.overloadpacket
        if packet is torch.ops.aten.equal:
            raise NotImplementedError("a comparison waits")
        moved = None
        if packet is torch.ops.aten._to_copy:
            moved, place = args[0], torch.device(kwargs.get("device") or "cpu")
            later = kwargs.get("non_blocking", False)
        elif packet is torch.ops.aten.copy_:
            moved, place, later = args[1], args[0].device, args[2:] == (True,)
        if moved is not None and not later:
            if not moved.is_meta and place.type == "meta":
                raise NotImplementedError("a copy waits")
        return function(*args, **kwargs)


def blstm(outputs=4):
    return EmbeddingNet(33, outputs, hidden_size=8, num_layers=1)


def dual_path(num_hints=0):
    return DualPathNet(33, 4, 8, 8, 1, frame_size=4, num_hints=num_hints)


def kmeans(metric="spherical", **options):
    estimator = KMeansAttractors(metric, 3, **options)
    estimator.step_seed = 1
    return estimator


SYSTEMS = {
    "kmeans": lambda: DANet(blstm(), kmeans(), kmeans()),
    "euclidean": lambda: DANet(
        dual_path(),
        kmeans("euclidean", init="random", num_init=2),
        kmeans(),
        masks="distance",
    ),
    "remainder": lambda: DANet(
        StackedNet(blstm(), dual_path(4)), kmeans(), kmeans(), remainder=True
    ),
    "oracle": lambda: DANet(blstm(), OracleAttractors(), kmeans()),
    "anchored": lambda: DANet(blstm(), AnchoredAttractors(4), kmeans()),
    "fixed": lambda: DANet(blstm(), FixedAttractors(4), kmeans()),
    "dpcl": lambda: DeepClustering(blstm(), kmeans()),
    "dpcl_plus": lambda: EndToEndDeepClustering(
        blstm(), kmeans(), EnhancementNet(33, 8)
    ),
    "upit": lambda: MaskInference(blstm(2)),
    "chimera": lambda: Chimera(blstm(6)),
}
SKIPPED = {"si_sdr", "chimera"}  # above and below
TRAININGS = [
    *((name, "si_sdr") for name in SYSTEMS if name != "dpcl"),
    *(("kmeans", loss) for loss in OBJECTIVES if loss not in SKIPPED),
    ("dpcl", "affinity"),
    ("chimera", "chimera"),
]


def train_step(system, loss, lengths, device="meta"):
    """A step of training without values; those of the lengths may be known."""
    objective = OBJECTIVES[loss]
    encoder, masknet, decoder = (
        x.to(device)
        for x in (
            STFTEncoder(64, 32, 30.0),
            SYSTEMS[system](),
            STFTDecoder(64, 32),
        )
    )
    sources = torch.randn(2, 110, 2, device=device)
    with Waits():
        separation = separate(
            encoder,
            masknet,
            decoder,
            sources.sum(2),
            num_samples=lengths,
            sources=sources,
            outputs=objective.needs,
        )
        objective(separation).mean().backward()
    return [x.grad for x in masknet.parameters()]


@pytest.fixture(autouse=True)
def what_that_device_lacks(monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    monkeypatch.setattr(highpass, "lfilter", lambda x, a, b, clamp: a[1] * x)


@pytest.mark.parametrize("system, loss", TRAININGS)
def test_a_step_waits_for_nothing(system, loss):
    for lengths in (None, LENGTHS):
        gradients = train_step(system, loss, lengths)
        assert any(x is not None and x.is_meta for x in gradients)


def test_a_wait_is_seen():
    with pytest.raises(NotImplementedError), Waits():
        PaddedBLSTM(3, 4).to("meta")(
            torch.randn(2, 9, 3, device="meta"),
            torch.tensor([9, 7], device="meta"),
        )
    for move in (
        lambda: LENGTHS.to("meta"),
        lambda: torch.empty(2, device="meta").copy_(LENGTHS),
        lambda: torch.equal(*torch.empty(2, 3, device="meta")),
    ):
        with pytest.raises(NotImplementedError, match="waits"), Waits():
            move()
