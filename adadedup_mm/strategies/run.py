"""One pruning run: the samples, the options, and its stages, each computed at most once and kept on disk."""

import functools
import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from ..base.errors import UserError
from ..base.files import (
    read_array,
    sha256_file,
    sha256_items,
    sha256_value,
    write_array,
    write_json,
    write_rows,
)
from ..clusters import FixedClusterer, SphericalKMeans
from ..datasets import Source, subset_config
from ..datasets.images import camera_paths, missing_images
from ..datasets.sources import dotted, inner_dataset
from ..datasets.view_samples import view_objects, view_sizes, write_view_samples
from ..density import joint_blocks, layout_blocks
from ..density.layout import DIMENSIONS
from ..density.split import cluster_work, density_work, partner_work
from ..detectors.checkpoint import load_weights
from ..detectors.config import is_3d, is_classifier, read_as_training
from ..features import Glance, extract_shards, merge_shards, refuse_bad_images
from ..features.alike import share_of_same_features
from ..images import Reader, vanishes
from ..images.training import training_reader
from ..pool import Pool, choose_views, pool_key
from ..proxy import merge_losses, score_shards, train_proxy
from ..proxy import proxy_config as fit_proxy_config
from ..registry import CLUSTERERS, DENSITIES, EMBEDDERS, build
from ..selection.scenes import scene_labels
from ..settings.config_text import check_writable, json_like
from ..settings.load import load_config
from ..settings.options import Options
from ..stages import StageStore
from ..vectors.rows import drop_pages, read_in_passing

# Pairs of samples that are compared at a time.
_ROWS = 8192


