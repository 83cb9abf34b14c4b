"""The objects of a dataset's samples that a training counts."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..base.progress import progress
from .building import BadRecord, record_name

_NO_BOX = (np.nan,) * 4


def take_objects(infos: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Objects per sample (n,) int64, their labels (m,) int32, and their boxes (m, 4) float32.

    Raises:
        BadRecord: a sample's objects are not what they should be.
    """
    labels, boxes, ends = [], [], []
    with progress(len(infos), 'reading samples') as bar:
        for position, info in enumerate(infos):
            try:
                for instance in counted_instances(info):
                    labels.append(instance['bbox_label'])
                    box = instance.get('bbox', ())
                    boxes.append(box if len(box) == 4 else _NO_BOX)
            except (AttributeError, TypeError, ValueError) as error:
                raise BadRecord(record_name(info, position)) from error

            ends.append(len(labels))
            bar.update()

    with np.errstate(over='ignore'):
        coordinates = np.array(boxes, np.float32).reshape(-1, 4)

    coordinates[~np.isfinite(coordinates).all(axis=1)] = np.nan

    return np.diff(ends, prepend=0), _whole(labels, 'bbox_label'), coordinates


def counted_instances(info: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The objects of a sample that training does not ignore.

    Each label of a classified image is one without box.
    """
    if 'gt_label' in info:
        for label in np.atleast_1d(info['gt_label']):
            yield dict(bbox_label=int(label))

    for instance in info.get('instances') or ():
        has_label = instance.get('bbox_label', -1) >= 0
        if has_label and not instance.get('ignore_flag'):
            yield instance


def image_sizes(infos: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """(n, 2) int32 height and width, 0 where unknown."""
    sizes = [(info.get('height') or 0, info.get('width') or 0) for info in infos]
    return _whole(sizes, 'height or width').reshape(-1, 2)


def _whole(values: Sequence[Any], name: str) -> np.ndarray:
    """The values as int32; raises ValueError for what is below 0, no whole number or too large."""
    array = np.asarray(values, np.float64)
    is_whole = array == np.floor(array)
    fits = (array >= 0) & (array < 2**31)
    wrong = array[~(is_whole & fits)]
    if len(wrong):
        raise ValueError(f'{name} is {wrong[0]:g}')
    return array.astype(np.int32)


def count_ignored(infos: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """How many objects the samples have, and how many of them have ``ignore_flag``."""
    objects = 0
    ignored = 0
    for info in infos:
        for instance in info.get('instances') or ():
            objects += 1
            ignored += bool(instance.get('ignore_flag'))
    return objects, ignored
