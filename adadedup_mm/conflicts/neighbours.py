"""The samples that look most alike, found among those that are near to the same anchor."""

from typing import NamedTuple

import numpy as np

from ..vectors.nearest import BLOCK, QUERIES
from ..vectors.rows import (
    cluster_members,
    largest_first,
    read_in_passing,
    read_rows,
    run_parallel,
    slices,
    snap,
)

# A sample is looked for in the cells of so many anchors. Of the pairs with a cosine of .95 one in a
# thousand is missed with four, one in six with one (real sets of three kinds).
NEAR_ANCHORS = 4


class Neighbours(NamedTuple):
    """The k most similar samples of each of N samples, as far as they were looked for.

    Attributes:
        nearest: (N, k) int64, the most similar one first; -1 where there are fewer.
        similarity: (N, k) float32 cosines, multiples of 2**-20; NaN likewise.
    """

    nearest: np.ndarray
    similarity: np.ndarray


def find_neighbours(
    features: np.ndarray, generator: np.random.Generator, count: int, workers: int | None = None
) -> Neighbours:
    """Looks for the samples most similar to each one.

    About sqrt(N) random samples are anchors. A sample is compared with all those that have its
    nearest anchor among their four nearest: some N * sqrt(N) products, whatever the clusters of a
    run are. Samples with equal features always meet.

    Args:
        features: (N, d) float32 or float16, unit rows, in memory or memory-mapped; rows without a
            direction (zero, NaN) have no neighbours.
        generator: draws the anchors.
        count: k.
        workers: number of threads; None means as many as BLAS would use. No effect on the result.
    """
    samples = len(features)
    anchors = _anchors(features, generator)
    near = _near_anchors(features, anchors, workers)
    nearest = np.full((samples, count), -1, np.int64)
    similarity = np.full((samples, count), np.nan, np.float32)

    def compare(cell: np.ndarray) -> None:
        # The same anchor is never twice among a sample's nearest.
        members, place = np.divmod(cell, near.shape[1])
        rows, _ = read_rows(features, members)
        asking = np.flatnonzero(place == 0)
        for block in slices(len(asking), QUERIES):
            own = asking[block]
            found, cosines = _most_similar(rows, own, count)
            width = found.shape[1]
            nearest[members[own], :width] = members[found]
            similarity[members[own], :width] = cosines

    # Blank rows, which have no anchor, are the last cell.
    cells = cluster_members(np.where(near < 0, len(anchors), near).ravel())[: len(anchors)]
    for _ in read_in_passing(features, run_parallel(compare, largest_first(cells), workers)):
        pass
    return Neighbours(nearest, similarity)


def _anchors(features: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(A, d) float32, the features of about sqrt(N) random samples, none of them blank."""
    samples = len(features)
    wanted = round(samples**0.5)
    drawn = generator.choice(samples, min(samples, 4 * wanted), replace=False)
    rows, blank = read_rows(features, drawn)
    return rows[~blank][:wanted]


def _near_anchors(features: np.ndarray, anchors: np.ndarray, workers: int | None) -> np.ndarray:
    """(N, ``NEAR_ANCHORS``) int64, the nearest anchors, the first one first; -1 of blank rows.

    Args:
        features: (N, d).
        anchors: (A, d) float32 unit rows.
        workers: number of threads.
    """
    count = min(NEAR_ANCHORS, len(anchors))
    near = np.full((len(features), max(count, 1)), -1, np.int64)
    if not count:
        return near

    def look(block: slice) -> None:
        rows, is_blank = read_rows(features, np.arange(block.start, block.stop))
        cosines = snap(rows @ anchors.T)
        columns, _ = _highest(cosines, count)
        columns[is_blank] = -1
        near[block] = columns

    blocks = slices(len(features), BLOCK)
    for _ in read_in_passing(features, run_parallel(look, blocks, workers)):
        pass
    return near


def _most_similar(
    rows: np.ndarray, asking: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The ``count`` rows that are most similar to each asking one, itself left out.

    Args:
        rows: (n, d) float32, unit.
        asking: (q,) int64, which rows.
        count: fewer where there are fewer others.

    Returns:
        (q, c) int64 positions and (q, c) float32 cosines, see ``_highest``.
    """
    cosines = snap(rows[asking] @ rows.T)
    cosines[np.arange(len(asking)), asking] = -np.inf
    return _highest(cosines, min(count, len(rows) - 1))


def _highest(cosines: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The columns of the ``count`` highest values of each row, (n, count) int64, and these values.

    The highest one first, of equal ones the first. Which of several equal to the last one are among
    them is left to NumPy.
    """
    if not count:
        return np.empty((len(cosines), 0), np.int64), np.empty((len(cosines), 0), np.float32)
    columns = np.argpartition(cosines, -count, axis=1)[:, -count:]
    columns.sort(axis=1)
    values = np.take_along_axis(cosines, columns, axis=1)
    order = np.argsort(-values, axis=1, kind='stable')
    return np.take_along_axis(columns, order, axis=1), np.take_along_axis(values, order, axis=1)
