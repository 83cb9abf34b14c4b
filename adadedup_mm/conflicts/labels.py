"""What the labelled boxes of two pictures of the same thing say that the other one does not."""

from typing import NamedTuple

import numpy as np

# What a contradiction is about: a class, a box that only one of the two has, or where a box is.
KINDS = ('class', 'missing', 'place')
# Intersection over union from which two boxes are about the same object.
SAME_BOX = 0.5
# Below it they have nothing to do with each other.
NEAR_BOX = 0.1
# Boxes are drawn by hand: so much of a picture's side is added to all sides of a box before it is
# compared, which matters for the smallest ones only.
SLACK = 0.004


class Boxes(NamedTuple):
    """The labelled boxes of N pictures, in shares of their width and height.

    Attributes:
        offsets: (N + 1,) int64; picture i has the rows ``offsets[i]:offsets[i + 1]``.
        labels: (M,) int32.
        places: (M, 4) float32 x1 y1 x2 y2, from 0 to 1.
    """

    offsets: np.ndarray
    labels: np.ndarray
    places: np.ndarray

    def of(self, picture: int) -> tuple[np.ndarray, np.ndarray]:
        """(m,) labels and (m, 4) places of one picture."""
        rows = slice(self.offsets[picture], self.offsets[picture + 1])
        return self.labels[rows], self.places[rows]


class Contradiction(NamedTuple):
    """A box that one of two pictures has and the other has not, or not so.

    Attributes:
        kind: index into ``KINDS``.
        box_a: which box of the first picture; -1 where it has none there.
        box_b: of the second one, likewise.
    """

    kind: int
    box_a: int
    box_b: int


def overlaps(places_a: np.ndarray, places_b: np.ndarray) -> np.ndarray:
    """(a, b) float64 intersections over unions of boxes, each enlarged by ``SLACK``.

    Args:
        places_a: (a, 4) x1 y1 x2 y2 in shares of the picture.
        places_b: (b, 4) likewise.
    """
    grow = np.array([-SLACK, -SLACK, SLACK, SLACK])
    first = (places_a.astype(np.float64) + grow)[:, None]
    second = (places_b.astype(np.float64) + grow)[None]
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(
        first[..., :2], second[..., :2]
    )
    shared = sides.clip(0).prod(axis=-1)
    area_a = (first[..., 2:] - first[..., :2]).clip(0).prod(axis=-1)
    area_b = (second[..., 2:] - second[..., :2]).clip(0).prod(axis=-1)
    return shared / np.maximum(area_a + area_b - shared, 1e-12)


def compare_labels(boxes: Boxes, first: int, second: int) -> list[Contradiction]:
    """What the labels of two pictures say that those of the other one do not.

    A box agrees with the other picture if that has one of the same class with an intersection over
    union of ``SAME_BOX``. Among those that do not, one of another class there is a contradiction in
    ``class``, one of the same class that overlaps a little one in ``place``, and none at all a
    ``missing`` one.

    Args:
        boxes: of all pictures.
        first: index of a picture.
        second: of another one.
    """
    labels_a, places_a = boxes.of(first)
    labels_b, places_b = boxes.of(second)
    overlap = overlaps(places_a, places_b)
    is_same_class = labels_a[:, None] == labels_b[None]
    agrees = is_same_class & (overlap >= SAME_BOX)
    alone_a = ~agrees.any(axis=1)
    alone_b = ~agrees.any(axis=0)
    # How much is between two boxes that have nothing better.
    swapped = np.where(~is_same_class & (overlap >= SAME_BOX), overlap, 0)
    moved = np.where(is_same_class & (overlap >= NEAR_BOX), overlap, 0)
    for between in (swapped, moved):
        between[~alone_a] = 0
        between[:, ~alone_b] = 0

    found = []
    told = np.zeros(len(labels_b), bool)
    for box in np.flatnonzero(alone_a).tolist():
        kind, other = _counterpart(swapped[box], moved[box])
        found.append(Contradiction(kind, box, other))
        if other >= 0:
            told[other] = True

    for box in np.flatnonzero(alone_b & ~told).tolist():
        kind, other = _counterpart(swapped[:, box], moved[:, box])
        found.append(Contradiction(kind, other, box))

    return found


def _counterpart(swapped: np.ndarray, moved: np.ndarray) -> tuple[int, int]:
    """The kind of the contradiction, and the other picture's box that it is about, -1 for none.

    Args:
        swapped: (b,) overlaps of a box with those of another class in its place, otherwise 0.
        moved: (b,) with those of its class beside it, likewise.
    """
    if swapped.any():
        return KINDS.index('class'), int(swapped.argmax())
    if moved.any():
        return KINDS.index('place'), int(moved.argmax())
    return KINDS.index('missing'), -1


def class_likeness(boxes: Boxes, first: int, second: int) -> float:
    """How far two pictures show the same numbers of objects of each class, in [0, 1].

    Twice the objects that they have in common by class over all of them (Dice 1945); 1 where
    neither has any.
    """
    labels_a, _ = boxes.of(first)
    labels_b, _ = boxes.of(second)
    classes = max(labels_a.max(initial=0), labels_b.max(initial=0)) + 1
    counts_a = np.bincount(labels_a, minlength=classes)
    counts_b = np.bincount(labels_b, minlength=classes)
    total = len(labels_a) + len(labels_b)
    if not total:
        return 1.0
    return float(2 * np.minimum(counts_a, counts_b).sum() / total)
