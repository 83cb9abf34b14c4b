"""Of copies whose labels contradict each other, the better one stays."""

from typing import NamedTuple

import numpy as np


class BetterLabels(NamedTuple):
    """A selection before and after contradictions were taken out of it.

    Attributes:
        swapped: (N,) bool, with the better copy in the place of each kept worse one, if it was
            pruned.
        kept: (N,) bool, after that with other samples in the place of the worse copies beside which
            a better one is kept.
    """

    swapped: np.ndarray
    kept: np.ndarray


def keep_better_labels(
    kept: np.ndarray, margin: np.ndarray, better: np.ndarray, locked: np.ndarray
) -> BetterLabels:
    """Takes the worse ones of contradicting copies out; the number of kept samples stays.

    A kept sample with a better copy that is pruned changes places with it. One whose better copy is
    kept gives way to the least redundant pruned sample of all, as long as there is one that has no
    better copy itself.

    Args:
        kept: (N,) bool.
        margin: (N,) float, how redundant a sample is; larger goes first.
        better: (N,) int64, a copy with better labels, which has none itself; -1 for none.
        locked: (N,) bool, samples that must stay as they are.
    """
    swapped = kept.copy()
    has_better = better >= 0
    for worse in np.flatnonzero(kept & has_better & ~locked):
        right = better[worse]
        if not swapped[right] and not locked[right]:
            swapped[worse] = False
            swapped[right] = True

    result = swapped.copy()
    too_many = np.flatnonzero(swapped & has_better & ~locked)
    too_many = too_many[swapped[better[too_many]]]
    others = np.flatnonzero(~swapped & ~has_better & ~locked)
    others = others[np.argsort(margin[others], kind='stable')]
    count = min(len(too_many), len(others))
    most_redundant = too_many[np.argsort(-margin[too_many], kind='stable')]
    result[most_redundant[:count]] = False
    result[others[:count]] = True
    return BetterLabels(swapped, result)
