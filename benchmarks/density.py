"""Density scores: seconds, share of the sgemm rate, memory, beside SemDeDup's and NeMo Curator's.

    python benchmarks/density.py [--quick]

All methods score the same clusters of the same random features, in alternation; the best of several
runs counts. The peers' computation is a few plain lines here: theirs need a GPU or files in their
own layout.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import threadpoolctl
import torch
from figures import Figure, parse, peak_memory, save

from adadedup_mm.density import kcenter_scores, semdedup_scores
from adadedup_mm.vectors.rows import cluster_members

# Samples, dimensions and clusters, and what is asked for: how many times as fast as the faster of
# the peers, and what share of the rate of a large matrix product.
CASES = {
    (118_287, 512, 50): (3, 0.7),
    (118_287, 512, 344): (2.2, 0.55),
    (118_287, 512, 1000): (2.2, 0.4),
    (28_130, 3072, 168): (1.8, 0.55),
}
QUICK_CASES = {(8_000, 512, 8): (3, 0.7), (8_000, 512, 80): (2.2, 0.4)}


def sorted_clusters(
    features: np.ndarray, assignment: np.ndarray
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """The members and features of each cluster, farthest from the centroid first."""
    for members in filter(len, cluster_members(assignment)):
        rows = torch.from_numpy(features[members])
        centroid = torch.nn.functional.normalize(rows.mean(0), dim=0)
        ranking = torch.argsort(rows @ centroid)
        yield members[ranking.numpy()], rows[ranking]


def semdedup(features: np.ndarray, assignment: np.ndarray) -> np.ndarray:
    """SemDeDup's computation.

    The full matrix of each cluster, its upper triangle, the maximum of each column.
    """
    scores = np.zeros(len(features), np.float32)
    for members, rows in sorted_clusters(features, assignment):
        scores[members] = torch.triu(rows @ rows.T, diagonal=1).max(0).values.numpy()
    return scores


def nemo(features: np.ndarray, assignment: np.ndarray) -> np.ndarray:
    """NeMo Curator's computation: as SemDeDup's, in batches of 1024 columns."""
    scores = np.zeros(len(features), np.float32)
    for members, rows in sorted_clusters(features, assignment):
        for start in range(0, len(rows), 1024):
            batch = torch.triu(rows @ rows[start : start + 1024].T, diagonal=1 - start)
            scores[members[start : start + 1024]] = batch.max(0).values.numpy()
    return scores


METHODS: dict[str, Callable[[np.ndarray, np.ndarray], object]] = {
    'SemDeDup': semdedup,
    'NeMo Curator': nemo,
    'semdedup_scores': lambda features, assignment: semdedup_scores(features, assignment)[1],
    'kcenter_scores': lambda features, assignment: kcenter_scores(features, assignment)[1],
}


def make_case(n: int, d: int, clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """Features in lumps, and the lumps as clusters, as uneven as k-means makes them.

    Returns:
        (n, d) float32 unit vectors and (n,) int32 numbers of clusters.
    """
    generator = np.random.default_rng(0)
    shares = generator.dirichlet(np.full(clusters, 1.5))
    assignment = generator.choice(clusters, n, p=shares).astype(np.int32)
    features = generator.standard_normal((n, d), np.float32)
    features += generator.standard_normal((clusters, d), np.float32)[assignment]
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features, assignment


def sgemm_rate(d: int) -> float:
    """FLOP per second of NumPy's (4096, d) x (d, 4096), best of 5."""
    left, right = np.ones((4096, d), np.float32), np.ones((d, 4096), np.float32)
    return 2 * 4096**2 * d / min(seconds(np.matmul, left, right) for _ in range(5))


