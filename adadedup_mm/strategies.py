"""The ways to choose samples. Every strategy is a function from a ``Run`` to a ``Selection`` that meets the budget."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .datasets import read_outlines
from .errors import UserError
from .feedback import adaptive_set, cluster_gaps, initial_set, keep_count, shrink, standardise
from .files import read_array, write_array, write_json
from .options import choose, whole
from .scenes import scene_labels
from .scores import class_shares, keep_highest, run_agreement, shape_complexity, sum_per_sample
from .scores.observe import Measure
from .scores.trainings import default_epochs, training_scores
from .selection import Selection

if TYPE_CHECKING:
    from .run import Run


def random(run: 'Run', per: str | None = None) -> Selection:
    """A uniform random subset; with ``per``, of every cluster or scene the same share.

    Args:
        run: the pruning run.
        per: ``'cluster'`` or ``'scene'``: each keeps ``keep_ratio`` of its samples, rounded by largest remainder so
            that the budget of all is met exactly.

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
    kept[order[np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes) < np.repeat(counts, sizes)]] = True
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
        (K,) int64, none above its group's size; their sum is the budget. Of equal remainders the first ones win.
    """
    whole, rest = np.divmod(sizes * budget, max(int(sizes.sum()), 1))
    whole[np.argsort(-rest, kind='stable')[:budget - whole.sum()]] += 1
    return whole


def uniform_stride(run: 'Run') -> Selection:
    """Samples at equal distances in the dataset's order: every n-th frame, for any ratio."""
    n = len(run.pool)
    usable = np.flatnonzero(~run.dropped)
    count = min(keep_count(run.options.keep_ratio, n), len(usable))
    kept = np.zeros(n, bool)
    kept[usable[np.arange(count) * len(usable) // count]] = True
    return Selection.without_features(kept)


def el2n(run: 'Run', runs: int = 3, epochs: int | None = None) -> Selection:
    """The samples with the largest errors early in training (EL2N, arXiv 2107.07075).

    For every object the norm of (class scores - one-hot) of the predictions that are assigned to it, averaged over
    them; summed over the objects of an image, averaged over trainings. A classifier has one prediction per image.

    Args:
        run: the pruning run.
        runs: number of short trainings with seeds of their own.
        epochs: of each training; see ``default_epochs``.

    Raises:
        UserError: an argument is out of range, or the proxy does not tell which predictions belong to which object.
    """
    return _by_training(run, 'error', runs, epochs)


def grand(run: 'Run', runs: int = 3, epochs: int | None = None) -> Selection:
    """The samples with the largest gradients early in training (GraNd, arXiv 2107.07075).

    The norm of the gradient of a sample's loss with respect to all of a detector's parameters after backbone and neck,
    and to the last layer of a classifier; averaged over trainings.

    Args:
        run: the pruning run.
        runs: number of short trainings with seeds of their own.
        epochs: of each training; see ``default_epochs``.

    Raises:
        UserError: an argument is out of range, or the model has no such parameters.
    """
    return _by_training(run, 'gradient', runs, epochs)


def forgetting(run: 'Run', runs: int = 3, epochs: int | None = None) -> Selection:
    """The samples whose objects are forgotten most often (arXiv 1812.05159).

    How often an object is right after one epoch and wrong after the next; objects that are never right count as many
    times as there are epochs. Summed over the objects of an image, averaged over trainings.

    Args:
        run: the pruning run.
        runs: number of trainings with seeds of their own.
        epochs: of each training, at least 2; see ``default_epochs``.

    Raises:
        UserError: as for ``el2n``; or ``proxy.checkpoint`` stands for the trainings.
    """
    return _by_training(run, 'error', runs, epochs, late=True)


def loss_topk(run: 'Run', runs: int = 3, epochs: int | None = None) -> Selection:
    """The samples with the highest proxy losses, averaged over trainings.

    Args:
        run: the pruning run.
        runs: number of trainings with seeds of their own.
        epochs: of each training; see ``default_epochs``.

    Raises:
        UserError: an argument is out of range, or a loss is not finite.
    """
    return _by_training(run, 'loss', runs, epochs, late=True)


def tfdp(run: 'Run') -> Selection:
    """The samples with the most complex shapes, without any training (TFDP, arXiv 2503.00828).

    For every object the perimeter of its mask over that of a circle of equal area, divided by the sum of these ratios
    over its class; summed over the objects of an image. Objects without a mask count with their box.

    Raises:
        UserError: the samples have neither masks nor boxes.
    """
    _require_labels(run)
    inputs = dict(method='tfdp', pool=run.objects_key, records=run.records_key)

    def compute(folder: Path) -> None:
        outlines = read_outlines(run.config, run.sources, run.pool)
        complexity = shape_complexity(outlines.sizes[:, 0], outlines.sizes[:, 1])
        scores = sum_per_sample(class_shares(complexity, outlines.labels), outlines.owner, len(run.pool))
        write_array(folder / 'scores.npy', scores[None])
        write_json(folder / 'outlines.json', dict(objects=len(outlines.owner), masks=outlines.masks))

    folder = run.stage('scores', inputs, compute)
    selection = _highest(run, read_array(folder / 'scores.npy'))
    outlines = json.loads((folder / 'outlines.json').read_text(encoding='utf-8'))
    selection.notes.append(f'{outlines["masks"]} of {outlines["objects"]} objects have a mask; the others count with '
                           'their box.')
    return selection


def _trained_scores(run: 'Run', measure: Measure, runs: int, epochs: int | None, late: bool = False) -> np.ndarray:
    """(R, N) float64 scores of R short trainings."""
    _require_labels(run)
    whole(runs, 'adadedup.strategy.runs', 1)
    every_epoch = late and measure == 'error'
    if epochs is None:
        epochs = default_epochs(run, late)
    whole(epochs, 'adadedup.strategy.epochs', 2 if every_epoch else 1)
    return training_scores(run, measure, runs, epochs, every_epoch)


def _require_labels(run: 'Run') -> None:
    """Raises UserError if some samples have no labels that a score could be made of."""
    count = int((~run.pool.labelled).sum())
    if count:
        raise UserError(f'strategy {run.options.strategy_name} scores labels, but {count} of {len(run.pool)} samples '
                        'have none: use adadedup, clip_dedup or random, or prune the labelled part alone')


def _by_training(run: 'Run', measure: Measure, runs: int, epochs: int | None, late: bool = False) -> Selection:
    """The samples with the highest scores of short trainings; those that the proxy cannot look at stay."""
    scores = _trained_scores(run, measure, runs, epochs, late)
    selection = _highest(run, scores, ~run.for_proxy)
    selection.notes += _left_out(run)
    return selection


def _left_out(run: 'Run') -> list[str]:
    """What to say about readable samples that the proxy cannot look at."""
    count = int((~run.for_proxy & ~run.unreadable).sum())
    if not count:
        return []
    return [f'{count} samples are too long and thin for the Resize of the proxy, or have pictures '
            'in other cameras that cannot be read: it trains and scores without them.']


def _highest(run: 'Run', scores: np.ndarray, unknown: np.ndarray | None = None) -> Selection:
    """The samples with the highest mean of (R, N) scores; (N,) bool ``unknown`` tells which have none."""
    score = scores.mean(axis=0)
    dropped = run.dropped
    unknown = dropped if unknown is None else unknown
    # What nothing is known about stays, unless it is to be dropped.
    places = np.where(unknown, np.where(dropped, -np.inf, np.inf), score)
    budget = min(keep_count(run.options.keep_ratio, len(score)), int((~dropped).sum()))
    selection = Selection.without_features(keep_highest(places, budget))
    selection.score = score
    if len(scores) > 1:
        r, reliability = run_agreement(scores[:, ~unknown])
        selection.notes.append(f'The scores of {len(scores)} trainings have a rank correlation of {r:.2f}; their mean '
                               f'has a reliability of {reliability:.2f}.')
    empty = int((score[~unknown] == 0).sum())
    if empty:
        selection.notes.append(f'{empty} samples have a score of 0, such as those without objects: they go first.')
    return selection


def clip_dedup(run: 'Run') -> Selection:
    """Density alone: one threshold for all clusters (the paper's CLIP-DeDup baseline)."""
    return _density(run)


def adadedup(run: 'Run') -> Selection:
    """AdaDeDup (arXiv 2507.00049): the proxy's losses on kept and pruned samples move every cluster's threshold."""
    options = run.options.feedback
    _ = run.proxy_config  # A wrong proxy config should not come to light after hours of other work.
    if options.beta and run.options.on_bad_image == 'error':
        _ = run.for_proxy  # Nor should an image that is refused.
    density = _density(run, run.layout)
    if run.layout != options.layout:
        density.notes.append('feedback.layout is left aside: some samples have no labels that could be compared.')
    initial, tau = _initial(run, density.similarity, options.initial_ratio or run.options.keep_ratio)
    if density.kept.all() or initial.all():
        density.notes.append('Nothing is pruned initially, so there is nothing to adapt.')
        return density
    if options.beta == 0:
        density.notes.append('feedback.beta is 0: the density scores decide alone, and no proxy is trained.')
        return density
    labelled = run.pool.labelled
    usable = ~run.dropped & labelled
    nothing_to_learn = not (initial & usable & ~run.unreadable).any() or density.kept[usable].all()
    if not labelled.all() and nothing_to_learn:
        density.notes.append('No labelled sample is kept or pruned initially: the density scores decide alone.')
        return density
    held_out = _held_out(run, initial & labelled)
    partner = run.partners(initial, run.layout)
    trained = initial & labelled & ~held_out & ~run.unreadable
    loss = run.losses(trained=trained, scored=_scored(run, initial, partner))
    density.notes.extend(_left_out(run))
    gaps = cluster_gaps(loss, initial, run.clusters, partner, options.gap, held_out, run.options.seed)
    delta, reliability = shrink(gaps) if options.shrink else standardise(gaps)
    # What the losses say is about labels: samples without any stay or go by their density score.
    share = density.kept[usable].sum() / usable.sum()
    adaptive = adaptive_set(density.similarity[usable], run.clusters[usable], delta, tau, options.beta,
                            options.alpha_plus, options.alpha_minus, float(share))
    kept = density.kept.copy()
    kept[usable] = adaptive.kept
    return replace(density, kept=kept, thresholds=adaptive.thresholds, initial=initial, loss=loss, gaps=gaps,
                   shift=adaptive.shift, reliability=reliability)


def _density(run: 'Run', layout: float = 0.) -> Selection:
    """One threshold for all clusters; ``layout`` is the share of the labels in the density scores."""
    order, similarity = run.density(layout)
    kept, tau = _initial(run, similarity, run.options.keep_ratio)
    notes = [f'Similarities are {layout:.0%} those of the labelled boxes and {1 - layout:.0%} those of the images.']
    return Selection(kept, run.clusters, order, similarity, np.full(run.clusters.max() + 1, tau), layout=layout,
                     notes=notes if layout else [])


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
    """(N,) bool, the labelled samples that get a loss: all readable, or a budget of pruned ones with their partners."""
    readable = ~run.unreadable & run.pool.labelled
    budget = run.options.proxy.max_loss_samples
    if budget is None or budget >= readable.sum():
        return readable
    pruned = run.generator('scored').permutation(np.flatnonzero(~initial & readable & (partner >= 0)))[:budget // 2]
    scored = np.zeros(len(initial), bool)
    scored[pruned] = scored[partner[pruned]] = True
    others = run.generator('scored kept').permutation(np.flatnonzero(initial & readable & ~scored))
    scored[others[:budget - int(scored.sum())]] = True
    return scored & readable
