"""The stages ``clusters``, ``joint``, ``density`` and ``partners`` of a run."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..base.files import read_array, sha256_value, write_rows
from ..clusters import Clusterer
from ..datasets.boxes import labelled_boxes, objects_key
from ..datasets.sources import Source
from ..features.stage import ImageStages
from ..pool import Pool
from ..stages import Ledger
from ..stages.ledger import mask_key
from ..vectors.rows import drop_pages, read_in_passing
from .layout import DIMENSIONS, joint_blocks, layout_blocks
from .method import DensityMethod
from .split import cluster_work, density_work, partner_work

# Pairs of samples that are compared at a time.
_ROWS = 8192


class DensityStages:
    """How redundant the samples of a run are. Stages run when they are first asked for.

    Args:
        ledger: the run's.
        images: what is known of its images.
        pool: its N samples.
        sources: the datasets that they come from.
        clusterer: built from ``CLUSTERERS``.
        method: built from ``DENSITIES``.
        clusterer_options: what the clusterer was built from, for keys.
        method_options: what the method was built from, likewise.
    """

    def __init__(
        self,
        ledger: Ledger,
        images: ImageStages,
        pool: Pool,
        sources: Sequence[Source],
        clusterer: Clusterer,
        method: DensityMethod,
        clusterer_options: dict[str, Any],
        method_options: dict[str, Any],
    ) -> None:
        self.ledger = ledger
        self.images = images
        self.pool = pool
        self.sources = sources
        self.clusterer = clusterer
        self.method = method
        self.clusterer_options = clusterer_options
        self.method_options = method_options

    @functools.cached_property
    def objects_key(self) -> str:
        """See ``adadedup_mm.datasets.boxes.objects_key``."""
        return objects_key(self.pool, self.sources)

    @functools.cached_property
    def clusters(self) -> np.ndarray:
        """(N,) int32 labels 0..K-1."""
        features = self.images.features
        inputs = dict(features=self.ledger.used['features'], options=self.clusterer_options)
        # Of a user's clusterer that does not say what it looks at, it may be everything.
        looks_at = getattr(self.clusterer, 'looks_at', ('objects',))
        if 'objects' in looks_at:
            inputs['samples'] = self.objects_key
        elif 'samples' in looks_at:
            pool = self.pool
            samples = [pool.sample_ids, pool.scenes, pool.dataset_index.tolist()]
            inputs['samples'] = sha256_value(samples)

        file = getattr(self.clusterer, 'file', None)
        if file is not None and os.path.isfile(file):
            inputs['file'] = self.ledger.digest(file)
        return self.cluster(self.clusterer, features, inputs)

    def cluster(
        self, clusterer: Clusterer, vectors: np.ndarray, inputs: dict[str, Any]
    ) -> np.ndarray:
        """The stage ``clusters``.

        Args:
            clusterer: as built from ``CLUSTERERS``.
            vectors: (N, d) float32.
            inputs: see ``Ledger.key``.

        Returns:
            (N,) int32 labels 0..K-1.
        """
        work = cluster_work(clusterer, vectors, self.pool, self.ledger.seed)
        return read_array(self.ledger.stage('clusters', inputs, work) / 'clusters.npy')

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
            return self.images.features
        inputs = dict(
            features=self.images.features_key,
            layout=layout,
            objects=self.objects_key,
        )

        def write_joint(folder: Path) -> None:
            features = self.images.features
            boxes = labelled_boxes(self.pool, self.sources, self.images.views)
            layouts = layout_blocks(*boxes, len(self.pool), self.ledger.seed)
            blocks = read_in_passing(features, joint_blocks(features, layouts, layout))
            width = features.shape[1] + DIMENSIONS + 1
            write_rows(folder / 'joint.npy', (len(features), width), blocks)

        folder = self.ledger.stage('joint', inputs, write_joint)
        # A form of the features, not a step of the method that a run accounts for.
        self.ledger.used.pop('joint')

        return np.asarray(read_array(folder / 'joint.npy', mmap_mode='r'))

    def scores(self, layout: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Order inside the cluster, (N,) int32, and density score, (N,) float32.

        Args:
            layout: as in ``compared``.
        """
        clusters = self.clusters
        vectors = self.compared(layout)
        inputs: dict[str, Any] = dict(
            clusters=self.ledger.used['clusters'], options=self.method_options
        )
        work = density_work(self.method, vectors, clusters, self.ledger.seed)
        folder = self.ledger.stage('density', inputs | self._layout_inputs(layout), work)
        return read_array(folder / 'order.npy'), read_array(folder / 'similarity.npy')

    def partners(self, kept: np.ndarray, layout: float = 0.0) -> np.ndarray:
        """(N,) int64 kept sample that stands for each pruned one, -1 for none.

        Args:
            kept: (N,) bool.
            layout: as in ``compared``.
        """
        clusters = self.clusters
        vectors = self.compared(layout)
        inputs: dict[str, Any] = dict(clusters=self.ledger.used['clusters'], kept=mask_key(kept))
        work = partner_work(vectors, clusters, kept)
        folder = self.ledger.stage('partners', inputs | self._layout_inputs(layout), work)
        return read_array(folder / 'partner.npy')

    def likeness(self, partner: np.ndarray) -> np.ndarray:
        """How similar the images of samples are to those of their partners.

        Args:
            partner: (N,) int64, -1 for none.

        Returns:
            (P,) float32 for the P samples with a partner, in their order.
        """
        features = self.images.features
        paired = np.flatnonzero(partner >= 0)
        similarity = np.empty(len(paired), np.float32)
        for start in range(0, len(paired), _ROWS):
            block = paired[start : start + _ROWS]
            ours = features[block]
            theirs = features[partner[block]]
            similarity[start : start + _ROWS] = np.einsum('nd,nd->n', ours, theirs)

        drop_pages(features)

        return similarity

    def _layout_inputs(self, layout: float) -> dict[str, Any]:
        """What stages depend on besides the clusters where labels are compared."""
        return dict(layout=layout, objects=self.objects_key) if layout else {}
