"""The samples that a training set offers: what every stage works on."""

import sys
from dataclasses import dataclass, field

import numpy as np

from ..base.files import sha256_items, sha256_value


@dataclass(frozen=True)
class Pool:
    """N samples in the order of the user's training dataset, as plain arrays.

    A sample is what one index of the training dataset yields: an image, or a frame with all its
    cameras. M is the number of annotated objects over all samples; sample ``i`` owns rows
    ``offsets[i]:offsets[i + 1]`` of ``labels`` and ``boxes``.

    Attributes:
        sample_ids: N unique strings. With several inner datasets they start with the dataset's
            index: ``'1:000042'``.
        image_paths: N tuples of V paths, in the order of ``views``; empty ones for images that are
            no files.
        views: V camera names; ``('image',)`` for plain images.
        image_sizes: (N, 2) int32, height and width in pixels of the first view, 0 where the
            annotations do not say.
        classes: names of the C classes.
        offsets: (N + 1,) int64.
        labels: (M,) int32, indices into ``classes``.
        boxes: (M, 4) float32, x1 y1 x2 y2 in pixels of the first view; NaN where there is no 2D
            box.
        dataset_index: (N,) int32, which inner dataset a sample comes from.
        scenes: N scene names, or None where the dataset knows none.
        labelled: (N,) bool, whether the training knows what a sample shows; samples of which it
            does not have no objects here. All are unless it is given.
        notes: what users should know about their training set, a line each.
    """

    sample_ids: tuple[str, ...]
    image_paths: tuple[tuple[str, ...], ...]
    views: tuple[str, ...]
    image_sizes: np.ndarray
    classes: tuple[str, ...]
    offsets: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    dataset_index: np.ndarray
    scenes: tuple[str, ...] | None = None
    labelled: np.ndarray = field(default_factory=lambda: np.empty(0, bool))
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.labelled) != len(self.sample_ids):
            object.__setattr__(self, 'labelled', np.ones(len(self.sample_ids), bool))

    def __len__(self) -> int:
        return len(self.sample_ids)

    @property
    def has_several_scenes(self) -> bool:
        """Whether samples are known to belong to different scenes."""
        return self.scenes is not None and len(set(self.scenes)) > 1


def pool_key(pool: Pool) -> str:
    """Hash of everything a pool says about its samples."""
    arrays = [pool.offsets, pool.labels, pool.boxes]
    if not pool.labelled.all():
        arrays.append(pool.labelled)
    hashes = map(sha256_items, arrays)
    return sha256_value([pool.sample_ids, pool.image_paths, pool.classes, pool.scenes, *hashes])


def print_notes(pool: Pool) -> None:
    """Prints what users should know about their training set, as warnings."""
    for note in pool.notes:
        print(f'warning: {note}', file=sys.stderr)
