"""A map of vectors in two dimensions."""

import numpy as np
from scipy.sparse.linalg import LinearOperator, eigsh

from .rows import drop_pages

# Up to here all axes take a second; their time grows with the cube of the number.
_MOST_COLUMNS = 2048

# Rows at a time, so that no copy of all features is made.
_BLOCK = 16384


def map_2d(features: np.ndarray) -> np.ndarray:
    """A 2-D map of the samples: projection on the two leading principal components.

    Args:
        features: (N, d) float32 or float16, in memory or memory-mapped.

    Returns:
        (N, 2) float32; signs are fixed, so that equal features give an equal map. Zeros where all
        samples are equal.
    """
    blocks = [slice(start, start + _BLOCK) for start in range(0, len(features), _BLOCK)]
    if min(features.shape) < 2 or all((features[block] == features[0]).all() for block in blocks):
        return np.zeros((len(features), 2), np.float32)
    mean = features.mean(axis=0, dtype=np.float64)
    if features.shape[1] > _MOST_COLUMNS:
        axes = _leading_axes(features, mean)
    else:
        products = np.zeros((features.shape[1], features.shape[1]))
        for block in blocks:
            rows = features[block].astype(np.float64)
            products += rows.T @ rows
            drop_pages(features)
        axes = np.linalg.eigh(products - len(features) * np.outer(mean, mean))[1][:, :-3:-1]
        axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), range(2)])
    places = []
    for block in blocks:
        places.append(features[block] @ axes.astype(np.float32))
        drop_pages(features)
    return (np.concatenate(places) - (mean @ axes).astype(np.float32)).astype(np.float32)


def _leading_axes(features: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """(d, 2) float64: the two leading principal axes, without the covariance of features of several cameras."""
    n, d = features.shape

    def multiply(vector: np.ndarray) -> np.ndarray:
        vector = vector.ravel()
        return features.T @ (features @ vector.astype(np.float32)) - n * mean * (mean @ vector)

    covariance = LinearOperator((d, d), matvec=multiply, dtype=np.float64)
    # A plain start, such as ones, may have no share in any axis.
    start = np.random.default_rng(0).normal(size=d)
    axes = eigsh(covariance, k=2, v0=start, tol=1e-4)[1][:, ::-1]
    return axes * np.sign(axes[np.abs(axes).argmax(axis=0), range(2)])
