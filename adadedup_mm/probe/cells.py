"""The cells of a detector's grids: which object each answers for, and what backbone maps say there.

As in FCOS (arXiv 1904.01355), objects belong to a grid by their size, and the cells in the middle
of a box answer for it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# Share of a box's sides within which cells answer for it.
MIDDLE = 0.5
# What a cell with an object weighs beside one without.
OBJECT_WEIGHT = 10.0

# (h, w, c) values of a picture's cells; backbones of torch leave them on their device.
Map = np.ndarray | Tensor


@dataclass(frozen=True)
class Grid:
    """One of a detector's grids.

    Attributes:
        stride: side of a cell in pixels.
        smallest: objects belong to the grid whose square root of the area is at least this.
        largest: and below this.
    """

    stride: int
    smallest: float
    largest: float


GRIDS = (Grid(4, 0, 20), Grid(8, 20, 56), Grid(16, 56, math.inf))


@dataclass(frozen=True)
class Cells:
    """n cells of a grid that were chosen to learn from.

    Attributes:
        x: (n,) float32, their centres in pixels of the network's input.
        y: (n,) float32, likewise.
        label: (n,) int32, the class of the object, -1 without one.
        weight: (n,) float32; of cells without object, each stands for several.
        box: (n, 4) float32, see ``box_targets``; 0 without an object.
    """

    x: np.ndarray
    y: np.ndarray
    label: np.ndarray
    weight: np.ndarray
    box: np.ndarray


def owners(boxes: np.ndarray, grid: Grid, height: int, width: int) -> np.ndarray:
    """Which object each cell answers for.

    Where boxes overlap, cells answer for the smaller one; the middle of a box smaller than a cell
    is the cell that its centre lies in.

    Args:
        boxes: (m, 4) float, x1 y1 x2 y2 in pixels of the network's input.
        grid: of which objects of its sizes count.
        height: of the input in pixels.
        width: likewise.

    Returns:
        (height // stride, width // stride) int64, indices of boxes, -1 for none.
    """
    rows, columns = height // grid.stride, width // grid.stride
    owner = np.full((rows, columns), -1)
    sides = (boxes[:, 2:] - boxes[:, :2]).clip(0)
    size = np.sqrt(sides.prod(axis=1))
    belongs = (size >= grid.smallest) & (size < grid.largest)
    largest_first = np.argsort(-size, kind='stable')
    for index in largest_first[belongs[largest_first]]:
        x1, y1, x2, y2 = boxes[index]
        across = _middle(x1, x2, grid.stride, columns)
        down = _middle(y1, y2, grid.stride, rows)
        owner[down, across] = index

    return owner


def _middle(low: float, high: float, stride: int, count: int) -> slice:
    """The cells whose centres lie in the middle of an interval, or the one at its centre."""
    centre = (low + high) / 2
    reach = (high - low) * MIDDLE / 2
    first = math.ceil((centre - reach) / stride - 0.5)
    last = math.floor((centre + reach) / stride - 0.5)
    if last < first:
        first = last = math.floor(centre / stride)
    first = min(max(first, 0), count - 1)
    last = min(max(last, 0), count - 1)
    return slice(first, last + 1)


def choose_cells(
    boxes: np.ndarray,
    labels: np.ndarray,
    grid: Grid,
    height: int,
    width: int,
    background: int,
    generator: np.random.Generator,
) -> Cells:
    """All cells with an object, and some without, which weigh as much as all of those.

    Args:
        boxes: (m, 4) float32, x1 y1 x2 y2 in pixels of the network's input.
        labels: (m,) int32.
        grid: see ``Grid``.
        height: of the picture inside the input in pixels.
        width: likewise.
        background: how many cells without object are drawn.
        generator: draws them.
    """
    owner = owners(boxes, grid, height, width)
    row, column = np.nonzero(owner >= 0)
    empty_row, empty_column = np.nonzero(owner < 0)
    drawn = generator.permutation(len(empty_row))[:background]
    stands_for = len(empty_row) / max(1, len(drawn))

    index = owner[row, column]
    nothing = np.full(len(drawn), -1, np.int32)
    x = (np.concatenate([column, empty_column[drawn]]) + 0.5) * grid.stride
    y = (np.concatenate([row, empty_row[drawn]]) + 0.5) * grid.stride
    weight = np.full(len(x), stands_for, np.float32)
    weight[: len(index)] = OBJECT_WEIGHT
    box = np.zeros((len(x), 4), np.float32)
    box[: len(index)] = box_targets(boxes[index], x[: len(index)], y[: len(index)], grid.stride)

    return Cells(
        x=x.astype(np.float32),
        y=y.astype(np.float32),
        label=np.concatenate([labels[index].astype(np.int32), nothing]),
        weight=weight,
        box=box,
    )


def box_targets(boxes: np.ndarray, x: np.ndarray, y: np.ndarray, stride: int) -> np.ndarray:
    """What the regression of a cell's box is to say.

    Args:
        boxes: (n, 4) float, x1 y1 x2 y2 in pixels.
        x: (n,) centres of the cells in pixels.
        y: likewise.
        stride: side of a cell in pixels.

    Returns:
        (n, 4) float64: the centre's offset from the cell's, and the logarithm of width and height,
        all in cells.
    """
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    side = (boxes[:, 2:] - boxes[:, :2]).clip(1)
    offset = (centre - np.column_stack([x, y])) / stride
    return np.hstack([offset, np.log(side / stride)])


def boxes_from(targets: np.ndarray, x: np.ndarray, y: np.ndarray, stride: int) -> np.ndarray:
    """The boxes that targets stand for: (n, 4) x1 y1 x2 y2 in pixels; undoes ``box_targets``."""
    centre = np.column_stack([x, y]) + targets[:, :2] * stride
    half = np.exp(targets[:, 2:].clip(-8, 8)) * stride / 2
    return np.hstack([centre - half, centre + half])


def interpolate(
    maps: Sequence[Map], strides: Sequence[int], x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """What the maps of a picture say at some places, bilinearly; beyond the edge, as at the edge.

    Args:
        maps: (h, w, c) float32, one for each stride; tensors on any device.
        strides: of the maps in pixels.
        x: (n,) places in pixels.
        y: likewise.

    Returns:
        (n, sum of the c) float32.
    """
    parts = []
    for values, stride in zip(maps, strides, strict=True):
        tensor = torch.as_tensor(values)
        parts.append(_interpolate_one(tensor, stride, np.asarray(x), np.asarray(y)))
    return torch.cat(parts, dim=1).cpu().numpy()


def _interpolate_one(values: Tensor, stride: int, x: np.ndarray, y: np.ndarray) -> Tensor:
    rows, columns = values.shape[:2]
    across = (x / stride - 0.5).clip(0, columns - 1)
    down = (y / stride - 0.5).clip(0, rows - 1)
    left = np.floor(across).astype(np.int64)
    top = np.floor(down).astype(np.int64)
    right = np.minimum(left + 1, columns - 1)
    bottom = np.minimum(top + 1, rows - 1)
    corners = [
        row * columns + column
        for row, column in ((top, left), (top, right), (bottom, left), (bottom, right))
    ]
    place = torch.from_numpy(np.stack(corners)).to(values.device)
    shares = np.stack([across - left, down - top]).astype(np.float32)
    to_right, to_bottom = torch.from_numpy(shares).to(values.device)[:, :, None]
    flat = values.reshape(rows * columns, -1)
    above = torch.lerp(flat[place[0]], flat[place[1]], to_right)
    below = torch.lerp(flat[place[2]], flat[place[3]], to_right)
    return torch.lerp(above, below, to_bottom)
