"""The pictures of a pool, which the probe looks at one by one: an image, or a camera of a frame."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..datasets.boxes import labelled_boxes
from ..datasets.sources import Source
from ..pool import Pool, choose_views


@dataclass(frozen=True)
class Pictures:
    """P pictures with their objects.

    Attributes:
        paths: P files.
        sample: (P,) int64, the sample that each is of.
        offsets: (P + 1,) int64; picture ``i`` owns rows ``offsets[i]:offsets[i + 1]`` of the rest.
        labels: (m,) int32, indices into the pool's classes.
        boxes: (m, 4) float32, x1 y1 x2 y2 in pixels of the picture.
    """

    paths: tuple[str, ...]
    sample: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)

    def objects(self, picture: int) -> tuple[np.ndarray, np.ndarray]:
        """(m, 4) boxes and (m,) labels of a picture."""
        own = slice(self.offsets[picture], self.offsets[picture + 1])
        return self.boxes[own], self.labels[own]


def pictures_of(pool: Pool, sources: Sequence[Source], views: str | list[str]) -> Pictures:
    """The pictures of the cameras that features are taken from, sample by sample.

    Objects without a box of at least a pixel are left out.

    Args:
        pool: the samples.
        sources: the datasets that they come from.
        views: see ``choose_views``.
    """
    columns = choose_views(pool.views, views)
    owner, kind, boxes, _ = labelled_boxes(pool, sources, views)
    labels = kind
    place = np.zeros(len(owner), np.int64)
    if sources[0].objects is not None:
        # Of frames, a kind is a pair of class and camera.
        labels, camera = np.divmod(kind, len(pool.views))
        place_of_camera = np.zeros(len(pool.views), np.int64)
        place_of_camera[columns] = np.arange(len(columns))
        place = place_of_camera[camera]

    sides = boxes[:, 2:] - boxes[:, :2]
    usable = np.isfinite(boxes).all(axis=1) & (sides >= 1).all(axis=1)
    picture = (owner * len(columns) + place)[usable]
    order = np.argsort(picture, kind='stable')
    count = len(pool) * len(columns)
    counts = np.bincount(picture, minlength=count)
    paths = []
    for views_of_sample in pool.image_paths:
        paths += [views_of_sample[column] for column in columns]

    return Pictures(
        paths=tuple(paths),
        sample=np.repeat(np.arange(len(pool)), len(columns)),
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        labels=labels[usable][order].astype(np.int32),
        boxes=boxes[usable][order],
    )
