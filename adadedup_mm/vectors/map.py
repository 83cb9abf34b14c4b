"""A map of vectors in two dimensions."""

import numpy as np
from scipy.sparse.linalg import LinearOperator, eigsh

from .rows import drop_pages, slices

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
    count, dim = features.shape
    if count < 2 or dim < 2 or _all_equal(features):
        return np.zeros((count, 2), np.float32)

    mean = features.mean(axis=0, dtype=np.float64)
    if dim > _MOST_COLUMNS:
        axes = _leading_axes_of_many_columns(features, mean)
    else:
        axes = _leading_axes(features, mean)

    # Of an axis and its opposite the one is taken whose largest entry is positive.
    largest = np.abs(axes).argmax(axis=0)
    axes = axes * np.sign(axes[largest, range(2)])

    projection = axes.astype(np.float32)
    parts = []
    for block in slices(count, _BLOCK):
        parts.append(features[block] @ projection)
        drop_pages(features)

    places = np.concatenate(parts)
    centre = (mean @ axes).astype(np.float32)

    return (places - centre).astype(np.float32)


def _all_equal(features: np.ndarray) -> bool:
    first = features[0]
    for block in slices(len(features), _BLOCK):
        differs = features[block] != first
        if differs.any():
            return False
    return True


def _leading_axes(features: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """(d, 2) float64, the two leading principal axes, from the covariance matrix."""
    count, dim = features.shape
    products = np.zeros((dim, dim))
    for block in slices(count, _BLOCK):
        rows = features[block].astype(np.float64)
        products += rows.T @ rows
        drop_pages(features)
    scatter = products - count * np.outer(mean, mean)
    _, axes = np.linalg.eigh(scatter)
    return axes[:, :-3:-1]


def _leading_axes_of_many_columns(features: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """As ``_leading_axes``, without the matrix, which features of several cameras make large."""
    count, dim = features.shape

    def multiply(vector: np.ndarray) -> np.ndarray:
        vector = vector.ravel()
        projected = features @ vector.astype(np.float32)
        return features.T @ projected - count * mean * (mean @ vector)

    scatter = LinearOperator((dim, dim), matvec=multiply, dtype=np.float64)
    # A plain start, such as ones, may have no share in any axis.
    start = np.random.default_rng(0).normal(size=dim)
    _, axes = eigsh(
        scatter,
        k=2,
        v0=start,
        tol=1e-4,
    )

    return axes[:, ::-1]