def seconds(function: Callable[..., object], *arguments: object) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def extra_memory(method: str, folder: Path) -> float:
    """Peak memory in MB that a method adds to a process that holds the features."""
    command = [sys.executable, __file__, '--memory-of', method, str(folder)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_extra_memory(method: str, folder: Path) -> None:
    """The other side of ``extra_memory``."""
    features, assignment = np.load(folder / 'features.npy'), np.load(folder / 'assignment.npy')
    warm = np.arange(200)
    METHODS[method](features[warm].copy(), np.zeros(200, np.int32))
    Path('/proc/self/clear_refs').write_text('5')  # resets the peak
    before = peak_memory()
    METHODS[method](features, assignment)
    print(peak_memory() - before)


def run_case(
    case: tuple[int, int, int], targets: tuple[float, float], repeats: int
) -> list[Figure]:
    """Prints one block of the table."""
    n, d, clusters = case
    features, assignment = make_case(n, d, clusters)
    useful = float((np.bincount(assignment).astype(np.float64) ** 2).sum()) * d
    rate = sgemm_rate(d)
    best = dict.fromkeys(METHODS, np.inf)
    for _ in range(repeats):
        for name, method in METHODS.items():
            best[name] = min(best[name], seconds(method, features, assignment))
        rate = max(rate, sgemm_rate(d))
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder, 'features.npy'), features)
        np.save(Path(folder, 'assignment.npy'), assignment)
        memory = {name: extra_memory(name, Path(folder)) for name in METHODS}
    peer = min(best['SemDeDup'], best['NeMo Curator'])
    for name in METHODS:
        print(
            f'{n:>7} x {d:<4} {clusters:>5}  {name:<16} {best[name]:>8.3f} '
            f'{peer / best[name]:>10.2f} '
            f'{useful / best[name] / rate:>10.2f} {memory[name]:>9.1f} '
            f'{memory[name] / memory["SemDeDup"]:>10.3f}',
            flush=True,
        )
    name, speed, share = f'density scores, {n:,} x {d:,}, K={clusters:,}', *targets
    return [
        Figure(
            f'{name}: speed',
            'the faster of SemDeDup and NeMo Curator',
            peer / best['semdedup_scores'],
            speed,
        ),
        Figure(f'{name}: useful FLOP/s', 'sgemm', useful / best['semdedup_scores'] / rate, share),
        Figure(
            f'{name}: extra memory',
            'SemDeDup',
            memory['semdedup_scores'] / memory['SemDeDup'],
            0.1,
            at_most=True,
            form='{:.3f} x',
        ),
        Figure(
            f'{name}, k-center order: speed',
            'the faster of SemDeDup and NeMo Curator (in their order)',
            peer / best['kcenter_scores'],
        ),
    ]


def use_wide_kernels() -> None:
    """Starts again with OpenBLAS's AVX-512 kernels where it overlooks that the CPU has them."""
    architectures = {library.get('architecture') for library in threadpoolctl.threadpool_info()}
    if 'OPENBLAS_CORETYPE' in os.environ or architectures.isdisjoint({'Haswell', 'Zen'}):
        return
    if ' avx512f ' in Path('/proc/cpuinfo').read_text():
        print(
            'OpenBLAS takes this processor for one without AVX-512: running with '
            'OPENBLAS_CORETYPE=SkylakeX'
        )
        sys.stdout.flush()
        os.execve(
            sys.executable,
            [sys.executable, *sys.argv],
            {**os.environ, 'OPENBLAS_CORETYPE': 'SkylakeX'},
        )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument(
        '--memory-of', nargs=2, metavar=('METHOD', 'FOLDER'), help=argparse.SUPPRESS
    )
    arguments = parse(__doc__, parser)
    if arguments.memory_of:
        print_extra_memory(arguments.memory_of[0], Path(arguments.memory_of[1]))
        return
    use_wide_kernels()
    print(
        f'{"features":>14} {"K":>5}  {"method":<16} {"seconds":>8} {"x peer":>10} {"of sgemm":>10} '
        f'{"extra MB":>9} '
        f'{"x SemDeDup":>10}'
    )
    cases = QUICK_CASES if arguments.quick else CASES
    save(
        [
            figure
            for case, targets in cases.items()
            for figure in run_case(case, targets, repeats=1 if arguments.quick else 5)
        ],
        arguments.figures,
    )


if __name__ == '__main__':
    main()
