"""Choices that look at no label and no loss: random ones, and equal distances."""

from typing import TYPE_CHECKING

import numpy as np

from ..base.checks import choose
from ..feedback import keep_count
from ..registry import STRATEGIES
from ..selection import Selection
from ..selection.scenes import scene_labels

if TYPE_CHECKING:
    from .run import Run


@STRATEGIES.register_module()
def random(run: 'Run', per: str | None = None) -> Selection:
    """A uniform random subset; with ``per``, of every cluster or scene the same share.

    Args:
        run: the pruning run.
        per: ``'cluster'`` or ``'scene'``: each keeps ``keep_ratio`` of its samples, rounded by
            largest remainder so that the budget of all is met exactly.

    Raises:
        UserError: ``per`` is something else, or the samples' scenes are not known.
    """
    n = len(run.pool)
    kept = np.zeros(n, bool)
    budget, generator = keep_count(run.options.keep_ratio, n), run.generator('random')
    if per is None:
        usable = np.flatnonzero(~run.dropped)
        kept[usable[generator.choice(len(usable), min(budget, len(usable)), replace=False)]] = True
        return Selection.without_features(kept)
    choose(per, ('cluster', 'scene'), 'adadedup.strategy.per')
    groups = run.clusters if per == 'cluster' else scene_labels(run.pool, 'strategy.per')
    usable = np.flatnonzero(~run.dropped)
    counts = shares(np.bincount(groups[usable]), min(budget, len(usable)))
    # Of the samples in random order, sorted by group, the first ones of every group.
    order = generator.permutation(usable)
    order = order[np.argsort(groups[order], kind='stable')]
    sizes = np.bincount(groups[usable])
    kept[
        order[
            np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
            < np.repeat(counts, sizes)
        ]
    ] = True
    selection = Selection.without_features(kept)
    if per == 'cluster':
        selection.assignment = groups
    return selection


def shares(sizes: np.ndarray, budget: int) -> np.ndarray:
    """Splits a budget over groups in proportion to their sizes, by largest remainder (Hamilton's method).

    Args:
        sizes: (K,) int64.
        budget: at most the sum of the sizes.

    Returns:
        (K,) int64, none above its group's size; their sum is the budget. Of equal remainders the
        first ones win.
    """
    whole, rest = np.divmod(sizes * budget, max(int(sizes.sum()), 1))
    whole[np.argsort(-rest, kind='stable')[: budget - whole.sum()]] += 1
    return whole


@STRATEGIES.register_module()
def uniform_stride(run: 'Run') -> Selection:
    """Samples at equal distances in the dataset's order: every n-th frame, for any ratio."""
    n = len(run.pool)
    usable = np.flatnonzero(~run.dropped)
    count = min(keep_count(run.options.keep_ratio, n), len(usable))
    kept = np.zeros(n, bool)
    kept[usable[np.arange(count) * len(usable) // count]] = True
    return Selection.without_features(kept)
