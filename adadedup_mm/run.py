"""One pruning run: the samples, the options, and its stages, each computed at most once and kept on disk."""

import functools
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from .config import load_config
from .datasets import Source, subset_config
from .datasets.sources import value_at
from .datasets.view_samples import view_sizes, write_view_samples
from .errors import UserError
from .features import choose_views, extract_shards, merge_shards
from .files import sha256_file, sha256_value, write_array
from .options import Options, plain
from .pool import Pool
from .proxy import merge_losses, score_shards, train_proxy
from .proxy import proxy_config as fit_proxy_config
from .proxy.checkpoint import load_weights
from .proxy.config import is_3d
from .registry import CLUSTERERS, DENSITIES, EMBEDDERS, build
from .stages import StageStore


class Run:
    """What strategies work with. Stages run when they are first asked for, in the order their inputs require.

    Args:
        config: the user's training config.
        options: its ``adadedup`` dict, resolved.
        store: where stages live.
        pool: the N samples of the training set.
        sources: the inner datasets that they come from.

    Raises:
        UserError: a component's type or arguments are wrong.
    """

    def __init__(self, config: Config, options: Options, store: StageStore, pool: Pool, sources: list[Source]) -> None:
        self.config = config
        self.options = options
        self.store = store
        self.pool = pool
        self.sources = sources
        self.embedder = build(EMBEDDERS, options.embedder, 'adadedup.embedder')
        self.clusterer = build(CLUSTERERS, options.clusterer, 'adadedup.clusterer')
        self.density_method = build(DENSITIES, options.density, 'adadedup.density')
        self.used: dict[str, str] = {}  # keys of the stages this run asked for, in their order
        self.inputs: dict[str, str] = {}  # SHA-256 of the files they read besides the dataset

    def generator(self, purpose: str) -> np.random.Generator:
        """A random generator of its own for each purpose."""
        return np.random.default_rng([self.options.seed, zlib.crc32(purpose.encode())])

    def costs(self) -> dict[str, dict[str, float]]:
        """Seconds and bytes of the stages that this run used, in their order."""
        records = {name: self.store.record(name) for name in self.used if self.store.record(name)}
        return {name: dict(seconds=record['seconds'], bytes=record['bytes']) for name, record in records.items()}

    @functools.cached_property
    def features(self) -> np.ndarray:
        """(N, d) float32, unit rows; zero for unreadable images."""
        return np.load(self._features_folder / 'features.npy')

    @functools.cached_property
    def unreadable(self) -> np.ndarray:
        """(N,) bool, samples with an image that cannot be decoded."""
        return np.load(self._features_folder / 'unreadable.npy')

    @property
    def bad_images(self) -> list[dict[str, Any]]:
        """``sample`` (index), ``path`` and ``reason`` of every unreadable image."""
        return json.loads((self._features_folder / 'bad_images.json').read_text(encoding='utf-8'))

    @property
    def dropped(self) -> np.ndarray:
        """(N,) bool, unreadable samples that ``on_bad_image='drop'`` takes out."""
        return self.unreadable & (self.options.on_bad_image == 'drop')

    @functools.cached_property
    def clusters(self) -> np.ndarray:
        """(N,) int32 labels 0..K-1."""
        features = self.features
        key = self._key('clusters', dict(features=self.used['features'], options=self.options.clusterer))

        def compute(folder: Path) -> None:
            write_array(folder / 'clusters.npy', self.clusterer(features, self.pool, self.options.seed))

        return np.load(self.store.run('clusters', key, compute) / 'clusters.npy')

    @functools.cached_property
    def density(self) -> tuple[np.ndarray, np.ndarray]:
        """Order inside the cluster, (N,) int32, and density score, (N,) float32."""
        clusters = self.clusters
        key = self._key('density', dict(clusters=self.used['clusters'], options=self.options.density))

        def compute(folder: Path) -> None:
            order, similarity = self.density_method(self.features, clusters, self.options.seed)
            write_array(folder / 'order.npy', order)
            write_array(folder / 'similarity.npy', similarity)

        folder = self.store.run('density', key, compute)
        return np.load(folder / 'order.npy'), np.load(folder / 'similarity.npy')

    def losses(self, trained: np.ndarray, scored: np.ndarray) -> np.ndarray:
        """Trains the proxy and returns its losses.

        Args:
            trained: (N,) bool, the samples it learns from.
            scored: (N,) bool, the samples that get a loss.

        Returns:
            (N,) float32, NaN where no loss was computed; the mean of its views for a frame that the proxy sees view by
            view.
        """
        weights = self._proxy(trained)
        key = self._key('losses', dict(proxy=self.used['proxy'], scored=_bits(scored)))
        items, sizes = self._proxy_items(scored)
        arguments = dict(indices=items.ravel(), sizes=sizes)

        def share(folder: Path) -> None:
            dataset = self._dataset(self.config)
            if self._columns:
                # A file of its own for each process: none has to wait for another.
                dataset = write_view_samples(self.pool, self.sources, self._columns, scored,
                                             folder / f'views_{self.store.rank}.json')
            score_shards(self.proxy_config, weights, dataset, folder=folder, seed=self.options.seed,
                         rank=self.store.rank, world=self.store.world, **arguments)

        def compute(folder: Path) -> None:
            by_item = merge_losses(count=int(items.max()) + 1, folder=folder, wait_for=self.store.wait_for,
                                   **arguments)
            losses = np.full(len(self.pool), np.nan, np.float32)
            losses[scored] = by_item[items].mean(axis=1)
            write_array(folder / 'losses.npy', losses)

        return np.load(self.store.run('losses', key, compute, share) / 'losses.npy')

    @functools.cached_property
    def _features_folder(self) -> Path:
        options = self.options
        key = self._key('features', dict(images=self._images_key, embedder=self.embedder.key, views=options.views,
                                         on_bad_image=options.on_bad_image))
        images = (self.pool.image_paths, self.pool.views, options.views)

        def share(folder: Path) -> None:
            extract_shards(*images, self.embedder, folder, self.store.rank, self.store.world)

        def compute(folder: Path) -> None:
            merge_shards(*images, folder, options.on_bad_image, self.store.wait_for)

        return self.store.run('features', key, compute, share)

    @functools.cached_property
    def _images_key(self) -> str:
        """Hash of every image's path, size and modification time; reading all bytes would cost as much as features."""
        return sha256_value([(path, *_stamp(path)) for paths in self.pool.image_paths for path in paths])

    @functools.cached_property
    def proxy_config(self) -> Config:
        """The proxy's training config, fitted to the classes of the pool."""
        proxy = self.options.proxy
        config = fit_proxy_config(load_config(proxy.config), len(self.pool.classes), proxy.epochs)
        if is_3d(config) and any(source.objects is None or source.kind == 'coco' for source in self.sources):
            raise UserError(f'adadedup.proxy.config {proxy.config} is a 3D detector, but the training set holds images '
                            'with 2D boxes: name a 2D detector')
        return config

    @functools.cached_property
    def _columns(self) -> list[int]:
        """The cameras whose pictures a 2D proxy sees one by one; none for plain images and 3D proxies."""
        if self.sources[0].objects is None or is_3d(self.proxy_config):
            return []
        return choose_views(self.pool.views, self.options.views)

    def _proxy_items(self, scored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the proxy gives a loss to.

        Returns:
            (n, C) items of its dataset, C of them for each scored sample, and (n * C, 2) the sizes of their images.
        """
        if self._columns:
            sizes = view_sizes(self.pool, self.sources, self._columns, scored)
            return np.arange(len(sizes)).reshape(-1, len(self._columns)), sizes
        count = self.sources[0].items
        items = np.flatnonzero(scored)[:, None] * count + np.arange(count)
        return items, np.repeat(self.pool.image_sizes[scored], count, axis=0)

    def _proxy(self, trained: np.ndarray) -> Path:
        """The proxy's weights: the user's, or those of a training on the given samples."""
        checkpoint = self.options.proxy.checkpoint
        inputs = dict(config=plain(self.proxy_config.to_dict()), data=sha256_value(self.pool.sample_ids),
                      dataset=plain(self._dataset(self.config)), views=[self.pool.views[i] for i in self._columns])
        if checkpoint is not None:
            load_weights(checkpoint)
            self.inputs[checkpoint] = sha256_file(checkpoint)
            self._key('proxy', inputs | dict(weights=self.inputs[checkpoint]))
            return Path(checkpoint)
        key = self._key('proxy', inputs | dict(trained=_bits(trained)))

        def compute(folder: Path) -> None:
            if self._columns:
                dataset = write_view_samples(self.pool, self.sources, self._columns, trained, folder / 'views.json')
            else:
                subset = subset_config(self.config, self.sources, self.pool, trained, folder / 'samples')
                dataset = self._dataset(subset)
            train_proxy(self.proxy_config, dataset, folder, self.options.seed)

        return self.store.run('proxy', key, compute) / 'proxy.pth'

    def _dataset(self, config: Config) -> dict[str, Any]:
        """The inner datasets of the training set as one, without the wrappers that repeat or mix samples."""
        inner = [value_at(config, source.path) for source in self.sources]
        return inner[0] if len(inner) == 1 else dict(type='ConcatDataset', datasets=inner)

    def _key(self, name: str, inputs: dict[str, Any]) -> str:
        """The stage's key, noted so that the stages after it can depend on it."""
        self.used[name] = sha256_value(dict(inputs, stage=name, seed=self.options.seed))
        return self.used[name]


def _bits(mask: np.ndarray) -> str:
    return sha256_value(np.flatnonzero(mask).tolist())


def _stamp(path: str) -> tuple[int, int]:
    """Size and modification time; -1 for a missing file, which the features stage reports."""
    try:
        stat = Path(path).stat()
    except OSError:
        return -1, -1
    return stat.st_size, stat.st_mtime_ns
