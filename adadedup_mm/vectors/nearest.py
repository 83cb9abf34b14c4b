"""The most similar rows among unit vectors, and the nearest centroids."""

import numpy as np

from ..base.progress import progress
from .rows import read_in_passing, read_rows, run_parallel, snap

QUERIES = 384
CHUNK = 4096
BLOCK = 1024


def most_similar(queries: np.ndarray, anchors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(q,) float32 similarity and (q,) int64 position of the most similar anchor, first of several; all unit rows."""
    best = np.full(len(queries), -np.inf, np.float32)
    position = np.zeros(len(queries), np.int64)
    for row in range(0, len(queries), QUERIES):
        block = slice(row, row + QUERIES)
        for column in range(0, len(anchors), CHUNK):
            tile = snap(queries[block] @ anchors[column : column + CHUNK].T)
            top = tile.argmax(1)
            value = tile[np.arange(len(tile)), top]
            better = value > best[block]
            best[block][better] = value[better]
            position[block][better] = column + top[better]
    return best, position


def nearest_centroid(
    features: np.ndarray, members: np.ndarray, centroids: np.ndarray, rank: int = 0, world: int = 1
) -> np.ndarray:
    """(n,) int64, the most similar centroid of each given row, the first one of several; -1 for blank rows.

    With several processes these are the rows of this one's share; all shares in their order are the
    whole.

    Args:
        features: (N, d) float32 or float16, in memory or memory-mapped.
        members: (n,) int, which rows.
        centroids: (K, d) float32 unit rows.
        rank: index of this process.
        world: number of processes.
    """
    # Shares are made of whole blocks, because BLAS may round the rows of other blocks differently.
    starts = range(0, len(members), BLOCK)
    starts = starts[len(starts) * rank // world : len(starts) * (rank + 1) // world]
    blocks = [members[start : start + BLOCK] for start in starts]
    count = sum(map(len, blocks))
    if not len(centroids):
        return np.full(count, -1, np.int64)

    def job(block: np.ndarray) -> np.ndarray:
        rows, blank = read_rows(features, block)
        return np.where(blank, -1, snap(rows @ centroids.T).argmax(1))

    with progress(count, 'clusters', 'sample') as bar:
        labels = []
        for found in read_in_passing(features, run_parallel(job, blocks)):
            labels.append(found)
            bar.update(len(found))
    return np.concatenate(labels) if labels else np.empty(0, np.int64)
