"""k-means, and an SDR, of other projects, or as they write it, to compare."""

from warnings import catch_warnings, simplefilter

import torch
from torch import Tensor

try:
    from mir_eval.separation import bss_eval_sources
    from sklearn.cluster import KMeans as ScikitLearnKMeans
    from torch_kmeans import KMeans as TorchKMeans
except ImportError as error:
    raise SystemExit(
        "what the benchmarks compare with is missing: pip install -e '.[bench]'"
    ) from error


def peer_sdr(sources: Tensor, estimates: Tensor) -> Tensor:
    """SDR of mir_eval.

    Arguments
    ---------
    sources, estimates : torch.Tensor
        Waveforms [L, K].

    Returns
    -------
    torch.Tensor
        SDR in dB [K].
    """
    arrays = [x.T.double().numpy() for x in (sources, estimates)]
    with catch_warnings():
        simplefilter("ignore", FutureWarning)
        return torch.from_numpy(bss_eval_sources(*arrays, False)[0])


def plain_kmeans(x: Tensor, centroids: Tensor, iterations: int) -> Tensor:
    """Distances cluster by cluster, means item by item: a plain loop.

    This is how the k-means of ESPnet's deep attractor network is written.

    Arguments
    ---------
    x : torch.Tensor
        Points [B, N, D].
    centroids : torch.Tensor
        Initial centroids [B, K, D].
    iterations : int
        Number of iterations.

    Returns
    -------
    torch.Tensor
        Centroids [B, K, D].
    """
    clusters = range(centroids.shape[1])
    for _ in range(iterations):
        distances = torch.stack(
            [
                (x - centroids[:, k].unsqueeze(1)).square().sum(2)
                for k in clusters
            ],
            dim=2,
        )
        labels = distances.argmin(2)
        centroids = torch.stack(
            [
                torch.stack([points[label == k].mean(0) for k in clusters])
                for points, label in zip(x, labels)
            ]
        )
    return centroids


def one_hot_kmeans(x: Tensor, centroids: Tensor, iterations: int) -> Tensor:
    """Distances to all at once, means of masked copies, see :func:`plain_kmeans`.

    This is how the k-means of the deep attractor network in tky823's
    DNN-based_source_separation is written, item by item.
    """
    num_clusters = centroids.shape[1]
    found = []
    for points, centers in zip(x.unsqueeze(2), centroids):
        for _ in range(iterations):
            distances = torch.norm(points - centers, dim=2)
            one_hot = torch.eye(num_clusters, device=x.device)
            labels = one_hot[distances.min(1).indices].unsqueeze(2)
            centers = (points * labels).sum(0) / labels.sum(0)
        found.append(centers)
    return torch.stack(found)


def torch_kmeans(x: Tensor, centroids: Tensor, iterations: int) -> Tensor:
    """KMeans of the package torch_kmeans, see :func:`plain_kmeans`."""
    model = TorchKMeans(max_iter=iterations, tol=0.0, num_init=1, verbose=False)
    # It changes the centres that it is given.
    return model(x, k=centroids.shape[1], centers=centroids.clone()).centers


def sklearn_kmeans(x: Tensor, centroids: Tensor, iterations: int) -> Tensor:
    """scikit-learn's KMeans, item by item, see :func:`plain_kmeans`."""
    found = []
    for points, initial in zip(x.numpy(), centroids.numpy()):
        # Without tolerance it stops early only where nothing changes any more.
        model = ScikitLearnKMeans(
            len(initial), init=initial, n_init=1, max_iter=iterations, tol=0
        )
        found.append(torch.from_numpy(model.fit(points).cluster_centers_))
    return torch.stack(found)
