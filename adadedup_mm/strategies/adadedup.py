"""The strategies ``clip_dedup`` and ``adadedup``: density, and what a proxy's losses make of it."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..feedback import (
    AdaptiveSet,
    Gaps,
    adaptive_set,
    cluster_gaps,
    initial_set,
    keep_count,
    shrink,
    standardise,
)
from ..registry import STRATEGIES
from ..selection import Selection
from .needs import Needs, says
from .trainings import left_out

if TYPE_CHECKING:
    from .run import Run


@STRATEGIES.register_module()
@says(lambda run, keep_ratio: Needs(by_density=True))
def clip_dedup(run: 'Run') -> Selection:
    """Density alone: one threshold for all clusters (the paper's CLIP-DeDup baseline)."""
    return _density(run)


def _needs(run: 'Run', keep_ratio: float) -> Needs:
    """What ``adadedup`` does: features, density scores, and one proxy where it will be asked."""
    options = run.options
    count = len(run.pool)
    initial = keep_count(options.feedback.initial_ratio or keep_ratio, count)
    kept = keep_count(keep_ratio, count)
    all_stay = max(initial, kept) == count
    if options.feedback.beta == 0 or all_stay or not run.pool.labelled.any():
        return Needs(by_density=True, layout=_layout(run))

    proxy = run.proxy_stages
    trained = 0
    if options.proxy.checkpoint is None:
        trained = round(initial * (1 - options.proxy.held_out)) * proxy.epochs
    scored = min(count, options.proxy.max_loss_samples or count)

    return Needs(
        by_density=True,
        layout=_layout(run),
        trained=proxy.views_per_sample * trained,
        scored=proxy.views_per_sample * scored,
        together=options.proxy.distributed,
    )


@STRATEGIES.register_module()
@says(_needs)
def adadedup(run: 'Run') -> Selection:
    """AdaDeDup (arXiv 2507.00049): a proxy's losses move every cluster's threshold.

    They are compared between the samples that density keeps and those that it prunes.
    """
    options = run.options.feedback
    # A wrong proxy config should not come to light after hours of other work.
    _ = run.proxy_stages.config
    if options.beta and run.options.on_bad_image == 'error':
        _ = run.for_proxy  # Nor should an image that is refused.
    layout = _layout(run)
    density = _density(run, layout)
    if layout != options.layout:
        density.notes.append(
            'feedback.layout is left aside: some samples have no labels that could be compared.'
        )

    initial_ratio = options.initial_ratio or run.options.keep_ratio
    initial, tau = _initial(run, density.similarity, initial_ratio)
    why_not = _why_not_adapted(run, density.kept, initial)
    if why_not:
        density.notes.append(why_not)
        return density

    gaps, loss = _gaps(run, initial, layout)
    density.notes.extend(left_out(run))
    delta, reliability = shrink(gaps) if options.shrink else standardise(gaps)
    adaptive, kept = _adapted(run, density, delta, tau)

    return replace(
        density,
        kept=kept,
        thresholds=adaptive.thresholds,
        initial=initial,
        loss=loss,
        gaps=gaps,
        shift=adaptive.shift,
        without_feedback=density.kept,
        reliability=reliability,
    )


def _layout(run: 'Run') -> float:
    """Share of the label layout in the density scores.

    0 where some samples have no labels: with another measure for the others, one threshold would
    not be fair.
    """
    return run.options.feedback.layout if run.pool.labelled.all() else 0.0


def _why_not_adapted(run: 'Run', kept: np.ndarray, initial: np.ndarray) -> str:
    """Why density decides alone; '' where a proxy is to be asked.

    Args:
        run: the pruning run.
        kept: (N,) bool, what density keeps.
        initial: (N,) bool, the initial set.
    """
    if kept.all() or initial.all():
        return 'Nothing is pruned initially, so there is nothing to adapt.'
    if run.options.feedback.beta == 0:
        return 'feedback.beta is 0: the density scores decide alone, and no proxy is trained.'
    labelled = run.pool.labelled
    if labelled.all():
        return ''
    usable = ~run.dropped & labelled
    can_learn = (initial & usable & ~run.unreadable).any()
    if not can_learn or kept[usable].all():
        return 'No labelled sample is kept or pruned initially: the density scores decide alone.'
    return ''


def _gaps(run: 'Run', initial: np.ndarray, layout: float) -> tuple[Gaps, np.ndarray]:
    """What a proxy that learned from the initial set, (N,) bool, says: gaps, and (N,) losses."""
    options = run.options.feedback
    labelled_initial = initial & run.pool.labelled
    held_out = _held_out(run, labelled_initial)
    partner = run.partners(initial, layout)
    trained = labelled_initial & ~held_out & ~run.unreadable
    scored = _scored(run, initial, partner)
    loss = run.losses(trained, scored)
    gaps = cluster_gaps(
        loss,
        initial,
        run.clusters,
        partner,
        options.gap,
        held_out,
        run.options.seed,
    )
    return gaps, loss


def _adapted(
    run: 'Run', density: Selection, delta: np.ndarray, tau: float
) -> tuple[AdaptiveSet, np.ndarray]:
    """The thresholds after the proxy's feedback, and (N,) bool, what they keep.

    What the losses say is about labels: samples without any stay or go by their density score.

    Args:
        run: the pruning run.
        density: what density decides.
        delta: (K,) float64, the standardised gaps.
        tau: the threshold that all clusters begin with.
    """
    options = run.options.feedback
    usable = ~run.dropped & run.pool.labelled
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

    return adaptive, kept


def _density(run: 'Run', layout: float = 0.0) -> Selection:
    """One threshold for all clusters; ``layout`` is the share of the labels in the scores."""
    order, similarity = run.density(layout)
    kept, tau = _initial(run, similarity, run.options.keep_ratio)
    thresholds = np.full(run.clusters.max() + 1, tau)
    notes = []
    if layout:
        notes.append(
            f'Similarities are {layout:.0%} those of the labelled boxes and {1 - layout:.0%} those '
            'of the images.'
        )

    return Selection(kept, run.clusters, order, similarity, thresholds, layout=layout, notes=notes)


def _initial(run: 'Run', similarity: np.ndarray, keep_ratio: float) -> tuple[np.ndarray, float]:
    """(N,) bool under one threshold, and the threshold; dropped samples do not compete."""
    usable = ~run.dropped
    # The budget is a share of all samples.
    budget = keep_count(keep_ratio, len(usable))
    ratio = min(1.0, budget / usable.sum())
    kept = np.zeros(len(similarity), bool)
    kept[usable], tau = initial_set(similarity[usable], ratio)
    return kept, tau


def _held_out(run: 'Run', initial: np.ndarray) -> np.ndarray:
    """(N,) bool, the share of the initial set that the proxy does not see."""
    members = np.flatnonzero(initial)
    count = round(run.options.proxy.held_out * len(members))
    drawn = run.generator('held out').choice(members, count, replace=False)
    chosen = np.zeros(len(initial), bool)
    chosen[drawn] = True
    return chosen


def _scored(run: 'Run', initial: np.ndarray, partner: np.ndarray) -> np.ndarray:
    """(N,) bool, the labelled samples that get a loss.

    These are all readable ones, or with ``proxy.max_loss_samples`` pruned ones with their partners,
    and other kept ones up to that number.

    Args:
        run: the pruning run.
        initial: (N,) bool, the initial set.
        partner: (N,) int64, the kept sample beside each pruned one, -1 for none.
    """
    readable = ~run.unreadable & run.pool.labelled
    budget = run.options.proxy.max_loss_samples
    if budget is None or budget >= readable.sum():
        return readable

    has_partner = partner >= 0
    paired = np.flatnonzero(~initial & readable & has_partner)
    shuffled = run.generator('scored').permutation(paired)
    pruned = shuffled[: budget // 2]
    scored = np.zeros(len(initial), bool)
    scored[pruned] = True
    scored[partner[pruned]] = True

    kept = np.flatnonzero(initial & readable & ~scored)
    others = run.generator('scored kept').permutation(kept)
    room = budget - int(scored.sum())
    scored[others[:room]] = True

    return scored & readable
