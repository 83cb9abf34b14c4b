"""Sets of pictures as unions of disjoint parts, so that each picture is summed once for several."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Parts:
    """S sets of P pictures as unions of U parts that have no picture in common.

    Attributes:
        of_picture: (P,) int64, the part that each picture is in, -1 for none.
        of_set: (S, U) bool, the parts that each set is made of.
    """

    of_picture: np.ndarray
    of_set: np.ndarray

    @property
    def count(self) -> int:
        """U."""
        return self.of_set.shape[1]


def disjoint_parts(sets: np.ndarray, most: int) -> list[Parts]:
    """Takes neighbouring sets together, as many as ``most`` parts allow.

    Selections of one strategy at rising ratios are nested: five of them have five parts.

    Args:
        sets: (S, P) bool.
        most: parts of the sets that are taken together; one set has one part.

    Returns:
        The groups of sets in their order.
    """
    groups = []
    start = 0
    kind = np.zeros(sets.shape[1], np.int64)
    for number, chosen in enumerate(sets):
        finer = _split(kind, chosen)
        if number > start and finer.max(initial=0) > most:
            groups.append(_parts(kind, sets[start:number]))
            start = number
            finer = chosen.astype(np.int64)
        kind = finer

    groups.append(_parts(kind, sets[start:]))
    return groups


def _split(kind: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(P,) labels of the kinds inside a set and outside of it; 0 stays for pictures in no set."""
    inside_and_outside = 2 * kind + chosen
    is_there = np.zeros(2 * kind.max(initial=0) + 2, bool)
    is_there[inside_and_outside] = True
    is_there[0] = True
    dense = np.cumsum(is_there) - 1
    return dense[inside_and_outside]


def _parts(kind: np.ndarray, sets: np.ndarray) -> Parts:
    of_set = np.zeros((len(sets), kind.max(initial=0) + 1), bool)
    for number, chosen in enumerate(sets):
        of_set[number, kind[chosen]] = True
    return Parts(kind - 1, of_set[:, 1:])
