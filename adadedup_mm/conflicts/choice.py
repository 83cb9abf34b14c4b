"""Of copies whose labels contradict each other, the one that is rather right."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from .labels import Boxes, class_likeness
from .neighbours import Neighbours


def better_copies(
    copies: np.ndarray,
    agreeing: np.ndarray,
    boxes: Boxes,
    neighbours: Neighbours,
    names: Sequence[str],
) -> np.ndarray:
    """Which copy's labels are rather right than a sample's own.

    Copies that contradict each other, directly or by way of others, are a group. Its samples are
    ranked by the votes of their near-identical images (those whose labels agree less those that
    contradict), then by how far the most similar images outside the group show the same numbers of
    objects of each class, then by their number of objects, then by name. The first one is right,
    and so is everyone whom no right one contradicts.

    Args:
        copies: (P, 2) int64, pairs of samples that contradict each other, without repetition.
        agreeing: (A, 2) int64, pairs of near-identical samples whose labels agree, likewise.
        boxes: of all N samples.
        neighbours: of all samples.
        names: N different ones.

    Returns:
        (N,) int64, a right sample that contradicts each wrong one, the best one of several; -1 for
        right ones and those that are in no group.
    """
    samples = len(names)
    better = np.full(samples, -1, np.int64)
    votes = np.bincount(agreeing.ravel(), minlength=samples)
    votes -= np.bincount(copies.ravel(), minlength=samples)
    against = _partners(copies)
    for group in linked(copies):
        likeness = _likeness(group, boxes, neighbours)
        ranked = sorted(
            group,
            key=lambda sample: (
                -votes[sample],
                -likeness[sample],
                -len(boxes.of(sample)[0]),
                names[sample],
            ),
        )
        right: list[int] = []
        for sample in ranked:
            contradicting = [other for other in right if other in against[sample]]
            if contradicting:
                better[sample] = contradicting[0]
            else:
                right.append(sample)

    return better


def linked(pairs: np.ndarray) -> list[list[int]]:
    """The groups of numbers that pairs link, directly or by way of others; each in order.

    Args:
        pairs: (P, 2) int64.
    """
    partners = _partners(pairs)
    seen: set[int] = set()
    groups = []
    for start in sorted(partners):
        if start in seen:
            continue
        seen.add(start)
        group = [start]
        # Grows while it is gone through.
        for number in group:
            new = partners[number] - seen
            seen |= new
            group.extend(sorted(new))
        groups.append(sorted(group))

    return groups


def _partners(pairs: np.ndarray) -> dict[int, set[int]]:
    """What each number of some pairs is paired with."""
    partners: dict[int, set[int]] = defaultdict(set)
    for first, second in pairs.tolist():
        partners[first].add(second)
        partners[second].add(first)
    return partners


def _likeness(group: Sequence[int], boxes: Boxes, neighbours: Neighbours) -> dict[int, float]:
    """How far each sample of a group shows what its neighbours outside the group show, on average.

    They are the neighbours of any of its samples, the same for all; 0 without any.
    """
    around = np.unique(neighbours.nearest[group])
    around = np.setdiff1d(around[around >= 0], group).tolist()
    likeness = {}
    for sample in group:
        values = [class_likeness(boxes, sample, other) for other in around]
        likeness[sample] = round(float(np.mean(values)), 6) if values else 0.0
    return likeness
