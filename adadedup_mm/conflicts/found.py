"""What is known of the contradicting labels of a training set."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Conflicts:
    """C boxes about which two near-identical samples of N say different things.

    Attributes:
        first: (C,) int64 samples, each below its ``second``.
        second: (C,) int64.
        kind: (C,) int8, indices into ``KINDS``.
        box_a: (C,) int64 rows of the pool's boxes, of ``first``; -1 where it has none there.
        box_b: (C,) int64, of ``second`` likewise.
        copies: (C,) bool, whether two samples differ in nothing else that their labels speak of:
            then one can stand for the other.
        similarity: (C,) float32 cosines of the images' features.
        better: (N,) int64, see ``better_copies``.
    """

    first: np.ndarray
    second: np.ndarray
    kind: np.ndarray
    box_a: np.ndarray
    box_b: np.ndarray
    copies: np.ndarray
    similarity: np.ndarray
    better: np.ndarray

    @classmethod
    def none(cls, samples: int) -> 'Conflicts':
        """No conflict among N samples."""
        empty = np.empty(0, np.int64)
        return cls(
            first=empty,
            second=empty,
            kind=np.empty(0, np.int8),
            box_a=empty,
            box_b=empty,
            copies=np.empty(0, bool),
            similarity=np.empty(0, np.float32),
            better=np.full(samples, -1, np.int64),
        )

    @property
    def pairs(self) -> np.ndarray:
        """(P, 2) int64, the different pairs of samples."""
        return np.unique(np.stack([self.first, self.second], axis=1), axis=0)

    @property
    def others(self) -> np.ndarray:
        """(N,) int64, a sample that contradicts each one, copies first, then by similarity; or -1.

        Of several assignments to one place NumPy leaves the last one.
        """
        order = np.lexsort((self.similarity, self.copies))
        pairs = np.stack([self.first, self.second], axis=1)[order]
        other = np.full(len(self.better), -1, np.int64)
        other[pairs.ravel()] = pairs[:, ::-1].ravel()
        return other
