"""Exact search for similar rows of two feature matrices."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..base.progress import progress
from ..vectors.rows import read_rows, run_parallel, snap

# Rows that are compared at a time, of either side.
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
    search = _Search(queries, threshold, most)
    with progress(len(anchors), 'comparing', 'sample') as bar:
        for first in range(0, len(anchors), CHUNK):
            last = min(first + CHUNK, len(anchors))
            members = np.arange(first, last)
            search.compare(anchors, members, workers)
            bar.update(len(members))
    return search.result()


@dataclass(frozen=True)
class _Found:
    """Some pairs: the first three columns of ``Pairs``, in any order."""

    query: np.ndarray
    anchor: np.ndarray
    similarity: np.ndarray

    def take(self, chosen: np.ndarray) -> '_Found':
        """The pairs at these places."""
        return _Found(
            query=self.query[chosen],
            anchor=self.anchor[chosen],
            similarity=self.similarity[chosen],
        )

    def best(self, most: int) -> '_Found':
        """The ``most`` similar pairs of each query, sorted."""
        order = np.lexsort((self.anchor, -self.similarity, self.query))
        pairs = self.take(order)
        steps = np.diff(pairs.query, prepend=-1)
        firsts = np.flatnonzero(steps)
        sizes = np.diff(firsts, append=len(order))
        places = np.arange(len(order))
        first_of_query = np.repeat(firsts, sizes)
        rank = places - first_of_query
        is_best = rank < most

        return pairs.take(is_best)


_NONE = _Found(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))


def _joined(parts: Sequence[_Found]) -> _Found:
    """The pairs of all parts."""
    return _Found(
        query=np.concatenate([part.query for part in parts]),
        anchor=np.concatenate([part.anchor for part in parts]),
        similarity=np.concatenate([part.similarity for part in parts]),
    )


class _Search:
    """The queries, and the similar pairs that were found so far for each block of them.

    Args:
        queries: (Q, d).
        threshold: similarity of a pair at least.
        most: pairs of a query at most.
    """

    def __init__(self, queries: np.ndarray, threshold: float, most: int) -> None:
        count = len(queries)
        everyone = np.arange(count)
        self.rows, self.blank = read_rows(queries, everyone)
        self.threshold = threshold
        self.most = most
        self.matches = np.zeros(count, np.int64)
        self.nearest = np.full(count, -1, np.float32)
        block_starts = range(0, count, QUERIES)
        self.found = dict.fromkeys(block_starts, _NONE)

    def compare(self, anchors: np.ndarray, members: np.ndarray, workers: int | None) -> None:
        """Compares all queries with the anchors of these numbers."""
        rows, blank = read_rows(anchors, members)
        chunk = rows[~blank]
        if not len(chunk):
            return
        compare_block = functools.partial(self._compare_block, chunk, members[~blank])
        for _ in run_parallel(compare_block, list(self.found), workers):
            pass

    def _compare_block(self, chunk: np.ndarray, members: np.ndarray, start: int) -> None:
        """Compares a block of queries with a chunk of anchors; no two threads have the same."""
        block = slice(start, start + QUERIES)
        similarity = snap(self.rows[block] @ chunk.T)
        nearest = self.nearest[block]
        highest = similarity.max(axis=1)
        np.maximum(nearest, highest, out=nearest)
        is_similar = similarity >= self.threshold
        query, column = np.nonzero(is_similar)
        if not len(query):
            return

        matches = np.bincount(query, minlength=len(similarity))
        self.matches[block] += matches
        new = _Found(
            query=query + start,
            anchor=members[column],
            similarity=similarity[query, column],
        )
        both = _joined([self.found[start], new])
        self.found[start] = both.best(self.most)

    def result(self) -> Pairs:
        """All pairs, and what is known about queries without one."""
        self.nearest[self.blank] = np.nan
        pairs = _joined([_NONE, *self.found.values()])
        return Pairs(
            query=pairs.query,
            anchor=pairs.anchor,
            similarity=pairs.similarity,
            matches=self.matches,
            nearest=self.nearest,
        )
