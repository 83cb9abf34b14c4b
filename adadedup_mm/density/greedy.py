"""Greedy selection: a sample goes if it is too similar to one that was kept before."""

import numpy as np

from ..base.progress import progress
from ..vectors.nearest import most_similar
from ..vectors.rows import (
    GRID,
    cluster_members,
    largest_first,
    read_in_passing,
    read_rows,
    run_parallel,
    slices,
    snap,
)

# Samples that are decided about between two matrix products.
BLOCK = 256


def greedy_keep(
    features: np.ndarray,
    assignment: np.ndarray,
    thresholds: np.ndarray,
    candidates: np.ndarray | None = None,
    anchors: np.ndarray | None = None,
    workers: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Goes through each cluster by index and keeps samples that resemble no kept one too much.

    Other than in ``semdedup_scores``, samples that went do not count: a slow video does not
    collapse to its first frame, and each sample that goes has a kept one more similar than the
    threshold.

    Args:
        features: (N, d) float32 or float16, in memory or memory-mapped.
        assignment: (N,) int32, labels 0..K-1.
        thresholds: (K,) float64; more similar samples go.
        candidates: (N,) bool, the samples to decide about; None means all but the anchors.
        anchors: (N,) bool, samples that are kept before any candidate.
        workers: number of threads; None means as many as BLAS would use. No effect on the result.

    Returns:
        kept: (N,) bool, the candidates that stay. Those without a direction (zero or NaN features)
            do.
        similarity: (N,) float32, of each candidate to the most similar kept sample before it, a
            multiple of 2**-20; -1 where there is none, and for all other samples.
    """
    features = np.asarray(features)
    anchors = np.zeros(len(assignment), bool) if anchors is None else anchors
    candidates = ~anchors if candidates is None else candidates
    kept = np.zeros(len(assignment), bool)
    similarity = np.full(len(assignment), -1, np.float32)

    def decide(members: np.ndarray) -> None:
        mine = members[candidates[members]]
        anchors_here = members[anchors[members]]
        if not len(mine):
            return
        threshold = float(thresholds[assignment[mine[0]]])
        rows, blank = read_rows(features, mine)
        kept[mine[blank]] = True
        rows, mine = rows[~blank], mine[~blank]
        before, _ = read_rows(features, anchors_here)
        start, _ = most_similar(rows, before)
        kept[mine], similarity[mine] = _greedy(rows, start, threshold)

    clusters = largest_first(cluster_members(assignment))
    decisions = run_parallel(decide, clusters, workers)
    for _ in read_in_passing(features, decisions):
        pass
    return kept, similarity


def greedy_budget(
    features: np.ndarray, assignment: np.ndarray, count: int, candidates: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """``greedy_keep`` with the one threshold that keeps as many samples as asked for.

    The threshold is found by bisection on the grid of 2**-20. The number of kept samples jumps, and
    not always upwards, so that in general none meets the budget: it is the one below a jump beyond
    the budget, and the least similar of the samples that it would drop stay. Where every cluster's
    first sample is too many already, those of smallest index stay.

    Args:
        features: as for ``greedy_keep``.
        assignment: likewise.
        count: how many samples stay, at most as many as there are candidates.
        candidates: (N,) bool, samples that may stay.

    Returns:
        kept: (N,) bool.
        similarity: as of ``greedy_keep``.
        threshold: samples of a higher similarity go.
    """
    clusters = int(assignment.max(initial=-1)) + 1

    def keep(level: int) -> tuple[np.ndarray, np.ndarray]:
        thresholds = np.full(clusters, level * GRID)
        return greedy_keep(features, assignment, thresholds, candidates)

    # Below every similarity, and the largest one.
    low, high = round(-1 / GRID) - 1, round(1 / GRID)
    if count == candidates.sum():
        low = high
    kept, similarity = keep(low)
    with progress((high - low).bit_length(), 'threshold', 'step') as bar:
        while kept.sum() < count and high - low > 1:
            middle = (low + high) // 2
            more, more_similarity = keep(middle)
            if more.sum() <= count:
                low, kept, similarity = middle, more, more_similarity
            else:
                high = middle

            bar.update()

    ranking = np.lexsort((similarity, ~kept, ~candidates))
    chosen = np.zeros(len(kept), bool)
    chosen[ranking[:count]] = True
    threshold = max(low * GRID, -1.0)

    return chosen, similarity, threshold


def _greedy(rows: np.ndarray, start: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """``greedy_keep`` for the unit rows of one cluster; overwrites the rows.

    Args:
        rows: (n, d) float32, in the order of the decisions.
        start: (n,) float32 similarity to what was kept before all of them, -inf for nothing.
        threshold: more similar rows go.

    Returns:
        kept: (n,) bool.
        similarity: (n,) float32, to the most similar kept row before it; -1 where there is none.
    """
    best = start.copy()
    kept = np.zeros(len(rows), bool)
    count = 0
    for part in slices(len(rows), BLOCK):
        block, kept_here, best_here = rows[part], kept[part], best[part]
        for above in slices(count, 4 * BLOCK):
            similarity = snap(rows[above] @ block.T)
            np.maximum(best_here, similarity.max(axis=0), out=best_here)

        between = snap(block @ block.T)
        for position in range(len(block)):
            if best_here[position] <= threshold:
                kept_here[position] = True
                later = slice(position + 1, None)
                np.maximum(best_here[later], between[position, later], out=best_here[later])

        # Kept rows gather at the beginning, where none is needed any more.
        stays = block[kept_here]
        end = count + len(stays)
        rows[count:end] = stays
        count = end

    return kept, np.maximum(best, -1)
