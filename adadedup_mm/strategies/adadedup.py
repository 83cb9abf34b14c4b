"""The strategies ``clip_dedup`` and ``adadedup``: density, and what losses make of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

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
    weighted_gaps,
)
from ..probe.held_out import JUDGES, is_lower
from ..registry import STRATEGIES
from ..selection import Selection
from .needs import Needs, says
from .trainings import left_out

if TYPE_CHECKING:
    from .run import Run


@STRATEGIES.register_module()
@says(lambda run, keep_ratio: Needs(by_density=True), competes=True)
def clip_dedup(run: 'Run') -> Selection:
    """Density alone: one threshold for all clusters (the paper's CLIP-DeDup baseline)."""
    return _density(run)


def _needs(run: 'Run', keep_ratio: float) -> Needs:
    """What ``adadedup`` does: features, density scores, and the probe or one proxy or both."""
    options = run.options
    count = len(run.pool)
    initial = keep_count(options.feedback.initial_ratio or keep_ratio, count)
    kept = keep_count(keep_ratio, count)
    all_stay = max(initial, kept) == count
    if options.feedback.beta == 0 or all_stay or not run.pool.labelled.any():
        return Needs(by_density=True, layout=_layout(run))
    signals = _signals(run)
    probed = len(run.probe_stages.pictures) if 'probe' in signals else 0
    if 'proxy' not in signals:
        return Needs(by_density=True, layout=_layout(run), probed=probed)

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
        probed=probed,
        together=options.proxy.distributed,
    )


@STRATEGIES.register_module()
@says(_needs, competes=True)
def adadedup(run: 'Run') -> Selection:
    """AdaDeDup (arXiv 2507.00049): losses move every cluster's threshold.

    They are compared between the samples that density keeps and those that it prunes. They are
    those of the probe, or of a proxy detector as in the paper (``feedback.signal``).
    """
    options = run.options.feedback
    asks_proxy = bool(options.beta) and 'proxy' in _signals(run)
    if asks_proxy:
        # A wrong proxy config should not come to light after hours of other work.
        _ = run.proxy_stages.config
    if asks_proxy and run.options.on_bad_image == 'error':
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

    feedback = _ask(run, initial, layout)
    density.notes.extend(feedback.notes)
    adaptive, kept = _adapted(run, density, feedback.delta, tau)
    why_not = _why_not_helpful(run, density.kept, kept)
    if why_not:
        density.notes.append(why_not)
        no_shift = np.zeros_like(feedback.delta)
        adaptive, kept = _adapted(run, density, no_shift, tau)

    return replace(
        density,
        kept=kept,
        thresholds=adaptive.thresholds,
        initial=initial,
        loss=feedback.loss,
        gaps=feedback.gaps,
        shift=adaptive.shift,
        without_feedback=density.kept,
        reliability=feedback.reliability,
        signal=feedback.signal,
    )


def _layout(run: 'Run') -> float:
    """Share of the label layout in the density scores.

    0 where some samples have no labels: with another measure for the others, one threshold would
    not be fair.
    """
    return run.options.feedback.layout if run.pool.labelled.all() else 0.0


def _why_not_adapted(run: 'Run', kept: np.ndarray, initial: np.ndarray) -> str:
    """Why density decides alone; '' where losses are to be asked.

    Args:
        run: the pruning run.
        kept: (N,) bool, what density keeps.
        initial: (N,) bool, the initial set.
    """
    if kept.all() or initial.all():
        return 'Nothing is pruned initially, so there is nothing to adapt.'
    if run.options.feedback.beta == 0:
        return 'feedback.beta is 0: the density scores decide alone.'
    labelled = run.pool.labelled
    if labelled.all():
        return ''
    usable = ~run.dropped & labelled
    can_learn = (initial & usable & ~run.unreadable).any()
    if not can_learn or kept[usable].all():
        return 'No labelled sample is kept or pruned initially: the density scores decide alone.'
    return ''


