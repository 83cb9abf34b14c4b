"""What a run will cost, from a quick probe on this machine: of the first images, and of a few batches of the proxy."""

import inspect
import math
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..base import words
from ..base.checks import whole
from ..density.layout import DIMENSIONS as LAYOUT
from ..features import BadImage, Glance, decode
from ..features.extract import time_images
from ..feedback import keep_count
from ..pool import choose_views
from ..proxy.estimate import Probe, probe_training
from ..registry import STRATEGIES, find
from ..strategies.run import Run
from ..strategies.trainings import default_epochs

# Below this many samples a run is over soon, and the proxy's probe would be a large part of it.
PROBE_FROM = 2000
# What a forward pass costs of a training step, which also goes backward through twice as many
# products.
FORWARD = 1 / 3
# Share of the speed of one large matrix product that clusters and density scores reach (see
# benchmarks/density.py).
EFFICIENCY = 0.4
# A proxy's files while it trains: weights, Adam's two moments, and the weights alone.
COPIES = 4

_NO_FEATURES = ('uniform_stride', 'tfdp', 'el2n', 'grand', 'forgetting', 'loss_topk')
_SCORES = ('el2n', 'grand', 'forgetting', 'loss_topk')


@dataclass(frozen=True)
class Work:
    """How much a strategy does.

    Attributes:
        features: whether it looks at the images' features.
        trained: images that proxies are trained on, every epoch counted.
        scored: images that proxies are asked about.
    """

    features: bool
    trained: int
    scored: int


@dataclass(frozen=True)
class Rates:
    """What was measured on this machine.

    Attributes:
        image: seconds for the features of an image on average, all workers together; 0 if they are
            there already.
        dim: length of a sample's feature.
        product: multiply-adds a second of a matrix product.
        proxy: of its training; None where it was not measured.
    """

    image: float
    dim: int
    product: float
    proxy: Probe | None


@dataclass(frozen=True)
class Estimate:
    """Seconds of the parts of a run (None: unknown), and bytes.

    Attributes:
        features: seconds.
        clusters: seconds of clusters and density scores.
        proxy: seconds of training and asking the proxy.
        memory: at the peak.
        disk: at the peak.
    """

    features: float
    clusters: float
    proxy: float | None
    memory: int
    disk: int

    @property
    def seconds(self) -> float:
        """All parts that are known."""
        return self.features + self.clusters + (self.proxy or 0)


