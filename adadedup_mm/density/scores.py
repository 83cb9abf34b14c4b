"""Density scores: an order of the samples of each cluster, and the similarity of each to its nearest earlier one."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..base.errors import UserError
from ..base.progress import progress
from ..registry import DENSITIES
from ..vectors.rows import cluster_members, read_in_passing, read_rows, run_parallel, snap

ORDERS = ('hard', 'easy', 'random')
# How many samples the farthest-first traversal orders among themselves, and how many it updates at
# a time.
CANDIDATES = 256
UPDATE = 1024
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
class SemDeDup:
    """``semdedup_scores`` as a component of the config.

    Attributes:
        order: ``'hard'``, ``'easy'`` or ``'random'``.
    """

    by_cluster = True

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
class KCenter:
    """``kcenter_scores`` as a component of the config."""

    by_cluster = True

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
    """Scores of SemDeDup (Abbas et al., arXiv 2303.09540): samples are sorted by their distance to the centroid.

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
        key = lots[members]
        if order != 'random':
            key = np.concatenate([_centrality(rows[cluster]) for cluster in clusters])
        label = np.repeat(
            np.arange(len(clusters)), [cluster.stop - cluster.start for cluster in clusters]
        )
        positions = np.lexsort((-key if order == 'easy' else key, label))
        rows = _take_rows(rows, positions)
        return positions, np.concatenate(
            [_nearest_earlier(rows[cluster], later) for cluster in clusters]
        )

    return _score_clusters(features, assignment, score, workers, clusters)


