"""Spherical k-means."""

import math
from collections.abc import Callable

import faiss
import numpy as np

from ..base.checks import whole
from ..base.errors import UserError
from ..base.progress import progress
from ..pool import Pool, label
from ..registry import CLUSTERERS
from ..vectors.nearest import nearest_centroid
from ..vectors.rows import drop_pages, read_rows

# Beyond this, two levels are much faster: the cost grows with N * sqrt(K) instead of N * K.
FLAT_CLUSTERS = 1024

# (K, d) float32 unit centroids -> (N,) int64, the nearest one of each sample, -1 for blank ones.
Assign = Callable[[np.ndarray], np.ndarray]


@CLUSTERERS.register_module()
class SphericalKMeans:
    """k-means on the unit sphere (Dhillon and Modha 2001), by faiss on a sample of the rows.

    The centroids come from 256 random samples per cluster, which is as good as all of them
    (``benchmarks/kmeans.py``). More than 1,024 clusters are made in two levels, which costs 1 to 2
    % of the mean similarity between samples and their centroids.

    Args:
        num_clusters: K; None means about the square root of the number of samples.
        iterations: of k-means.
        fast: half the samples per cluster and at most 10 iterations: a third of the time for .1 to
            .2 % of the mean similarity.
    """

    learns_centroids = True
    looks_at = ('features',)

    def __init__(
        self, num_clusters: int | None = None, iterations: int = 20, fast: bool = False
    ) -> None:
        for name, value in (('num_clusters', num_clusters), ('iterations', iterations)):
            if value is not None:
                whole(value, f'adadedup.clusterer.{name}', 1)
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
                f'{len(features)} '
                'samples; lower it'
            )
        labels = self._split(
            features, np.arange(len(features)), count, np.random.default_rng(seed), assign
        )
        return label(labels.tolist())

    def _split(
        self,
        features: np.ndarray,
        members: np.ndarray,
        count: int,
        generator: np.random.Generator,
        assign: Assign | None = None,
    ) -> np.ndarray:
        """(n,) int64 labels 0..count-1 of the given rows, -1 for blank ones; with ``assign`` these are all rows."""
        if count <= FLAT_CLUSTERS:
            learn = min(len(members), count * self.points_per_cluster)
            rows, blank = read_rows(
                features, np.sort(generator.choice(members, learn, replace=False, shuffle=False))
            )
            drop_pages(features)
            centroids = self._centroids(rows[~blank], count, generator)
            return assign(centroids) if assign else nearest_centroid(features, members, centroids)
        coarse = self._split(features, members, round(math.sqrt(count)), generator, assign)
        parts = [members[coarse == part] for part in np.unique(coarse[coarse >= 0])]
        if not parts:
            return coarse
        # One each, and the rest in proportion to the number of samples.
        ends = np.cumsum([len(part) for part in parts])
        shares = 1 + np.diff(np.rint((count - len(parts)) * ends / ends[-1]).astype(int), prepend=0)
        labels = np.full(len(features), -1, np.int64)
        with progress(len(members), 'k-means, second level', 'sample') as bar:
            for part, share, start in zip(parts, shares, np.cumsum(shares) - shares, strict=True):
                labels[part] = start + self._split(
                    features, part, int(min(share, len(part))), generator
                )
                bar.update(len(part))
        return labels[members]

    def _centroids(
        self, rows: np.ndarray, count: int, generator: np.random.Generator
    ) -> np.ndarray:
        """(<= count, d) float32 unit centroids of (n, d) unit rows; none where there are no rows."""
        count = min(count, len(rows))
        centroids = rows[generator.choice(len(rows), count, replace=False)]
        if count < 2 and len(rows) < 2:
            return centroids
        index = faiss.IndexFlatIP(rows.shape[1])
        with progress(self.iterations, 'k-means', 'iteration') as bar:
            for _ in range(self.iterations):
                # One iteration at a time is what faiss does by itself, but can show progress.
                clustering = faiss.Clustering(rows.shape[1], count)
                clustering.niter = 1
                clustering.spherical = True
                clustering.check_input_data_for_NaNs = False
                clustering.min_points_per_centroid, clustering.max_points_per_centroid = (
                    1,
                    len(rows),
                )
                faiss.copy_array_to_vector(centroids.ravel(), clustering.centroids)
                clustering.train(rows, index)
                centroids = faiss.vector_to_array(clustering.centroids).reshape(count, -1)
                bar.update()
        return centroids
