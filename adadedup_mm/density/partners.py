"""The kept sample that stands for a pruned one."""

import numpy as np

from ..base.progress import progress
from ..vectors.nearest import CHUNK, most_similar
from ..vectors.rows import cluster_members, read_in_passing, read_rows, run_parallel


def nearest_kept(
    features: np.ndarray,
    assignment: np.ndarray,
    kept: np.ndarray,
    workers: int | None = None,
    clusters: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The partner of each pruned sample: the most similar kept sample of its cluster, the first one of several.

    Where a cluster kept nobody, the whole set is searched. Memory holds the rows of one cluster per
    worker.

    Args:
        features: (N, d) float32 or float16, in memory or memory-mapped.
        assignment: (N,) int32, labels 0..K-1.
        kept: (N,) bool.
        workers: number of threads; None means as many as BLAS would use. No effect on the result.
        clusters: (J,) int64, the only clusters whose pruned samples get a partner; all by default.

    Returns:
        partner: (N,) int64 sample index; -1 for kept samples and for those without a direction
            (zero or NaN features).
        similarity: (N,) float32, multiples of 2**-20 in [-1, 1]; NaN where there is no partner.
    """
    features = np.asarray(features)
    asked = np.ones(len(kept), bool) if clusters is None else np.isin(assignment, clusters)
    partner = np.full(len(kept), -1, np.int64)
    similarity = np.full(len(kept), np.nan, np.float32)

    def match(pruned: np.ndarray, anchors: np.ndarray) -> None:
        """Pairs ``pruned`` with ``anchors``, both sample indices, where that beats the pairs they have."""
        queries, blank = read_rows(features, pruned)
        queries, pruned = queries[~blank], pruned[~blank]
        rows, blank = read_rows(features, anchors)
        rows, anchors = rows[~blank], anchors[~blank]
        if len(anchors):
            best, position = most_similar(queries, rows)
            better = ~(best <= similarity[pruned])
            partner[pruned[better]] = anchors[position[better]]
            similarity[pruned[better]] = best[better]

    def job(members: np.ndarray) -> int:
        stays = kept[members]
        if not stays.all():
            match(members[~stays], members[stays])
        return len(members)

    jobs = [
        members for members in cluster_members(assignment) if len(members) and asked[members[0]]
    ]
    with progress(int(asked.sum()), 'partners', 'sample') as bar:
        for count in read_in_passing(
            features, run_parallel(job, sorted(jobs, key=len, reverse=True), workers)
        ):
            bar.update(count)

    def search(pruned: np.ndarray) -> int:
        for anchors in _chunks(np.flatnonzero(kept)):
            match(pruned, anchors)
        return len(pruned)

    orphans = np.flatnonzero(asked & ~kept & (partner < 0))
    with progress(len(orphans), 'partners outside the cluster', 'sample') as bar:
        for count in read_in_passing(features, run_parallel(search, _chunks(orphans), workers)):
            bar.update(count)
    return partner, similarity


def _chunks(indices: np.ndarray) -> list[np.ndarray]:
    return [indices[start : start + CHUNK] for start in range(0, len(indices), CHUNK)]
