"""Density scores: an order inside each cluster, and each sample's similarity to earlier ones."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..base.errors import UserError
from ..base.progress import progress
from ..registry import DENSITIES
from ..vectors.rows import (
    cluster_members,
    largest_first,
    read_in_passing,
    read_rows,
    run_parallel,
    slices,
    snap,
)
from .method import ClusterDensityMethod

ORDERS = ('hard', 'easy', 'random')
# How many samples the farthest-first traversal orders among themselves, and how many it updates at
# a time.
CANDIDATES = 256
UPDATE = 1024
# From this share of rows that are done on, the others move together.
DONE = 0.25
# Clusters of up to so many samples are traversed side by side.
TOGETHER = 512
# How many numbers small clusters are read together for, and how many are copied at a time when rows
# change places.
BATCH = 2**19

# (n, d) float32 rows, which it may overwrite, (n,) sample indices, and the slice of each cluster ->
# (n,) positions of the rows in their order, cluster by cluster, and (n,) float32 similarities along
# it.
Score = Callable[[np.ndarray, np.ndarray, list[slice]], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
@DENSITIES.register_module()
class SemDeDup(ClusterDensityMethod):
    """``semdedup_scores`` as a component of the config.

    Attributes:
        order: ``'hard'``, ``'easy'`` or ``'random'``.
    """

    by_cluster: ClassVar[bool] = True
    order: str = 'hard'

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise UserError(
                f'adadedup.density.order is {self.order!r}, but must be one of {", ".join(ORDERS)}'
            )

    def __call__(
        self,
        features: np.ndarray,
        assignment: np.ndarray,
        seed: int,
        clusters: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        return semdedup_scores(features, assignment, self.order, seed, clusters=clusters)


@dataclass(frozen=True)
@DENSITIES.register_module()
class KCenter(ClusterDensityMethod):
    """``kcenter_scores`` as a component of the config."""

    by_cluster: ClassVar[bool] = True

    def __call__(
        self,
        features: np.ndarray,
        assignment: np.ndarray,
        seed: int,
        clusters: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        return kcenter_scores(features, assignment, clusters=clusters)


def semdedup_scores(
    features: np.ndarray,
    assignment: np.ndarray,
    order: str = 'hard',
    seed: int = 0,
    workers: int | None = None,
    block: int = 192,
    clusters: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of SemDeDup (arXiv 2303.09540): samples are sorted by their distance to the centroid.

    A sample is compared with all earlier ones, those that a threshold removes included.
    Similarities are multiples of 2**-20. Samples without a direction (zero or NaN features) come
    first and score -1: nothing is known to resemble them. Beside the result, memory holds the rows
    of one cluster per worker and some tiles, never the similarities of a whole cluster.

    Args:
        features: (N, d) float32 or float16, in memory or memory-mapped.
        assignment: (N,) int32, labels 0..K-1.
        order: ``'hard'`` puts the samples farthest from the centroid first, ``'easy'`` the nearest,
            ``'random'`` shuffles. Ties are decided by the sample's index.
        seed: of the random order.
        workers: number of threads; None means as many as BLAS would use. No effect on the result.
        block: columns per tile; affects scores by 2**-20 at most.
        clusters: (k,) int, the clusters that are looked at, whose result does not depend on the
            others; None means all. The result is meaningless for samples of others.

    Returns:
        order: (N,) int32, position inside the cluster, 0 = first.
        similarity: (N,) float32 in [-1, 1], to the nearest earlier sample; -1 for the first.
    """
    later = np.tri(block, dtype=np.float32) * -4
    lots = np.random.default_rng(seed).permutation(len(assignment))

    def score(
        rows: np.ndarray, members: np.ndarray, clusters: list[slice]
    ) -> tuple[np.ndarray, np.ndarray]:
        if order == 'random':
            key = lots[members]
        else:
            key = np.concatenate([_centrality(rows[cluster]) for cluster in clusters])

        if order == 'easy':
            key = -key
        label = np.repeat(np.arange(len(clusters)), _sizes(clusters))
        positions = np.lexsort((key, label))
        rows = _take_rows(rows, positions)
        scores = [_nearest_earlier(rows[cluster], later) for cluster in clusters]

        return positions, np.concatenate(scores)

    return _score_clusters(features, assignment, score, workers, clusters)


