"""Perimeters and areas of the objects of a training set, from masks where there are some and from boxes elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config

from ..base.errors import UserError
from ..base.progress import progress
from ..pool import Pool
from .building import read_again
from .frames import ViewObjects
from .objects import counted_instances
from .samples import stored_infos
from .sources import Source


@dataclass(frozen=True)
class Outlines:
    """The outlines of m objects: those of the pool, or for frames those in all of their pictures.

    Attributes:
        sizes: (m, 2) float64, perimeter in pixels and area in pixels squared; 0 for objects without
            outline.
        labels: (m,) int32, indices into the pool's classes.
        owner: (m,) int64, index of the sample.
        masks: how many objects have a mask.
    """

    sizes: np.ndarray
    labels: np.ndarray
    owner: np.ndarray
    masks: int


def read_outlines(config: Config, sources: Sequence[Source], pool: Pool) -> Outlines:
    """Reads the outlines of all objects that training does not ignore.

    Of a mask in several parts the outer contour of the largest counts, as in TFDP.

    Args:
        config: the training config.
        sources: from ``read_pool``.
        pool: from ``read_pool``.

    Raises:
        UserError: no object has an outline.
    """
    parts, masks = [], 0
    seen: dict[Any, tuple[int, int]] = {}
    with progress(len(pool), 'reading outlines') as bar:
        for number, source in enumerate(sources):
            if not source.labelled:
                continue
            if source.objects is not None:
                parts.append(_of_views(source.objects, source.samples))
                bar.update(len(source.samples))
                continue
            found = []
            for line, info in enumerate(stored_infos(read_again(config, source))):
                sample = int(source.samples[line])
                for instance in counted_instances(info):
                    label = instance['bbox_label']
                    label = label if source.relabel is None else source.relabel[label]
                    # What another line of the image has shown counts once.
                    key = sample, label, tuple(instance.get('bbox', ()))
                    if seen.setdefault(key, (number, line)) == (number, line):
                        masks += 'mask' in instance
                        found.append((*outline(instance), label, sample))
                bar.update()
            rows = np.array(found, np.float64).reshape(-1, 4)
            parts.append((rows[:, :2], rows[:, 2].astype(np.int32), rows[:, 3].astype(np.int64)))
    sizes, labels, owner = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    if not sizes.any():
        raise UserError(
            'strategy tfdp scores the shapes of objects, but no object of the training set has a '
            'mask or a box: use el2n, grand, forgetting or loss_topk'
        )
    return Outlines(sizes, labels, owner, masks)


def _of_views(
    objects: ViewObjects, samples: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    pictures = (len(objects.offsets) - 1) // len(samples)
    sizes = np.array([_of_box(box) for box in objects.boxes.tolist()], np.float64).reshape(-1, 2)
    return sizes, objects.labels, np.repeat(np.repeat(samples, pictures), np.diff(objects.offsets))


def outline(instance: Mapping[str, Any]) -> tuple[float, float]:
    """Perimeter and area of an instance as MMDetection stores it: its ``mask`` (polygons or RLE), else its ``bbox``."""
    mask = instance.get('mask')
    if isinstance(mask, Mapping):
        from pycocotools import mask as coco_masks

        pixels = np.ascontiguousarray(coco_masks.decode(_compressed(mask)))
        contours = list(cv2.findContours(pixels, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0])
    else:
        contours = [np.array(polygon, np.float32).reshape(-1, 1, 2) for polygon in mask or ()]
    if not contours:
        return _of_box(instance.get('bbox', ()))
    largest = max(contours, key=cv2.contourArea)
    return float(cv2.arcLength(largest, True)), float(cv2.contourArea(largest))


def _compressed(mask: Mapping[str, Any]) -> Any:
    from pycocotools import mask as coco_masks

    return coco_masks.frPyObjects(mask, *mask['size']) if isinstance(mask['counts'], list) else mask


def _of_box(box: Sequence[float]) -> tuple[float, float]:
    if len(box) != 4 or not np.isfinite(box).all():
        return 0.0, 0.0
    width, height = max(box[2] - box[0], 0), max(box[3] - box[1], 0)
    return 2.0 * (width + height), float(width * height)
