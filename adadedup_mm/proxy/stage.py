"""The stages ``proxy`` and ``losses`` of a run: the proxy detector's training, and what it says."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from ..base.errors import UserError
from ..base.files import read_array, sha256_value, write_array
from ..datasets import Source, subset_config
from ..datasets.boxes import records_key
from ..datasets.images import camera_paths, missing_images
from ..datasets.sources import inner_dataset
from ..datasets.view_samples import view_sizes, write_view_samples
from ..detectors.checkpoint import load_weights
from ..detectors.config import is_3d, is_classifier, proxy_config, read_as_training
from ..features.stage import ImageStages
from ..images import vanishes
from ..images.training import training_reader
from ..pool import Pool
from ..settings.config_text import check_writable, json_like
from ..settings.load import load_config
from ..settings.options import ProxyOptions
from ..stages import Ledger, Together, Work
from ..stages.ledger import mask_key
from .score import loss_shards
from .train import train_proxy


class ProxyStages:
    """What a run asks of a proxy detector. Stages run when they are first asked for.

    Args:
        ledger: the run's.
        images: what is known of its images.
        pool: its N samples.
        sources: the datasets that they come from.
        config: the user's training config.
        options: the ``proxy`` dict of the options, resolved.

    Raises:
        UserError: the checkpoint is missing.
    """

    def __init__(
        self,
        ledger: Ledger,
        images: ImageStages,
        pool: Pool,
        sources: Sequence[Source],
        config: Config,
        options: ProxyOptions,
    ) -> None:
        if options.checkpoint is not None and not os.path.isfile(options.checkpoint):
            raise UserError(
                f"the proxy's checkpoint {options.checkpoint} does not exist: give the path of a "
                'local file'
            )

        self.ledger = ledger
        self.images = images
        self.pool = pool
        self.sources = sources
        self.training_config = config
        self.options = options

    @functools.cached_property
    def records_key(self) -> str:
        """See ``adadedup_mm.datasets.boxes.records_key``."""
        return records_key(self.sources)

    # Its config, and the samples that it can look at.

    @functools.cached_property
    def config(self) -> Config:
        """The proxy's training config, fitted to the classes of the pool."""
        name = self.options.config
        config = load_config(name)
        try:
            check_writable(config)
        except UserError as error:
            raise UserError(f'adadedup.proxy.config {name}: {error}') from error

        if is_classifier(self.training_config) and not is_classifier(config):
            # A detector says nothing about samples without boxes; the training that the user is
            # about to do does.
            config = self.training_config

        config = proxy_config(config, len(self.pool.classes), self.options.epochs)
        if is_3d(config):
            self._require_frames()
            self._require_all_cameras()
        else:
            read_as_training(config, self.images.reader)

        return config

    def _require_frames(self) -> None:
        """Raises UserError if there are samples that a 3D detector can do nothing with."""
        if any(source.objects is None or source.kind == 'coco' for source in self.sources):
            raise UserError(
                f'adadedup.proxy.config {self.options.config} is a 3D detector, but the training '
                'set holds images with 2D boxes: name a 2D detector'
            )

    def _require_all_cameras(self) -> None:
        """Raises UserError if a camera that features are not taken from lacks images.

        A 3D proxy sees all of them.
        """
        cameras = range(len(self.pool.views))
        others = [column for column in cameras if column not in self.images.columns]
        missing = missing_images(camera_paths(self.pool.image_paths, others))
        if missing:
            raise UserError(
                f'adadedup.proxy.config {self.options.config} is a 3D detector, which needs all '
                f'cameras, but {len(missing)} of their images do not exist, first {missing[0]}: '
                'complete them, or name a 2D detector'
            )

    @property
    def config_digest(self) -> str:
        """Hash of the proxy's training config."""
        return sha256_value(json_like(self.config.to_dict()))

    @functools.cached_property
    def usable(self) -> np.ndarray:
        """(N,) bool, samples that the proxy trains on and gives a loss to.

        These are the readable ones that its own pipeline can resize, by the sizes in the
        annotations; for a 3D detector those that are readable in all cameras.
        """
        longest = training_reader(self.config).longest
        fits = np.ones(len(self.pool), bool)
        if longest:
            fits = ~vanishes(self.pool.image_sizes, longest)
        if is_3d(self.config):
            fits &= ~self.images.unreadable_in_all_views()
        return fits & ~self.images.unreadable

    @property
    def views_per_sample(self) -> int:
        """How many images the proxy sees of a sample."""
        return max(len(self.item_samples) // len(self.pool), 1)

    @property
    def epochs(self) -> int:
        """Of its training; where its config counts iterations, as epochs of the whole set."""
        schedule = self.config.train_cfg
        if 'max_epochs' in schedule:
            return schedule.max_epochs
        # It sees as many images whatever is kept.
        batch = self.config.train_dataloader.get('batch_size', 1)
        return max(1, round(schedule.get('max_iters', 0) * batch / len(self.pool)))

    # Training.

    def inputs(self, config: Config) -> dict[str, Any]:
        """What a proxy depends on besides the samples that it learns from and the seed."""
        self.ledger.facts |= dict(proxy=self.config_digest, images=self.images.images_key)
        return dict(
            config=json_like(config.to_dict()),
            data=sha256_value(self.pool.sample_ids),
            records=self.records_key,
            images=self.images.images_key,
            dataset=json_like(self._dataset(self.training_config)),
            views=[self.pool.views[column] for column in self._columns],
        )

    def checkpoint_digest(self, path: str) -> str:
        """SHA-256 of weights that the user gives, which are among the run's inputs from now on.

        Raises:
            UserError: the file cannot be read or holds no weights.
        """
        load_weights(path)
        return self.ledger.digest(path)

    def training_data(self, trained: np.ndarray, folder: Path) -> dict[str, Any]:
        """The config of a dataset with the (N,) bool chosen samples as a proxy learns from them.

        Args:
            trained: the samples.
            folder: where lists and annotations that it needs are written.
        """
        if self._columns:
            file = folder / 'views.json'
            return write_view_samples(self.pool, self.sources, self._columns, trained, file)
        subset = subset_config(self.training_config, self._taught, trained, folder / 'samples')
        return self._dataset(subset)

    def _weights(self, trained: np.ndarray) -> Path:
        """The proxy's weights: the user's, or those of a training on the given samples."""
        checkpoint = self.options.checkpoint
        inputs = self.inputs(self.config)
        if checkpoint is not None:
            self.ledger.key('proxy', inputs | dict(weights=self.checkpoint_digest(checkpoint)))
            return Path(checkpoint)

        store = self.ledger.store
        together = self.options.distributed and store.world > 1
        inputs['trained'] = mask_key(trained)
        if together:
            inputs['processes'] = store.world

        def train(folder: Path) -> None:
            data_folder = folder / f'process_{store.rank}' if together else folder
            data = self.training_data(trained, data_folder)
            train_proxy(self.config, data, folder, self.ledger.seed, distributed=together)

        work: Work = Together(train) if together else train

        return self.ledger.stage('proxy', inputs, work) / 'proxy.pth'

    # Asking.

    def losses(self, trained: np.ndarray, scored: np.ndarray) -> np.ndarray:
        """Trains the proxy and returns its losses.

        Args:
            trained: (N,) bool, the samples it learns from.
            scored: (N,) bool, the samples that get a loss.

        Returns:
            (N,) float32, NaN where no loss was computed, also for samples that are not ``usable``;
            the mean of its views for a frame that the proxy sees view by view.
        """
        trained, scored = trained & self.usable, scored & self.usable
        weights = self._weights(trained)
        inputs = dict(proxy=self.ledger.used['proxy'], scored=mask_key(scored))
        owner = self._items(scored)
        items = np.flatnonzero(scored[owner])
        process = self.ledger.store.rank

        def dataset(folder: Path) -> dict[str, Any]:
            # A file of its own for each process: none has to wait for another.
            return self.scoring_data(scored, folder / f'views_{process}.json')

        def finish(result: Path, losses: np.ndarray) -> None:
            write_array(result, mean_by_sample(losses, owner[items], len(self.pool)))

        shards = loss_shards(
            self.config,
            weights,
            dataset,
            items,
            self._item_sizes(scored, owner[items]),
            finish,
            self.ledger.seed,
            process,
        )

        return read_array(self.ledger.stage('losses', inputs, shards) / 'losses.npy')

    def scoring_data(self, scored: np.ndarray, views_file: Path) -> dict[str, Any]:
        """The config of a dataset with the chosen samples, and others unless it is made of views.

        Args:
            scored: (N,) bool.
            views_file: where the pictures of frames that are seen one by one are listed.
        """
        if self._columns:
            return write_view_samples(self.pool, self.sources, self._columns, scored, views_file)
        return self._dataset(self.training_config)

    @property
    def item_samples(self) -> np.ndarray:
        """(I,) int64, the sample of each item that all samples together are for the proxy."""
        return self._items(np.ones(len(self.pool), bool))

    @property
    def line_counts(self) -> np.ndarray:
        """(N,) int64, how many lines of each sample the proxy sees."""
        count = len(self.pool)
        if self._columns:
            return np.ones(count, np.int64)
        lines = np.zeros(count, np.int64)
        for source in self._taught:
            lines += np.bincount(source.item_samples, minlength=count) // source.items
        return lines

    @functools.cached_property
    def _columns(self) -> list[int]:
        """The cameras whose pictures a 2D proxy sees one by one; none for images and 3D proxies."""
        if self.sources[0].objects is None or is_3d(self.config):
            return []
        return self.images.columns

    @property
    def _taught(self) -> list[Source]:
        """The datasets that a proxy sees: those with labels."""
        return [source for source in self.sources if source.labelled]

    def _dataset(self, config: Config) -> Any:
        """The labelled inner datasets as one, without the wrappers that repeat or mix samples."""
        inner = [inner_dataset(config, source) for source in self._taught]
        return inner[0] if len(inner) == 1 else dict(type='ConcatDataset', datasets=inner)

    def _items(self, scored: np.ndarray) -> np.ndarray:
        """(I,) int64, the sample of each item of ``scoring_data``."""
        if self._columns:
            return np.repeat(np.flatnonzero(scored), len(self._columns))
        items = [source.item_samples for source in self._taught]
        return np.concatenate(items) if items else np.empty(0, np.int64)

    def _item_sizes(self, scored: np.ndarray, owner: np.ndarray) -> np.ndarray:
        """(i, 2) height and width of the scored items' images, 0 where unknown.

        Args:
            scored: (N,) bool, the samples.
            owner: (i,) int64, the sample of each item.
        """
        if self._columns:
            return view_sizes(self.pool, self.sources, self._columns, scored)
        return self.pool.image_sizes[owner]


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
