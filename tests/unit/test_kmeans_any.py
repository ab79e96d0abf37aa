"""Any tensors: the clusters of what was given, or one line."""

import math

import pytest
import torch
from hypothesis import (
    given,
    settings,
    strategies as st,
)

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.processing.kmeans import METRICS, kmeans, soft_kmeans
from speechbrain_kmdanet.processing.seeding import INITS

NONE = [math.nan, math.inf, -math.inf]
TYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
anything = settings(max_examples=150, deadline=None, derandomize=True)


@st.composite
def problems(draw):
    """Points of any size and place, and weights, some of which are none."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    shape = [draw(st.integers(1, most)) for most in (3, 40, 5)]
    options = {"generator": generator, "dtype": torch.float64}
    x = torch.randn(shape, **options)
    x = x + draw(st.sampled_from([0.0, 1.0, 1e2, 1e4]))
    x = x * 10.0 ** draw(st.integers(-38, 33))
    weights = torch.rand(shape[:2], **options)
    weights *= torch.rand(shape[:2], **options) > draw(
        st.sampled_from([0, 0.3])
    )
    weights = weights * 10.0 ** draw(st.integers(-30, 30))
    x, weights = x.to(draw(st.sampled_from(TYPES))), weights.float()
    places = st.tuples(*(st.integers(0, size - 1) for size in shape))
    for place in draw(st.lists(places, max_size=2)):
        x[place] = draw(st.sampled_from([*NONE, 3e38, 0.0]))
        if draw(st.booleans()):  # It has no weight, and is welcome.
            weights[place[:2]] = 0.0
    if draw(st.integers(0, 9)) == 0:
        weights[draw(places)[:2]] = draw(st.sampled_from([*NONE, -1.0]))
    return x, weights


def is_sound(x, weights):
    """Whether there is something to cluster."""
    valid = weights.isfinite().all() and (weights >= 0).all()
    return bool(valid and x[weights > 0].isfinite().all())


def assert_one_line(caught):
    message = str(caught.value)
    assert message.startswith(("x ", "weights ")) and "\n" not in message


@anything
@given(
    problems(),
    st.integers(1, 4),
    st.sampled_from(METRICS),
    st.sampled_from(INITS),
    st.integers(1, 2),
    st.sampled_from([0.0, 0.05]),
)
def test_clusters_have_their_means(
    problem, num_clusters, metric, init, num_init, negligible
):
    x, weights = problem
    num_clusters = min(num_clusters, x.shape[1])
    options = {"weights": weights, "metric": metric, "init": init}
    options |= {"num_init": num_init, "negligible": negligible}
    options["generator"] = torch.Generator().manual_seed(0)
    if not is_sound(x, weights):
        with pytest.raises(UserError) as caught:
            kmeans(x, num_clusters, **options)
        assert_one_line(caught)
        return
    result = kmeans(x, num_clusters, **options)
    assert result.centroids.isfinite().all()
    labels = result.assignments
    assert (labels >= 0).all() and (labels < num_clusters).all()
    # float64, in which nothing of this overflows; without weight, anything
    kept = weights > 0
    points = x.double().where(kept.unsqueeze(2), torch.zeros(()).double())
    masses = torch.nn.functional.one_hot(labels, num_clusters).transpose(1, 2)
    masses = masses * weights.double().unsqueeze(1)  # [B, K, N]
    totals = masses.sum(2, keepdim=True)
    # A cluster far lighter than the others may count as one without weight.
    full = (totals > 1e-30 * totals.amax(1, keepdim=True)).squeeze(2)
    means = (masses @ points) / totals.clamp_min(1e-300)
    size = points.abs().amax((1, 2), keepdim=True)  # [B, 1, 1]
    errors = (result.centroids - means).abs() / size.clamp_min(1e-44)
    assert (errors[full] < 1e-5).all()
    own = means.gather(1, labels.unsqueeze(2).expand_as(points))
    squares = (points - own).square().sum(2) * weights.double()
    inertia = squares.sum(1)
    if metric == "euclidean":
        told = inertia > 1e-36  # What float32 has the digits for.
        told &= inertia < 1e38
        # The points themselves are rounded, where they are far from 0.
        rounding = 1e-12 * (size.flatten() ** 2 * weights.double().sum(1))
        missed = (result.inertia - inertia).abs() - rounding
        assert (missed <= 2e-3 * inertia)[told].all()
    else:
        assert (result.inertia >= 0).all()


@anything
@given(problems(), st.integers(1, 4), st.integers(-30, 17))
def test_soft_clusters_are_somewhere_among_the_points(
    problem, num_clusters, hardness
):
    x, weights = problem
    num_clusters = min(num_clusters, x.shape[1])
    initial = torch.nan_to_num(x[:, :num_clusters], 0.0, 0.0, 0.0)
    arguments = x, initial, weights, 10.0**hardness
    if not is_sound(x, weights):
        with pytest.raises(UserError) as caught:
            soft_kmeans(*arguments)
        assert_one_line(caught)
        return
    result = soft_kmeans(*arguments)
    assert result.memberships.isfinite().all()
    torch.testing.assert_close(
        result.memberships.sum(1), torch.ones_like(result.memberships[:, 0])
    )
    # Each coordinate is one of a mean, or of a centroid that has no points.
    kept = (weights > 0).unsqueeze(2)
    inside = x.double().where(kept, initial[:, :1].double())
    inside = torch.cat([inside, initial.double()], 1)
    size = 1e-5 * inside.abs().amax((1, 2)).view(-1, 1, 1)
    least = inside.amin(1, keepdim=True) - size
    most = inside.amax(1, keepdim=True) + size
    assert (result.centroids >= least).all()
    assert (result.centroids <= most).all()