def kcenter_scores(
    features: np.ndarray,
    assignment: np.ndarray,
    workers: int | None = None,
    clusters: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the farthest-first traversal (Gonzalez 1985, the greedy 2-approximation of k-center).

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
        for small, group in itertools.groupby(
            clusters, lambda cluster: cluster.stop - cluster.start <= TOGETHER
        ):
            if small:
                parts.append(_farthest_first_together(rows, list(group)))
                continue
            for cluster in group:
                positions, scores = _farthest_first(rows[cluster])
                parts.append((cluster.start + positions, scores))
        positions, scores = zip(*parts, strict=True)
        return np.concatenate(positions), np.concatenate(scores)

    return _score_clusters(features, assignment, score, workers, clusters)


def _score_clusters(
    features: np.ndarray,
    assignment: np.ndarray,
    score: Score,
    workers: int | None,
    chosen: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Runs ``score`` on the clusters, the largest first, and puts samples without a direction before all others."""
    features = np.asarray(features)
    order = np.zeros(len(assignment), np.int32)
    similarity = np.full(len(assignment), -1, np.float32)

    def job(batch: list[np.ndarray]) -> int:
        members = np.concatenate(batch)
        sizes = [len(cluster) for cluster in batch]
        label = np.repeat(np.arange(len(batch)), sizes)
        rows, blank = read_rows(features, members)
        sequence = members[blank]
        if not blank.all():
            seen = ~blank
            ends = np.cumsum(np.bincount(label[seen]))
            clusters = [
                slice(start, end) for start, end in itertools.pairwise([0, *ends]) if start < end
            ]
            positions, scores = score(rows[seen] if blank.any() else rows, members[seen], clusters)
            sequence = np.concatenate([sequence, members[seen][positions]])
            similarity[sequence[blank.sum() :]] = scores
        sequence = sequence[
            np.argsort(np.concatenate([label[blank], label[~blank]]), kind='stable')
        ]
        order[sequence] = np.arange(len(members)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return len(members)

    clusters = cluster_members(assignment)
    if chosen is not None:
        clusters = [clusters[cluster] for cluster in chosen]
    clusters = sorted((members for members in clusters if len(members)), key=len, reverse=True)
    with progress(sum(map(len, clusters)), 'density scores', 'sample') as bar:
        batches = _batches(clusters, BATCH // features.shape[1])
        for count in read_in_passing(features, run_parallel(job, batches, workers)):
            bar.update(count)
    return order, snap(similarity)


def _batches(clusters: list[np.ndarray], limit: int) -> list[list[np.ndarray]]:
    """The clusters in groups of ``limit`` samples or a little more; with less to do, threads mostly change places."""
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
    """(n,) float32, grows with the cosine of each row to the mean of all; equal rows have equal values."""
    # einsum treats every row alike, BLAS does not. Scaling by a power of two rounds nothing.
    return snap(np.einsum('ij,j->i', rows, rows.sum(0)) * np.float32(0.5 ** len(rows).bit_length()))


def _take_rows(rows: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """``rows[positions]`` in place: in large clusters a few columns at a time, which saves the memory of a copy."""
    width = max(1, BATCH // max(1, len(positions)))
    for column in range(0, rows.shape[1], width):
        columns = slice(column, column + width)
        rows[: len(positions), columns] = rows[positions, columns]
    return rows[: len(positions)]


def _nearest_earlier(rows: np.ndarray, later: np.ndarray) -> np.ndarray:
    """(n,) float32 similarity of each row to the nearest row before it; below -1 for the first.

    Tiles of the upper triangle, of which only a running maximum stays. ``later`` is added to the
    tiles on the diagonal: (block, block) float32, well below zero where a column's sample does not
    come after the row's.
    """
    block = len(later)
    nearest = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), block):
        columns = rows[start : start + block]
        tile = columns @ columns.T
        tile += later[: len(columns), : len(columns)]
        best = tile.max(0)
        for above in range(0, start, 4 * block):
            np.maximum(
                best, (rows[above : min(above + 4 * block, start)] @ columns.T).max(0), out=best
            )
        nearest[start : start + block] = best
    return nearest


def _farthest_first(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Farthest-first traversal of unit rows: (n,) positions in that order, (n,) float32 similarities along it.

    Overwrites the rows.

    ``nearest``, the similarity to the nearest traversed row, can only grow. So the rows where it is
    smallest can be traversed among themselves until none of them comes before the smallest of the
    others; only then are the others brought up to date, in one matrix product. The order is that of
    going row by row, the speed that of the product.
    """
    order = np.arange(len(rows))
    similarity = np.full(len(rows), -1, np.float32)
    if len(rows) < 2:
        return order, similarity
    left = order.copy()
    order[0] = _centrality(rows).argmax()
    nearest = snap(rows @ rows[order[0]])
    nearest[order[0]] = np.inf
    done = 1
    while done < len(order):
        if nearest.min() == 1:
            order[done:] = left[nearest == 1]
            similarity[done:] = 1
            break
        candidates, bound = _smallest(nearest)
        close, own = rows[candidates], nearest[candidates]
        between = snap(close @ close.T)
        picks = []
        while (own[first := own.argmin()], candidates[first]) < bound:
            picks.append(first)
            similarity[done] = own[first]
            np.maximum(own, between[first], out=own)
            own[first] = np.inf
            done += 1
        order[done - len(picks) : done] = left[candidates[picks]]
        if done == len(order):
            break
        for start in range(0, len(rows), UPDATE):
            fresh = snap((close[picks] @ rows[start : start + UPDATE].T).max(0))
            np.maximum(nearest[start : start + UPDATE], fresh, out=nearest[start : start + UPDATE])
        nearest[candidates] = own
        waiting = nearest < np.inf
        if waiting.sum() < 0.75 * len(rows):
            rows, left, nearest = (
                _take_rows(rows, np.flatnonzero(waiting)),
                left[waiting],
                nearest[waiting],
            )
    return order, similarity


def _farthest_first_together(
    rows: np.ndarray, clusters: list[slice]
) -> tuple[np.ndarray, np.ndarray]:
    """What ``_farthest_first`` gives for each cluster, one after the other; positions are those in ``rows``.

    A step of one small cluster is too short for NumPy: all clusters take it at once.
    """
    starts = np.array([cluster.start for cluster in clusters])
    inside = (
        np.arange(max(cluster.stop - cluster.start for cluster in clusters))
        < np.array([cluster.stop - cluster.start for cluster in clusters])[:, None]
    )
    each, width = np.arange(len(clusters)), inside.shape[1]
    between = np.zeros((len(clusters), width, width), np.float32)
    order = np.empty((len(clusters), width), np.int64)
    for number, cluster in enumerate(clusters):
        block = rows[cluster]
        between[number, : len(block), : len(block)] = snap(block @ block.T)
        order[number, 0] = _centrality(block).argmax()
    similarity = np.full(order.shape, -1, np.float32)
    nearest = np.where(inside, np.float32(-1), np.float32(np.inf))
    for step in range(1, width):
        last = order[:, step - 1]
        np.maximum(nearest, between[each, last], out=nearest)
        nearest[each, last] = np.inf
        order[:, step] = nearest.argmin(1)
        similarity[:, step] = nearest[each, order[:, step]]
    return (starts[:, None] + order)[inside], similarity[inside]


def _smallest(nearest: np.ndarray) -> tuple[np.ndarray, tuple[float, int]]:
    """The positions of the ``CANDIDATES`` smallest finite values, ascending, and (value, position) of the next one."""
    if len(nearest) <= CANDIDATES:
        return np.flatnonzero(nearest < np.inf), (np.inf, 0)
    value = np.partition(nearest, CANDIDATES)[CANDIDATES]
    below = np.flatnonzero(nearest < value)
    if value == np.inf:
        return below, (np.inf, 0)
    ties = np.flatnonzero(nearest == value)
    free = CANDIDATES - len(below)
    return np.sort(np.concatenate([below, ties[:free]])), (value, ties[free])
