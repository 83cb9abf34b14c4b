"""Average precision of boxes, for all scenes and with each block of scenes left out."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from .detect import Detections

# pycocotools wants one detection at least: a point that is no object.
_NOTHING = np.zeros((1, 7))


@dataclass(frozen=True)
class Precision:
    """COCO's average precision.

    Attributes:
        ap: mean over classes and overlaps of .5 to .95; 0 where there is nothing to find.
        ap50: at an overlap of .5.
        by_class: (C,) float64 AP, NaN for a class without objects.
        without: (B,) float64, AP50 without each block of pictures; empty without blocks.
    """

    ap: float
    ap50: float
    by_class: np.ndarray
    without: np.ndarray


class Truth:
    """The objects in P pictures, which detections are compared with.

    Args:
        boxes: of each picture (m, 4) float32, x1 y1 x2 y2 in pixels.
        labels: of each picture (m,) int32.
        classes: number of classes.
    """

    def __init__(
        self, boxes: Sequence[np.ndarray], labels: Sequence[np.ndarray], classes: int
    ) -> None:
        self.pictures = len(boxes)
        self.classes = classes
        annotations: list[dict[str, Any]] = []
        for picture, (own_boxes, own_labels) in enumerate(zip(boxes, labels, strict=True)):
            sides = own_boxes[:, 2:] - own_boxes[:, :2]
            corner_and_sides = np.hstack([own_boxes[:, :2], sides]).tolist()
            for box, label in zip(corner_and_sides, own_labels.tolist(), strict=True):
                annotation = dict(
                    id=len(annotations) + 1,
                    image_id=picture,
                    category_id=label,
                    bbox=box,
                    area=box[2] * box[3],
                    iscrowd=0,
                )
                annotations.append(annotation)

        coco = COCO()
        coco.dataset = dict(
            images=[dict(id=picture) for picture in range(self.pictures)],
            categories=[dict(id=label) for label in range(classes)],
            annotations=annotations,
        )
        with contextlib.redirect_stdout(io.StringIO()):
            coco.createIndex()
        self.coco = coco

    def precision(
        self, detections: Sequence[Detections], blocks: Sequence[np.ndarray] = ()
    ) -> Precision:
        """How good detections are, by pycocotools.

        Args:
            detections: of each picture, with boxes in its pixels.
            blocks: B groups of pictures, as indices.
        """
        evaluated = self._evaluate(detections)
        table = _precision_table(evaluated)
        per_class = _mean_where_known(table, axis=(0, 1))
        without = []
        for block in blocks:
            rest = np.setdiff1d(np.arange(self.pictures), block)
            without.append(_mean(_precision_table(evaluated, rest)[0]))

        return Precision(_mean(table), _mean(table[0]), per_class, np.array(without))

    def _evaluate(self, detections: Sequence[Detections]) -> COCOeval:
        rows = [_coco_rows(picture, found) for picture, found in enumerate(detections)]
        if not sum(map(len, rows)):
            rows = [_NOTHING]
        with contextlib.redirect_stdout(io.StringIO()):
            results = self.coco.loadRes(np.concatenate(rows))
            evaluation = COCOeval(self.coco, results, 'bbox')
            evaluation.params.areaRng = evaluation.params.areaRng[:1]
            evaluation.params.areaRngLbl = evaluation.params.areaRngLbl[:1]
            evaluation.params.maxDets = [100]
            evaluation.evaluate()
        return evaluation


def _coco_rows(picture: int, found: Detections) -> np.ndarray:
    """(n, 7) image, box as x y w h, score, category: what ``loadRes`` takes."""
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    image = np.full(len(found.boxes), picture)
    return np.column_stack([image, found.boxes[:, :2], sides, found.scores, found.labels])


def _precision_table(evaluation: COCOeval, pictures: np.ndarray | None = None) -> np.ndarray:
    """(10 overlaps, 101 recalls, C classes), -1 where there is nothing to find.

    pycocotools accumulates over the first pictures only; its own table is made of those given.
    """
    parameters = evaluation.params
    everything = evaluation.evalImgs
    count = len(parameters.imgIds)
    try:
        if pictures is not None:
            chosen = []
            for label in range(len(parameters.catIds)):
                chosen += [everything[label * count + picture] for picture in pictures]
            evaluation.evalImgs = chosen
            evaluation._paramsEval.imgIds = evaluation._paramsEval.imgIds[: len(pictures)]
            parameters.imgIds = parameters.imgIds[: len(pictures)]
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation.accumulate()
    finally:
        evaluation.evalImgs = everything
        parameters.imgIds = list(range(count))
        evaluation._paramsEval.imgIds = list(range(count))
    return evaluation.eval['precision'][:, :, :, 0, -1]


def _mean(table: np.ndarray) -> float:
    known = table[table > -1]
    return float(known.mean()) if known.size else 0.0


def _mean_where_known(table: np.ndarray, axis: tuple[int, ...]) -> np.ndarray:
    known = table > -1
    count = known.sum(axis=axis)
    total = np.where(known, table, 0).sum(axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