class Run:
    """What strategies work with. Stages run when they are first asked for, in the order their inputs require.

    Args:
        config: the user's training config.
        options: its ``adadedup`` dict, resolved.
        store: where stages live.
        pool: the N samples of the training set.
        sources: the inner datasets that they come from.

    Raises:
        UserError: a component's type or arguments are wrong, the proxy's checkpoint is missing, or
            ``group_by`` or ``min_gap`` is set and the samples belong to no scenes.
    """

    def __init__(
        self, config: Config, options: Options, store: StageStore, pool: Pool, sources: list[Source]
    ) -> None:
        self.config = config
        self.options = options
        self.store = store
        self.pool = pool
        self.sources = sources
        self.embedder = build(EMBEDDERS, options.embedder, 'adadedup.embedder')
        self.clusterer = build(CLUSTERERS, options.clusterer, 'adadedup.clusterer')
        self.density_method = build(DENSITIES, options.density, 'adadedup.density')
        by_scene = 'group_by' if options.group_by else 'min_gap' if options.min_gap else ''
        # (N,) int32, or None where no option asks for scenes.
        self.scenes = scene_labels(pool, by_scene) if by_scene else None
        checkpoint = options.proxy.checkpoint
        if checkpoint is not None and not os.path.isfile(checkpoint):
            raise UserError(
                f"the proxy's checkpoint {checkpoint} does not exist: give the path of a local file"
            )
        self.used: dict[str, str] = {}  # keys of the stages this run asked for, in their order
        self._made_of: dict[str, dict[str, Any]] = {}  # what the keys are hashes of
        self.inputs: dict[str, str] = {}  # SHA-256 of the files they read besides the dataset
        self.facts: dict[
            str, str
        ] = {}  # hashes of what else they look at: 'images' (``images_key``), 'proxy' (config)

    def generator(self, purpose: str) -> np.random.Generator:
        """A random generator of its own for each purpose."""
        return np.random.default_rng([self.options.seed, zlib.crc32(purpose.encode())])

    def costs(self) -> dict[str, dict[str, float]]:
        """Seconds and bytes of the stages that this run used, in their order."""
        records = {name: self.store.record(name) for name in self.used if self.store.record(name)}
        return {
            name: dict(seconds=record['seconds'], bytes=record['bytes'])
            for name, record in records.items()
        }

    def stage(
        self,
        name: str,
        inputs: dict[str, Any],
        compute: Callable[[Path], None],
        share: Callable[[Path], None] | None = None,
    ) -> Path:
        """Runs a stage of a strategy's own, unless it is finished; see ``StageStore.run``.

        Args:
            name: the stage.
            inputs: JSON-like values of everything that the result depends on besides the seed.
            compute: writes the results into the folder.
            share: the part that is split over the processes.
        """
        return self._run(name, self._key(name, inputs), compute, share)

    def _run(
        self,
        name: str,
        key: str,
        compute: Callable[[Path], None],
        share: Callable[[Path], None] | None = None,
    ) -> Path:
        return self.store.run(name, key, compute, share, self._made_of[key])

    @functools.cached_property
    def features(self) -> np.ndarray:
        """(N, d) float32, unit rows; zero for unreadable images. The file itself, one copy for all processes."""
        return np.asarray(read_array(self._features_folder / 'features.npy', mmap_mode='r'))

    @functools.cached_property
    def unreadable(self) -> np.ndarray:
        """(N,) bool, samples with an image that the training cannot read; none where images are no files.

        Raises:
            UserError: there are some, and ``on_bad_image`` is ``'error'``.
        """
        if not all(self.pool.image_paths):
            return np.zeros(len(self.pool), bool)
        return read_array(self._read_folder / 'unreadable.npy')

    @functools.cached_property
    def same_features(self) -> float:
        """See ``share_of_same_features``."""
        columns = choose_views(self.pool.views, self.options.views)
        paths = [tuple(views[column] for column in columns) for views in self.pool.image_paths]
        return share_of_same_features(self.features, ~self.unreadable, paths, self.reader)

    @property
    def bad_images(self) -> list[dict[str, Any]]:
        """``sample`` (index), ``path`` and ``reason`` of every unreadable image."""
        if not all(self.pool.image_paths):
            return []
        return json.loads((self._read_folder / 'bad_images.json').read_text(encoding='utf-8'))

    @property
    def layout(self) -> float:
        """Share of the label layout in the density scores.

        0 where some samples have no labels: with another measure for the others, one threshold
        would not be fair.
        """
        return self.options.layout if self.pool.labelled.all() else 0.0

    @property
    def dropped(self) -> np.ndarray:
        """(N,) bool, unreadable samples that ``on_bad_image='drop'`` takes out; with ``'keep'`` no image is read."""
        if self.options.on_bad_image == 'keep':
            return np.zeros(len(self.pool), bool)
        return self.unreadable & (self.options.on_bad_image == 'drop')

    @property
    def looked_at_images(self) -> bool:
        """Whether this run knows by now which images are unreadable."""
        return bool({'_features_folder', '_images_folder'} & vars(self).keys())

    @property
    def looked_at_features(self) -> bool:
        """Whether this run has computed features."""
        return '_features_folder' in vars(self)

    @functools.cached_property
    def reader(self) -> Reader:
        """How the training reads its images."""
        return training_reader(self.config)

    @functools.cached_property
    def clusters(self) -> np.ndarray:
        """(N,) int32 labels 0..K-1."""
        features = self.features
        inputs = dict(features=self.used['features'], options=self.options.clusterer)
        # What else it looks at: k-means at nothing, the user's own clusters at names; of others it
        # is not known.
        if isinstance(self.clusterer, FixedClusterer):
            inputs['samples'] = sha256_value(
                [self.pool.sample_ids, self.pool.scenes, self.pool.dataset_index.tolist()]
            )
        elif type(self.clusterer) is not SphericalKMeans:
            inputs['samples'] = self.objects_key
        file = getattr(self.clusterer, 'file', None)
        if file is not None and os.path.isfile(file):
            inputs['file'] = self.digest(file)
        return self.cluster(self.clusterer, features, inputs)

    def cluster(self, clusterer: Any, features: np.ndarray, inputs: dict[str, Any]) -> np.ndarray:
        """The stage ``clusters``.

        Args:
            clusterer: as built from ``CLUSTERERS``.
            features: (N, d) float32.
            inputs: see ``stage``.

        Returns:
            (N,) int32 labels 0..K-1.
        """
        work = cluster_work(clusterer, features, self.pool, self.options.seed, self.store)
        return read_array(self.stage('clusters', inputs, *work) / 'clusters.npy')

    def compared(self, layout: float = 0.0) -> np.ndarray:
        """The vectors whose cosine says how redundant a sample is beside another.

        Args:
            layout: share of the label layout (see ``layout_features``) in that cosine; the rest is
                the images'.

        Returns:
            (N, e) float32; zero for unreadable images. A file itself, one copy for all processes of
            a machine.
        """
        if not layout:
            return self.features
        inputs = dict(features=self.features_key, layout=layout, objects=self.objects_key)
        folder = self.stage('joint', inputs, lambda folder: self._write_joint(folder, layout))
        # A form of the features, not a step of the method that a run accounts for.
        self.used.pop('joint')
        return np.asarray(read_array(folder / 'joint.npy', mmap_mode='r'))

    def _write_joint(self, folder: Path, layout: float) -> None:
        """Writes ``joint.npy``, the features joined with the layouts of the labels."""
        features = self.features
        blocks = joint_blocks(
            features, layout_blocks(*self._objects, len(self.pool), self.options.seed), layout
        )
        write_rows(
            folder / 'joint.npy',
            (len(features), features.shape[1] + DIMENSIONS + 1),
            read_in_passing(features, blocks),
        )

    @property
    def _objects(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The labelled boxes as ``layout_blocks`` takes them."""
        pool = self.pool
        if self.sources[0].objects is not None:
            return view_objects(pool, self.sources, choose_views(pool.views, self.options.views))
        owner = np.repeat(np.arange(len(pool)), np.diff(pool.offsets))
        return owner, pool.labels, pool.boxes, pool.image_sizes[owner]

    def likeness(self, partner: np.ndarray) -> np.ndarray:
        """(P,) float32 similarity of the images of P samples to those of their partners; (N,) int64, -1 for none."""
        paired = np.flatnonzero(partner >= 0)
        similarity = np.empty(len(paired), np.float32)
        for start in range(0, len(paired), _ROWS):
            block = paired[start : start + _ROWS]
            ours, theirs = self.features[block], self.features[partner[block]]
            similarity[start : start + _ROWS] = np.einsum('nd,nd->n', ours, theirs)
        drop_pages(self.features)
        return similarity

    def density(self, layout: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Order inside the cluster, (N,) int32, and density score, (N,) float32; ``layout`` as in ``compared``."""
        clusters, vectors = self.clusters, self.compared(layout)
        inputs: dict[str, Any] = dict(clusters=self.used['clusters'], options=self.options.density)
        if layout:
            inputs |= dict(layout=layout, objects=self.objects_key)
        work = density_work(self.density_method, vectors, clusters, self.options.seed, self.store)
        folder = self.stage('density', inputs, *work)
        return read_array(folder / 'order.npy'), read_array(folder / 'similarity.npy')

    def partners(self, kept: np.ndarray, layout: float = 0.0) -> np.ndarray:
        """(N,) int64 kept sample that stands for each pruned one, as ``nearest_kept`` finds it, -1 for none.

        Args:
            kept: (N,) bool.
            layout: as in ``compared``.
        """
        clusters, vectors = self.clusters, self.compared(layout)
        inputs: dict[str, Any] = dict(clusters=self.used['clusters'], kept=_bits(kept))
        if layout:
            inputs |= dict(layout=layout, objects=self.objects_key)
        work = partner_work(vectors, clusters, kept, self.store)
        return read_array(self.stage('partners', inputs, *work) / 'partner.npy')

    def losses(self, trained: np.ndarray, scored: np.ndarray) -> np.ndarray:
        """Trains the proxy and returns its losses.

        Args:
            trained: (N,) bool, the samples it learns from.
            scored: (N,) bool, the samples that get a loss.

        Returns:
            (N,) float32, NaN where no loss was computed, also for samples that are not
            ``for_proxy``; the mean of its views for a frame that the proxy sees view by view.
        """
        trained, scored = trained & self.for_proxy, scored & self.for_proxy
        weights = self._proxy(trained)
        key = self._key('losses', dict(proxy=self.used['proxy'], scored=_bits(scored)))
        owner = self._proxy_items(scored)
        items = np.flatnonzero(scored[owner])
        arguments = dict(indices=items, sizes=self._item_sizes(scored, owner[items]))

        def share(folder: Path) -> None:
            # A file of its own for each process: none has to wait for another.
            dataset = self.scoring_data(scored, folder / f'views_{self.store.rank}.json')
            score_shards(
                self.proxy_config,
                weights,
                dataset,
                folder=folder,
                seed=self.options.seed,
                rank=self.store.rank,
                world=self.store.world,
                **arguments,
            )

        def compute(folder: Path) -> None:
            by_item = merge_losses(
                count=int(items.max()) + 1, folder=folder, wait_for=self.store.wait_for, **arguments
            )
            losses = mean_by_sample(by_item[items], owner[items], len(self.pool))
            write_array(folder / 'losses.npy', losses)

        return read_array(self._run('losses', key, compute, share) / 'losses.npy')

    @functools.cached_property
    def features_key(self) -> str:
        """The key of the features stage.

        Raises:
            UserError: the images are no files.
        """
        options = self.options
        if not all(self.pool.image_paths):
            raise UserError(
                f'the images of {dotted(self.sources[0].path)} are arrays, not files, so that '
                'strategy '
                f'{options.strategy_name} cannot look at them: use one without features, such as '
                'random, '
                'el2n, grand, forgetting or loss_topk'
            )
        return self._key(
            'features',
            dict(
                images=self.images_key,
                embedder=self.embedder.key,
                views=options.views,
                **self._reading,
            ),
            seeded=False,
        )

    @property
    def _reading(self) -> dict[str, Any]:
        """What is unusual about how images are read, for keys; empty for mmcv's defaults."""
        return dict(reader=self.reader.key) if self.reader.key else {}

    @functools.cached_property
    def _features_folder(self) -> Path:
        # Refused is what cannot be read before the network sees the rest, which takes far longer.
        if self.options.on_bad_image == 'error' and not self.store.is_finished(
            'features', self.features_key
        ):
            _ = self._images_folder
        images = (self.pool.image_paths, self.pool.views, self.options.views)

        def share(folder: Path) -> None:
            extract_shards(
                *images, self.embedder, folder, self.store.rank, self.store.world, self.reader
            )

        def compute(folder: Path) -> None:
            merge_shards(*images, folder, self.options.on_bad_image, self.store.wait_for)
            self.write_origin(folder)

        folder = self.run_features(compute, share)
        self.facts['images'] = self.images_key
        refuse_bad_images(folder, self.options.on_bad_image)
        return folder

    def run_features(
        self, compute: Callable[[Path], None], share: Callable[[Path], None] | None = None
    ) -> Path:
        """Runs the stage ``features``; see ``StageStore.run``.

        Raises:
            UserError: the first process sees other images, or works with another embedder or other
                views.
        """
        key = self.features_key
        self.store.agree_on_rows('images', lambda: self._stamps, self._said_of_image)
        return self._run('features', key, compute, share)

    def _said_of_image(self, sample: int, first: np.ndarray) -> str:
        """Which image of a sample has another size or modification time than ``first``, (V, 2) int64, says."""
        view = int((self._stamps[sample] != first).any(axis=1).argmax())
        what = 'size' if self._stamps[sample, view, 0] != first[view, 0] else 'modification time'
        return f'{self.pool.image_paths[sample][view]} has another {what} here than in the first process'

    @functools.cached_property
    def _images_folder(self) -> Path:
        """The stage ``images``: which of them can be read, for strategies that need no features."""
        return self._glance('images', self.options.views)

    def _glance(self, name: str, views: str | list[str]) -> Path:
        """A stage that only finds out which images of the chosen cameras can be read.

        Raises:
            UserError: some cannot, and ``on_bad_image`` is ``'error'``.
        """
        images = (self.pool.image_paths, self.pool.views, views)
        key = self._key(
            name, dict(images=self.images_key, views=views, **self._reading), seeded=False
        )

        def share(folder: Path) -> None:
            extract_shards(
                *images, Glance(), folder, self.store.rank, self.store.world, self.reader
            )

        def compute(folder: Path) -> None:
            merge_shards(*images, folder, self.options.on_bad_image, self.store.wait_for)

        folder = self._run(name, key, compute, share)
        self.facts['images'] = self.images_key
        refuse_bad_images(folder, self.options.on_bad_image)
        return folder

    @property
    def _read_folder(self) -> Path:
        """The stage that says which images are unreadable: that of the features, if the run has them anyway."""
        # Not by what is on disk: all processes must go the same way.
        return self._features_folder if '_features_folder' in vars(self) else self._images_folder

    @property
    def origin(self) -> dict[str, Any]:
        """What the features of an image depend on besides the image."""
        columns = choose_views(self.pool.views, self.options.views)
        return dict(
            embedder=self.embedder.key,
            views=[self.pool.views[column] for column in columns],
            **self._reading,
        )

    def stamps(self) -> np.ndarray:
        """(N, C, 2) int64, size and modification time (ns) of the images that features are taken from."""
        columns = choose_views(self.pool.views, self.options.views)
        return self._stamps[:, columns]

    @functools.cached_property
    def _stamps(self) -> np.ndarray:
        """(N, V, 2) int64, size and modification time (ns) of all images."""
        return np.array(
            [[_stamp(path) for path in paths] for paths in self.pool.image_paths], np.int64
        )

    def write_origin(self, folder: Path) -> None:
        """Notes beside the features what they are of, so that ``--update`` can use them for other sets of images."""
        write_array(folder / 'stamps.npy', self.stamps())
        write_json(folder / 'origin.json', self.origin)

    @functools.cached_property
    def images_key(self) -> str:
        """Hash of every image's path, size and modification time; reading all bytes would cost as much as features."""
        paths = (path for paths in self.pool.image_paths for path in paths)
        stamps = self._stamps.reshape(-1, 2)
        return sha256_items(
            (path, *stamp.tolist()) for path, stamp in zip(paths, stamps, strict=True)
        )

    @functools.cached_property
    def objects_key(self) -> str:
        """Hash of the pool with the sizes of its images, and of what all cameras of its frames show."""
        shown = [
            list(map(sha256_items, vars(source.objects).values()))
            for source in self.sources
            if source.objects is not None
        ]
        return sha256_value([pool_key(self.pool), sha256_items(self.pool.image_sizes), shown])

    @functools.cached_property
    def records_key(self) -> str:
        """Hash of everything that the datasets have loaded, of which the pool is only a part."""
        return sha256_value([source.records for source in self.sources])

    @functools.cached_property
    def proxy_config(self) -> Config:
        """The proxy's training config, fitted to the classes of the pool."""
        proxy = self.options.proxy
        config = load_config(proxy.config)
        try:
            check_writable(config)
        except UserError as error:
            raise UserError(f'adadedup.proxy.config {proxy.config}: {error}') from error
        if is_classifier(self.config) and not is_classifier(config):
            # A detector says nothing about samples without boxes; the training that the user is
            # about to do does.
            config = self.config
        config = fit_proxy_config(config, len(self.pool.classes), proxy.epochs)
        if not is_3d(config):
            read_as_training(config, self.reader)
        if is_3d(config) and any(
            source.objects is None or source.kind == 'coco' for source in self.sources
        ):
            raise UserError(
                f'adadedup.proxy.config {proxy.config} is a 3D detector, but the training set '
                'holds images '
                'with 2D boxes: name a 2D detector'
            )
        if is_3d(config):
            self._require_all_cameras()
        return config

    @property
    def proxy_digest(self) -> str:
        """Hash of the proxy's training config."""
        return sha256_value(json_like(self.proxy_config.to_dict()))

    def _require_all_cameras(self) -> None:
        """Raises UserError if a camera that ``views`` does not choose lacks images: a 3D proxy sees all of them."""
        chosen = choose_views(self.pool.views, self.options.views)
        others = [column for column in range(len(self.pool.views)) if column not in chosen]
        missing = missing_images(camera_paths(self.pool.image_paths, others))
        if missing:
            raise UserError(
                f'adadedup.proxy.config {self.options.proxy.config} is a 3D detector, which needs '
                'all '
                f'cameras, but {len(missing)} of their images do not exist, first {missing[0]}: '
                'complete '
                'them, or name a 2D detector'
            )

    @functools.cached_property
    def for_proxy(self) -> np.ndarray:
        """(N,) bool, samples that the proxy trains on and gives a loss to.

        These are the readable ones that its own pipeline can resize, by the sizes in the
        annotations; for a 3D detector those that are readable in all cameras.
        """
        longest = training_reader(self.proxy_config).longest
        fits = (
            ~vanishes(self.pool.image_sizes, longest) if longest else np.ones(len(self.pool), bool)
        )
        if is_3d(self.proxy_config) and len(
            choose_views(self.pool.views, self.options.views)
        ) < len(self.pool.views):
            fits &= ~read_array(self._glance('all_images', 'all') / 'unreadable.npy')
        return fits & ~self.unreadable

    @functools.cached_property
    def _columns(self) -> list[int]:
        """The cameras whose pictures a 2D proxy sees one by one; none for plain images and 3D proxies."""
        if self.sources[0].objects is None or is_3d(self.proxy_config):
            return []
        return choose_views(self.pool.views, self.options.views)

    def _proxy_items(self, scored: np.ndarray) -> np.ndarray:
        """(I,) int64, the sample of each item of ``scoring_data``."""
        if self._columns:
            return np.repeat(np.flatnonzero(scored), len(self._columns))
        items = [source.item_samples for source in self._taught]
        return np.concatenate(items) if items else np.empty(0, np.int64)

    def _item_sizes(self, scored: np.ndarray, owner: np.ndarray) -> np.ndarray:
        """(i, 2) height and width of the scored items' images, 0 where unknown; ``owner`` is their samples."""
        if self._columns:
            return view_sizes(self.pool, self.sources, self._columns, scored)
        return self.pool.image_sizes[owner]

    def _proxy(self, trained: np.ndarray) -> Path:
        """The proxy's weights: the user's, or those of a training on the given samples."""
        checkpoint = self.options.proxy.checkpoint
        inputs = self.proxy_inputs(self.proxy_config)
        if checkpoint is not None:
            self._key('proxy', inputs | dict(weights=self.checkpoint_digest(checkpoint)))
            return Path(checkpoint)
        together = self.options.proxy.distributed and self.store.world > 1
        processes = dict(processes=self.store.world) if together else {}
        key = self._key('proxy', inputs | dict(trained=_bits(trained)) | processes)

        def train(folder: Path) -> None:
            data = self.training_data(
                trained, folder / f'process_{self.store.rank}' if together else folder
            )
            train_proxy(self.proxy_config, data, folder, self.options.seed, distributed=together)

        work = (lambda folder: None, train) if together else (train,)
        return self._run('proxy', key, *work) / 'proxy.pth'

    def proxy_inputs(self, config: Config) -> dict[str, Any]:
        """What a proxy depends on besides the samples that it learns from and the seed, for a stage's key."""
        self.facts |= dict(proxy=self.proxy_digest, images=self.images_key)
        dataset = json_like(self._dataset(self.config))
        return dict(
            config=json_like(config.to_dict()),
            data=sha256_value(self.pool.sample_ids),
            records=self.records_key,
            images=self.images_key,
            dataset=dataset,
            views=[self.pool.views[i] for i in self._columns],
        )

    def checkpoint_digest(self, path: str) -> str:
        """SHA-256 of weights that the user gives, which are among the run's inputs from now on.

        Raises:
            UserError: the file cannot be read or holds no weights.
        """
        load_weights(path)
        return self.digest(path)

    def digest(self, path: str) -> str:
        """SHA-256 of a file, which is among the run's inputs from now on."""
        self.inputs[path] = sha256_file(path)
        return self.inputs[path]

    def training_data(self, trained: np.ndarray, folder: Path) -> dict[str, Any]:
        """The config of a dataset with the (N,) bool chosen samples as a proxy learns from them.

        Args:
            trained: the samples.
            folder: where lists and annotations that it needs are written.
        """
        if self._columns:
            return write_view_samples(
                self.pool, self.sources, self._columns, trained, folder / 'views.json'
            )
        subset = subset_config(self.config, self._taught, trained, folder / 'samples')
        return self._dataset(subset)

    def scoring_data(self, scored: np.ndarray, views_file: Path) -> dict[str, Any]:
        """The config of a dataset that holds the (N,) bool chosen samples, among others unless it is made of views.

        Args:
            scored: the samples.
            views_file: where the pictures of frames that are seen one by one are listed.
        """
        if self._columns:
            return write_view_samples(self.pool, self.sources, self._columns, scored, views_file)
        return self._dataset(self.config)

    @property
    def _taught(self) -> list[Source]:
        """The datasets that a proxy sees: those with labels."""
        return [source for source in self.sources if source.labelled]

    @property
    def item_samples(self) -> np.ndarray:
        """(I,) int64, the sample of each item that all samples together are for the proxy."""
        return self._proxy_items(np.ones(len(self.pool), bool))

    @property
    def line_counts(self) -> np.ndarray:
        """(N,) int64, how many lines of each sample the proxy sees."""
        if self._columns:
            return np.ones(len(self.pool), np.int64)
        return np.sum(
            [
                np.bincount(source.item_samples, minlength=len(self.pool)) // source.items
                for source in self._taught
            ],
            axis=0,
        )

    def _dataset(self, config: Config) -> Any:
        """The labelled inner datasets as one, without the wrappers that repeat or mix samples."""
        inner = [inner_dataset(config, source) for source in self._taught]
        return inner[0] if len(inner) == 1 else dict(type='ConcatDataset', datasets=inner)

    def _key(self, name: str, inputs: dict[str, Any], seeded: bool = True) -> str:
        """The stage's key, noted so that the stages after it can depend on it."""
        made_of = dict(inputs, stage=name, seed=self.options.seed if seeded else None)
        self.used[name] = sha256_value(made_of)
        self._made_of[self.used[name]] = made_of
        return self.used[name]


def mean_by_sample(values: np.ndarray, owner: np.ndarray, samples: int) -> np.ndarray:
    """The mean of each sample's items.

    Args:
        values: (I,) float32.
        owner: (I,) int64, the sample of each item, in any order.
        samples: N.

    Returns:
        (N,) float32, NaN for samples without items.
    """
    means = np.full(samples, np.nan, np.float32)
    ordered = values[np.argsort(owner, kind='stable')]
    present, first, counts = np.unique(np.sort(owner), return_index=True, return_counts=True)
    for count in np.unique(counts):
        chosen = counts == count
        rows = ordered[first[chosen, None] + np.arange(count)]
        means[present[chosen]] = rows.mean(axis=1)
    return means


def _bits(mask: np.ndarray) -> str:
    return sha256_items(np.flatnonzero(mask))


def _stamp(path: str) -> tuple[int, int]:
    """Size and modification time; -1 for a missing file or an impossible name, which the features stage reports."""
    try:
        stat = Path(path).stat()
    except (OSError, ValueError):
        return -1, -1
    return stat.st_size, stat.st_mtime_ns
