"""Clusters and density scores by all processes together: who does what, and how the parts become one result."""

import heapq
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..base.files import write_array
from ..pool import Pool
from ..stages import StageStore
from ..vectors.nearest import nearest_centroid
from . import nearest_kept

# What ``StageStore.run`` takes: ``compute`` and ``share``.
Work = tuple[Callable[[Path], None], Callable[[Path], None] | None]


def balanced(costs: np.ndarray, parts: int) -> np.ndarray:
    """Deals jobs out: the most expensive one first, each to the part that has the least to do (Graham 1969, LPT).

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


def cluster_work(
    clusterer: Any, features: np.ndarray, pool: Pool, seed: int, store: StageStore
) -> Work:
    """The stage ``clusters``, which writes ``clusters.npy``.

    The first process learns the centroids. A clusterer whose call takes an argument ``assign``
    leaves it to that function to find the nearest one of (K, d) centroids for all samples, (N,)
    int64 and -1 for blank ones: each process does so for some blocks of samples. Other clusterers
    work on the first process alone.

    Args:
        clusterer: built from ``CLUSTERERS``.
        features: (N, d) float32.
        pool: the N samples.
        seed: for the clusterer.
        store: says which process this is.
    """
    splits = store.world > 1 and _takes(clusterer, 'assign')

    def assign_share(folder: Path) -> None:
        store.write_part(
            folder,
            'clusters.npy',
            lambda: nearest_centroid(
                features,
                np.arange(len(features)),
                np.load(folder / 'part_centroids.npy'),
                store.rank,
                store.world,
            ),
        )

    def share(folder: Path) -> None:
        if store.rank > 0:
            store.wait_for(
                lambda: any(
                    (folder / name).exists() for name in ('part_centroids.npy', 'clusters.npy')
                )
            )
            assign_share(folder)

    def compute(folder: Path) -> None:
        def assign(centroids: np.ndarray) -> np.ndarray:
            # The parts that an interrupted run left belong to its own centroids.
            if not (folder / 'part_centroids.npy').exists():
                write_array(folder / 'part_centroids.npy', centroids)
            assign_share(folder)
            return np.concatenate(store.read_parts(folder))

        if not (folder / 'clusters.npy').exists():
            arguments = dict(assign=assign) if splits else {}
            write_array(folder / 'clusters.npy', clusterer(features, pool, seed, **arguments))
        store.remove_parts(folder)

    return compute, share if splits else None


def density_work(
    method: Any, features: np.ndarray, assignment: np.ndarray, seed: int, store: StageStore
) -> Work:
    """The stage ``density``, which writes ``order.npy`` and ``similarity.npy``.

    A method whose call takes an argument ``clusters`` is asked by each process for some of the
    clusters, so that all have equally many pairs of samples to compare. Other methods work on the
    first process alone.

    Args:
        method: built from ``DENSITIES``.
        features: (N, d) float32.
        assignment: (N,) int32, labels 0..K-1.
        seed: for the method.
        store: says which process this is.
    """
    splits = store.world > 1 and _takes(method, 'clusters')
    owner = balanced(np.bincount(assignment) ** 2, store.world)

    def part() -> np.ndarray:
        mine = np.flatnonzero(owner == store.rank)
        order, similarity = method(features, assignment, seed, clusters=mine)
        members = owner[assignment] == store.rank
        rows = np.empty(
            np.count_nonzero(members), [('order', order.dtype), ('similarity', similarity.dtype)]
        )
        rows['order'], rows['similarity'] = order[members], similarity[members]
        return rows

    def share(folder: Path) -> None:
        store.write_part(folder, 'similarity.npy', part)

    def merge(folder: Path) -> tuple[np.ndarray, np.ndarray]:
        parts = store.read_parts(folder)
        scores = np.empty(len(assignment), parts[0].dtype)
        for rank, rows in enumerate(parts):
            scores[owner[assignment] == rank] = rows
        return scores['order'], scores['similarity']

    def compute(folder: Path) -> None:
        if not (folder / 'similarity.npy').exists():
            order, similarity = merge(folder) if splits else method(features, assignment, seed)
            write_array(folder / 'order.npy', order)
            write_array(folder / 'similarity.npy', similarity)
        store.remove_parts(folder)

    return compute, share if splits else None


def partner_work(
    features: np.ndarray, assignment: np.ndarray, kept: np.ndarray, store: StageStore
) -> Work:
    """The stage ``partners``, which writes ``partner.npy``: each process looks for those of some clusters' samples.

    Args:
        features: (N, d) float32.
        assignment: (N,) int32, labels 0..K-1.
        kept: (N,) bool.
        store: says which process this is.
    """
    stays = np.bincount(assignment, kept).astype(np.int64)
    owner = balanced(stays * (np.bincount(assignment) - stays), store.world)

    def share(folder: Path) -> None:
        mine = np.flatnonzero(owner == store.rank)
        store.write_part(
            folder,
            'partner.npy',
            lambda: nearest_kept(features, assignment, kept, clusters=mine)[0],
        )

    def compute(folder: Path) -> None:
        if not (folder / 'partner.npy').exists():
            # Samples of other processes' clusters are -1.
            write_array(folder / 'partner.npy', np.max(store.read_parts(folder), axis=0))
        store.remove_parts(folder)

    return compute, share


def _takes(function: Any, name: str) -> bool:
    return name in inspect.signature(function).parameters
