"""The sums over the cells of sets of pictures, in few passes over the cells."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .collect import GridRows
from .parts import Parts, disjoint_parts
from .sums import BLOCK, Sums, add_products

# Parts of sets that are taken together: with more of them, the products become small and slow.
_MOST_PARTS = 64
# Sums that are held in memory at a time, in bytes.
_MEMORY = 2**30


@dataclass(frozen=True)
class _Totals:
    """Sums over the cells of U parts, float64 on the device; see ``Sums``.

    Attributes:
        gram: (U, D, D).
        cross: (U, D, C).
        weight: (U,).
    """

    gram: Tensor
    cross: Tensor
    weight: Tensor


@dataclass(frozen=True)
class _Block:
    """n cells with what the heads are to say of them, on the device.

    Attributes:
        features: (n, D) float32, with the constant channel.
        weight: (n,) float32, see ``Cells``.
        classes: (n, C) float32, see ``class_targets``.
        boxes: (n, 4) float32, see ``Cells``.
    """

    features: Tensor
    weight: Tensor
    classes: Tensor
    boxes: Tensor


def sums_of_sets(
    read: Callable[[], Iterable[GridRows]],
    sets: np.ndarray,
    channels: int,
    classes: int,
    device: str = 'cpu',
) -> Iterator[tuple[Sums, Sums]]:
    """For each set of pictures the sums for classes, and for boxes, of cells with objects alone.

    Args:
        read: a grid's cells, piece by piece; called once or more.
        sets: (S, P) bool.
        channels: D of the features, without the constant one.
        classes: number of classes.
        device: of torch, where the products are formed.
    """
    most = max(1, _MEMORY // (16 * (channels + 1) ** 2))
    groups = disjoint_parts(sets, min(_MOST_PARTS, most))
    while groups:
        together = groups[:1]
        groups = groups[1:]
        while groups and sum(parts.count for parts in [*together, groups[0]]) <= most:
            together.append(groups[0])
            groups = groups[1:]
        yield from _in_one_pass(read(), together, channels + 1, classes, device)


def _in_one_pass(
    pieces: Iterable[GridRows], groups: Sequence[Parts], channels: int, classes: int, device: str
) -> Iterator[tuple[Sums, Sums]]:
    for_classes = [_no_totals(parts.count, channels, classes, device) for parts in groups]
    for_boxes = [_no_totals(parts.count, channels, 4, device) for parts in groups]
    for rows in _blocks(pieces):
        block = _on_device(rows, classes, device)
        for parts, own, own_boxes in zip(groups, for_classes, for_boxes, strict=True):
            _add(own, own_boxes, block, parts.of_picture[rows.picture], rows.label >= 0)

    for parts, own, own_boxes in zip(groups, for_classes, for_boxes, strict=True):
        for chosen in parts.of_set:
            yield _union(own, chosen), _union(own_boxes, chosen)


def _no_totals(parts: int, channels: int, targets: int, device: str) -> _Totals:
    return _Totals(
        gram=torch.zeros(parts, channels, channels, dtype=torch.float64, device=device),
        cross=torch.zeros(parts, channels, targets, dtype=torch.float64, device=device),
        weight=torch.zeros(parts, dtype=torch.float64, device=device),
    )


def _blocks(pieces: Iterable[GridRows]) -> Iterator[GridRows]:
    """Pieces put together, up to ``BLOCK`` cells: one piece is little work for a device."""
    waiting: list[GridRows] = []
    count = 0
    for rows in pieces:
        if waiting and count + len(rows.label) > BLOCK:
            yield _joined(waiting)
            waiting = []
            count = 0
        waiting.append(rows)
        count += len(rows.label)
    if waiting:
        yield _joined(waiting)


def _joined(pieces: Sequence[GridRows]) -> GridRows:
    columns = {}
    for field in dataclasses.fields(GridRows):
        columns[field.name] = np.concatenate([getattr(rows, field.name) for rows in pieces])
    return GridRows(**columns)


def _on_device(rows: GridRows, classes: int, device: str) -> _Block:
    features = torch.from_numpy(rows.features).to(device).float()
    return _Block(
        features=functional.pad(features, (0, 1), value=1.0),
        weight=torch.from_numpy(rows.weight).to(device),
        classes=torch.from_numpy(class_targets(rows.label, classes)).to(device),
        boxes=torch.from_numpy(rows.box).to(device),
    )


def class_targets(labels: np.ndarray, classes: int) -> np.ndarray:
    """(n, C) float32: one for the class of each cell's object, zero elsewhere."""
    targets = np.zeros((len(labels), classes), np.float32)
    with_object = np.flatnonzero(labels >= 0)
    targets[with_object, labels[with_object]] = 1
    return targets


def _add(
    for_classes: _Totals, for_boxes: _Totals, block: _Block, part: np.ndarray, objects: np.ndarray
) -> None:
    """Adds cells to the parts that they are in, in place.

    Args:
        for_classes: the sums for classes.
        for_boxes: likewise.
        block: n cells.
        part: (n,) int64, -1 for none.
        objects: (n,) bool, the cells with an object.
    """
    # The cells of a part stand together, those with an object first.
    order = np.lexsort((~objects, part))
    order = order[part[order] >= 0]
    place = torch.from_numpy(order).to(block.weight.device)
    features, weight = block.features[place], block.weight[place]
    classes, boxes = block.classes[place], block.boxes[place]
    equal = torch.ones_like(weight)
    numbers, starts, counts = np.unique(part[order], return_index=True, return_counts=True)
    for number, start, count in zip(numbers, starts, counts, strict=True):
        own = slice(start, start + count)
        _add_part(for_classes, number, features[own], weight[own], classes[own])
        own = slice(start, start + int(objects[order[own]].sum()))
        _add_part(for_boxes, number, features[own], equal[own], boxes[own])


def _add_part(
    totals: _Totals, number: int, features: Tensor, weight: Tensor, targets: Tensor
) -> None:
    add_products(totals.gram[number], totals.cross[number], features, weight, targets)
    totals.weight[number] += weight.sum(dtype=torch.float64)


def _union(totals: _Totals, chosen: np.ndarray) -> Sums:
    """The sums over some of the parts, (U,) bool."""
    shares = torch.from_numpy(chosen.astype(np.float64)).to(totals.weight.device)
    return Sums(
        gram=torch.tensordot(shares, totals.gram, dims=1).cpu().numpy(),
        cross=torch.tensordot(shares, totals.cross, dims=1).cpu().numpy(),
        weight=float(shares @ totals.weight),
    )
