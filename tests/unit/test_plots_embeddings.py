"""Tests of the picture of the embeddings."""

import numpy as np
import pytest
import torch

from speechbrain_kmdanet.nnet.attractors import OracleAttractors
from speechbrain_kmdanet.utils.plots_embeddings import (
    plot_embeddings,
    view_embeddings,
)

image = pytest.importorskip("matplotlib.image")
PCA = pytest.importorskip("sklearn.decomposition").PCA


def make_mixture(num_spks=2, bins=600, dimensions=5, seed=0):
    """Embeddings in clusters, energies, and magnitudes of the sources."""
    generator = torch.Generator().manual_seed(seed)
    options = {"generator": generator, "dtype": torch.float64}
    talkers = torch.arange(bins) % num_spks
    means = 4 * torch.eye(dimensions, dtype=torch.float64)
    embeddings = means[talkers] + 0.1 * torch.randn(bins, dimensions, **options)
    sources = 0.1 * torch.rand(num_spks, bins, **options)
    sources[talkers, torch.arange(bins)] += 1.0
    energies = 0.1 + torch.rand(bins, **options)
    return embeddings, energies, sources


def test_components_are_those_of_scikit_learn():
    embeddings, _, sources = make_mixture(num_spks=3)
    view = view_embeddings(embeddings, torch.ones(600), sources)
    pca = PCA(2).fit(embeddings.numpy())
    expected = pca.transform(embeddings.numpy())
    signs = np.sign((view.points.numpy() * expected).sum(0))
    assert np.allclose(view.points.numpy(), expected * signs)
    ratio = pca.explained_variance_ratio_
    assert np.allclose(view.explained.numpy(), ratio)
    origin = pca.transform(np.zeros((1, 5)))[0]
    assert np.allclose(view.origin.numpy(), origin * signs)


def test_energies_are_repetitions():
    embeddings, _, sources = make_mixture(bins=100)
    energies = torch.arange(100) % 3 + 1
    view = view_embeddings(embeddings, energies, sources)
    again = view_embeddings(
        embeddings.repeat_interleave(energies, dim=0),
        torch.ones(int(energies.sum())),
        sources.repeat_interleave(energies, dim=1),
    )
    points = view.points.repeat_interleave(energies, dim=0)
    assert torch.allclose(points, again.points)
    assert torch.allclose(view.explained, again.explained)
    for kind in ("oracle", "spherical", "euclidean"):
        assert torch.allclose(view.centres[kind], again.centres[kind])


def test_attractors_that_are_given_are_shown_alone(tmp_path):
    embeddings, energies, sources = make_mixture(num_spks=3)
    given = torch.cat([embeddings.new_zeros(1, 5), embeddings[:2]])
    view = view_embeddings(embeddings, energies, sources, attractors=given)
    assert [*view.centres] == ["attractor"]
    assert torch.allclose(view.centres["attractor"][0], view.origin)
    assert torch.allclose(view.centres["attractor"][1:], view.points[:2])
    plot_embeddings(view, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size


@pytest.mark.parametrize("num_spks", [2, 3])
@pytest.mark.parametrize("energetic", [None, 0.9])
def test_attractors_lie_beside_their_bins(num_spks, energetic):
    embeddings, energies, sources = make_mixture(num_spks)
    view = view_embeddings(embeddings, energies, sources, energetic)
    assert torch.equal(view.talkers, torch.arange(600) % num_spks)
    for talker in range(num_spks):
        mean = view.points[view.talkers == talker].mean(0)
        for centres in view.centres.values():
            assert torch.linalg.vector_norm(centres[talker] - mean) < 0.1
    # The clusters are found as they are; Eq. 1 does not weight by energy.
    if energetic is None:
        assert view.errors == pytest.approx({"spherical": 0, "euclidean": 0})
    else:
        args = embeddings[None], energies[None], num_spks, sources[None]
        oracle = OracleAttractors(energetic)(*args)[0]
        ideal = torch.stack(
            [
                energies[i::num_spks]
                @ embeddings[i::num_spks]
                / energies[i::num_spks].sum()
                for i in range(num_spks)
            ]
        )
        error = (ideal - oracle).norm(dim=1) / oracle.norm(dim=1)
        assert 0 < view.errors["spherical"] < 0.01
        assert view.errors["spherical"] == pytest.approx(float(error.mean()))


def test_far_softer_bins_are_not_shown():
    embeddings, energies, sources = make_mixture()
    energies[:50] = 0.9e-4 * energies.max()
    energies[50:60] = 1.1e-4 * energies.max()
    energies[60:70] = 0.0
    view = view_embeddings(embeddings, energies, sources)
    assert len(view.points) == len(view.talkers) == len(view.levels) == 540
    assert -40 < float(view.levels.min()) < -39
    assert float(view.levels.max()) == 0.0


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda v, e, s: (v[None], e, s), "embeddings must have shape"),
        (lambda v, e, s: (v[:, :1], e, s), "at least 2 dimensions"),
        (lambda v, e, s: (v, e[1:], s), r"must have 600 bins .*\(599,\)"),
        (lambda v, e, s: (v, e, s[:, 1:]), r"must have 600 bins .*\(2, 599\)"),
        (lambda v, e, s: (v, 0 * e, s), "got silence"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        view_embeddings(*change(*make_mixture()))


@pytest.mark.parametrize("num_spks", [1, 2, 6])
def test_picture_is_written(tmp_path, num_spks):
    view = view_embeddings(*make_mixture(num_spks, dimensions=8))
    plot_embeddings(view, tmp_path / "one.png", "title")
    plot_embeddings(view, tmp_path / "two.png", "title")
    picture = image.imread(tmp_path / "one.png")
    assert picture.std() > 0 and min(picture.shape[:2]) > 300
    # The bins that are drawn are a function of the seed.
    assert np.array_equal(picture, image.imread(tmp_path / "two.png"))
