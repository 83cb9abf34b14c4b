"""How wrong heads are about whole groups of pictures that they have not seen."""

import functools
from collections.abc import Callable, Iterable

import numpy as np
from scipy.stats import t as student_t

from .collect import GridRows
from .detect import with_constant
from .fit import CLASS_PENALTY
from .sums import penalty_of, solve
from .totals import class_targets, sums_of_sets

# Parts of the training set in which choices are compared, scenes and near-duplicates together.
JUDGES = 16
# How often noise alone may pass for a lower loss.
DOUBT = 0.05


def held_out_losses(
    read: Callable[[int], Iterable[GridRows]],
    grids: int,
    channels: int,
    classes: int,
    learned: np.ndarray,
    group: np.ndarray,
    device: str = 'cpu',
) -> np.ndarray:
    """How wrong the head of some pictures is about every picture, its group left out of the head.

    The loss is the weighted squared error of the class scores, summed over a picture's cells and
    all grids. Near-duplicates and neighbours make each other look easy: groups, such as scenes,
    keep them together.

    Args:
        read: a grid's cells, piece by piece.
        grids: number of grids.
        channels: D of the features, without the constant one.
        classes: number of classes.
        learned: (P,) bool, the pictures that the head learns from.
        group: (P,) int64 labels 0..G-1.
        device: of torch, where products are formed.

    Returns:
        (P,) float64; 0 without cells.
    """
    total = np.zeros(len(learned))
    for grid in range(grids):
        cells = functools.partial(read, grid)
        heads = _heads(cells, channels, classes, learned, group, device)
        for rows in read(grid):
            features = with_constant(rows.features.astype(np.float32))
            targets = class_targets(rows.label, classes)
            group_of_row = group[rows.picture]
            for number in np.unique(group_of_row):
                own = group_of_row == number
                error = np.square(targets[own] - features[own] @ heads[number])
                loss = error.sum(axis=1, dtype=np.float64) * rows.weight[own]
                total += np.bincount(rows.picture[own], loss, minlength=len(total))

    return total


def _heads(
    read: Callable[[], Iterable[GridRows]],
    channels: int,
    classes: int,
    learned: np.ndarray,
    group: np.ndarray,
    device: str,
) -> np.ndarray:
    """(G, D + 1, C) float32: of each group the head of the learned pictures outside it."""
    everyone = np.ones_like(learned)
    outside = [learned & (group != number) for number in range(int(group.max()) + 1)]
    sums = sums_of_sets(read, np.stack([everyone, *outside]), channels, classes, device)
    of_all, _ = next(sums)
    penalty = penalty_of(of_all, CLASS_PENALTY)
    return np.stack([solve(own, penalty).astype(np.float32) for own, _ in sums])


def is_lower(loss: np.ndarray, reference: np.ndarray) -> bool:
    """Whether losses are lower than others by more than noise: a paired t test, one-sided.

    Args:
        loss: (F,) float64, of each fold.
        reference: (F,) float64, of the same folds.
    """
    gain = reference - loss
    error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else 0.0
    if not error > 0:
        return bool(gain.sum() > 0)
    return bool(gain.mean() / error > student_t.isf(DOUBT, len(gain) - 1))