def _why_not_helpful(run: 'Run', before: np.ndarray, after: np.ndarray) -> str:
    """Why thresholds do not move although the probe's losses say so; '' if they do.

    Clusters can be told apart reliably without its being of use to move samples between them: hard
    ones may be beyond learning. So both choices are put to the test, by the probe in
    cross-validation on the training set: moving has to lower its loss by more than noise.

    Args:
        run: the pruning run.
        before: (N,) bool, what density keeps.
        after: (N,) bool, what the feedback would keep.
    """
    options = run.options.feedback
    if options.signal != 'probe' or not options.shrink or not _may_probe(run):
        return ''
    if (before == after).all():
        return ''
    fold = run.folds(JUDGES)
    if fold.max() < 2:
        return ''
    losses = [run.probe_stages.held_out_losses(kept, fold) for kept in (before, after)]
    without, with_feedback = (np.bincount(fold, loss) for loss in losses)
    if is_lower(with_feedback, without):
        return ''
    changed = int((after & ~before).sum())
    return (
        f"The probe's losses would exchange {changed} samples, but in cross-validation that does "
        'not help: the density scores decide.'
    )


@dataclass(frozen=True)
class _Feedback:
    """What losses say about the clusters.

    Attributes:
        gaps: per-cluster losses and gaps.
        loss: (N,) float32, NaN where none was computed.
        delta: (K,) float64, the standardised gaps.
        reliability: how far the gaps can be trusted, for the manifest.
        notes: sentences for the report.
        signal: whose losses these are.
    """

    gaps: Gaps
    loss: np.ndarray
    delta: np.ndarray
    reliability: dict[str, Any]
    notes: list[str]
    signal: str


def _may_probe(run: 'Run') -> bool:
    """Whether the probe has objects to learn from: 2D boxes in image files."""
    return run.image_stages.are_files and run.probe_stages.has_objects


def _signals(run: 'Run') -> tuple[str, ...]:
    """Whose losses decide: ``'probe'``, ``'proxy'`` or both."""
    signal = run.options.feedback.signal
    if not _may_probe(run):
        return ('proxy',)
    return ('probe', 'proxy') if signal == 'both' else (signal,)


def _ask(run: 'Run', initial: np.ndarray, layout: float) -> _Feedback:
    """Asks the probe, a proxy or both what they make of an initial set, (N,) bool.

    A proxy takes minutes to hours, the probe seconds. Where both are to be asked, a proxy is
    trained only if the probe can tell clusters apart, unless noisy gaps are taken as they are.
    """
    signals = _signals(run)
    if 'probe' not in signals:
        notes = left_out(run)
        if run.options.feedback.signal != 'proxy':
            notes.append('There are no 2D boxes the probe could learn from: a proxy was asked.')
        return _judged(run, *_gaps_by(run, initial, layout, 'proxy'), 'proxy', notes)

    by_probe = _judged(run, *_gaps_by(run, initial, layout, 'probe'), 'probe')
    if 'proxy' not in signals:
        return by_probe
    if not by_probe.delta.any():
        note = "The probe's losses cannot tell the clusters apart, so that no proxy was trained."
        return replace(by_probe, notes=[note])
    gaps, loss = _gaps_by(run, initial, layout, 'proxy')
    weighted = weighted_gaps([by_probe.gaps, gaps])
    return _judged(run, weighted, loss, 'both', left_out(run))


def _judged(
    run: 'Run', gaps: Gaps, loss: np.ndarray, signal: str, notes: Sequence[str] = ()
) -> _Feedback:
    """What gaps are worth."""
    weigh = shrink if run.options.feedback.shrink else standardise
    delta, reliability = weigh(gaps)
    return _Feedback(gaps, loss, delta, reliability, list(notes), signal)


def _gaps_by(
    run: 'Run', initial: np.ndarray, layout: float, signal: str
) -> tuple[Gaps, np.ndarray]:
    """Gaps, and (N,) losses, of what learned from the initial set, (N,) bool.

    Args:
        run: the pruning run.
        initial: the initial set.
        layout: share of the label layout in the density scores.
        signal: ``'probe'`` or ``'proxy'``.
    """
    options = run.options.feedback
    labelled_initial = initial & run.pool.labelled
    held_out = _held_out(run, labelled_initial)
    partner = run.partners(initial, layout)
    trained = labelled_initial & ~held_out & ~run.unreadable
    if signal == 'probe':
        loss = run.probe_stages.losses(trained)
        loss[~run.pool.labelled] = np.nan
    else:
        loss = run.losses(trained, _scored(run, initial, partner))

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
            f'Density scores are {1 - layout:.0%} image similarity and {layout:.0%} agreement of '
            'the labelled boxes.'
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
