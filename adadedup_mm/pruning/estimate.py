"""What a run will cost, from a quick look: at some images, and a few batches of the proxy."""

import math
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..base import words
from ..density.layout import DIMENSIONS as LAYOUT
from ..features import BadImage, Glance, decode
from ..features.extract import time_images
from ..probe.cells import GRIDS
from ..probe.collect import bytes_of_cells, time_pictures
from ..proxy.estimate import TrainingSpeed, time_training
from ..strategies.needs import Needs, needs_of
from ..strategies.run import Run

# Below this many samples a run is over soon, and trying the proxy would be a large part of it.
MEASURE_FROM = 2000
# What a forward pass costs of a training step, which also goes backward through twice as many
# products.
FORWARD = 1 / 3
# Share of the speed of one large matrix product that clusters and density scores reach (see
# benchmarks/density.py).
EFFICIENCY = 0.4
# A proxy's files while it trains: weights, Adam's two moments, and the weights alone.
COPIES = 4


@dataclass(frozen=True)
class Rates:
    """What was measured on this machine.

    Attributes:
        image: seconds for the features of an image on average, all workers together; 0 if they are
            there already.
        dim: length of a sample's feature.
        product: multiply-adds a second of a matrix product.
        proxy: of its training; None where it was not measured.
        picture: seconds that the probe looks at a picture, all workers together; 0 if it need not.
    """

    image: float
    dim: int
    product: float
    proxy: TrainingSpeed | None
    picture: float = 0.0


@dataclass(frozen=True)
class Estimate:
    """Seconds of the parts of a run (None: unknown), and bytes.

    Attributes:
        features: seconds.
        clusters: seconds of clusters and density scores.
        proxy: seconds of training and asking the proxy.
        memory: at the peak.
        disk: at the peak.
        probe: seconds of looking at pictures.
    """

    features: float
    clusters: float
    proxy: float | None
    memory: int
    disk: int
    probe: float = 0.0

    @property
    def seconds(self) -> float:
        """All parts that are known."""
        return self.features + self.clusters + self.probe + (self.proxy or 0)


def measure_rates(run: Run, needs: Needs, with_proxy: bool = True) -> Rates:
    """Tries the embedder on some images and the proxy on some batches, as far as they are needed.

    Raises:
        UserError: the embedder or the proxy cannot be used.
    """
    image, dim = _measure_features(run) if needs.features else (0.0, 0)
    proxy = None
    if with_proxy and (needs.trained or needs.scored) and run.pool.labelled.any():
        proxy = _measure_proxy(run)
    picture = _measure_probe(run) if needs.probed else 0.0
    return Rates(image, dim, _product_rate(dim), proxy, picture)


def _measure_features(run: Run) -> tuple[float, int]:
    """Seconds of an image, 0 where the features are there, and the length of a sample's feature."""
    images = run.image_stages
    if run.ledger.is_finished('features', images.features_key):
        return 0.0, run.features.shape[1]

    paths = []
    for views in run.pool.image_paths:
        paths += [views[column] for column in images.columns]
    seconds, dim = time_images(paths, images.embedder, reader=images.reader)
    return seconds, dim * len(images.columns)


def _measure_probe(run: Run) -> float:
    """Seconds that the probe looks at a picture, 0 where it has done so."""
    probe = run.probe_stages
    if probe.is_finished:
        return 0.0
    return time_pictures(probe.pictures.paths, probe.backbone, run.image_stages.reader, probe.size)


def _measure_proxy(run: Run) -> TrainingSpeed:
    config = run.proxy_stages.config
    batch = config.train_dataloader.get('batch_size', 1)
    some = _first_readable(run, max(8 * batch, 64))
    with tempfile.TemporaryDirectory() as folder:
        data = run.proxy_stages.training_data(some, Path(folder))
        return time_training(config, data, Path(folder))


def estimate(run: Run, needs: Needs, rates: Rates, keep_ratio: float) -> Estimate:
    """What a run will take.

    Args:
        run: the run.
        needs: of its strategy.
        rates: measured here.
        keep_ratio: in (0, 1].
    """
    world = run.store.world
    images = len(run.pool) * len(run.image_stages.columns)
    products, learned_from = (0.0, 0)
    if needs.features:
        products, learned_from = _cluster_products(run, rates.dim)

    return Estimate(
        features=images * rates.image / world,
        clusters=products / (EFFICIENCY * rates.product),
        proxy=_proxy_seconds(needs, rates, world),
        memory=_memory(run, rates.dim, learned_from),
        disk=_disk(run, needs, rates, keep_ratio),
        probe=needs.probed * rates.picture / world,
    )


def _memory(run: Run, dim: int, learned_from: int) -> int:
    """Bytes at the peak; ``learned_from`` is the number of rows that k-means learns from."""
    features = 4 * len(run.pool) * dim
    # Vectors that are joined with label layouts are read in passing, and have no part in it.
    sample = 4 * learned_from * dim
    return _peak_memory() + round(1.3 * features) + sample


