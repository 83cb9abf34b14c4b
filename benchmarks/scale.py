"""Clusters, density scores, thresholds and tables of growing sets, from features on disk.

    python benchmarks/scale.py [--quick] [--plot FILE] [--layout SHARE]

As with the default settings, features are float32 in a memory-mapped file and are joined with the
layouts of seven objects a sample in a second one (``feedback.layout=.3``); there are as many
clusters as keep their size the same. Each number of samples has a process of its own, whose peak
memory counts everything: libraries, the pool's ids, paths and boxes, and the pages of the mapped
files.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from density import use_wide_kernels
from figures import Figure, parse, peak_memory, save
from kmeans import make_features
from matplotlib.figure import Figure as Plot

from adadedup_mm.base.files import atomic_open, write_rows
from adadedup_mm.clusters import SphericalKMeans
from adadedup_mm.density import KCenter, joint_blocks, layout_blocks, nearest_kept
from adadedup_mm.density.layout import DIMENSIONS as LAYOUT_DIMENSIONS
from adadedup_mm.feedback import adaptive_set, initial_set
from adadedup_mm.pool import Pool
from adadedup_mm.selection import Selection
from adadedup_mm.settings.options import FeedbackOptions
from adadedup_mm.vectors.map import map_2d
from adadedup_mm.vectors.rows import read_in_passing
from adadedup_mm.workdir.tables import (
    CLASSES,
    CLUSTERS,
    SAMPLES,
    classes_table,
    clusters_table,
    samples_table,
)

SIZES, QUICK_SIZES = (250_000, 500_000, 1_000_000, 2_000_000), (10_000, 20_000, 40_000)
DIMENSIONS, CLUSTER_SIZE, KEEP_RATIO = 512, 350, 0.8
# Rows that are made at a time, of whole scenes; objects of a sample.
BLOCK, OBJECTS = 10_000, 7


def write_features(path: Path, n: int) -> None:
    """(n, 512) float32 unit features, in the order of the scenes."""
    write_rows(
        path,
        (n, DIMENSIONS),
        (make_features(BLOCK, DIMENSIONS, seed=start) for start in range(0, n, BLOCK)),
    )


def write_joint(path: Path, features: np.ndarray, pool: Pool, share: float) -> None:
    """What a run writes into its stage ``joint``."""
    owner = np.repeat(np.arange(len(pool)), np.diff(pool.offsets))
    layouts = layout_blocks(owner, pool.labels, pool.boxes, pool.image_sizes[owner], len(pool))
    write_rows(
        path,
        (len(pool), DIMENSIONS + LAYOUT_DIMENSIONS + 1),
        read_in_passing(features, joint_blocks(features, layouts, share)),
    )


def make_boxes(generator: np.random.Generator, count: int) -> np.ndarray:
    """(count, 4) float32 boxes in pictures of 480 x 480 pixels."""
    boxes = generator.random((count, 4), np.float32)
    boxes *= np.array([300, 300, 150, 150], np.float32)
    boxes[:, 2:] += boxes[:, :2] + 10
    return boxes


def make_pool(n: int) -> Pool:
    """As of a COCO json with n images."""
    generator = np.random.default_rng(0)
    return Pool(
        sample_ids=tuple(map(str, range(n))),
        image_paths=tuple((f'data/train2017/{i:012d}.jpg',) for i in range(n)),
        views=('image',),
        image_sizes=np.full((n, 2), 480, np.int32),
        classes=tuple(f'class {i}' for i in range(80)),
        offsets=np.arange(n + 1) * OBJECTS,
        labels=generator.integers(0, 80, n * OBJECTS, np.int32),
        boxes=make_boxes(generator, n * OBJECTS),
        dataset_index=np.zeros(n, np.int32),
    )


def measure(path: Path, n: int, share: float) -> None:
    """Runs all stages on the first n rows; prints their seconds and peak memory in MB as JSON."""
    features, pool = np.load(path, mmap_mode='r')[:n], make_pool(n)
    seconds = {}
    start = time.perf_counter()

    def done(stage: str) -> None:
        nonlocal start
        now = time.perf_counter()
        seconds[stage], start = now - start, now

    assignment = SphericalKMeans(n // CLUSTER_SIZE)(features, pool, 0)
    done('clusters')
    vectors = features
    if share:
        write_joint(path.with_name('joint.npy'), features, pool, share)
        vectors = np.load(path.with_name('joint.npy'), mmap_mode='r')
        done('label layouts')
    order, similarity = KCenter()(vectors, assignment, 0)
    done('density scores')
    _, tau = initial_set(similarity, KEEP_RATIO)
    # Gaps cost nothing; those of a proxy would be as good.
    delta = np.random.default_rng(0).standard_normal(assignment.max() + 1)
    adaptive = adaptive_set(similarity, assignment, delta, tau, 0.5, 1.0, 1.0, KEEP_RATIO)
    done('thresholds')
    selection = Selection(
        adaptive.kept, assignment, order, similarity, adaptive.thresholds, shift=adaptive.shift
    )
    partner, closeness = nearest_kept(vectors, assignment, selection.kept)
    done('partners')
    nothing = np.zeros(n, bool)
    selection.explain('adadedup')
    samples = samples_table(pool, selection, partner, closeness, nothing, map_2d(features))
    SAMPLES.write(path.parent, samples)
    CLUSTERS.write(path.parent, clusters_table(selection))
    CLASSES.write(path.parent, classes_table(pool, selection.kept))
    done('tables')
    print(json.dumps(dict(seconds=seconds, megabytes=peak_memory())))


def plot(path: Path, results: dict[int, dict]) -> None:
    """Seconds and memory against the number of samples, beside N log N through the first point."""
    figure = Plot(figsize=(9, 3.6), layout='constrained')
    left, right = figure.subplots(1, 2)
    sizes = np.array(list(results))
    total = np.array([sum(result['seconds'].values()) for result in results.values()])
    below = np.zeros(len(sizes))
    for stage in results[sizes[0]]['seconds']:
        above = below + [result['seconds'][stage] for result in results.values()]
        left.fill_between(sizes / 1e6, below, above, label=stage, alpha=0.7)
        below = above
    law = sizes * np.log(sizes)
    left.plot(sizes / 1e6, total[0] * law / law[0], 'k--', label='N log N')
    left.plot(sizes / 1e6, total, 'ko')
    left.set_ylabel('seconds')
    left.legend(loc='upper left', frameon=False)
    right.plot(
        sizes / 1e6,
        [result['megabytes'] / 1000 for result in results.values()],
        'ko-',
        label='peak',
    )
    right.plot(sizes / 1e6, sizes * DIMENSIONS * 4 / 1e9, 'k:', label='features on disk')
    right.set_ylabel('GB')
    right.legend(loc='upper left', frameon=False)
    for axes in (left, right):
        axes.set(xlabel='million samples', xlim=(0, None), ylim=(0, None))
        axes.spines[['top', 'right']].set_visible(False)
    with atomic_open(path) as file:
        figure.savefig(file, format='png', dpi=110)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--plot', type=Path, help='draw seconds and memory into this PNG file')
    parser.add_argument(
        '--layout',
        type=float,
        default=FeedbackOptions().layout,
        metavar='SHARE',
        help='share of the label layouts in the density scores; 0: of the images alone',
    )
    parser.add_argument('--measure', nargs=2, metavar=('FILE', 'N'), help=argparse.SUPPRESS)
    arguments = parse(__doc__, parser)
    if arguments.measure:
        measure(Path(arguments.measure[0]), int(arguments.measure[1]), arguments.layout)
        return
    use_wide_kernels()
    sizes = QUICK_SIZES if arguments.quick else SIZES
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, 'features.npy')
        write_features(file, sizes[-1])
        for n in sizes:
            command = [
                sys.executable,
                __file__,
                '--layout',
                str(arguments.layout),
                '--measure',
                file,
                str(n),
            ]
            results[n] = json.loads(
                subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
            )
            stages = ', '.join(
                f'{stage} {value:.1f}' for stage, value in results[n]['seconds'].items()
            )
            print(
                f'{n:>9,} samples: {sum(results[n]["seconds"].values()):.1f} s ({stages}), '
                f'{results[n]["megabytes"]:.0f} MB',
                flush=True,
            )
    small, large = sizes[0], sizes[-1]
    if arguments.plot:
        plot(arguments.plot, results)
    growth = sum(results[large]['seconds'].values()) / sum(results[small]['seconds'].values())
    case = f'{large:,} x {DIMENSIONS} from disk, clusters to tables'
    save(
        [
            Figure(
                f'{case}: growth of time from {small:,}',
                'N log N',
                growth * small * math.log(small) / (large * math.log(large)),
                1,
                at_most=True,
            ),
            Figure(
                f'{case}: peak memory',
                'the whole process',
                results[large]['megabytes'] / 1000,
                4,
                at_most=True,
                form='{:.1f} GB',
            ),
            Figure(
                f'{case}: minutes',
                '2 threads at most',
                sum(results[large]['seconds'].values()) / 60,
                form='{:.1f}',
            ),
        ],
        arguments.figures,
    )


if __name__ == '__main__':
    main()
