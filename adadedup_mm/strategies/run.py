"""What strategies get: the samples, the options, and the stages that tell them more."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from ..conflicts import Conflicts
from ..conflicts.stage import ConflictStages
from ..datasets import Source
from ..datasets.sources import dotted
from ..density.stage import DensityStages
from ..features.stage import ImageStages
from ..images.training import training_reader
from ..pool import Pool, label
from ..probe.folds import cross_folds
from ..probe.stage import ProbeStages
from ..proxy.stage import ProxyStages
from ..registry import CLUSTERERS, DENSITIES, EMBEDDERS, build
from ..selection.scenes import scene_labels
from ..settings.options import Options
from ..stages import Ledger, StageStore, Work
from ..vectors.nearest import earlier_alike


class Run:
    """A pruning run. Its stages run when they are first asked for, each at most once.

    Args:
        config: the user's training config.
        options: its ``adadedup`` dict, resolved.
        store: where stages live.
        pool: the N samples of the training set.
        sources: the inner datasets that they come from.

    Attributes:
        ledger: which stages were used, and what they are made of.
        image_stages: features, and which images can be read.
        density_stages: clusters, density scores and partners.
        conflict_stages: where labels contradict each other.
        proxy_stages: the proxy detector and its losses.
        probe_stages: the probe's cells and heads.
        scenes: (N,) int32, or None where no option asks for scenes.

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
        self.ledger = Ledger(store, options.seed)
        self.image_stages = ImageStages(
            self.ledger,
            pool,
            build(EMBEDDERS, options.embedder, 'adadedup.embedder'),
            training_reader(config),
            options.views,
            options.on_bad_image,
            self._without_files,
        )
        self.density_stages = DensityStages(
            self.ledger,
            self.image_stages,
            pool,
            sources,
            build(CLUSTERERS, options.clusterer, 'adadedup.clusterer'),
            build(DENSITIES, options.density, 'adadedup.density'),
            options.clusterer,
            options.density,
        )
        self.conflict_stages = ConflictStages(self.ledger, self.image_stages, pool, sources)
        self.scenes = self._scenes()
        self.proxy_stages = ProxyStages(
            self.ledger, self.image_stages, pool, sources, config, options.proxy
        )
        self.probe_stages = ProbeStages(
            self.ledger, self.image_stages, pool, sources, options.probe
        )

    def generator(self, purpose: str) -> np.random.Generator:
        """A random generator of its own for each purpose, seeded by the options."""
        return self.ledger.generator(purpose)

    def stage(self, name: str, inputs: dict[str, Any], work: Work) -> Path:
        """Runs a stage of a strategy's own, unless it is finished, and returns its folder.

        Args:
            name: the stage.
            inputs: JSON-like values of everything that the result depends on besides the seed.
            work: writes the results into the folder: a function of it, called by the first process
                alone, or ``Shards`` for all processes.
        """
        return self.ledger.stage(name, inputs, work)

    @property
    def features(self) -> np.ndarray:
        """(N, d) float32, unit rows; zero for unreadable images."""
        return self.image_stages.features

    @property
    def unreadable(self) -> np.ndarray:
        """(N,) bool, samples with an image that the training cannot read."""
        return self.image_stages.unreadable

    @property
    def dropped(self) -> np.ndarray:
        """(N,) bool, unreadable samples that ``on_bad_image='drop'`` takes out."""
        return self.image_stages.dropped

    @property
    def clusters(self) -> np.ndarray:
        """(N,) int32 labels 0..K-1."""
        return self.density_stages.clusters

    def density(self, layout: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Order inside the cluster, (N,) int32, and density score, (N,) float32.

        Args:
            layout: share of the label layout in the scores; the rest is the images'.
        """
        return self.density_stages.scores(layout)

    def partners(self, kept: np.ndarray, layout: float = 0.0) -> np.ndarray:
        """(N,) int64 kept sample that stands for each pruned one of a (N,) bool; -1 for none."""
        return self.density_stages.partners(kept, layout)

    @functools.cached_property
    def near_duplicates(self) -> np.ndarray:
        """(n, 2) int64, samples with an earlier one that is a near-duplicate; see earlier_alike."""
        least = self.image_stages.embedder.near_duplicate
        return earlier_alike(self.features, self.clusters, least)

    def folds(self, count: int) -> np.ndarray:
        """(N,) int64, parts without common scenes (or clusters) or near-duplicates.

        Args:
            count: how many parts there are at most.
        """
        scenes = self.pool.scenes
        groups = label(scenes) if scenes and self.pool.has_several_scenes else self.clusters
        return cross_folds(groups, self.near_duplicates, self.generator('folds'), count)

    @property
    def conflicts(self) -> Conflicts:
        """Where near-identical images have contradicting labels; none unless it has features."""
        return self.conflict_stages.found

    @property
    def for_proxy(self) -> np.ndarray:
        """(N,) bool, samples that the proxy trains on and gives a loss to."""
        return self.proxy_stages.usable

    def losses(self, trained: np.ndarray, scored: np.ndarray) -> np.ndarray:
        """(N,) float32 losses of the samples ``scored`` by a proxy that learned from ``trained``.

        Both are (N,) bool; the others' losses are NaN.
        """
        return self.proxy_stages.losses(trained, scored)

    @property
    def _without_files(self) -> str:
        """What to say where a strategy looks at images that are no files."""
        return (
            f'the images of {dotted(self.sources[0].path)} are arrays, not files, so that strategy '
            f'{self.options.strategy_name} cannot look at them: use one without features '
            '(docs/STRATEGIES.md says which)'
        )

    def _scenes(self) -> np.ndarray | None:
        """(N,) int32, the scene of each sample; None where no option asks for them."""
        if self.options.group_by:
            return scene_labels(self.pool, 'group_by')
        if self.options.min_gap:
            return scene_labels(self.pool, 'min_gap')
        return None
