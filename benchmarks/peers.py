"""k-means as other projects write it, to compare with.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import torch


def plain_kmeans(x, centroids, iterations):
    """Distances cluster by cluster, means item by item: a plain loop.

    This is how the k-means of ESPnet's and tky823's deep attractor networks
    are written.

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
    num_clusters = centroids.shape[1]
    for _ in range(iterations):
        distances = torch.stack(
            [
                (x - centroids[:, k].unsqueeze(1)).square().sum(2)
                for k in range(num_clusters)
            ],
            dim=2,
        )
        labels = distances.argmin(2)
        centroids = torch.stack(
            [
                torch.stack(
                    [points[label == k].mean(0) for k in range(num_clusters)]
                )
                for points, label in zip(x, labels)
            ]
        )
    return centroids


def sklearn_kmeans(x, centroids, iterations):
    """scikit-learn's KMeans, item by item.

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
    from sklearn.cluster import KMeans

    found = []
    for points, initial in zip(x.numpy(), centroids.numpy()):
        # Without tolerance it stops early only where nothing changes any more.
        model = KMeans(
            len(initial), init=initial, n_init=1, max_iter=iterations, tol=0
        )
        found.append(torch.from_numpy(model.fit(points).cluster_centers_))
    return torch.stack(found)
