"""k-means: seconds and mean similarity to the centroids, beside faiss's own Kmeans.

    python benchmarks/kmeans.py [--quick]

All methods cluster the same features and assign all samples, in alternation; the best of several
runs counts.
"""

import functools
from collections.abc import Callable

import faiss
import numpy as np
from density import seconds, use_wide_kernels
from figures import Figure, parse, save

from adadedup_mm.clusters import SphericalKMeans
from adadedup_mm.vectors.rows import cluster_members


def make_features(n: int, d: int, seed: int = 0) -> np.ndarray:
    """(n, d) float32 unit features as of drives.

    They have a common direction, scenes of 40 samples, and axes of decaying length. The common
    direction is the same for all seeds.
    """
    generator = np.random.default_rng([seed, 1])
    axes = (np.arange(1, d + 1) ** -0.5).astype(np.float32)
    features = 1.5 * generator.standard_normal((n // 40 + 1, d), np.float32)[np.arange(n) // 40]
    features += generator.standard_normal((n, d), np.float32)
    features += 2 * np.random.default_rng(0).standard_normal(d, np.float32)
    features *= axes
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def faiss_own(features: np.ndarray, clusters: int, points: int) -> np.ndarray:
    """Labels by ``faiss.Kmeans``, 20 iterations, at most ``points`` samples per centroid."""
    kmeans = faiss.Kmeans(
        features.shape[1],
        clusters,
        niter=20,
        spherical=True,
        seed=0,
        max_points_per_centroid=points,
    )
    kmeans.train(features)
    return kmeans.index.search(features, 1)[1][:, 0]


def mean_similarity(features: np.ndarray, assignment: np.ndarray) -> float:
    """Mean cosine of the samples to the centroid of their cluster: the objective."""
    total = sum(
        float(np.linalg.norm(features[members].sum(0))) for members in cluster_members(assignment)
    )
    return total / len(features)


def main() -> None:
    """Command line."""
    arguments = parse(__doc__)
    use_wide_kernels()
    n, d, clusters = (20_000, 256, 100) if arguments.quick else (118_287, 512, 344)
    features = make_features(n, d)
    methods: dict[str, Callable[[], np.ndarray]] = {
        'faiss, 256 per cluster': functools.partial(faiss_own, features, clusters, 256),
        'faiss, all samples': functools.partial(faiss_own, features, clusters, n),
        'SphericalKMeans': functools.partial(SphericalKMeans(clusters), features, None, 0),
        'SphericalKMeans, fast': functools.partial(
            SphericalKMeans(clusters, fast=True), features, None, 0
        ),
    }
    best = dict.fromkeys(methods, np.inf)
    for _ in range(1 if arguments.quick else 3):
        for name, method in methods.items():
            best[name] = min(best[name], seconds(method))
    objective = {name: mean_similarity(features, method()) for name, method in methods.items()}
    print(f'{n} x {d}, K={clusters}, 20 iterations')
    print(f'{"method":<24} {"seconds":>8} {"x faiss":>8} {"similarity":>11} {"x faiss":>8}')
    reference, ours, fast = 'faiss, 256 per cluster', 'SphericalKMeans', 'SphericalKMeans, fast'
    for name in methods:
        print(
            f'{name:<24} {best[name]:>8.2f} {best[name] / best[reference]:>8.2f} '
            f'{objective[name]:>11.4f} '
            f'{objective[name] / objective[reference]:>8.4f}'
        )
    case = f'k-means, {n:,} x {d}, K={clusters}'
    save(
        [
            Figure(
                f'{case}: time', 'faiss.Kmeans', best[ours] / best[reference], 1.1, at_most=True
            ),
            Figure(f'{case}, fast mode: speed', 'faiss.Kmeans', best[reference] / best[fast], 2),
            Figure(
                f'{case}, fast mode: mean similarity to the centroids',
                'faiss.Kmeans',
                objective[fast] / objective[reference],
                0.998,
                form='{:.4f} x',
            ),
        ],
        arguments.figures,
    )


if __name__ == '__main__':
    main()