def _disk(run: Run, needs: Needs, rates: Rates, keep_ratio: float) -> int:
    """Bytes on disk at the peak."""
    count = len(run.pool)
    features = 4 * count * rates.dim
    joint = 0
    if needs.layout:
        joint = 4 * count * (rates.dim + LAYOUT + 1)
    weights = 0
    if rates.proxy is not None:
        weights = 4 * COPIES * rates.proxy.parameters
    annotations = 0
    for source in run.sources:
        if source.ann_file:
            annotations += source.ann_file.stat().st_size

    cells = 0
    if needs.probed:
        channels = sum(run.probe_stages.backbone.channels)
        cells = bytes_of_cells(needs.probed, channels, len(GRIDS))

    # Features are there twice while they are put together, and once more when they are joined with
    # the label layouts.
    stages = features + max(features, joint)
    return stages + weights + cells + round(keep_ratio * annotations)


def _proxy_seconds(needs: Needs, rates: Rates, world: int) -> float | None:
    """Seconds of trainings and losses; None where they are needed and were not measured."""
    if rates.proxy is None:
        return None if needs.trained or needs.scored else 0.0
    # A training is one process's work, unless all do it together.
    trainers = world if needs.together else min(world, needs.trainings)
    images = needs.trained / trainers + FORWARD * needs.scored / world
    return rates.proxy.seconds_per_image * images


def _first_readable(run: Run, count: int) -> np.ndarray:
    """(N,) bool, the first readable labelled samples, of each inner dataset as many."""
    chosen = np.zeros(len(run.pool), bool)
    share = -(-count // len(run.sources))
    for index in range(len(run.sources)):
        found = 0
        for sample in np.flatnonzero((run.pool.dataset_index == index) & run.pool.labelled):
            if found == share:
                break
            chosen[sample] = _is_readable(run, run.pool.image_paths[sample])
            found += int(chosen[sample])

    return chosen


def _is_readable(run: Run, paths: Sequence[str]) -> bool:
    """Whether a run would train its proxy on a sample; on images that are arrays it always does."""
    transform = replace(Glance.transform, reader=run.image_stages.reader)
    columns = run.image_stages.columns if paths else []
    try:
        for column in columns:
            decode(paths[column], transform)
    except BadImage:
        return False
    return True


def estimate_line(run: Run) -> str:
    """One line on what a run will take."""
    ratio = run.options.keep_ratio
    count = len(run.pool)
    needs = needs_of(run, ratio)
    rates = measure_rates(run, needs, with_proxy=count >= MEASURE_FROM)
    cost = estimate(run, needs, rates, ratio)

    parts = []
    if needs.features:
        parts.append(f'features {words.duration(cost.features)}')
        parts.append(f'clusters {words.duration(cost.clusters)}')

    if cost.probe:
        parts.append(f'probe {words.duration(cost.probe)}')
    if cost.proxy:
        parts.append(f'proxy {words.duration(cost.proxy)}')
    detail = f' ({", ".join(parts)})' if len(parts) > 1 else ''
    more = ' and the proxy' if cost.proxy is None else ''

    seconds = words.duration(cost.seconds)
    memory = words.size(cost.memory)
    disk = words.size(cost.disk)
    line = (
        f'estimate for {count:,} samples: {seconds}{detail}{more}, {memory} of memory, {disk} on '
        'disk'
    )
    return line.replace(words.SPACE, ' ')


def _cluster_products(run: Run, dim: int) -> tuple[float, int]:
    """What k-means, density scores and partners cost, in equal clusters.

    Returns:
        Multiply-adds of the first process, and how many rows k-means learns from.
    """
    count = len(run.pool)
    world = run.store.world
    clusterer = run.density_stages.clusterer
    usual_clusters = max(1, round(math.sqrt(count)))
    clusters = getattr(clusterer, 'num_clusters', None) or usual_clusters
    points_per_cluster = getattr(clusterer, 'points_per_cluster', 0)
    iterations = getattr(clusterer, 'iterations', 0)

    learned_from = min(count, points_per_cluster * clusters)
    learning = iterations * learned_from
    assigning = count / world
    kmeans = clusters * (learning + assigning)
    pairs = (1 + 1 / world) * count * count / clusters
    return dim * (kmeans + pairs), learned_from


def _product_rate(dim: int) -> float:
    """Multiply-adds a second of a matrix product."""
    rows = np.ones((1024, max(dim, 64)), np.float32)
    rows @ rows.T
    start = time.perf_counter()
    for _ in range(3):
        rows @ rows.T
    return 3 * len(rows) ** 2 * rows.shape[1] / (time.perf_counter() - start)


def _peak_memory() -> int:
    """Bytes that this process has used at most so far: Python, the libraries, the networks."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == 'darwin' else 1024 * peak
