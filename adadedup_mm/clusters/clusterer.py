"""What a clusterer is: a class registered in ``CLUSTERERS``."""

from collections.abc import Callable
from typing import ClassVar, Protocol

import numpy as np

from ..pool import Pool

# (K, d) float32 unit centroids -> (N,) int64, the nearest one of each sample, -1 for blank ones.
Assign = Callable[[np.ndarray], np.ndarray]


class Clusterer(Protocol):
    """Puts each sample into one cluster; its constructor takes the options beside ``type``.

    What it says of itself is optional: a class that lacks an attribute counts as one with the
    default, works on the first process alone, and is asked again whenever anything has changed.

    Attributes:
        learns_centroids: whether it is a ``CentroidClusterer``.
        looks_at: what its clusters depend on besides the options and the features; finished
            clusters are used again while these stay the same. ``'features'``: nothing else.
            ``'samples'``: the samples' ids and scenes, and the inner datasets they come from.
            ``'objects'``: all that the annotations say.
        file: a file that it reads, an attribute of the instance; its content counts as well.
    """

    learns_centroids: ClassVar[bool] = False
    looks_at: ClassVar[tuple[str, ...]] = ('objects',)

    def __call__(self, features: np.ndarray, pool: Pool, seed: int) -> np.ndarray:
        """The cluster of each sample.

        Args:
            features: (N, d) float32 or float16 unit rows, memory-mapped; zero for images that
                cannot be read.
            pool: the N samples.
            seed: of all random choices: equal arguments give equal clusters.

        Returns:
            (N,) int32 labels 0..K-1, each of which occurs.
        """


class CentroidClusterer(Clusterer, Protocol):
    """A clusterer whose clusters are the samples nearest to one of K centroids.

    All processes look for the nearest centroids together.
    """

    learns_centroids: ClassVar[bool] = True

    def __call__(
        self, features: np.ndarray, pool: Pool, seed: int, assign: Assign | None = None
    ) -> np.ndarray:
        """See ``Clusterer``.

        Args:
            features: likewise.
            pool: likewise.
            seed: likewise.
            assign: finds the nearest one of (K, d) unit centroids for all samples, (N,) int64, -1
                for samples without a direction; to be called once. None: the call does so itself.
        """
