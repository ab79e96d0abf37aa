"""Lloyd iterations: assign the points, move the centroids, again and again.

An iteration reads the points twice, in two thin matrix products, and writes
nothing of their size: it costs the memory traffic of that.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import torch


class Lloyd:
    """Iterations over one set of points; no gradient.

    Arguments
    ---------
    points : torch.Tensor
        Points [B, N, D].
    weights : torch.Tensor
        Non-negative weights [B, N]. For the spherical metric those divided by
        the norms of the points: x̄ᵀc compares like xᵀc, and Σ w x̄ is
        Σ (w/‖x‖) x, so the unit points of Algorithm 1 are never stored.
    num_clusters : int
        Number of clusters K.
    spherical : bool
        Whether centroids are directions (Algorithm 1), or means.

    Example
    -------
    >>> points = torch.tensor([[[0.0], [1.0], [8.0], [9.0]]])
    >>> lloyd = Lloyd(points, torch.ones(1, 4), 2, spherical=False)
    >>> lloyd.step(torch.tensor([[[0.0], [1.0]]]))
    tensor([[[0.],
             [6.]]])
    >>> lloyd.assign(torch.tensor([[[0.0], [6.0]]]))
    tensor([[0, 0, 1, 1]])
    """

    def __init__(self, points, weights, num_clusters, spherical):
        self.points = points
        self.transposed = points.transpose(1, 2)
        self.weights = weights.unsqueeze(1)
        self.spherical = spherical
        self.num_clusters = num_clusters
        batch, num_points, _ = points.shape
        # Two clusters need one number a point, the side of a hyperplane.
        rows = 1 if num_clusters == 2 else num_clusters
        # Memory is taken once: fresh pages cost more than the arithmetic.
        self.scores = points.new_empty(batch, rows, num_points)
        if num_clusters == 2:
            self.total = self._sums(self.weights)
            self.others = torch.empty_like(self.scores)

    def assign(self, centroids):
        """Nearest centroid of each point.

        Arguments
        ---------
        centroids : torch.Tensor
            Centroids [B, K, D].

        Returns
        -------
        torch.Tensor
            Index of the cluster [B, N], int64; the first of equals.
        """
        self._score(centroids)
        if self.num_clusters == 2:
            return (self.scores > 0).squeeze(1).long()
        return self.scores.max(1).indices

    def sums(self):
        """Sums over the clusters of the last assignment, which are used up.

        Returns
        -------
        sums : torch.Tensor
            Weighted sums of the points [B, K, D].
        masses : torch.Tensor
            Sums of the weights [B, K, 1].
        """
        if self.num_clusters == 2:
            return self._sums_of_two()
        clusters = torch.arange(self.num_clusters, device=self.scores.device)
        nearest = self.scores.max(1, keepdim=True).indices
        members = torch.eq(nearest, clusters.view(-1, 1), out=self.scores)
        return self._sums(members.mul_(self.weights))

    def run(self, centroids, iterations):
        """Several iterations; none when they change nothing any more.

        Arguments
        ---------
        centroids : torch.Tensor
            Centroids [B, K, D].
        iterations : int
            Number of iterations.

        Returns
        -------
        torch.Tensor
            Centroids after that many iterations [B, K, D].
        """
        for _ in range(iterations):
            moved = self.step(centroids)
            # Elsewhere the comparison would wait for the device.
            if moved.device.type == "cpu" and torch.equal(moved, centroids):
                break
            centroids = moved
        return centroids

    def step(self, centroids):
        """One iteration: an assignment, followed by an update.

        Arguments
        ---------
        centroids : torch.Tensor
            Centroids [B, K, D].

        Returns
        -------
        torch.Tensor
            Means of their clusters [B, K, D], of norm one for the spherical
            metric. A cluster without weight keeps its centroid.
        """
        self._score(centroids)
        sums, masses = self.sums()
        if self.spherical:
            means = unit(sums)
        else:
            means = sums / masses.clamp_min(tiny(sums))
        return torch.where(masses > 0, means, centroids)

    def _score(self, centroids):
        """How near each centroid is [B, K, N]; of two, the second's lead."""
        offsets = 0.5 * centroids.square().sum(2, keepdim=True)
        if self.num_clusters == 2:
            centroids, offsets = centroids.diff(dim=1), offsets.diff(dim=1)
        torch.bmm(centroids, self.transposed, out=self.scores)
        if not self.spherical:
            self.scores -= offsets

    def _sums_of_two(self):
        """As sums, for two: the heavier cluster is what the lighter leaves.

        The lighter one is summed, so that the difference keeps its accuracy.
        """
        second = torch.gt(self.scores, 0, out=self.scores).mul_(self.weights)
        first = torch.sub(self.weights, second, out=self.others)
        swap = 2 * second.sum(2, keepdim=True) > self.total[1]
        lighter = self._sums(torch.where(swap, first, second, out=second))
        heavier = [total - part for total, part in zip(self.total, lighter)]
        return tuple(
            torch.cat([one, other], 1).where(~swap, torch.cat([other, one], 1))
            for one, other in zip(heavier, lighter)
        )

    def _sums(self, weights):
        """Weighted sums of all points [B, ·, D], and of the weights."""
        return torch.bmm(weights, self.points), weights.sum(2, keepdim=True)


def unit(vectors):
    """Scales vectors to unit norm; zero stays zero.

    Arguments
    ---------
    vectors : torch.Tensor
        Vectors [..., D].

    Returns
    -------
    torch.Tensor
        Vectors of the same shape.

    Example
    -------
    >>> unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    norms = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / norms.clamp_min(tiny(vectors))


def tiny(x):
    """Smallest normal number of the type of x: a guard for divisions.

    Arguments
    ---------
    x : torch.Tensor
        Tensor of a floating-point type.

    Returns
    -------
    float
        The number.
    """
    return torch.finfo(x.dtype).tiny
