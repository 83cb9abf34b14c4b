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
        The new (N,) bool, and the names of the classes whose floor could not be met.
    """
    kept = kept.copy()
    locked = np.zeros(len(pool), bool) if locked is None else locked
    samples, classes = class_membership(pool)
    total = np.bincount(classes, minlength=len(pool.classes))
    floor = _floors(pool, classes, floor_ratio)
    have = np.bincount(classes[kept[samples]], minlength=len(pool.classes))
    starts = np.searchsorted(samples, np.arange(len(pool) + 1))

    added = np.zeros(len(pool), bool)
    for name in np.argsort(total, kind='stable'):
        if have[name] >= floor[name]:
            continue
        holders = samples[classes == name]
        holders = holders[~kept[holders] & ~locked[holders]]
        for sample in holders[np.argsort(margin[holders], kind='stable')][
            : floor[name] - have[name]
        ]:
            kept[sample] = added[sample] = True
            have[classes[starts[sample] : starts[sample + 1]]] += 1

    surplus = int(added.sum())
    spare = np.flatnonzero(kept & ~added & ~locked)
    spare = spare[np.argsort(-margin[spare], kind='stable')]
    for respect_floor in (True, False):
        for sample in spare:
            own = classes[starts[sample] : starts[sample + 1]]
            if surplus == 0:
                break
            if kept[sample] and not (respect_floor and (have[own] <= floor[own]).any()):
                kept[sample] = False
                have[own] -= 1
                surplus -= 1
    if surplus:
        newest = np.flatnonzero(added)
        for sample in newest[np.argsort(-margin[newest], kind='stable')][:surplus]:
            kept[sample] = False
            have[classes[starts[sample] : starts[sample + 1]]] -= 1
    return kept, classes_below(pool, kept, floor_ratio)


def classes_below(pool: Pool, kept: np.ndarray, floor_ratio: float) -> list[str]:
    """The classes that keep fewer samples than ``keep_class_floor`` guarantees."""
    samples, classes = class_membership(pool)
    have = np.bincount(classes[kept[samples]], minlength=len(pool.classes))
    return [
        pool.classes[name] for name in np.flatnonzero(have < _floors(pool, classes, floor_ratio))
    ]


def _floors(pool: Pool, classes: np.ndarray, ratio: float) -> np.ndarray:
    """(C,) int64, how many samples of each class have to stay."""
    total = np.bincount(classes, minlength=len(pool.classes))
    return np.array([math.ceil(round(ratio * count, 9)) for count in total], np.int64)
