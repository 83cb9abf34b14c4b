"""Groups that samples fall into: by a value that they share, by the classes that they hold."""

from collections.abc import Hashable, Iterable

import numpy as np

from .pool import Pool


def label(values: Iterable[Hashable]) -> np.ndarray:
    """(N,) int32 labels 0..K-1 of N values, by first occurrence; equal values share one."""
    seen: dict[Hashable, int] = {}
    return np.fromiter((seen.setdefault(value, len(seen)) for value in values), np.int32)


def class_membership(pool: Pool) -> tuple[np.ndarray, np.ndarray]:
    """The distinct (sample, class) pairs of a pool: two int64 arrays, sorted by sample."""
    classes = max(len(pool.classes), 1)
    object_counts = np.diff(pool.offsets)
    owner = np.repeat(np.arange(len(pool)), object_counts)
    pairs = np.unique(owner * classes + pool.labels)
    samples, labels = np.divmod(pairs, classes)
    return samples, labels
