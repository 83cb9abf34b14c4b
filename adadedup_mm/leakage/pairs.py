"""Exact search for similar rows of two feature matrices."""

from dataclasses import dataclass

import numpy as np

from ..base.progress import progress
from ..vectors.rows import read_rows, run_parallel, snap

QUERIES = 384
CHUNK = 4096


@dataclass(frozen=True)
class Pairs:
    """P similar pairs of Q queries and N anchors.

    Attributes:
        query: (P,) int64, ascending; the pairs of a query by falling similarity, then by anchor.
        anchor: (P,) int64.
        similarity: (P,) float32, multiples of 2**-20.
        matches: (Q,) int64, how many anchors are similar to each query, those that ``most`` cut off
            included.
        nearest: (Q,) float32, similarity to the most similar anchor of all; NaN for queries without
            a direction.
    """

    query: np.ndarray
    anchor: np.ndarray
    similarity: np.ndarray
    matches: np.ndarray
    nearest: np.ndarray


def similar_pairs(
    queries: np.ndarray,
    anchors: np.ndarray,
    threshold: float,
    most: int = 5,
    workers: int | None = None,
) -> Pairs:
    """All pairs at least as similar as the threshold, the ``most`` similar ones of each query.

    Compares everything with everything, block by block. Rows without a direction (zero or NaN)
    resemble nothing.

    Args:
        queries: (Q, d) float32 or float16.
        anchors: (N, d) float32 or float16, in memory or memory-mapped.
        threshold: above 0.
        most: pairs of a query at most.
        workers: number of threads; None means as many as BLAS would use. No effect on the result.
    """
    rows, blank = read_rows(queries, np.arange(len(queries)))
    starts = list(range(0, len(rows), QUERIES))
    found = {
        start: (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
        for start in starts
    }
    matches = np.zeros(len(rows), np.int64)
    nearest = np.full(len(rows), -1, np.float32)

    def compare(start: int) -> None:
        block = slice(start, start + QUERIES)
        tile = snap(rows[block] @ chunk.T)
        np.maximum(nearest[block], tile.max(1), out=nearest[block])
        query, column = np.nonzero(tile >= threshold)
        if len(query):
            matches[block] += np.bincount(query, minlength=len(tile))
            old = found[start]
            found[start] = _best(
                np.concatenate([old[0], query + start]),
                np.concatenate([old[1], members[column]]),
                np.concatenate([old[2], tile[query, column]]),
                most,
            )

    with progress(len(anchors), 'comparing', 'sample') as bar:
        for first in range(0, len(anchors), CHUNK):
            members = np.arange(first, min(first + CHUNK, len(anchors)))
            chunk, empty = read_rows(anchors, members)
            chunk, members = chunk[~empty], members[~empty]
            if len(chunk):
                for _ in run_parallel(compare, starts, workers):
                    pass
            bar.update(len(empty))
    nearest[blank] = np.nan
    columns = [
        np.concatenate([part[i] for part in found.values()]) if found else np.empty(0)
        for i in range(3)
    ]
    return Pairs(columns[0], columns[1], columns[2], matches, nearest)


def _best(
    query: np.ndarray, anchor: np.ndarray, similarity: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The ``most`` similar pairs of each query, sorted."""
    order = np.lexsort((anchor, -similarity, query))
    query = query[order]
    firsts = np.flatnonzero(np.diff(query, prepend=-1))
    rank = np.arange(len(query)) - np.repeat(firsts, np.diff(firsts, append=len(query)))
    order = order[rank < most]
    return query[rank < most], anchor[order], similarity[order]
