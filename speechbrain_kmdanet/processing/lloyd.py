"""Lloyd iterations: assign the points, move the centroids, again and again.

An iteration reads the points twice, in two thin matrix products, and writes
nothing of their size: it costs the memory traffic of that.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import torch

# On the CPU both products run twice as fast along the points as across them. A
# copy in that order takes the time that some five iterations gain by it.
COPY_FROM = 8

# Points from which the sums over a single item are worth several threads.
SPLIT_FROM = 8192


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
    iterations : int
        How many iterations to expect, which decides about the order in memory.

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

    def __init__(self, points, weights, num_clusters, spherical, iterations=1):
        self.transposed = points.transpose(1, 2)
        if points.device.type == "cpu" and iterations >= COPY_FROM:
            self.transposed = _copy_by_dimension(points)
        self.weights = weights.unsqueeze(1)
        self.spherical = spherical
        self.num_clusters = num_clusters
        batch, num_points, _ = points.shape
        # Memory is taken once: fresh pages cost more than the arithmetic.
        self.masses = points.new_empty(batch, num_clusters, num_points)
        # Two clusters need one number a point, the side of a hyperplane.
        self.scores = self.masses
        self.threshold = points.new_zeros(batch, 1, 1)
        if num_clusters == 2:
            self.scores = points.new_empty(batch, 1, num_points)

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
            second = torch.empty_like(self.scores, dtype=torch.int64)
            return torch.gt(self.scores, self.threshold, out=second).squeeze(1)
        return self.scores.max(1).indices

    def sums(self):
        """Sums over the clusters of the last assignment, which is used up.

        Returns
        -------
        torch.Tensor
            Weighted sums of the points [B, K, D]; the weights of the points in
            the clusters are left in ``masses`` [B, K, N].
        """
        if self.num_clusters == 2:
            first, second = self.masses.split(1, dim=1)
            torch.gt(self.scores, self.threshold, out=second)
            second.mul_(self.weights)
            torch.sub(self.weights, second, out=first)
        else:
            members = _first_largest(self.scores)
            self.masses.copy_(members).mul_(self.weights)
        return sum_points(self.masses, self.transposed.transpose(1, 2))

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
        sums = self.sums()
        if self.spherical:
            norms = torch.linalg.vector_norm(sums, dim=2, keepdim=True)
            return torch.where(norms > 0, unit(sums), centroids)
        return means(sums, self.masses.sum(2, keepdim=True), centroids)

    def _score(self, centroids):
        """How near each centroid is [B, K, N].

        Of two, how much nearer the second is, up to a threshold.
        """
        pair = self.num_clusters == 2
        directions = centroids.diff(dim=1) if pair else centroids
        torch.bmm(directions, self.transposed, out=self.scores)
        if not self.spherical:
            offsets = 0.5 * centroids.square().sum(2, keepdim=True)
            if pair:
                self.threshold = offsets.diff(dim=1)
            else:
                self.scores -= offsets


def means(sums, masses, centroids):
    """Means of clusters; one without weight keeps its centroid.

    Arguments
    ---------
    sums : torch.Tensor
        Weighted sums of the points [B, K, D].
    masses : torch.Tensor
        Sums of the weights [B, K, 1].
    centroids : torch.Tensor
        Previous centroids [B, K, D].

    Returns
    -------
    torch.Tensor
        Means [B, K, D].

    Example
    -------
    >>> sums, masses = (
    ...     torch.tensor([[[6.0], [0.0]]]),
    ...     torch.tensor([[[3.0], [0]]]),
    ... )
    >>> means(sums, masses, torch.tensor([[[1.0], [9.0]]]))
    tensor([[[2.],
             [9.]]])
    """
    least = tiny(masses)
    found = sums / masses.clamp_min(least)
    # A subnormal mass would not divide: it counts as none.
    return torch.where(masses >= least, found, centroids)


def _copy_by_dimension(points):
    """Points [B, D, N] in memory: the coordinates one after the other.

    A product with the identity gives the same values as a strided copy, up to
    four times faster.
    """
    dimensions = points.shape[2]
    identity = torch.eye(dimensions, dtype=points.dtype, device=points.device)
    return torch.bmm(
        identity.expand(len(points), -1, -1), points.transpose(1, 2)
    )


def sum_points(masses, points):
    """Weighted sums of the points of clusters.

    On the CPU one thread makes the product of an item: for a single item each
    gets a part of the points.

    Arguments
    ---------
    masses : torch.Tensor
        Weights of the points in the clusters [B, K, N].
    points : torch.Tensor
        Points [B, N, D].

    Returns
    -------
    torch.Tensor
        Sums [B, K, D].

    Example
    -------
    >>> sum_points(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0], [4.0]]]))
    tensor([[[11.]]])
    """
    batch, num_points, _ = points.shape
    parts = 1
    if points.device.type == "cpu" and batch == 1 and num_points >= SPLIT_FROM:
        parts = torch.get_num_threads()
    if parts == 1:
        return torch.bmm(masses, points)
    split = num_points - num_points % parts
    products = torch.bmm(
        masses[0, :, :split].unflatten(1, (parts, -1)).transpose(0, 1),
        points[0, :split].unflatten(0, (parts, -1)),
    ).sum(0, keepdim=True)
    if split < num_points:
        products = products.baddbmm(masses[..., split:], points[:, split:])
    return products


def _first_largest(scores):
    """Which cluster has the highest score, the first of equals [B, K, N]."""
    members = scores == scores.amax(1, keepdim=True)
    taken = members[:, 0]
    for cluster in members.unbind(1)[1:]:
        cluster &= ~taken
        taken = taken | cluster
    return members


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
