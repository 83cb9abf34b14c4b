"""The stages ``features`` and ``images``: what pictures look like, and which can be read."""

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..base.errors import UserError
from ..base.files import read_array, sha256_items, write_array, write_json
from ..images import Reader
from ..pool import Pool, choose_views
from ..stages import Ledger, Shards, Work
from .alike import share_of_same_features
from .baselines import Glance
from .embedder import ImageEmbedder, ImageEncoder
from .extract import feature_shards, refuse_bad_images


class ImageStages:
    """What a run knows of its images. Stages run when they are first asked for.

    Args:
        ledger: the run's.
        pool: its N samples.
        embedder: makes the features.
        reader: how the training reads the images.
        views: see ``choose_views``.
        on_bad_image: ``'keep'``, ``'drop'`` or ``'error'``.
        without_files: what to say where features are asked for and the images are no files.
    """

    def __init__(
        self,
        ledger: Ledger,
        pool: Pool,
        embedder: ImageEmbedder,
        reader: Reader,
        views: str | list[str],
        on_bad_image: str,
        without_files: str = 'the images are arrays, not files',
    ) -> None:
        self.ledger = ledger
        self.pool = pool
        self.embedder = embedder
        self.reader = reader
        self.views = views
        self.on_bad_image = on_bad_image
        self.without_files = without_files

    @functools.cached_property
    def columns(self) -> list[int]:
        """The cameras that features are taken from."""
        return choose_views(self.pool.views, self.views)

    @property
    def are_files(self) -> bool:
        """Whether all images are files."""
        return all(self.pool.image_paths)

    # Features.

    @functools.cached_property
    def features(self) -> np.ndarray:
        """(N, d) float32, unit rows; zero for unreadable images.

        The file itself, one copy for all processes.
        """
        return np.asarray(read_array(self._features_folder / 'features.npy', mmap_mode='r'))

    @functools.cached_property
    def same_features(self) -> float:
        """See ``share_of_same_features``."""
        paths = [tuple(views[column] for column in self.columns) for views in self.pool.image_paths]
        return share_of_same_features(self.features, ~self.unreadable, paths, self.reader)

    @property
    def looked_at_features(self) -> bool:
        """Whether this run has computed features."""
        return '_features_folder' in vars(self)

    @functools.cached_property
    def features_key(self) -> str:
        """The key of the features stage.

        Raises:
            UserError: the images are no files.
        """
        if not self.are_files:
            raise UserError(self.without_files)
        inputs = dict(
            images=self.images_key,
            embedder=self.embedder.key,
            views=self.views,
        )
        return self.ledger.key('features', inputs | self._unusual_reading, seeded=False)

    def run_features(self, work: Work) -> Path:
        """Runs the stage ``features`` and returns its folder; see ``StageStore.run``.

        Raises:
            UserError: the first process sees other images, or works with another embedder or other
                views.
        """
        key = self.features_key
        self.ledger.store.agree_on_rows('images', lambda: self._stamps, self._said_of_image)
        return self.ledger.run('features', key, work)

    @functools.cached_property
    def _features_folder(self) -> Path:
        is_there = self.ledger.is_finished('features', self.features_key)
        # Refused is what cannot be read before the network sees the rest, which takes far longer.
        if self.on_bad_image == 'error' and not is_there:
            _ = self._images_folder
        shards = self.shards(self.pool.image_paths, self.embedder)

        def lead(folder: Path, share: Callable[[], None]) -> None:
            shards.lead(folder, share)
            self.write_origin(folder)

        folder = self.run_features(replace(shards, lead=lead))
        self.ledger.facts['images'] = self.images_key
        refuse_bad_images(folder, self.on_bad_image)

        return folder

    def shards(
        self,
        image_paths: tuple[tuple[str, ...], ...],
        encoder: ImageEncoder,
        views: str | list[str] | None = None,
        none_will_do: bool = False,
    ) -> Shards:
        """The work of looking at some images as this run does; see ``feature_shards``."""
        return feature_shards(
            image_paths,
            self.pool.views,
            self.views if views is None else views,
            encoder,
            self.on_bad_image,
            self.reader,
            none_will_do,
        )

    # Which images can be read.

    @functools.cached_property
    def unreadable(self) -> np.ndarray:
        """(N,) bool, samples with an image that the training cannot read.

        None where images are no files.

        Raises:
            UserError: there are some, and ``on_bad_image`` is ``'error'``.
        """
        if not self.are_files:
            return np.zeros(len(self.pool), bool)
        return read_array(self._read_folder / 'unreadable.npy')

    @property
    def bad_images(self) -> list[dict[str, Any]]:
        """``sample`` (index), ``path`` and ``reason`` of every unreadable image."""
        if not self.are_files:
            return []
        return json.loads((self._read_folder / 'bad_images.json').read_text(encoding='utf-8'))

    @property
    def dropped(self) -> np.ndarray:
        """(N,) bool, unreadable samples that ``on_bad_image='drop'`` takes out.

        With ``'keep'`` no image is read.
        """
        if self.on_bad_image == 'keep':
            return np.zeros(len(self.pool), bool)
        return self.unreadable & (self.on_bad_image == 'drop')

    @property
    def looked_at_images(self) -> bool:
        """Whether this run knows by now which images are unreadable."""
        return bool({'_features_folder', '_images_folder'} & vars(self).keys())

    def unreadable_in_all_views(self) -> np.ndarray:
        """(N,) bool, samples of which an image of any camera cannot be read."""
        if len(self.columns) == len(self.pool.views):
            return self.unreadable
        return read_array(self._glance('all_images', 'all') / 'unreadable.npy')

    @functools.cached_property
    def _images_folder(self) -> Path:
        """The stage ``images``: which of them can be read, for strategies that need no features."""
        return self._glance('images', self.views)

    @property
    def _read_folder(self) -> Path:
        """The stage that says which images are unreadable: the features', if the run has them."""
        # Not by what is on disk: all processes must go the same way.
        return self._features_folder if self.looked_at_features else self._images_folder

    def _glance(self, name: str, views: str | list[str]) -> Path:
        """A stage that only finds out which images of the chosen cameras can be read.

        Raises:
            UserError: some cannot, and ``on_bad_image`` is ``'error'``.
        """
        inputs = dict(
            images=self.images_key,
            views=views,
            **self._unusual_reading,
        )
        key = self.ledger.key(name, inputs, seeded=False)
        folder = self.ledger.run(name, key, self.shards(self.pool.image_paths, Glance(), views))
        self.ledger.facts['images'] = self.images_key
        refuse_bad_images(folder, self.on_bad_image)
        return folder

    # What they are of.

    @functools.cached_property
    def images_key(self) -> str:
        """Hash of every image's path, size and modification time.

        Reading all bytes would cost as much as features.
        """
        paths = (path for paths in self.pool.image_paths for path in paths)
        stamps = self._stamps.reshape(-1, 2)
        named = zip(paths, stamps, strict=True)
        return sha256_items((path, *stamp.tolist()) for path, stamp in named)

    @property
    def origin(self) -> dict[str, Any]:
        """What the features of an image depend on besides the image."""
        views = [self.pool.views[column] for column in self.columns]
        return dict(
            embedder=self.embedder.key,
            views=views,
            **self._unusual_reading,
        )

    def write_origin(self, folder: Path) -> None:
        """Notes beside the features what they are of, so that ``--update`` can use them again."""
        write_array(folder / 'stamps.npy', self.stamps())
        write_json(folder / 'origin.json', self.origin)

    def stamps(self) -> np.ndarray:
        """(N, C, 2) int64, size and modification time (ns) of the images that features are of."""
        return self._stamps[:, self.columns]

    @functools.cached_property
    def _stamps(self) -> np.ndarray:
        """(N, V, 2) int64, size and modification time (ns) of all images."""
        stamps = [[file_stamp(path) for path in paths] for paths in self.pool.image_paths]
        return np.array(stamps, np.int64)

    @property
    def _unusual_reading(self) -> dict[str, Any]:
        """What is unusual about how images are read, for keys; empty for mmcv's defaults."""
        return dict(reader=self.reader.key) if self.reader.key else {}

    def _said_of_image(self, sample: int, first: np.ndarray) -> str:
        """Which image of a sample has another size or modification time, in words.

        Args:
            sample: its index.
            first: (V, 2) int64, what the first process says.
        """
        here = self._stamps[sample]
        view = int((here != first).any(axis=1).argmax())
        what = 'size' if here[view, 0] != first[view, 0] else 'modification time'
        path = self.pool.image_paths[sample][view]
        return f'{path} has another {what} here than in the first process'


def file_stamp(path: str) -> tuple[int, int]:
    """Size and modification time; -1 for what cannot be looked at, which the stage reports."""
    try:
        stat = Path(path).stat()
    # A missing file, or an impossible name.
    except (OSError, ValueError):
        return -1, -1
    return stat.st_size, stat.st_mtime_ns
