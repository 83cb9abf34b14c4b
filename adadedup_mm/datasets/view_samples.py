"""Frames taken apart: each camera's picture as a sample of a 2D detection dataset."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..base.files import atomic_open
from ..pool import Pool
from .frames import ViewObjects
from .sources import Source


def write_view_samples(
    pool: Pool,
    sources: Sequence[Source],
    columns: Sequence[int],
    chosen: np.ndarray,
    path: str | Path,
) -> dict[str, Any]:
    """Writes the pictures of some frames as mmengine's ``data_list`` json.

    Args:
        pool: N frames.
        sources: from ``read_pool``, all with ``objects``.
        columns: indices of the C cameras.
        chosen: (N,) bool, n of them.
        path: the file to write, atomically.

    Returns:
        The config of a dataset with n * C samples, frame by frame.
    """
    objects = [item for source in sources for item in _pictures(source)]
    records = []
    for i in np.flatnonzero(chosen):
        for column in columns:
            (height, width), labels, boxes = objects[i * len(pool.views) + column]
            instances = [
                dict(
                    bbox=box,
                    bbox_label=label,
                    ignore_flag=0,
                )
                for box, label in zip(boxes.tolist(), labels.tolist(), strict=True)
            ]
            records.append(
                dict(
                    img_path=pool.image_paths[i][column],
                    img_id=f'{pool.sample_ids[i]}/{column}',
                    height=int(height),
                    width=int(width),
                    instances=instances,
                )
            )

    with atomic_open(path, 'w') as file:
        json.dump(dict(metainfo=dict(classes=pool.classes), data_list=records), file)

    return dict(
        type='mmdet.BaseDetDataset',
        ann_file=str(Path(path).absolute()),
        metainfo=dict(classes=list(pool.classes)),
    )


def view_sizes(
    pool: Pool, sources: Sequence[Source], columns: Sequence[int], chosen: np.ndarray
) -> np.ndarray:
    """(n * C, 2) int32 height and width of the pictures that are written, 0 where unknown."""
    sizes = np.concatenate([_objects(source).sizes for source in sources])
    return sizes.reshape(len(pool), len(pool.views), 2)[chosen][:, list(columns)].reshape(-1, 2)


def view_objects(
    pool: Pool, sources: Sequence[Source], columns: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The m objects that the chosen cameras of all frames show, as ``layout_features`` takes them.

    Returns:
        owner: (m,) int64, index of the frame, ascending.
        kind: (m,) int64, a number for each pair of class and camera.
        boxes: (m, 4) float32 x1 y1 x2 y2 in pixels.
        sizes: (m, 2) int32, height and width of the object's picture.
    """
    shown = [_objects(source) for source in sources]
    counts = np.concatenate([np.diff(item.offsets) for item in shown])
    picture = np.repeat(np.arange(len(counts)), counts)
    owner, view = np.divmod(picture, len(pool.views))
    chosen = np.isin(view, columns)
    kind = np.concatenate([item.labels for item in shown]).astype(np.int64) * len(pool.views) + view
    sizes = np.concatenate([item.sizes for item in shown])[picture]

    return (
        owner[chosen],
        kind[chosen],
        np.concatenate([item.boxes for item in shown])[chosen],
        sizes[chosen],
    )


def _objects(source: Source) -> ViewObjects:
    if source.objects is None:
        raise TypeError('plain images have no views')
    return source.objects


def _pictures(source: Source) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Size, labels and boxes of each picture."""
    objects = _objects(source)
    inner = objects.offsets[1:-1]
    return list(
        zip(
            objects.sizes,
            np.split(objects.labels, inner),
            np.split(objects.boxes, inner),
            strict=True,
        )
    )
