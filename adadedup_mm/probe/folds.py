"""Parts of a set that have nothing in common: for cross-validation, and for intervals."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

FOLDS = 5
BLOCKS = 10


def scene_blocks(scenes: Sequence[str] | None, samples: int, blocks: int = BLOCKS) -> np.ndarray:
    """Blocks of about equal size, of whole scenes in their order.

    Args:
        scenes: N names, or None where none are known: then samples are blocks as they stand.
        samples: N.
        blocks: how many there are at most.

    Returns:
        (N,) int64 labels 0..B-1.
    """
    if scenes is None or len(set(scenes)) < 2:
        group = np.arange(samples)
    else:
        _, first, group = np.unique(np.asarray(scenes), return_index=True, return_inverse=True)
        # By first occurrence, so that neighbouring scenes share a block.
        rank = np.empty(len(first), np.int64)
        rank[np.argsort(first)] = np.arange(len(first))
        group = rank[group]
    return _balanced(group, blocks)


def _balanced(group: np.ndarray, parts: int) -> np.ndarray:
    """(N,) int64: groups 0..G-1 put together, in their order, into parts of about equal size."""
    size = np.bincount(group)
    middle = np.cumsum(size) - size / 2
    part = np.floor(middle * parts / len(group)).astype(np.int64).clip(0, parts - 1)
    _, dense = np.unique(part, return_inverse=True)
    return dense[group]


def cross_folds(
    groups: np.ndarray, alike: np.ndarray, generator: np.random.Generator, folds: int = FOLDS
) -> np.ndarray:
    """Folds of about equal size that share neither a group nor near-duplicates.

    Near-duplicates bring their groups together, unless more than half of the samples would hang
    together in that way: then groups stay as they are. Of one group alone, samples are groups.

    Args:
        groups: (N,) int labels, such as scenes.
        alike: (n, 2) int64, pairs of near-duplicates.
        generator: mixes the groups.
        folds: how many.

    Returns:
        (N,) int64 labels 0..F-1.
    """
    found, group = np.unique(groups, return_inverse=True)
    if len(found) == 1:
        group = np.arange(len(groups))
    joined = _joined(group, alike)
    largest = np.bincount(joined).max()
    if largest <= len(group) / 2:
        group = joined
    size = np.bincount(group)
    shuffled = generator.permutation(len(size))
    # The largest first, each to the smallest fold so far.
    order = shuffled[np.argsort(-size[shuffled], kind='stable')]
    load = np.zeros(folds, np.int64)
    fold_of_group = np.empty(len(size), np.int64)
    for index in order:
        fold = int(load.argmin())
        fold_of_group[index] = fold
        load[fold] += size[index]

    _, dense = np.unique(fold_of_group, return_inverse=True)
    return dense[group]


def _joined(group: np.ndarray, alike: np.ndarray) -> np.ndarray:
    """(N,) labels of the groups after near-duplicates have brought some together."""
    count = int(group.max()) + 1
    first, second = group[alike[:, 0]], group[alike[:, 1]]
    links = coo_matrix((np.ones(len(first)), (first, second)), (count, count))
    _, component = connected_components(links, directed=False)
    return component[group]
