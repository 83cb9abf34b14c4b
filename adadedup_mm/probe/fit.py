"""Heads from the cells of samples: one for every selection, in few passes over the cells."""

import functools
from collections.abc import Callable, Iterable

import numpy as np

from .collect import GridRows
from .detect import Head, with_constant
from .sums import LeftOut, Sums, penalty_of, solve
from .totals import class_targets, sums_of_sets

# Strength of the ridge penalty of class scores and of boxes, chosen on MiniDrive's worlds and real
# sets (docs/PROBE.md).
CLASS_PENALTY = 1e-3
BOX_PENALTY = 1e-2


def fit_heads(
    read: Callable[[int], Iterable[GridRows]],
    grids: int,
    channels: int,
    classes: int,
    members: np.ndarray,
    device: str = 'cpu',
) -> list[Head]:
    """One head for each set of pictures.

    Args:
        read: a grid's cells, piece by piece.
        grids: number of grids.
        channels: D of the features, without the constant one.
        classes: number of classes.
        members: (S, P) bool, the pictures that each head learns from.
        device: of torch, where products are formed.
    """
    everyone = np.ones((1, members.shape[1]), bool)
    sets = np.concatenate([everyone, members])
    by_grid = []
    for grid in range(grids):
        sums = sums_of_sets(functools.partial(read, grid), sets, channels, classes, device)
        of_all, boxes_of_all = next(sums)
        class_penalty = penalty_of(of_all, CLASS_PENALTY)
        box_penalty = penalty_of(boxes_of_all, BOX_PENALTY)
        heads = [(_head(own, class_penalty), _head(box, box_penalty)) for own, box in sums]
        by_grid.append(heads)

    result = []
    for of_set in zip(*by_grid, strict=True):
        head = Head(
            classes=tuple(classes for classes, _ in of_set),
            boxes=tuple(boxes for _, boxes in of_set),
        )
        result.append(head)
    return result


def _head(sums: Sums, penalty: np.ndarray) -> np.ndarray:
    return solve(sums, penalty).astype(np.float32)


def cross_fitted_losses(
    read: Callable[[int], Iterable[GridRows]],
    grids: int,
    channels: int,
    classes: int,
    learned: np.ndarray,
    device: str = 'cpu',
) -> np.ndarray:
    """How wrong the head of some pictures is about every picture, as if it had not seen any.

    The loss is the weighted squared error of the class scores, summed over a picture's cells and
    all grids. Pictures that the head learned from are left out of it one at a time, exactly (see
    ``LeftOut``).

    Args:
        read: a grid's cells, piece by piece.
        grids: number of grids.
        channels: D of the features, without the constant one.
        classes: number of classes.
        learned: (P,) bool, the pictures that the head learns from.
        device: of torch, where products are formed.

    Returns:
        (P,) float64; 0 without cells.
    """
    total = np.zeros(len(learned))
    for grid in range(grids):
        left_out = _left_out(read, grid, channels, classes, learned, device)
        if left_out is None:
            continue
        for rows in read(grid):
            features = with_constant(rows.features)
            targets = class_targets(rows.label, classes)
            # Of a picture the cells stand together.
            pictures, sizes = np.unique(rows.picture, return_counts=True)
            residual = left_out.of_groups(
                features, rows.weight, targets, sizes.tolist(), learned[pictures].tolist()
            )
            losses = rows.weight * np.square(residual).sum(axis=1)
            total += np.bincount(rows.picture, losses, len(total))

    return total


def _left_out(
    read: Callable[[int], Iterable[GridRows]],
    grid: int,
    channels: int,
    classes: int,
    learned: np.ndarray,
    device: str,
) -> LeftOut | None:
    """The head of the given pictures on a grid; None where they have no cells."""
    everyone = np.ones_like(learned)
    members = np.stack([everyone, learned])
    (whole, _), (own, _) = sums_of_sets(
        functools.partial(read, grid), members, channels, classes, device
    )
    if not own.weight:
        return None
    return LeftOut(own, penalty_of(whole, CLASS_PENALTY), device)
