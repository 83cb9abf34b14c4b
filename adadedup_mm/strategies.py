"""The ways to choose samples. Every strategy is a function from a ``Run`` to a ``Selection`` that meets the budget."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .density import nearest_kept
from .feedback import adaptive_set, cluster_gaps, initial_set, keep_count, shrink, standardise
from .selection import Selection

if TYPE_CHECKING:
    from .run import Run


def random(run: 'Run') -> Selection:
    """A uniform random subset."""
    n = len(run.pool)
    kept = np.zeros(n, bool)
    kept[run.generator('random').choice(n, keep_count(run.options.keep_ratio, n), replace=False)] = True
    return Selection.without_features(kept)


def uniform_stride(run: 'Run') -> Selection:
    """Samples at equal distances in the dataset's order: every n-th frame, for any ratio."""
    n = len(run.pool)
    count = keep_count(run.options.keep_ratio, n)
    kept = np.zeros(n, bool)
    kept[np.arange(count) * n // count] = True
    return Selection.without_features(kept)


def clip_dedup(run: 'Run') -> Selection:
    """Density alone: one threshold for all clusters (the paper's CLIP-DeDup baseline)."""
    order, similarity = run.density
    kept, tau = _initial(run, similarity, run.options.keep_ratio)
    return Selection(kept, run.clusters, order, similarity, np.full(run.clusters.max() + 1, tau))


def adadedup(run: 'Run') -> Selection:
    """AdaDeDup (arXiv 2507.00049): the proxy's losses on kept and pruned samples move every cluster's threshold."""
    options = run.options.feedback
    _ = run.proxy_config  # A wrong proxy config should not come to light after hours of other work.
    density = clip_dedup(run)
    initial, tau = _initial(run, density.similarity, options.initial_ratio or run.options.keep_ratio)
    if density.kept.all() or initial.all():
        density.notes.append('Nothing is pruned initially, so there is nothing to adapt.')
        return density
    held_out = _held_out(run, initial)
    partner, _ = nearest_kept(run.features, run.clusters, initial)
    loss = run.losses(trained=initial & ~held_out & ~run.unreadable, scored=_scored(run, initial, partner))
    gaps = cluster_gaps(loss, initial, run.clusters, partner, options.gap, held_out, run.options.seed)
    delta, reliability = shrink(gaps) if options.shrink else standardise(gaps)
    usable = ~run.dropped
    adaptive = adaptive_set(density.similarity[usable], run.clusters[usable], delta, tau, options.beta,
                            options.alpha_plus, options.alpha_minus, _usable_ratio(run, run.options.keep_ratio))
    kept = np.zeros(len(usable), bool)
    kept[usable] = adaptive.kept
    return replace(density, kept=kept, thresholds=adaptive.thresholds, initial=initial, loss=loss, gaps=gaps,
                   shift=adaptive.shift, reliability=reliability)


def _initial(run: 'Run', similarity: np.ndarray, keep_ratio: float) -> tuple[np.ndarray, float]:
    """(N,) bool under one threshold, and the threshold; dropped samples are out of the competition."""
    kept = np.zeros(len(similarity), bool)
    kept[~run.dropped], tau = initial_set(similarity[~run.dropped], _usable_ratio(run, keep_ratio))
    return kept, tau


def _usable_ratio(run: 'Run', keep_ratio: float) -> float:
    """The keep ratio among the samples that are not dropped, for the budget of all."""
    n = len(run.pool)
    return min(1., keep_count(keep_ratio, n) / (n - run.dropped.sum()))


def _held_out(run: 'Run', initial: np.ndarray) -> np.ndarray:
    """(N,) bool, the share of the initial set that the proxy does not see."""
    chosen = np.zeros(len(initial), bool)
    members = np.flatnonzero(initial)
    count = round(run.options.proxy.held_out * len(members))
    chosen[run.generator('held out').choice(members, count, replace=False)] = True
    return chosen


def _scored(run: 'Run', initial: np.ndarray, partner: np.ndarray) -> np.ndarray:
    """(N,) bool, the readable samples that get a loss: all, or a budget of pruned samples with their partners."""
    readable = ~run.unreadable
    budget = run.options.proxy.max_loss_samples
    if budget is None or budget >= readable.sum():
        return readable
    pruned = run.generator('scored').permutation(np.flatnonzero(~initial & readable & (partner >= 0)))[:budget // 2]
    scored = np.zeros(len(initial), bool)
    scored[pruned] = scored[partner[pruned]] = True
    others = run.generator('scored kept').permutation(np.flatnonzero(initial & readable & ~scored))
    scored[others[:budget - int(scored.sum())]] = True
    return scored & readable