def kcenter_scores(
    features: np.ndarray,
    assignment: np.ndarray,
    workers: int | None = None,
    clusters: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the farthest-first traversal (Gonzalez 1985, a 2-approximation of k-center).

    It starts with the sample closest to the centroid, so that a cluster reduced to one sample keeps
    its most typical one, and goes on with the sample least similar to all earlier ones; ties are
    decided by the sample's index. Scores never decrease along the order: for any threshold, what is
    kept is a beginning of the order, and each pruned sample has a kept one at least as similar as
    the threshold.

    Args, returns, precision, samples without a direction and memory: as ``semdedup_scores``.
    """

    def score(
        rows: np.ndarray, members: np.ndarray, clusters: list[slice]
    ) -> tuple[np.ndarray, np.ndarray]:
        parts = []
        for is_small, group in itertools.groupby(clusters, _is_small):
            if is_small:
                parts.append(_farthest_first_together(rows, list(group)))
                continue

            for cluster in group:
                positions, scores = _farthest_first(rows[cluster])
                parts.append((cluster.start + positions, scores))

        all_positions, all_scores = zip(*parts, strict=True)
        return np.concatenate(all_positions), np.concatenate(all_scores)

    return _score_clusters(features, assignment, score, workers, clusters)


def _is_small(cluster: slice) -> bool:
    return cluster.stop - cluster.start <= TOGETHER


def _sizes(clusters: list[slice]) -> np.ndarray:
    return np.array([cluster.stop - cluster.start for cluster in clusters])


def _score_clusters(
    features: np.ndarray,
    assignment: np.ndarray,
    score: Score,
    workers: int | None,
    chosen: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Runs ``score`` on the clusters, the largest first.

    Args:
        features: see ``semdedup_scores``.
        assignment: likewise.
        score: see there.
        workers: see ``semdedup_scores``.
        chosen: its ``clusters``.

    Returns:
        As ``semdedup_scores``; samples without a direction come before all others.
    """
    features = np.asarray(features)
    order = np.zeros(len(assignment), np.int32)
    similarity = np.full(len(assignment), -1, np.float32)

    def job(batch: list[np.ndarray]) -> int:
        sequence, scores = _rank(features, batch, score)
        similarity[sequence] = scores
        order[sequence] = np.concatenate([np.arange(len(cluster)) for cluster in batch])
        return len(sequence)

    clusters = cluster_members(assignment)
    if chosen is not None:
        clusters = [clusters[cluster] for cluster in chosen]
    batches = _batches(largest_first(clusters), BATCH // features.shape[1])
    with progress(sum(map(len, clusters)), 'density scores', 'sample') as bar:
        counts = run_parallel(job, batches, workers)
        for count in read_in_passing(features, counts):
            bar.update(count)

    return order, snap(similarity)


def _rank(
    features: np.ndarray, batch: list[np.ndarray], score: Score
) -> tuple[np.ndarray, np.ndarray]:
    """The samples of some clusters in their order, cluster by cluster, and their scores.

    Args:
        features: (N, d) float32 or float16.
        batch: the sample indices of each cluster.
        score: see there.

    Returns:
        sequence: (n,) int64 sample indices, those without a direction first in each cluster.
        similarity: (n,) float32 along it.
    """
    members = np.concatenate(batch)
    label = np.repeat(np.arange(len(batch)), [len(cluster) for cluster in batch])
    rows, blank = read_rows(features, members)
    sequence = members[blank]
    similarity = np.full(len(sequence), -1, np.float32)
    seen = ~blank
    if seen.any():
        if blank.any():
            rows = rows[seen]
        directed = members[seen]
        positions, scores = score(rows, directed, _spans(label[seen]))
        sequence = np.concatenate([sequence, directed[positions]])
        similarity = np.concatenate([similarity, scores])

    label = np.concatenate([label[blank], label[seen]])
    by_cluster = np.argsort(label, kind='stable')

    return sequence[by_cluster], similarity[by_cluster]


def _spans(label: np.ndarray) -> list[slice]:
    """Where each label that occurs is in (n,) ascending ones."""
    ends = np.cumsum(np.bincount(label))
    spans = []
    for start, end in itertools.pairwise([0, *ends]):
        if start < end:
            spans.append(slice(start, end))
    return spans


def _batches(clusters: list[np.ndarray], limit: int) -> list[list[np.ndarray]]:
    """The clusters in groups of ``limit`` samples or a little more.

    With less to do, threads mostly change places.
    """
    batches: list[list[np.ndarray]] = []
    room = 0
    for cluster in clusters:
        if room <= 0:
            batches.append([])
            room = limit
        batches[-1].append(cluster)
        room -= len(cluster)
    return batches


def _centrality(rows: np.ndarray) -> np.ndarray:
    """(n,) float32, grows with the cosine of each row to the mean; equal rows have equal values."""
    # einsum treats every row alike, BLAS does not. Scaling by a power of two rounds nothing.
    total = rows.sum(0)
    products = np.einsum('ij,j->i', rows, total)
    scale = np.float32(0.5 ** len(rows).bit_length())
    return snap(products * scale)


def _take_rows(rows: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """``rows[positions]`` in place.

    In large clusters a few columns at a time, which saves the memory of a copy.
    """
    count = len(positions)
    width = max(1, BATCH // max(1, count))
    for columns in slices(rows.shape[1], width):
        rows[:count, columns] = rows[positions, columns]
    return rows[:count]


def _nearest_earlier(rows: np.ndarray, later: np.ndarray) -> np.ndarray:
    """(n,) float32 similarity of each row to the nearest row before it; below -1 for the first.

    Tiles of the upper triangle, of which only a running maximum stays. ``later`` is added to the
    tiles on the diagonal: (block, block) float32, well below zero where a column's sample does not
    come after the row's.
    """
    block = len(later)
    nearest = np.empty(len(rows), np.float32)
    for here in slices(len(rows), block):
        columns = rows[here]
        count = len(columns)
        tile = columns @ columns.T
        tile += later[:count, :count]
        best = tile.max(axis=0)
        for above in slices(here.start, 4 * block):
            tile = rows[above] @ columns.T
            np.maximum(best, tile.max(axis=0), out=best)

        nearest[here] = best

    return nearest


def _farthest_first(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Farthest-first traversal of unit rows, which it overwrites.

    ``nearest``, the similarity to the nearest traversed row, can only grow. So the rows where it is
    smallest can be traversed among themselves until none of them comes before the smallest of the
    others; only then are the others brought up to date, in one matrix product. The order is that of
    going row by row, the speed that of the product.

    Returns:
        order: (n,) int64, positions of the rows.
        similarity: (n,) float32 along it.
    """
    order = np.arange(len(rows))
    similarity = np.full(len(rows), -1, np.float32)
    if len(rows) < 2:
        return order, similarity
    left = order.copy()
    first = _centrality(rows).argmax()
    order[0] = first
    nearest = snap(rows @ rows[first])
    nearest[first] = np.inf
    done = 1
    while done < len(order):
        if nearest.min() == 1:
            order[done:] = left[nearest == 1]
            similarity[done:] = 1
            break

        candidates, bound = _smallest(nearest)
        close, own = rows[candidates], nearest[candidates]
        picks, scores = _traverse_close(close, own, candidates, bound)
        step = slice(done, done + len(picks))
        order[step] = left[candidates[picks]]
        similarity[step] = scores
        done = step.stop
        if done == len(order):
            break
        _bring_up_to_date(nearest, rows, close[picks])
        nearest[candidates] = own
        waiting = nearest < np.inf
        if waiting.sum() < (1 - DONE) * len(rows):
            rows = _take_rows(rows, np.flatnonzero(waiting))
            left, nearest = left[waiting], nearest[waiting]

    return order, similarity


def _smallest(nearest: np.ndarray) -> tuple[np.ndarray, tuple[float, int]]:
    """The ``CANDIDATES`` smallest of (n,) values, ties by position, and the next one after them.

    Returns:
        candidates: (<= CANDIDATES,) int64 positions of finite values, ascending.
        bound: (value, position) of the next one; infinite where there is none.
    """
    if len(nearest) <= CANDIDATES:
        return np.flatnonzero(nearest < np.inf), (np.inf, 0)
    value = np.partition(nearest, CANDIDATES)[CANDIDATES]
    below = np.flatnonzero(nearest < value)
    if value == np.inf:
        return below, (np.inf, 0)
    ties = np.flatnonzero(nearest == value)
    free = CANDIDATES - len(below)
    candidates = np.concatenate([below, ties[:free]])

    return np.sort(candidates), (value, ties[free])


def _traverse_close(
    close: np.ndarray, own: np.ndarray, candidates: np.ndarray, bound: tuple[float, int]
) -> tuple[list[np.intp], list[np.float32]]:
    """Traverses candidates among themselves, as long as they come before ``bound``.

    Args:
        close: (c, d) float32, their rows.
        own: (c,) float32, their ``nearest``, which is brought up to date; infinite for those
            traversed.
        candidates: (c,) int64 positions, which decide ties.
        bound: as from ``_smallest``.

    Returns:
        Which of the candidates are traversed, in their order, and their similarities.
    """
    between = snap(close @ close.T)
    picks, scores = [], []
    pick = own.argmin()
    while (own[pick], candidates[pick]) < bound:
        picks.append(pick)
        scores.append(own[pick])
        np.maximum(own, between[pick], out=own)
        own[pick] = np.inf
        pick = own.argmin()

    return picks, scores


def _bring_up_to_date(nearest: np.ndarray, rows: np.ndarray, traversed: np.ndarray) -> None:
    """Raises (n,) ``nearest`` to the similarities of (n, d) rows to (t, d) traversed ones."""
    for block in slices(len(rows), UPDATE):
        similarity = traversed @ rows[block].T
        highest = snap(similarity.max(axis=0))
        np.maximum(nearest[block], highest, out=nearest[block])


def _farthest_first_together(
    rows: np.ndarray, clusters: list[slice]
) -> tuple[np.ndarray, np.ndarray]:
    """What ``_farthest_first`` gives for each cluster, one after the other.

    A step of one small cluster is too short for NumPy: all clusters take it at once. Positions are
    those in ``rows``.
    """
    starts = np.array([cluster.start for cluster in clusters])
    sizes = _sizes(clusters)
    width = sizes.max()
    inside = np.arange(width) < sizes[:, None]
    between = np.zeros((len(clusters), width, width), np.float32)
    order = np.empty((len(clusters), width), np.int64)
    for number, cluster in enumerate(clusters):
        block = rows[cluster]
        between[number, : len(block), : len(block)] = snap(block @ block.T)
        order[number, 0] = _centrality(block).argmax()

    similarity = np.full(order.shape, -1, np.float32)
    nearest = np.where(inside, np.float32(-1), np.float32(np.inf))
    each = np.arange(len(clusters))
    for step in range(1, width):
        last = order[:, step - 1]
        np.maximum(nearest, between[each, last], out=nearest)
        nearest[each, last] = np.inf
        farthest = nearest.argmin(axis=1)
        order[:, step] = farthest
        similarity[:, step] = nearest[each, farthest]

    positions = starts[:, None] + order

    return positions[inside], similarity[inside]
