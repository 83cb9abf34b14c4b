"""Spherical k-means."""

import math
from typing import ClassVar

import faiss
import numpy as np

from ..base.checks import whole
from ..base.errors import UserError
from ..base.progress import progress
from ..pool import Pool, label
from ..registry import CLUSTERERS
from ..vectors.nearest import nearest_centroid
from ..vectors.rows import drop_pages, read_rows
from .clusterer import Assign, CentroidClusterer

# Beyond this, two levels are much faster: the cost grows with N * sqrt(K) instead of N * K.
FLAT_CLUSTERS = 1024


@CLUSTERERS.register_module()
class SphericalKMeans(CentroidClusterer):
    """k-means on the unit sphere (Dhillon and Modha 2001), by faiss on a sample of the rows.

    The centroids come from 256 random samples per cluster, which is as good as all of them
    (``benchmarks/kmeans.py``). More than 1,024 clusters are made in two levels, which costs 1 % to
    2 % of the mean similarity between samples and their centroids.

    Args:
        num_clusters: K; None means about the square root of the number of samples.
        iterations: of k-means.
        fast: half the samples per cluster and at most 10 iterations: a third of the time for .1 %
            to .2 % of the mean similarity.
    """

    looks_at: ClassVar[tuple[str, ...]] = ('features',)

    def __init__(
        self, num_clusters: int | None = None, iterations: int = 20, fast: bool = False
    ) -> None:
        if num_clusters is not None:
            whole(num_clusters, 'adadedup.clusterer.num_clusters', 1)
        if iterations is not None:
            whole(iterations, 'adadedup.clusterer.iterations', 1)
        self.num_clusters = num_clusters
        self.iterations = min(iterations, 10) if fast else iterations
        self.points_per_cluster = 128 if fast else 256

    def __call__(
        self, features: np.ndarray, pool: Pool | None, seed: int, assign: Assign | None = None
    ) -> np.ndarray:
        """The same labels for the same seed, on any number of threads.

        Samples without a direction (zero or NaN features) share one cluster of their own. Clusters
        that nobody is nearest to are dropped, so there can be fewer than ``num_clusters``: when
        images are equal by the thousand.

        Args:
            features: (N, d) float32 or float16, in memory or memory-mapped.
            pool: not used.
            seed: of the samples that k-means learns from and starts at.
            assign: finds the nearest centroids of all samples, as ``nearest_centroid`` does; called
                once.

        Returns:
            (N,) int32 labels 0..K-1, in the order in which the clusters first occur.

        Raises:
            UserError: there are fewer samples than clusters.
        """
        features = np.asarray(features)
        count = self.num_clusters or max(1, round(math.sqrt(len(features))))
        if len(features) < count:
            raise UserError(
                f'adadedup.clusterer.num_clusters is {count}, but the dataset has only '
                f'{len(features)} samples; lower it'
            )

        generator = np.random.default_rng(seed)
        everyone = np.arange(len(features))
        labels = self._split(features, everyone, count, generator, assign)

        return label(labels.tolist())

    def _split(
        self,
        features: np.ndarray,
        members: np.ndarray,
        count: int,
        generator: np.random.Generator,
        assign: Assign | None = None,
    ) -> np.ndarray:
        """Clusters of some rows, in two levels where they are many.

        Args:
            features: (N, d).
            members: (n,) int64, which rows.
            count: how many clusters, at most n.
            generator: of all random choices.
            assign: see ``CentroidClusterer``; only where the members are all rows.

        Returns:
            (n,) int64 labels 0..count-1, -1 for blank rows.
        """
        if count <= FLAT_CLUSTERS:
            centroids = self._learn(features, members, count, generator)
            if assign:
                return assign(centroids)
            return nearest_centroid(features, members, centroids)

        coarse = self._split(features, members, round(math.sqrt(count)), generator, assign)
        parts = [members[coarse == part] for part in np.unique(coarse[coarse >= 0])]
        if not parts:
            return coarse
        shares = _shares(parts, count)
        starts = np.cumsum(shares) - shares
        labels = np.full(len(features), -1, np.int64)
        with progress(len(members), 'k-means, second level', 'sample') as bar:
            for part, share, start in zip(parts, shares, starts, strict=True):
                fine = self._split(features, part, int(min(share, len(part))), generator)
                labels[part] = start + fine
                bar.update(len(part))

        return labels[members]

    def _learn(
        self,
        features: np.ndarray,
        members: np.ndarray,
        count: int,
        generator: np.random.Generator,
    ) -> np.ndarray:
        """(<= count, d) float32 unit centroids of a random sample of the members."""
        size = min(len(members), count * self.points_per_cluster)
        chosen = generator.choice(members, size, replace=False, shuffle=False)
        rows, blank = read_rows(features, np.sort(chosen))
        drop_pages(features)
        return self._centroids(rows[~blank], count, generator)

    def _centroids(
        self, rows: np.ndarray, count: int, generator: np.random.Generator
    ) -> np.ndarray:
        """(<= count, d) float32 unit centroids of (n, d) unit rows; none without rows."""
        count = min(count, len(rows))
        start = generator.choice(len(rows), count, replace=False)
        centroids = rows[start]
        if count < 2 and len(rows) < 2:
            return centroids
        with progress(self.iterations, 'k-means', 'iteration') as bar:
            for _ in range(self.iterations):
                # One iteration at a time is what faiss does by itself, but can show progress.
                centroids = _iterate(rows, centroids)
                bar.update()

        return centroids


def _iterate(rows: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """(K, d) float32 unit centroids after one iteration of k-means that starts at (K, d) ones."""
    count, dim = centroids.shape
    clustering = faiss.Clustering(dim, count)
    clustering.niter = 1
    clustering.spherical = True
    clustering.check_input_data_for_NaNs = False
    clustering.min_points_per_centroid = 1
    clustering.max_points_per_centroid = len(rows)
    faiss.copy_array_to_vector(centroids.ravel(), clustering.centroids)
    clustering.train(rows, faiss.IndexFlatIP(dim))

    return faiss.vector_to_array(clustering.centroids).reshape(count, -1)


def _shares(parts: list[np.ndarray], count: int) -> np.ndarray:
    """(P,) int64, how many of ``count`` clusters each part gets.

    One each, and the rest in proportion to the number of samples.
    """
    sizes = [len(part) for part in parts]
    ends = np.cumsum(sizes)
    rest = count - len(parts)
    ends_of_rest = np.rint(rest * ends / ends[-1]).astype(int)
    return 1 + np.diff(ends_of_rest, prepend=0)
