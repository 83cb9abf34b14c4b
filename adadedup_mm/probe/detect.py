"""Boxes that linear heads find in a picture: class scores of all cells, boxes of the best ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import batched_nms

from .cells import Grid, Map, boxes_from

# Cells of a grid that get a box, as many as dense detectors keep per level before NMS at most.
CANDIDATES = 150
# Detections of a picture, as COCO counts them.
DETECTIONS = 100
LEAST_SCORE = 0.02
OVERLAP = 0.5
# What heads say of all cells of a grid that is held in memory at a time, in bytes.
_MEMORY = 2**25


@dataclass(frozen=True)
class Head:
    """What was learned from the cells of one set of samples, grid by grid.

    Attributes:
        classes: of each grid (D, C) float32; the last of the D channels is the constant one.
        boxes: of each grid (D, 4) float32, see ``box_targets``.
    """

    classes: tuple[np.ndarray, ...]
    boxes: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Detections:
    """n detections in a picture, the best first.

    Attributes:
        boxes: (n, 4) float32, x1 y1 x2 y2 in pixels of the network's input.
        scores: (n,) float32.
        labels: (n,) int64.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


class Detector:
    """Several heads side by side, so that a picture's maps are looked at once for all of them.

    Args:
        heads: S of them, of the same grids and classes.
        grids: G of them.
        channels: of each map.
        strides: of each map in pixels.
        device: of torch.
    """

    def __init__(
        self,
        heads: Sequence[Head],
        grids: Sequence[Grid],
        channels: Sequence[int],
        strides: Sequence[int],
        device: str = 'cpu',
    ) -> None:
        self.heads = heads
        self.grids = grids
        self.channels = list(channels)
        self.strides = strides
        self.device = device
        self._classes = heads[0].classes[0].shape[1]
        self._weights = [self._side_by_side(grid) for grid in range(len(grids))]

    def _side_by_side(self, grid: int) -> Tensor:
        """(S, D, C + 4) float32, what the heads say of classes and of boxes."""
        heads = [np.hstack([head.classes[grid], head.boxes[grid]]) for head in self.heads]
        return torch.from_numpy(np.stack(heads).astype(np.float32)).to(self.device)

    def __call__(self, maps: Sequence[Map], height: int, width: int) -> list[Detections]:
        """What each head finds.

        Args:
            maps: (h, w, c) float32, one for each stride.
            height: of the picture inside the network's input in pixels.
            width: likewise.
        """
        on_device = [torch.as_tensor(values).to(self.device) for values in maps]
        found: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in self.heads]
        for number, grid in enumerate(self.grids):
            rows, columns = height // grid.stride, width // grid.stride
            of_head = 4 * rows * columns * (self._classes + 4)
            at_once = max(1, _MEMORY // max(1, of_head))
            for start in range(0, len(self.heads), at_once):
                weights = self._weights[number][start : start + at_once]
                cells, answers = self._candidates(on_device, weights, grid, rows, columns)
                x = (cells % columns + 0.5) * grid.stride
                y = (cells // columns + 0.5) * grid.stride
                for index in range(len(cells)):
                    boxes = boxes_from(
                        answers[index, :, self._classes :], x[index], y[index], grid.stride
                    )
                    found[start + index].append((boxes, answers[index, :, : self._classes]))

        return [_best(boxes_and_scores, height, width) for boxes_and_scores in found]

    def _candidates(
        self, maps: Sequence[Tensor], weights: Tensor, grid: Grid, rows: int, columns: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best cells of a grid for each of some heads: (S, n), and (S, n, C + 4) answers."""
        answers = self._answers(maps, weights, grid, rows, columns)
        best_of_cell = answers[:, :, : self._classes].amax(dim=2)
        count = min(CANDIDATES, len(best_of_cell))
        _, cells = best_of_cell.topk(count, dim=0)
        chosen = answers[cells, torch.arange(len(weights), device=cells.device)]
        return cells.T.cpu().numpy(), chosen.permute(1, 0, 2).cpu().numpy()

    def _answers(
        self, maps: Sequence[Tensor], weights: Tensor, grid: Grid, rows: int, columns: int
    ) -> Tensor:
        """(cells, S, C + 4) what (S, D, C + 4) weights say of all cells of a grid.

        What is linear in interpolated maps is the interpolation of what is linear in them, so
        whichever has fewer cells comes first: finer maps are interpolated, coarser ones multiplied.
        """
        side_by_side = weights.permute(1, 0, 2).flatten(1)
        *of_maps, constant = side_by_side.split([*self.channels, 1])
        total = constant.repeat(rows, columns, 1)
        for values, stride, weight in zip(maps, self.strides, of_maps, strict=True):
            factor = stride / grid.stride
            if factor <= 1:
                seen = _resized(values, factor, rows, columns)
                total += seen @ weight
            else:
                total += _resized(values @ weight, factor, rows, columns)

        return total.reshape(rows * columns, len(weights), weights.shape[2])


def with_constant(features: np.ndarray) -> np.ndarray:
    """(n, D) with a last channel of ones: (n, D + 1)."""
    ones = np.ones((len(features), 1), features.dtype)
    return np.concatenate([features, ones], axis=1)


def _resized(values: Tensor, factor: float, rows: int, columns: int) -> Tensor:
    """(rows, columns, A) of (h, w, A) values, as ``interpolate`` has it at the cells' centres.

    Args:
        values: of a map.
        factor: cells of the grid per cell of the map.
        rows: of the grid.
        columns: likewise.
    """
    if factor == 1:
        return values[:rows, :columns]
    # Of the two directions the last one has the most to do, and rows are read in one go.
    across = _stretched(values, factor, columns, dim=1)
    return _stretched(across, factor, rows, dim=0)


def _stretched(values: Tensor, factor: float, count: int, dim: int) -> Tensor:
    """Linear interpolation along a dimension; torch's own is ten times as slow on a CPU."""
    last = values.shape[dim] - 1
    place = (torch.arange(count, device=values.device) + 0.5) / factor - 0.5
    place = place.clamp(0, last)
    low = place.long()
    high = (low + 1).clamp(max=last)
    share = (place - low).reshape([-1 if axis == dim else 1 for axis in range(values.ndim)])
    return torch.lerp(values.index_select(dim, low), values.index_select(dim, high), share)


def _best(
    boxes_and_scores: Sequence[tuple[np.ndarray, np.ndarray]], height: int, width: int
) -> Detections:
    """What is left of the candidates of all grids after non-maximum suppression."""
    boxes = np.concatenate([boxes for boxes, _ in boxes_and_scores])
    scores = np.concatenate([scores for _, scores in boxes_and_scores])
    boxes = boxes.clip(0, [width, height, width, height])
    cell, label = np.nonzero(scores > LEAST_SCORE)
    candidates = torch.from_numpy(boxes[cell].astype(np.float32))
    certainty = torch.from_numpy(scores[cell, label].astype(np.float32))
    kept = batched_nms(candidates, certainty, torch.from_numpy(label), OVERLAP).numpy()
    kept = kept[:DETECTIONS]

    return Detections(candidates.numpy()[kept], certainty.numpy()[kept], label[kept])