def work_of(run: Run, keep_ratio: float) -> Work:
    """What a run's strategy does; of a strategy that is not ours only that it uses features is assumed."""
    strategy, n = run.options.strategy_name, len(run.pool)
    arguments = _arguments(run)
    features = (
        arguments.get('per') == 'cluster' if strategy == 'random' else strategy not in _NO_FEATURES
    )
    trained = scored = 0
    views = max(len(run.item_samples) // n, 1) if strategy in (*_SCORES, 'adadedup') else 1
    if strategy == 'adadedup':
        initial = keep_count(run.options.feedback.initial_ratio or keep_ratio, n)
        trained = round(initial * (1 - run.options.proxy.held_out)) * _epochs(run)
        scored = min(n, run.options.proxy.max_loss_samples or n)
    elif strategy in _SCORES:
        for name, value in arguments.items():
            if name in ('runs', 'epochs') and value is not None:
                whole(value, f'adadedup.strategy.{name}', 1)
        late = strategy in ('forgetting', 'loss_topk')
        epochs = arguments.get('epochs') or default_epochs(run, late)
        trained = arguments['runs'] * epochs * n
        scored = arguments['runs'] * n * (epochs if strategy == 'forgetting' else 1)
    return Work(features, 0 if run.options.proxy.checkpoint else views * trained, views * scored)


def measure(run: Run, work: Work, with_proxy: bool = True) -> Rates:
    """Probes the embedder on some images and the proxy on some batches, as far as the work needs them.

    Raises:
        UserError: the embedder or the proxy cannot be used.
    """
    image, dim = 0.0, 0
    if work.features and not run.store.is_finished('features', run.features_key):
        columns = choose_views(run.pool.views, run.options.views)
        paths = [paths[column] for paths in run.pool.image_paths for column in columns]
        image, dim = time_images(paths, run.embedder, reader=run.reader)
        dim *= len(columns)
    elif work.features:
        dim = run.features.shape[1]
    proxy = None
    if with_proxy and (work.trained or work.scored) and run.pool.labelled.any():
        batch = run.proxy_config.train_dataloader.get('batch_size', 1)
        some = _first_readable(run, max(8 * batch, 64))
        with tempfile.TemporaryDirectory() as folder:
            proxy = probe_training(
                run.proxy_config, run.training_data(some, Path(folder)), Path(folder)
            )
    return Rates(image, dim, _product_rate(dim), proxy)


def estimate(run: Run, work: Work, rates: Rates, keep_ratio: float) -> Estimate:
    """What a run will take.

    Args:
        run: the run.
        work: of its strategy.
        rates: measured here.
        keep_ratio: in (0, 1].
    """
    n, world = len(run.pool), run.store.world
    features = n * len(choose_views(run.pool.views, run.options.views)) * rates.image / world
    clusters, learn = _cluster_work(run, rates.dim) if work.features else (0.0, 0)
    proxy = None if work.trained or work.scored else 0.0
    parameters = 0
    if rates.proxy is not None:
        # Training is one process's work, but for the strategies with several trainings and
        # proxy.distributed.
        together = run.options.proxy.distributed and run.options.strategy_name == 'adadedup'
        workers = world if together else min(world, _arguments(run).get('runs', 1))
        proxy = rates.proxy.seconds_per_image * (
            work.trained / workers + FORWARD * work.scored / world
        )
        parameters = rates.proxy.parameters
    size = 4 * n * rates.dim
    # The joined vectors are read in passing, and have no part in the peak.
    memory = _peak_memory() + round(1.3 * size) + 4 * learn * rates.dim
    annotations = sum(source.ann_file.stat().st_size for source in run.sources if source.ann_file)
    # Features are there twice while they are put together, and once more when they are joined with
    # the label layouts.
    joint = 4 * n * (rates.dim + LAYOUT + 1) if work.features and run.options.layout else 0
    disk = size + max(size, joint) + 4 * COPIES * parameters + round(keep_ratio * annotations)
    return Estimate(features, clusters / (EFFICIENCY * rates.product), proxy, memory, disk)


def _first_readable(run: Run, count: int) -> np.ndarray:
    """(N,) bool, the first labelled samples whose images can be read, of each inner dataset as many."""
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
    """Whether a sample is one that a run would train its proxy on; images that are arrays always are."""
    transform = replace(Glance.transform, reader=run.reader)
    columns = choose_views(run.pool.views, run.options.views) if paths else []
    try:
        for column in columns:
            decode(paths[column], transform)
    except BadImage:
        return False
    return True


def estimate_line(run: Run) -> str:
    """One line on what a run will take."""
    ratio, n = run.options.keep_ratio, len(run.pool)
    work = work_of(run, ratio)
    cost = estimate(run, work, measure(run, work, with_proxy=n >= PROBE_FROM), ratio)
    parts = [
        f'features {words.duration(cost.features)}',
        f'clusters {words.duration(cost.clusters)}',
    ] * work.features
    if cost.proxy:
        parts.append(f'proxy {words.duration(cost.proxy)}')
    more = ' and the proxy' if cost.proxy is None else ''
    detail = f' ({", ".join(parts)})' if len(parts) > 1 else ''
    return (
        f'estimate for {n:,} samples: {words.duration(cost.seconds)}{detail}{more}, '
        f'{words.size(cost.memory)} of '
        f'memory, {words.size(cost.disk)} on disk'
    ).replace(words.SPACE, ' ')


def _arguments(run: Run) -> dict[str, Any]:
    """The strategy's arguments, defaults included."""
    function = find(STRATEGIES, run.options.strategy_name, 'adadedup.strategy')
    given = run.options.strategy if isinstance(run.options.strategy, dict) else {}
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
    }
    return defaults | given


def _epochs(run: Run) -> int:
    settings = run.proxy_config.train_cfg
    if 'max_epochs' in settings:
        return settings.max_epochs
    # A config that counts iterations sees as many images whatever is kept; as epochs of the whole
    # set.
    batch = run.proxy_config.train_dataloader.get('batch_size', 1)
    return max(1, round(settings.get('max_iters', 0) * batch / len(run.pool)))


def _cluster_work(run: Run, dim: int) -> tuple[float, int]:
    """Multiply-adds of the first process for k-means, scores and partners in equal clusters; rows that k-means sees."""
    n, world = len(run.pool), run.store.world
    count = getattr(run.clusterer, 'num_clusters', None) or max(1, round(math.sqrt(n)))
    learn = min(n, getattr(run.clusterer, 'points_per_cluster', 0) * count)
    kmeans = count * (getattr(run.clusterer, 'iterations', 0) * learn + n / world)
    return dim * (kmeans + (1 + 1 / world) * n * n / count), learn


def _product_rate(dim: int) -> float:
    rows = np.ones((1024, max(dim, 64)), np.float32)
    rows @ rows.T
    start = time.perf_counter()
    for _ in range(3):
        rows @ rows.T
    return 3 * len(rows) ** 2 * rows.shape[1] / (time.perf_counter() - start)


def _peak_memory() -> int:
    """Bytes that this process has used at most so far: Python, the libraries, the networks that were probed."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == 'darwin' else 1024 * peak
