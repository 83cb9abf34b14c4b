"""Choices that look at no label and no loss: random ones, and equal distances."""

from typing import TYPE_CHECKING

import numpy as np

from ..base.checks import choose
from ..feedback import keep_count
from ..registry import STRATEGIES
from ..selection import Selection
from ..selection.scenes import scene_labels
from .needs import Needs, says

if TYPE_CHECKING:
    from .run import Run


def _random_needs(run: 'Run', keep_ratio: float, per: str | None) -> Needs:
    return Needs(features=per == 'cluster')


@STRATEGIES.register_module()
@says(_random_needs, competes=True)
def random(run: 'Run', per: str | None = None) -> Selection:
    """A uniform random subset; with ``per``, of every cluster or scene the same share.

    Args:
        run: the pruning run.
        per: ``'cluster'`` or ``'scene'``: each keeps ``keep_ratio`` of its samples, rounded by
            largest remainder so that the budget of all is met exactly.

    Raises:
        UserError: ``per`` is something else, or the samples' scenes are not known.
    """
    if per is not None:
        choose(per, ('cluster', 'scene'), 'adadedup.strategy.per')
        return _random_per_group(run, per)
    usable = np.flatnonzero(~run.dropped)
    budget = _budget(run, usable)
    chosen = run.generator('random').choice(len(usable), budget, replace=False)
    return _selection(run, usable[chosen])


def _random_per_group(run: 'Run', per: str) -> Selection:
    """Of every cluster or scene the same share."""
    groups = run.clusters if per == 'cluster' else scene_labels(run.pool, 'strategy.per')
    usable = np.flatnonzero(~run.dropped)
    sizes = np.bincount(groups[usable])
    counts = shares(sizes, _budget(run, usable))
    # Of the samples in random order, sorted by group, the first ones of every group.
    order = run.generator('random').permutation(usable)
    by_group = np.argsort(groups[order], kind='stable')
    order = order[by_group]
    starts = np.cumsum(sizes) - sizes
    start_of_group = np.repeat(starts, sizes)
    place_in_group = np.arange(len(order)) - start_of_group
    is_chosen = place_in_group < np.repeat(counts, sizes)
    selection = _selection(run, order[is_chosen])
    if per == 'cluster':
        selection.assignment = groups
    return selection


def shares(sizes: np.ndarray, budget: int) -> np.ndarray:
    """Splits a budget over groups in proportion to their sizes.

    By largest remainder (Hamilton's method).

    Args:
        sizes: (K,) int64.
        budget: at most the sum of the sizes.

    Returns:
        (K,) int64, none above its group's size; their sum is the budget. Of equal remainders the
        first ones win.
    """
    counts, rest = np.divmod(sizes * budget, max(int(sizes.sum()), 1))
    missing = budget - counts.sum()
    largest_rest_first = np.argsort(-rest, kind='stable')
    counts[largest_rest_first[:missing]] += 1
    return counts


@STRATEGIES.register_module()
@says(lambda run, keep_ratio: Needs(features=False), competes=True)
def uniform_stride(run: 'Run') -> Selection:
    """Samples at equal distances in the dataset's order: every n-th frame, for any ratio."""
    usable = np.flatnonzero(~run.dropped)
    budget = _budget(run, usable)
    places = np.arange(budget) * len(usable) // budget
    return _selection(run, usable[places])


def _budget(run: 'Run', usable: np.ndarray) -> int:
    """How many samples stay, as far as there are usable ones."""
    wanted = keep_count(run.options.keep_ratio, len(run.pool))
    return min(wanted, len(usable))


def _selection(run: 'Run', chosen: np.ndarray) -> Selection:
    """The selection that keeps the given samples."""
    kept = np.zeros(len(run.pool), bool)
    kept[chosen] = True
    return Selection.without_features(kept)
