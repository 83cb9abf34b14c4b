"""What work on unit vectors shares: reading rows, comparing similarities, threads."""

import functools
import mmap
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController

Result = TypeVar('Result')
# The grid of similarities. Shifts on the same grid make score - shift exact, so that thresholds
# mean what they say.
GRID = 2.0**-20
# Squared lengths this near to 1 are left as they are.
_UNIT_TOLERANCE = 1e-5
# Seconds of reading after which a mapped file's pages are given back.
_PASSING = 0.5


def read_rows(features: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A copy of some feature rows as float32 of unit length.

    Args:
        features: (N, d) float32 or float16, in memory or memory-mapped, of unit length or not.
        members: (n,) int, which rows.

    Returns:
        rows: (n, d) float32; blank ones are zero.
        blank: (n,) bool, rows without a direction: zero, or not finite.
    """
    rows = features[members].astype(np.float32, copy=False)
    with np.errstate(over='ignore', invalid='ignore'):
        squares = np.einsum('ij,ij->i', rows, rows)
        has_length = np.isfinite(squares) & (squares > np.finfo(np.float32).tiny)
        off_unit = np.abs(squares - 1) > _UNIT_TOLERANCE

    blank = ~has_length
    scale = blank | off_unit
    if scale.any():
        rows[blank] = 0
        squares[blank] = 1
        lengths = np.sqrt(squares[scale])
        rows[scale] /= lengths[:, None]

    return rows, blank


def slices(count: int, size: int) -> list[slice]:
    """Consecutive slices that cover ``range(count)``, ``size`` long each but for the last one."""
    starts = range(0, count, size)
    return [slice(start, min(start + size, count)) for start in starts]


def drop_pages(features: np.ndarray) -> None:
    """Gives back the memory that reading a memory-mapped file has taken.

    What is read again comes from the file. The system would do so by itself when memory is short;
    until then the pages count as memory of the process, which some clusters end for it. Nothing
    happens to other arrays.

    Args:
        features: any shape; an array mapped for reading only, or a view of one.
    """
    owner: Any = features
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap) and not features.flags.writeable:
        owner.madvise(mmap.MADV_DONTNEED)


def read_in_passing(features: np.ndarray, results: Iterable[Result]) -> Iterator[Result]:
    """Passes on results that come from rows of ``features``, and drops its pages now and then.

    Args:
        features: see ``drop_pages``.
        results: whatever reading them yields, one after the other.
    """
    last = time.monotonic()
    for result in results:
        yield result
        if time.monotonic() - last > _PASSING:
            drop_pages(features)
            last = time.monotonic()
    drop_pages(features)


def snap(similarity: np.ndarray) -> np.ndarray:
    """Cosines as multiples of 2**-20 in [-1, 1], in place.

    BLAS sums in an order that depends on the shapes it is given. Without the last bits, equal
    images have equal scores and ties are decided by the sample's index instead of by rounding
    errors.

    Args:
        similarity: any shape, float32.
    """
    similarity *= 2**20
    np.rint(similarity, out=similarity)
    similarity *= 2**-20
    np.minimum(similarity, 1, out=similarity)
    return np.maximum(similarity, -1, out=similarity)


def cluster_members(assignment: np.ndarray) -> list[np.ndarray]:
    """The sample indices of each cluster, ascending.

    Args:
        assignment: (N,) int labels 0..K-1.

    Returns:
        K int64 arrays; empty clusters give empty ones.
    """
    # NumPy sorts 16-bit integers by radix, ten times faster than longer ones.
    fits = assignment.max(initial=0) < 2**16
    short = assignment.astype(np.uint16) if fits else assignment
    by_cluster = np.argsort(short, kind='stable')
    ends = np.cumsum(np.bincount(assignment))
    return np.split(by_cluster, ends)[:-1]


def largest_first(clusters: Iterable[np.ndarray]) -> list[np.ndarray]:
    """The clusters that are not empty, in the order that ``run_parallel`` is fastest with."""
    return sorted(filter(len, clusters), key=len, reverse=True)


@functools.cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api='blas')


def run_parallel(
    job: Callable[[Any], Any], items: list[Any], workers: int | None = None
) -> Iterator[Any]:
    """Results of ``job`` for each item, in order, from threads that use one BLAS thread each.

    On matrices of a cluster's size this beats one multi-threaded product after the other, and the
    result does not depend on the number of threads.

    Args:
        job: a function that spends its time in NumPy.
        items: put the longest first.
        workers: number of threads; None means as many as BLAS would use.
    """
    if not workers:
        threads = [library['num_threads'] for library in _blas().info()]
        workers = max(threads, default=1)
    with _blas().limit(limits=1), ThreadPoolExecutor(workers) as pool:
        yield from pool.map(job, items)
