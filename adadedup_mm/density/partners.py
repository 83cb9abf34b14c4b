"""The kept sample that stands for a pruned one."""

import numpy as np

from ..base.progress import progress
from ..vectors.nearest import CHUNK, most_similar
from ..vectors.rows import (
    cluster_members,
    largest_first,
    read_in_passing,
    read_rows,
    run_parallel,
    slices,
)


def nearest_kept(
    features: np.ndarray,
    assignment: np.ndarray,
    kept: np.ndarray,
    workers: int | None = None,
    clusters: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The partner of each pruned sample: the most similar kept one of its cluster, ties by index.

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
    asked = np.ones(len(kept), bool)
    if clusters is not None:
        asked = np.isin(assignment, clusters)
    pairs = _Pairs(features, len(kept))

    def match_inside(members: np.ndarray) -> int:
        stays = kept[members]
        if not stays.all():
            pairs.match(members[~stays], members[stays])
        return len(members)

    groups = largest_first(cluster_members(assignment))
    jobs = [members for members in groups if asked[members[0]]]
    with progress(int(asked.sum()), 'partners', 'sample') as bar:
        counts = run_parallel(match_inside, jobs, workers)
        for count in read_in_passing(features, counts):
            bar.update(count)

    anchors = np.flatnonzero(kept)
    alone = pairs.partner < 0
    orphans = np.flatnonzero(asked & ~kept & alone)

    def match_anywhere(pruned: np.ndarray) -> int:
        for chunk in slices(len(anchors), CHUNK):
            pairs.match(pruned, anchors[chunk])
        return len(pruned)

    jobs = [orphans[chunk] for chunk in slices(len(orphans), CHUNK)]
    with progress(len(orphans), 'partners outside the cluster', 'sample') as bar:
        counts = run_parallel(match_anywhere, jobs, workers)
        for count in read_in_passing(features, counts):
            bar.update(count)

    return pairs.partner, pairs.similarity


class _Pairs:
    """The best partners so far.

    Args:
        features: (N, d) float32 or float16.
        samples: N.

    Attributes:
        partner: (N,) int64, -1 for none.
        similarity: (N,) float32, NaN for none.
    """

    def __init__(self, features: np.ndarray, samples: int) -> None:
        self.features = features
        self.partner = np.full(samples, -1, np.int64)
        self.similarity = np.full(samples, np.nan, np.float32)

    def match(self, pruned: np.ndarray, anchors: np.ndarray) -> None:
        """Pairs pruned samples with anchors, both indices, where that beats what they have."""
        queries, blank = read_rows(self.features, pruned)
        queries, pruned = queries[~blank], pruned[~blank]
        rows, blank = read_rows(self.features, anchors)
        rows, anchors = rows[~blank], anchors[~blank]
        if not len(anchors):
            return
        best, position = most_similar(queries, rows)
        better = ~(best <= self.similarity[pruned])
        winners = pruned[better]
        self.partner[winners] = anchors[position[better]]
        self.similarity[winners] = best[better]
