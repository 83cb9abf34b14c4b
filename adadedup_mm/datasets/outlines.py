"""Perimeters and areas of objects, from masks where there are some and from boxes elsewhere."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
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
    parts: list[Outlines] = []
    # Which line of which dataset an object was first seen in.
    seen: dict[Hashable, tuple[int, int]] = {}
    with progress(len(pool), 'reading outlines') as bar:
        for number, source in enumerate(sources):
            if not source.labelled:
                continue
            if source.objects is not None:
                parts.append(_of_views(source.objects, source.samples))
                bar.update(len(source.samples))
            else:
                infos = stored_infos(read_again(config, source))
                parts.append(_of_images(infos, source, number, seen, bar.update))

    outlines = Outlines(
        sizes=np.concatenate([part.sizes for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        owner=np.concatenate([part.owner for part in parts]),
        masks=sum(part.masks for part in parts),
    )
    if not outlines.sizes.any():
        raise UserError(
            'the shapes of objects are to be scored, but no object of the training set has a mask '
            'or a box: use a strategy that asks a model'
        )

    return outlines


def _of_images(
    infos: Iterable[Mapping[str, Any]],
    source: Source,
    number: int,
    seen: dict[Hashable, tuple[int, int]],
    done: Callable[[], Any],
) -> Outlines:
    """The outlines of the objects in images; what another line of the image has shown counts once.

    Args:
        infos: of the dataset's lines.
        source: the dataset.
        number: its index.
        seen: the number of the dataset and the line of each object that came before.
        done: called after each line.
    """
    sizes: list[tuple[float, float]] = []
    labels: list[int] = []
    owner: list[int] = []
    masks = 0
    for line, info in enumerate(infos):
        sample = int(source.samples[line])
        for instance in counted_instances(info):
            label = instance['bbox_label']
            if source.relabel is not None:
                label = source.relabel[label]
            key = (sample, label, tuple(instance.get('bbox', ())))
            if seen.setdefault(key, (number, line)) != (number, line):
                continue
            masks += 'mask' in instance
            sizes.append(outline(instance))
            labels.append(label)
            owner.append(sample)

        done()

    return Outlines(
        sizes=np.array(sizes, np.float64).reshape(-1, 2),
        labels=np.array(labels, np.int32),
        owner=np.array(owner, np.int64),
        masks=masks,
    )


def _of_views(objects: ViewObjects, samples: np.ndarray) -> Outlines:
    """The outlines of the objects in the pictures of frames, which are the given samples."""
    pictures = (len(objects.offsets) - 1) // len(samples)
    sample_of_picture = np.repeat(samples, pictures)
    sizes = [_of_box(box) for box in objects.boxes.tolist()]
    return Outlines(
        sizes=np.array(sizes, np.float64).reshape(-1, 2),
        labels=objects.labels,
        owner=np.repeat(sample_of_picture, np.diff(objects.offsets)),
        masks=0,
    )


def outline(instance: Mapping[str, Any]) -> tuple[float, float]:
    """Perimeter and area of an instance as MMDetection stores it.

    Args:
        instance: its ``mask`` (polygons or RLE) counts, or else its ``bbox``.
    """
    contours = _contours(instance.get('mask'))
    if not contours:
        return _of_box(instance.get('bbox', ()))
    largest = max(contours, key=cv2.contourArea)
    perimeter = cv2.arcLength(largest, closed=True)
    return float(perimeter), float(cv2.contourArea(largest))


def _contours(mask: Any) -> list[np.ndarray]:
    """The outer contours of a mask: polygons, RLE or None."""
    if not isinstance(mask, Mapping):
        return [np.array(polygon, np.float32).reshape(-1, 1, 2) for polygon in mask or ()]
    from pycocotools import mask as coco_masks

    is_compressed = not isinstance(mask['counts'], list)
    rle = mask if is_compressed else coco_masks.frPyObjects(mask, *mask['size'])
    pixels = np.ascontiguousarray(coco_masks.decode(rle))
    contours, _ = cv2.findContours(pixels, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return list(contours)


def _of_box(box: Sequence[float]) -> tuple[float, float]:
    if len(box) != 4 or not np.isfinite(box).all():
        return 0.0, 0.0
    width = max(box[2] - box[0], 0)
    height = max(box[3] - box[1], 0)
    return 2.0 * (width + height), float(width * height)
