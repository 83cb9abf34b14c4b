"""What a selection must never do: starve a class."""

import math

import numpy as np

from ..pool import Pool
from ..pool.groups import class_membership


def keep_class_floor(
    pool: Pool,
    kept: np.ndarray,
    margin: np.ndarray,
    floor_ratio: float,
    locked: np.ndarray | None = None,
) -> tuple[np.ndarray, list[str]]:
    """Swaps samples so that no class falls below its floor; the number of kept samples stays.

    The floor of a class is ``ceil(floor_ratio * its samples)``. Rare classes are served first, by
    the least redundant pruned samples that hold them; in exchange the most redundant kept samples
    go whose classes can spare them. Where both the floors and the budget cannot be met, the budget
    wins.

    Args:
        pool: N samples.
        kept: (N,) bool.
        margin: (N,) float, how redundant a sample is; larger goes first.
        floor_ratio: in [0, 1].
        locked: (N,) bool, samples that must stay as they are.

    Returns:
        kept: the new (N,) bool.
        missed: the names of the classes whose floor could not be met.
    """
    locked = np.zeros(len(pool), bool) if locked is None else locked
    balance = _Balance(pool, kept, floor_ratio)
    added = _add_rare(balance, margin, locked)
    surplus = int(added.sum())
    spare = np.flatnonzero(balance.kept & ~added & ~locked)
    spare = spare[np.argsort(-margin[spare], kind='stable')]
    for sample in spare:
        if surplus and balance.can_spare(sample):
            balance.drop(sample)
            surplus -= 1

    # The budget wins over the floors, and old samples go before those just added.
    old = spare[balance.kept[spare]]
    new = np.flatnonzero(added)
    new = new[np.argsort(-margin[new], kind='stable')]
    for sample in np.concatenate([old, new])[:surplus]:
        balance.drop(sample)
    return balance.kept, classes_below(pool, balance.kept, floor_ratio)


def classes_below(pool: Pool, kept: np.ndarray, floor_ratio: float) -> list[str]:
    """The classes that keep fewer samples than ``keep_class_floor`` guarantees."""
    balance = _Balance(pool, kept, floor_ratio)
    below = np.flatnonzero(balance.have < balance.floor)
    return [pool.classes[name] for name in below]


class _Balance:
    """How many samples of each class are kept, while samples come and go.

    Args:
        pool: N samples, C classes.
        kept: (N,) bool.
        floor_ratio: in [0, 1].

    Attributes:
        kept: (N,) bool, as it is now.
        total: (C,) int64 samples of each class.
        floor: (C,) int64, how many of them have to stay.
        have: (C,) int64, how many are kept.
    """

    def __init__(self, pool: Pool, kept: np.ndarray, floor_ratio: float) -> None:
        count = len(pool.classes)
        self.kept = kept.copy()
        self._samples, self._classes = class_membership(pool)
        self._starts = np.searchsorted(self._samples, np.arange(len(pool) + 1))
        self.total = np.bincount(self._classes, minlength=count)
        # The product of two decimals may lie a little above the whole number that it is.
        floors = [math.ceil(round(floor_ratio * total, 9)) for total in self.total]
        self.floor = np.array(floors, np.int64)
        self.have = np.bincount(self._classes[kept[self._samples]], minlength=count)

    def holders(self, name: int) -> np.ndarray:
        """The samples that hold a class, ascending."""
        return self._samples[self._classes == name]

    def can_spare(self, sample: int) -> bool:
        """Whether all classes of a sample have more than their floor."""
        own = self._classes_of(sample)
        return bool((self.have[own] > self.floor[own]).all())

    def add(self, sample: int) -> None:
        """Keeps a sample that was not kept."""
        self.kept[sample] = True
        self.have[self._classes_of(sample)] += 1

    def drop(self, sample: int) -> None:
        """Drops a sample that was kept."""
        self.kept[sample] = False
        self.have[self._classes_of(sample)] -= 1

    def _classes_of(self, sample: int) -> np.ndarray:
        start, end = self._starts[sample], self._starts[sample + 1]
        return self._classes[start:end]


def _add_rare(balance: _Balance, margin: np.ndarray, locked: np.ndarray) -> np.ndarray:
    """Adds samples of the classes below their floor, rare classes first; (N,) bool, which."""
    added = np.zeros(len(margin), bool)
    for name in np.argsort(balance.total, kind='stable'):
        missing = balance.floor[name] - balance.have[name]
        if missing <= 0:
            continue
        holders = balance.holders(name)
        free = holders[~balance.kept[holders] & ~locked[holders]]
        least_redundant = free[np.argsort(margin[free], kind='stable')]
        for sample in least_redundant[:missing]:
            balance.add(sample)
            added[sample] = True

    return added
