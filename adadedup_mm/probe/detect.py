"""Boxes that linear heads find in a picture: class scores of all cells, boxes of the best ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional
from torchvision.ops import batched_nms

from .cells import Grid, boxes_from, interpolate

# Cells of a grid that get a box, as many as dense detectors keep per level before NMS at most.
CANDIDATES = 150
# Detections of a picture, as COCO counts them.
DETECTIONS = 100
LEAST_SCORE = 0.02
OVERLAP = 0.5


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
        self._weights = []
        for grid in range(len(grids)):
            side_by_side = np.concatenate([head.classes[grid] for head in heads], axis=1)
            weights = torch.from_numpy(side_by_side.astype(np.float32)).to(device)
            self._weights.append(weights.split([*self.channels, 1]))

    def __call__(self, maps: Sequence[np.ndarray], height: int, width: int) -> list[Detections]:
        """What each head finds.

        Args:
            maps: (h, w, c) float32, one for each stride.
            height: of the picture inside the network's input in pixels.
            width: likewise.
        """
        found: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in self.heads]
        for number, grid in enumerate(self.grids):
            scores = self._scores(number, maps, height, width)
            best_of_cell, _ = scores.max(dim=1)
            count = min(CANDIDATES, best_of_cell.shape[1])
            _, best = best_of_cell.topk(count, dim=1)
            columns = width // grid.stride
            for index, head in enumerate(self.heads):
                cell = best[index].cpu().numpy()
                x = (cell % columns + 0.5) * grid.stride
                y = (cell // columns + 0.5) * grid.stride
                features = with_constant(interpolate(maps, self.strides, x, y))
                boxes = boxes_from(features @ head.boxes[number], x, y, grid.stride)
                found[index].append((boxes, scores[index][:, best[index]].T.cpu().numpy()))

        return [_best(boxes_and_scores, height, width) for boxes_and_scores in found]

    def _scores(
        self, number: int, maps: Sequence[np.ndarray], height: int, width: int
    ) -> torch.Tensor:
        """(S, C, cells) scores on a grid.

        What is linear in interpolated maps is the interpolation of what is linear in them.
        """
        grid = self.grids[number]
        *weights, constant = self._weights[number]
        total = constant.reshape(-1, 1, 1)
        for values, stride, weight in zip(maps, self.strides, weights, strict=True):
            answers = torch.from_numpy(values).to(self.device) @ weight
            total = total + _resized(answers.permute(2, 0, 1), stride / grid.stride)

        rows, columns = height // grid.stride, width // grid.stride
        inside = total[:, :rows, :columns]
        classes = len(total) // len(self.heads)
        # Of a very flat picture there may be no cells.
        return inside.reshape(len(self.heads), classes, rows * columns)


def with_constant(features: np.ndarray) -> np.ndarray:
    """(n, D) with a last channel of ones: (n, D + 1)."""
    ones = np.ones((len(features), 1), features.dtype)
    return np.concatenate([features, ones], axis=1)


def _resized(answers: torch.Tensor, factor: float) -> torch.Tensor:
    """(A, h, w) at another size, as ``interpolate`` has it at the cells' centres."""
    if factor == 1:
        return answers
    resized = functional.interpolate(
        answers[None],
        scale_factor=factor,
        mode='bilinear',
        align_corners=False,
        recompute_scale_factor=False,
    )
    return resized[0]


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
