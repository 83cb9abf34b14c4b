"""What a density method is: a class registered in ``DENSITIES``."""

from typing import ClassVar, Protocol

import numpy as np


class DensityMethod(Protocol):
    """Says how redundant each sample is; its constructor takes the options beside ``type``.

    Attributes:
        by_cluster: whether it is a ``ClusterDensityMethod``. A class without this attribute counts
            as one that is not, and works on the first process alone.
    """

    by_cluster: ClassVar[bool] = False

    def __call__(
        self, features: np.ndarray, assignment: np.ndarray, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """An order of the samples of each cluster, and the similarity of each to the earlier ones.

        Args:
            features: (N, d) float32 unit rows, memory-mapped; zero for images that cannot be read.
            assignment: (N,) int32, labels 0..K-1.
            seed: of all random choices: equal arguments give equal results.

        Returns:
            order: (N,) int32, position inside the cluster, 0 = first.
            similarity: (N,) float32 in [-1, 1], multiples of 2**-20: a sample goes if it is above
                the threshold; -1 for samples that resemble nothing before them.
        """


class ClusterDensityMethod(DensityMethod, Protocol):
    """A density method that looks at each cluster alone, so that processes can share them."""

    by_cluster: ClassVar[bool] = True

    def __call__(
        self,
        features: np.ndarray,
        assignment: np.ndarray,
        seed: int,
        clusters: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """See ``DensityMethod``.

        Args:
            features: likewise.
            assignment: likewise.
            seed: likewise.
            clusters: (k,) int, the clusters to look at, whose result must not depend on the others;
                what is returned for samples of others is not looked at. None means all.
        """
