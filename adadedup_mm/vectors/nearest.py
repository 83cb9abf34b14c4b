"""The most similar rows among unit vectors, and the nearest centroids."""

import numpy as np

from ..base.progress import progress
from .rows import (
    cluster_members,
    largest_first,
    read_in_passing,
    read_rows,
    run_parallel,
    slices,
    snap,
)

# Rows and columns of a tile of similarities.
QUERIES = 384
CHUNK = 4096
# Rows that are compared with all centroids at a time.
BLOCK = 1024


def most_similar(queries: np.ndarray, anchors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The most similar anchor of each query, the first one of several.

    Args:
        queries: (q, d) float32, unit rows.
        anchors: (a, d) float32, unit rows.

    Returns:
        similarity: (q,) float32, multiples of 2**-20; -inf where there are no anchors.
        position: (q,) int64, which anchor it is.
    """
    best = np.full(len(queries), -np.inf, np.float32)
    position = np.zeros(len(queries), np.int64)
    for block in slices(len(queries), QUERIES):
        rows = queries[block]
        best_here, position_here = best[block], position[block]
        for chunk in slices(len(anchors), CHUNK):
            columns = anchors[chunk]
            tile = snap(rows @ columns.T)
            top = tile.argmax(axis=1)
            value = tile[np.arange(len(rows)), top]
            better = value > best_here
            best_here[better] = value[better]
            position_here[better] = chunk.start + top[better]

    return best, position


def nearest_centroid(
    features: np.ndarray, members: np.ndarray, centroids: np.ndarray, rank: int = 0, world: int = 1
) -> np.ndarray:
    """The most similar centroid of each given row, the first one of several.

    With several processes these are the rows of this one's share; all shares in their order are the
    whole.

    Args:
        features: (N, d) float32 or float16, in memory or memory-mapped.
        members: (n,) int, which rows.
        centroids: (K, d) float32 unit rows.
        rank: index of this process.
        world: number of processes.

    Returns:
        (n,) int64 labels 0..K-1; -1 for rows without a direction, and where there is no centroid.
    """
    # Shares are made of whole blocks, because BLAS may round the rows of other blocks differently.
    blocks = slices(len(members), BLOCK)
    first = len(blocks) * rank // world
    last = len(blocks) * (rank + 1) // world
    share = [members[block] for block in blocks[first:last]]
    count = sum(map(len, share))
    if not len(centroids):
        return np.full(count, -1, np.int64)

    def assign(block: np.ndarray) -> np.ndarray:
        rows, blank = read_rows(features, block)
        similarity = snap(rows @ centroids.T)
        return np.where(blank, -1, similarity.argmax(1))

    labels = [np.empty(0, np.int64)]
    with progress(count, 'clusters', 'sample') as bar:
        results = run_parallel(assign, share)
        for found in read_in_passing(features, results):
            labels.append(found)
            bar.update(len(found))

    return np.concatenate(labels)


def earlier_alike(features: np.ndarray, assignment: np.ndarray, least: float) -> np.ndarray:
    """Links that hold near-duplicates together: rows with the first earlier one that is alike.

    Args:
        features: (N, d) float32 or float16 unit rows, in memory or memory-mapped.
        assignment: (N,) int32, labels 0..K-1; only rows of the same cluster are compared.
        least: cosine from which two rows are alike.

    Returns:
        (n, 2) int64 indices, the later row first.
    """

    def inside(members: np.ndarray) -> np.ndarray:
        rows, blank = read_rows(features, members)
        links = [np.empty((0, 2), np.int64)]
        for block in slices(len(members), QUERIES):
            # Rows after the block are not earlier than any of its rows.
            alike = snap(rows[block] @ rows[: block.stop].T) >= least
            alike[:, blank[: block.stop]] = False
            first = alike.argmax(axis=1)
            later = np.arange(block.start, block.start + len(first))
            linked = alike[np.arange(len(first)), first] & (first < later)
            links.append(np.column_stack([members[later[linked]], members[first[linked]]]))
        return np.concatenate(links)

    clusters = largest_first(cluster_members(assignment))
    found = list(read_in_passing(features, run_parallel(inside, clusters)))
    links = np.concatenate([np.empty((0, 2), np.int64), *found])
    return links[np.argsort(links[:, 0])]
