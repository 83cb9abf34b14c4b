"""The ways to choose samples. Every strategy is a function from a ``Run`` to a ``Selection`` that meets the budget."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..feedback import adaptive_set, cluster_gaps, initial_set, keep_count, shrink, standardise
from ..registry import STRATEGIES
from ..selection import Selection
from .trainings import left_out

if TYPE_CHECKING:
    from .run import Run


@STRATEGIES.register_module()
def clip_dedup(run: 'Run') -> Selection:
    """Density alone: one threshold for all clusters (the paper's CLIP-DeDup baseline)."""
    return _density(run)


@STRATEGIES.register_module()
def adadedup(run: 'Run') -> Selection:
    """AdaDeDup (arXiv 2507.00049): the proxy's losses on kept and pruned samples move every cluster's threshold."""
    options = run.options.feedback
    _ = run.proxy_config  # A wrong proxy config should not come to light after hours of other work.
    if options.beta and run.options.on_bad_image == 'error':
        _ = run.for_proxy  # Nor should an image that is refused.
    density = _density(run, run.layout)
    if run.layout != options.layout:
        density.notes.append(
            'feedback.layout is left aside: some samples have no labels that could be compared.'
        )
    initial, tau = _initial(
        run, density.similarity, options.initial_ratio or run.options.keep_ratio
    )
    if density.kept.all() or initial.all():
        density.notes.append('Nothing is pruned initially, so there is nothing to adapt.')
        return density
    if options.beta == 0:
        density.notes.append(
            'feedback.beta is 0: the density scores decide alone, and no proxy is trained.'
        )
        return density
    labelled = run.pool.labelled
    usable = ~run.dropped & labelled
    nothing_to_learn = not (initial & usable & ~run.unreadable).any() or density.kept[usable].all()
    if not labelled.all() and nothing_to_learn:
        density.notes.append(
            'No labelled sample is kept or pruned initially: the density scores decide alone.'
        )
        return density
    held_out = _held_out(run, initial & labelled)
    partner = run.partners(initial, run.layout)
    trained = initial & labelled & ~held_out & ~run.unreadable
    loss = run.losses(trained=trained, scored=_scored(run, initial, partner))
    density.notes.extend(left_out(run))
    gaps = cluster_gaps(
        loss, initial, run.clusters, partner, options.gap, held_out, run.options.seed
    )
    delta, reliability = shrink(gaps) if options.shrink else standardise(gaps)
    # What the losses say is about labels: samples without any stay or go by their density score.
    share = density.kept[usable].sum() / usable.sum()
    adaptive = adaptive_set(
        density.similarity[usable],
        run.clusters[usable],
        delta,
        tau,
        options.beta,
        options.alpha_plus,
        options.alpha_minus,
        float(share),
    )
    kept = density.kept.copy()
    kept[usable] = adaptive.kept
    return replace(
        density,
        kept=kept,
        thresholds=adaptive.thresholds,
        initial=initial,
        loss=loss,
        gaps=gaps,
        shift=adaptive.shift,
        reliability=reliability,
    )


def _density(run: 'Run', layout: float = 0.0) -> Selection:
    """One threshold for all clusters; ``layout`` is the share of the labels in the density scores."""
    order, similarity = run.density(layout)
    kept, tau = _initial(run, similarity, run.options.keep_ratio)
    notes = [
        f'Similarities are {layout:.0%} those of the labelled boxes and {1 - layout:.0%} those of '
        'the images.'
    ]
    return Selection(
        kept,
        run.clusters,
        order,
        similarity,
        np.full(run.clusters.max() + 1, tau),
        layout=layout,
        notes=notes if layout else [],
    )


def _initial(run: 'Run', similarity: np.ndarray, keep_ratio: float) -> tuple[np.ndarray, float]:
    """(N,) bool under one threshold, and the threshold; dropped samples are out of the competition."""
    kept = np.zeros(len(similarity), bool)
    kept[~run.dropped], tau = initial_set(similarity[~run.dropped], _usable_ratio(run, keep_ratio))
    return kept, tau


def _usable_ratio(run: 'Run', keep_ratio: float) -> float:
    """The keep ratio among the samples that are not dropped, for the budget of all."""
    n = len(run.pool)
    return min(1.0, keep_count(keep_ratio, n) / (n - run.dropped.sum()))


def _held_out(run: 'Run', initial: np.ndarray) -> np.ndarray:
    """(N,) bool, the share of the initial set that the proxy does not see."""
    chosen = np.zeros(len(initial), bool)
    members = np.flatnonzero(initial)
    count = round(run.options.proxy.held_out * len(members))
    chosen[run.generator('held out').choice(members, count, replace=False)] = True
    return chosen


def _scored(run: 'Run', initial: np.ndarray, partner: np.ndarray) -> np.ndarray:
    """(N,) bool, the labelled samples that get a loss: all readable, or a budget of pruned ones with their partners."""
    readable = ~run.unreadable & run.pool.labelled
    budget = run.options.proxy.max_loss_samples
    if budget is None or budget >= readable.sum():
        return readable
    pruned = run.generator('scored').permutation(
        np.flatnonzero(~initial & readable & (partner >= 0))
    )[: budget // 2]
    scored = np.zeros(len(initial), bool)
    scored[pruned] = scored[partner[pruned]] = True
    others = run.generator('scored kept').permutation(np.flatnonzero(initial & readable & ~scored))
    scored[others[: budget - int(scored.sum())]] = True
    return scored & readable
