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
        without = _without_blocks(evaluated, blocks)
        return Precision(_mean(table), _mean(table[0]), per_class, without)

    def _evaluate(self, detections: Sequence[Detections]) -> COCOeval:
        rows = [_coco_rows(picture, found) for picture, found in enumerate(detections)]
        if not sum(map(len, rows)):
            rows = [_NOTHING]
        with contextlib.redirect_stdout(io.StringIO()):
            results = self.coco.loadRes(np.concatenate(rows))
            evaluation = _Evaluation(self.coco, results, 'bbox')
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


class _Evaluation(COCOeval):
    """pycocotools' own, without the work on classes of pictures that have no objects there."""

    def computeIoU(self, imgId: int, catId: int) -> Any:
        if not self._gts.get((imgId, catId)) or not self._dts.get((imgId, catId)):
            return []
        return super().computeIoU(imgId, catId)

    def evaluateImg(
        self,
        imgId: int,
        catId: int,
        aRng: Sequence[float],
        maxDet: int,
    ) -> dict[str, Any] | None:
        if self._gts.get((imgId, catId)):
            return super().evaluateImg(imgId, catId, aRng, maxDet)
        found = self._dts.get((imgId, catId))
        if not found:
            return None
        best = sorted(found, key=lambda item: -item['score'])[:maxDet]
        no = np.zeros((len(self.params.iouThrs), len(best)), bool)
        is_outside = [not aRng[0] <= item['area'] <= aRng[1] for item in best]
        return dict(
            image_id=imgId,
            dtScores=[item['score'] for item in best],
            dtMatches=no,
            dtIgnore=no | is_outside,
            gtIgnore=np.empty(0),
        )


def _precision_table(evaluation: COCOeval) -> np.ndarray:
    """(10 overlaps, 101 recalls, C classes), -1 where there is nothing to find."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
    return evaluation.eval['precision'][:, :, :, 0, -1]


def _without_blocks(evaluation: COCOeval, blocks: Sequence[np.ndarray]) -> np.ndarray:
    """(B,) float64, AP50 without each block of pictures, as pycocotools has it for the others.

    Detections are sorted once for all blocks.
    """
    pictures = len(evaluation.params.imgIds)
    values = []
    for label in range(len(evaluation.params.catIds)):
        of_class = evaluation.evalImgs[label * pictures : (label + 1) * pictures]
        found = [item for item in of_class if item is not None]
        values.append(_class_without_blocks(found, blocks, pictures, evaluation.params.recThrs))
    if not blocks:
        return np.empty(0)
    means = _mean_where_known(np.array(values), axis=(0,))
    return np.nan_to_num(means)


def _class_without_blocks(
    found: Sequence[dict[str, Any]],
    blocks: Sequence[np.ndarray],
    pictures: int,
    recalls: np.ndarray,
) -> list[float]:
    """The AP50 of a class without each block, -1 where there is nothing to find."""
    if not found:
        return [-1.0] * len(blocks)
    picture = np.array([item['image_id'] for item in found])
    objects = np.array([len(item['gtIgnore']) for item in found])
    scores = np.concatenate([item['dtScores'] for item in found])
    is_hit = np.concatenate([item['dtMatches'][0] for item in found]) > 0
    is_ignored = np.concatenate([item['dtIgnore'][0] for item in found])
    best_first = np.argsort(-scores, kind='stable')
    best_first = best_first[~is_ignored[best_first]]
    is_hit = is_hit[best_first]
    picture_of_hit = np.repeat(picture, [len(item['dtScores']) for item in found])[best_first]
    results = []
    for block in blocks:
        counts = np.ones(pictures, bool)
        counts[block] = False
        total = int(objects[counts[picture]].sum())
        results.append(_average_precision(is_hit[counts[picture_of_hit]], total, recalls))
    return results


def _average_precision(is_hit: np.ndarray, objects: int, recalls: np.ndarray) -> float:
    """Mean precision at the given recalls, interpolated as COCO does; -1 without objects.

    Args:
        is_hit: (n,) bool, whether detections found an object, the best first.
        objects: how many there are to find.
        recalls: rising.
    """
    if not objects:
        return -1.0
    hits = np.cumsum(is_hit)
    precision = hits / np.arange(1, len(hits) + 1)
    from_here_on = np.maximum.accumulate(precision[::-1])[::-1]
    first = np.searchsorted(hits / objects, recalls)
    return float(np.append(from_here_on, 0.0)[first].mean())


def _mean(table: np.ndarray) -> float:
    known = table[table > -1]
    return float(known.mean()) if known.size else 0.0


def _mean_where_known(table: np.ndarray, axis: tuple[int, ...]) -> np.ndarray:
    known = table > -1
    count = known.sum(axis=axis)
    total = np.where(known, table, 0).sum(axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
