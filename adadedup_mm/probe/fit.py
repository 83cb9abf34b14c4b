"""Heads from the cells of samples: one for every selection, in one pass over the cells."""

from collections.abc import Callable, Iterable

import numpy as np

from .collect import GridRows
from .detect import Head, with_constant
from .sums import LeftOut, Sums, no_sums, penalty_of, solve, sum_cells

# Strength of the ridge penalty of class scores and of boxes, chosen on MiniDrive's worlds and real
# sets (docs/PROBE.md).
CLASS_PENALTY = 1e-3
BOX_PENALTY = 1e-2
# Sums that are held in memory at a time, in bytes.
_MEMORY = 2**30


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
    parts: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in members]
    at_once = max(1, _MEMORY // (16 * (channels + 1) ** 2))
    for grid in range(grids):
        everyone = np.ones((1, members.shape[1]), bool)
        whole = _sums(read(grid), everyone, channels, classes, device)[0]
        penalties = [penalty_of(whole[0], CLASS_PENALTY), penalty_of(whole[1], BOX_PENALTY)]
        for start in range(0, len(members), at_once):
            block = members[start : start + at_once]
            for row, sums in enumerate(_sums(read(grid), block, channels, classes, device)):
                heads = [
                    _head(part, penalty) for part, penalty in zip(sums, penalties, strict=True)
                ]
                parts[start + row].append((heads[0], heads[1]))

    result = []
    for by_grid in parts:
        head = Head(
            classes=tuple(classes for classes, _ in by_grid),
            boxes=tuple(boxes for _, boxes in by_grid),
        )
        result.append(head)
    return result


def _head(sums: Sums, penalty: np.ndarray) -> np.ndarray:
    return solve(sums, penalty).astype(np.float32)


def _sums(
    pieces: Iterable[GridRows],
    members: np.ndarray,
    channels: int,
    classes: int,
    device: str,
) -> list[tuple[Sums, Sums]]:
    """For each set of pictures the sums for classes, and for boxes, of cells with objects alone."""
    for_classes = [no_sums(channels + 1, classes) for _ in members]
    for_boxes = [no_sums(channels + 1, 4) for _ in members]
    for rows in pieces:
        features = with_constant(rows.features.astype(np.float32))
        targets = class_targets(rows.label, classes)
        equal = np.ones(len(targets), np.float32)
        for number, own in enumerate(members):
            chosen = own[rows.picture]
            with_object = chosen & (rows.label >= 0)
            for_classes[number] += sum_cells(
                features[chosen], rows.weight[chosen], targets[chosen], device
            )
            for_boxes[number] += sum_cells(
                features[with_object], equal[with_object], rows.box[with_object], device
            )

    return list(zip(for_classes, for_boxes, strict=True))


def class_targets(labels: np.ndarray, classes: int) -> np.ndarray:
    """(n, C) float32: one for the class of each cell's object, zero elsewhere."""
    targets = np.zeros((len(labels), classes), np.float32)
    with_object = np.flatnonzero(labels >= 0)
    targets[with_object, labels[with_object]] = 1
    return targets


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
            features = with_constant(rows.features.astype(np.float32))
            targets = class_targets(rows.label, classes)
            # Of a picture the cells stand together.
            pictures, first = np.unique(rows.picture, return_index=True)
            for picture, start, end in zip(pictures, first, [*first[1:], None], strict=True):
                own = slice(start, end)
                residual = left_out.residuals(
                    features[own], rows.weight[own], targets[own], bool(learned[picture])
                )
                total[picture] += rows.weight[own] @ np.square(residual).sum(axis=1)

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
    (whole, _), (own, _) = _sums(read(grid), members, channels, classes, device)
    return LeftOut(own, penalty_of(whole, CLASS_PENALTY)) if own.weight else None
