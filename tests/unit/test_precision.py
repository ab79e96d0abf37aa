"""Clustering is in float32 where SpeechBrain lets GPUs round products."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from speechbrain_kmdanet.nnet.attractors import (
    AnchoredAttractors,
    KMeansAttractors,
    OracleAttractors,
)
from speechbrain_kmdanet.nnet.loss.separation import affinity_loss
from speechbrain_kmdanet.processing.bins import full_precision
from speechbrain_kmdanet.processing.kmeans import soft_kmeans
from speechbrain_kmdanet.processing.masks import distance_masks

PRODUCTS = torch.backends.cuda.matmul


@pytest.fixture(autouse=True)
def switch():
    """What SpeechBrain turns on, as it was afterwards."""
    before = PRODUCTS.allow_tf32
    PRODUCTS.allow_tf32 = True
    yield
    PRODUCTS.allow_tf32 = before


@pytest.mark.parametrize("enabled", [True, False])
def test_a_block_has_full_precision(enabled):
    PRODUCTS.allow_tf32 = enabled
    with pytest.raises(KeyError), full_precision(torch.device("cuda")):
        assert not PRODUCTS.allow_tf32
        raise KeyError
    assert PRODUCTS.allow_tf32 == enabled
    with full_precision(torch.device("cpu")):
        assert PRODUCTS.allow_tf32 == enabled


@pytest.mark.skipif(
    not hasattr(PRODUCTS, "fp32_precision"), reason="came with PyTorch 2.9"
)
def test_the_newer_switch():
    PRODUCTS.allow_tf32 = False
    PRODUCTS.fp32_precision = "tf32"
    with full_precision(torch.device("cuda")):
        assert PRODUCTS.fp32_precision != "tf32"
    assert PRODUCTS.fp32_precision == "tf32"


class Products(TorchDispatchMode):
    """Lists the products that are made, and whether in full precision."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__ in ("bmm", "mm", "baddbmm"):
            self.found.append(not PRODUCTS.allow_tf32)
        return function(*args, **(kwargs or {}))


def attractors(make, *arguments, **options):
    return lambda v, a, w, y: make(*arguments, **options)(v, w, 2, y)


@pytest.mark.parametrize(
    "compute",
    [
        attractors(KMeansAttractors, "euclidean", seed=0),
        attractors(KMeansAttractors, "spherical", seed=0),
        attractors(OracleAttractors),
        attractors(AnchoredAttractors, 4),
        lambda v, a, w, y: soft_kmeans(v, a, w),
        lambda v, a, w, y: distance_masks(v, a),
        lambda v, a, w, y: affinity_loss(v, y.transpose(1, 2), w),
    ],
)
def test_clustering_has_full_precision(compute):
    shapes = (2, 30, 4), (2, 2, 4), (2, 30), (2, 2, 30)
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake, torch.device("cuda"):
        arguments = [torch.rand(shape) for shape in shapes]
        arguments[0].requires_grad_()
        with Products() as products:
            compute(*arguments)
    assert products.found and all(products.found)
