"""Clusters, density scores and partners in pieces, for all processes together."""

import heapq
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from ..base.files import write_array
from ..base.progress import hidden_progress
from ..clusters import CentroidClusterer, Clusterer
from ..pool import Pool
from ..stages import Done, Shards, Work
from ..vectors.nearest import BLOCK, nearest_centroid
from .method import ClusterDensityMethod, DensityMethod
from .partners import nearest_kept

# Clusters are dealt into this many pieces; that many processes at most have something to do.
PIECES = 64
# So many pieces are computed at a time: enough clusters to keep the threads of a process busy.
_AT_A_TIME = 8
# Samples whose nearest centroids make a piece: whole blocks, because BLAS may round the rows of
# other blocks differently.
_ROWS = 64 * BLOCK


def balanced(costs: np.ndarray, parts: int) -> np.ndarray:
    """Deals jobs out: the most expensive one first, each to the part that has the least to do.

    Graham 1969, LPT.

    Args:
        costs: (K,) int64 of the jobs, not negative.
        parts: how many parts there are.

    Returns:
        (K,) int64, the part of each job. No part costs more than 4/3 of the dearest one of the best
        possible deal.
    """
    part = np.zeros(len(costs), np.int64)
    loads: list[tuple[int, int]] = [(0, number) for number in range(parts)]
    for job in np.argsort(-costs, kind='stable'):
        load, part[job] = loads[0]
        heapq.heapreplace(loads, (load + int(costs[job]), int(part[job])))
    return part


def cluster_work(clusterer: Clusterer, features: np.ndarray, pool: Pool, seed: int) -> Work:
    """The work of the stage ``clusters``, which writes ``clusters.npy``, (N,) int32.

    A clusterer that ``learns_centroids`` leaves it to all processes to find the nearest one for
    every sample. Others work on the first process alone.

    Args:
        clusterer: built from ``CLUSTERERS``.
        features: (N, d) float32.
        pool: the N samples.
        seed: for the clusterer.
    """
    result, centroids_file = 'clusters.npy', 'part_centroids.npy'

    def alone(folder: Path) -> None:
        write_array(folder / result, clusterer(features, pool, seed))

    if not getattr(clusterer, 'learns_centroids', False):
        return alone
    centroid_clusterer = cast(CentroidClusterer, clusterer)
    starts = range(0, len(features), _ROWS)
    parts = [np.arange(start, min(start + _ROWS, len(features))) for start in starts]
    files = [f'part_{number:05d}.npy' for number in range(len(parts))]

    def compute(folder: Path, pieces: Sequence[int], done: Done) -> None:
        centroids = np.load(folder / centroids_file)
        for piece in pieces:
            with hidden_progress():
                nearest = nearest_centroid(features, parts[piece], centroids)
            done(len(nearest))
            write_array(folder / files[piece], nearest)

    def lead(folder: Path, share: Callable[[], None]) -> None:
        def assign(centroids: np.ndarray) -> np.ndarray:
            # The pieces that an interrupted run left belong to its own centroids.
            if not (folder / centroids_file).exists():
                write_array(folder / centroids_file, centroids)
            share()
            return np.concatenate([np.load(folder / file) for file in files])

        if not (folder / result).exists():
            write_array(folder / result, centroid_clusterer(features, pool, seed, assign=assign))
        (folder / centroids_file).unlink(missing_ok=True)

    sizes = [len(part) for part in parts]

    return Shards(
        files, sizes, compute, lead, result, centroids_file, label='clusters', unit='sample'
    )


def density_work(
    method: DensityMethod, features: np.ndarray, assignment: np.ndarray, seed: int
) -> Work:
    """The work of the stage ``density``, which writes ``order.npy`` and ``similarity.npy``.

    A method that works ``by_cluster`` is asked by every process for some of the clusters. Others
    work on the first process alone.

    Args:
        method: built from ``DENSITIES``.
        features: (N, d) float32.
        assignment: (N,) int32, labels 0..K-1.
        seed: for the method.
    """

    def write(folder: Path, order: np.ndarray, similarity: np.ndarray) -> None:
        write_array(folder / 'order.npy', order)
        write_array(folder / 'similarity.npy', similarity)

    def alone(folder: Path) -> None:
        write(folder, *method(features, assignment, seed))

    if not getattr(method, 'by_cluster', False):
        return alone
    cluster_method = cast(ClusterDensityMethod, method)
    # A cluster's pairs of samples are compared.
    piece_of = balanced(np.bincount(assignment) ** 2, PIECES)

    def score(clusters: np.ndarray) -> np.ndarray:
        order, similarity = cluster_method(features, assignment, seed, clusters=clusters)
        scores = np.empty(len(order), [('order', order.dtype), ('similarity', similarity.dtype)])
        scores['order'] = order
        scores['similarity'] = similarity
        return scores

    def finish(folder: Path, scores: np.ndarray) -> None:
        write(folder, scores['order'], scores['similarity'])

    return _by_cluster(assignment, piece_of, score, finish, 'similarity.npy', 'density scores')


def partner_work(features: np.ndarray, assignment: np.ndarray, kept: np.ndarray) -> Shards:
    """The work of the stage ``partners``, which writes ``partner.npy``, (N,) int64.

    Args:
        features: (N, d) float32.
        assignment: (N,) int32, labels 0..K-1.
        kept: (N,) bool.
    """
    stays = np.bincount(assignment, kept).astype(np.int64)
    goes = np.bincount(assignment) - stays
    piece_of = balanced(stays * goes, PIECES)

    def find(clusters: np.ndarray) -> np.ndarray:
        return nearest_kept(features, assignment, kept, clusters=clusters)[0]

    def finish(folder: Path, partner: np.ndarray) -> None:
        write_array(folder / 'partner.npy', partner)

    return _by_cluster(assignment, piece_of, find, finish, 'partner.npy', 'partners')


def _by_cluster(
    assignment: np.ndarray,
    piece_of: np.ndarray,
    compute_clusters: Callable[[np.ndarray], np.ndarray],
    finish: Callable[[Path, np.ndarray], None],
    result: str,
    label: str,
) -> Shards:
    """Work on clusters that do not depend on each other.

    Args:
        assignment: (N,) int32, labels 0..K-1.
        piece_of: (K,) int64, the piece of each cluster.
        compute_clusters: given (J,) int64 clusters, (N,) values that are right for their samples.
        finish: given the stage's folder and (N,) values, writes the result.
        result: the file that ``finish`` writes last.
        label: for the progress bar.
    """
    pieces = np.unique(piece_of)
    members = [np.flatnonzero(piece_of[assignment] == piece) for piece in pieces]
    files = [f'part_{number:02d}.npy' for number in range(len(pieces))]

    def compute(folder: Path, chosen: Sequence[int], done: Done) -> None:
        for start in range(0, len(chosen), _AT_A_TIME):
            some = chosen[start : start + _AT_A_TIME]
            clusters = np.flatnonzero(np.isin(piece_of, pieces[some]))
            with hidden_progress():
                values = compute_clusters(clusters)
            for piece in some:
                done(len(members[piece]))
                write_array(folder / files[piece], values[members[piece]])

    def lead(folder: Path, share: Callable[[], None]) -> None:
        share()
        if (folder / result).exists():
            return
        parts = [np.load(folder / file) for file in files]
        values = np.empty(len(assignment), parts[0].dtype)
        for part, own in zip(parts, members, strict=True):
            values[own] = part
        finish(folder, values)

    sizes = [len(own) for own in members]

    return Shards(files, sizes, compute, lead, result, label=label, unit='sample')
