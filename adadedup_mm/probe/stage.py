"""The stage ``probe`` of a run: the cells of its pictures, and heads and losses that follow."""

import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from ..base.errors import UserError
from ..base.files import read_array, sha256_items, write_array
from ..datasets.boxes import objects_key
from ..datasets.sources import Source
from ..features.stage import ImageStages
from ..pool import Pool
from ..registry import BACKBONES, build
from ..settings.options import ProbeOptions
from ..stages import Ledger
from ..stages.ledger import mask_key
from .backbones import Backbone, input_size
from .cells import GRIDS
from .collect import GridRows, cell_shards, read_cells
from .detect import Head
from .fit import cross_fitted_losses, fit_heads
from .held_out import held_out_losses
from .pictures import Pictures, pictures_of


class ProbeStages:
    """What the probe knows of a run's pictures. Its stage runs when it is first asked for.

    Args:
        ledger: the run's.
        images: what is known of its images.
        pool: its N samples.
        sources: the datasets that they come from.
        options: the ``probe`` dict of the options, resolved.
    """

    def __init__(
        self,
        ledger: Ledger,
        images: ImageStages,
        pool: Pool,
        sources: Sequence[Source],
        options: ProbeOptions,
    ) -> None:
        self.ledger = ledger
        self.images = images
        self.pool = pool
        self.sources = sources
        self.options = options

    @functools.cached_property
    def backbone(self) -> Backbone:
        """The frozen network."""
        return build(BACKBONES, self.options.backbone, 'adadedup.probe.backbone')

    @property
    def size(self) -> int:
        """Of a picture's longer side in the network's input, in pixels."""
        return input_size(self.backbone, self.options.size)

    @property
    def has_objects(self) -> bool:
        """Whether there are 2D boxes to learn from."""
        return bool(len(self._pictures.boxes))

    @functools.cached_property
    def _pictures(self) -> Pictures:
        return pictures_of(self.pool, self.sources, self.images.views)

    @property
    def pictures(self) -> Pictures:
        """The P pictures of the samples, in the cameras that features are taken from.

        Raises:
            UserError: the images are no files, or there are no boxes to learn from.
        """
        if not self.images.are_files:
            raise UserError(self.images.without_files)
        if not self.has_objects:
            raise UserError(
                'the probe learns from labelled 2D boxes, but the training set has none: use '
                "adadedup.feedback.signal='proxy', or a strategy that needs no labels"
            )
        return self._pictures

    @functools.cached_property
    def cells(self) -> Callable[[int], Iterable[GridRows]]:
        """The cells of all pictures, of a grid at a time, piece by piece."""
        shards = cell_shards(
            self.pictures,
            self.backbone,
            self.images.reader,
            self.size,
            GRIDS,
        )
        folder = self.ledger.run('probe', self._key, shards)

        def read(grid: int) -> Iterable[GridRows]:
            return read_cells(folder, len(shards.files), grid)

        return read

    @property
    def is_finished(self) -> bool:
        """Whether all pictures have been looked at."""
        return self.ledger.is_finished('probe', self._key)

    @functools.cached_property
    def _key(self) -> str:
        """The key of the stage ``probe``."""
        inputs = dict(
            images=self.images.images_key,
            objects=objects_key(self.pool, self.sources),
            reader=self.images.reader.key,
            views=self.images.columns,
            backbone=self.backbone.key,
            size=self.size,
            version=1,
        )
        return self.ledger.key('probe', inputs, seeded=False)

    def heads(self, members: np.ndarray) -> list[Head]:
        """One head for each set of pictures.

        Args:
            members: (S, P) bool; of these, pictures without labels teach nothing.
        """
        labelled = self.pool.labelled[self.pictures.sample]
        return fit_heads(
            self.cells,
            len(GRIDS),
            sum(self.backbone.channels),
            len(self.pool.classes),
            members & labelled,
            self._device,
        )

    def losses(self, learned: np.ndarray) -> np.ndarray:
        """What the probe that learns from some samples makes of each, as if it had seen none.

        Args:
            learned: (N,) bool; of these, samples without labels teach nothing.

        Returns:
            (N,) float32, the mean over a sample's pictures; NaN for unreadable samples and those
            without labels.
        """
        read = self.cells
        labelled = self.pool.labelled
        learned = learned & labelled
        inputs = dict(cells=self.ledger.used['probe'], learned=mask_key(learned))

        def write(folder: Path) -> None:
            pictures = self.pictures
            losses = cross_fitted_losses(
                read,
                len(GRIDS),
                sum(self.backbone.channels),
                len(self.pool.classes),
                learned[pictures.sample],
                self._device,
            )
            total = np.bincount(pictures.sample, losses, len(learned))
            count = np.bincount(pictures.sample, minlength=len(learned))
            write_array(folder / 'loss.npy', (total / count).astype(np.float32))

        key = self.ledger.key('probe_losses', inputs, seeded=False)
        loss = read_array(self.ledger.run('probe_losses', key, write) / 'loss.npy')
        is_known = labelled & ~self.images.unreadable
        return np.where(is_known, loss, np.float32(np.nan))

    def held_out_losses(self, learned: np.ndarray, fold: np.ndarray) -> np.ndarray:
        """What the probe that learns from some samples makes of each, its fold left out.

        Args:
            learned: (N,) bool; of these, samples without labels teach nothing.
            fold: (N,) int64 labels 0..F-1.

        Returns:
            (N,) float64, the sum over a sample's pictures; 0 for unreadable samples and those
            without labels.
        """
        read = self.cells
        labelled = self.pool.labelled
        learned = learned & labelled
        inputs = dict(
            cells=self.ledger.used['probe'],
            learned=mask_key(learned),
            fold=sha256_items(fold),
        )

        def write(folder: Path) -> None:
            sample = self.pictures.sample
            losses = held_out_losses(
                read,
                len(GRIDS),
                sum(self.backbone.channels),
                len(self.pool.classes),
                learned[sample],
                fold[sample],
                self._device,
            )
            write_array(folder / 'loss.npy', np.bincount(sample, losses, len(learned)))

        key = self.ledger.key('held_out', inputs, seeded=False)
        loss = read_array(self.ledger.run('held_out', key, write) / 'loss.npy')
        return np.where(labelled, loss, 0.0)

    @property
    def _device(self) -> str:
        """Where products are formed: where the backbone is, if it says so."""
        return getattr(self.backbone, 'device', 'cpu')
