"""Choices by a score of each sample: of short trainings, or of the shapes of its objects."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..base.checks import whole
from ..base.errors import UserError
from ..base.files import read_array, write_array, write_json
from ..datasets import read_outlines
from ..feedback import keep_count
from ..registry import STRATEGIES
from ..scores import class_shares, keep_highest, run_agreement, shape_complexity, sum_per_sample
from ..scores.observe import Measure
from ..selection import Selection
from .needs import Needs, SaysNeeds, says
from .trainings import default_epochs, left_out, training_scores

if TYPE_CHECKING:
    from .run import Run


def _training_needs(late: bool = False, every_epoch: bool = False) -> SaysNeeds:
    """What a strategy with short trainings needs; the arguments are as of ``_by_training``."""

    def needs(run: 'Run', keep_ratio: float, runs: int, epochs: int | None) -> Needs:
        whole(runs, 'adadedup.strategy.runs', 1)
        if epochs is not None:
            whole(epochs, 'adadedup.strategy.epochs', 1)
        epochs = epochs or default_epochs(run, late)
        images = runs * len(run.pool) * run.proxy_stages.views_per_sample

        return Needs(
            features=False,
            trained=0 if run.options.proxy.checkpoint else images * epochs,
            scored=images * (epochs if every_epoch else 1),
            trainings=runs,
        )

    return needs


@STRATEGIES.register_module()
@says(_training_needs())
def el2n(run: 'Run', runs: int = 3, epochs: int | None = None) -> Selection:
    """The samples with the largest errors early in training (EL2N, arXiv 2107.07075).

    For every object the norm of (class scores - one-hot) of the predictions that are assigned to
    it, averaged over them; summed over the objects of an image, averaged over trainings. A
    classifier has one prediction per image.

    Args:
        run: the pruning run.
        runs: number of short trainings with seeds of their own.
        epochs: of each training; see ``default_epochs``.

    Raises:
        UserError: an argument is out of range, or the proxy does not tell which predictions belong
            to which object.
    """
    return _by_training(run, 'error', runs, epochs)


@STRATEGIES.register_module()
@says(_training_needs())
def grand(run: 'Run', runs: int = 3, epochs: int | None = None) -> Selection:
    """The samples with the largest gradients early in training (GraNd, arXiv 2107.07075).

    The norm of the gradient of a sample's loss with respect to all of a detector's parameters after
    backbone and neck, and to the last layer of a classifier; averaged over trainings.

    Args:
        run: the pruning run.
        runs: number of short trainings with seeds of their own.
        epochs: of each training; see ``default_epochs``.

    Raises:
        UserError: an argument is out of range, or the model has no such parameters.
    """
    return _by_training(run, 'gradient', runs, epochs)


@STRATEGIES.register_module()
@says(_training_needs(late=True, every_epoch=True))
def forgetting(run: 'Run', runs: int = 3, epochs: int | None = None) -> Selection:
    """The samples whose objects are forgotten most often (arXiv 1812.05159).

    How often an object is right after one epoch and wrong after the next; objects that are never
    right count as many times as there are epochs. Summed over the objects of an image, averaged
    over trainings.

    Args:
        run: the pruning run.
        runs: number of trainings with seeds of their own.
        epochs: of each training, at least 2; see ``default_epochs``.

    Raises:
        UserError: as for ``el2n``; or ``proxy.checkpoint`` stands for the trainings.
    """
    return _by_training(run, 'error', runs, epochs, late=True)


@STRATEGIES.register_module()
@says(_training_needs(late=True))
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


@STRATEGIES.register_module()
@says(lambda run, keep_ratio: Needs(features=False))
def tfdp(run: 'Run') -> Selection:
    """The samples with the most complex shapes, without any training (TFDP, arXiv 2503.00828).

    For every object the perimeter of its mask over that of a circle of equal area, divided by the
    sum of these ratios over its class; summed over the objects of an image. Objects without a mask
    count with their box.

    Raises:
        UserError: the samples have neither masks nor boxes.
    """
    _require_labels(run)
    inputs = dict(
        method='tfdp', pool=run.density_stages.objects_key, records=run.proxy_stages.records_key
    )

    def compute(folder: Path) -> None:
        outlines = read_outlines(run.config, run.sources, run.pool)
        complexity = shape_complexity(outlines.sizes[:, 0], outlines.sizes[:, 1])
        scores = sum_per_sample(
            class_shares(complexity, outlines.labels), outlines.owner, len(run.pool)
        )
        write_array(folder / 'scores.npy', scores[None])
        write_json(
            folder / 'outlines.json', dict(objects=len(outlines.owner), masks=outlines.masks)
        )

    folder = run.stage('scores', inputs, compute)
    selection = _highest(run, read_array(folder / 'scores.npy'))
    outlines = json.loads((folder / 'outlines.json').read_text(encoding='utf-8'))
    selection.notes.append(
        f'{outlines["masks"]} of {outlines["objects"]} objects have a mask; the others count with '
        'their box.'
    )

    return selection


def _require_labels(run: 'Run') -> None:
    """Raises UserError if some samples have no labels that a score could be made of."""
    count = int((~run.pool.labelled).sum())
    if count:
        raise UserError(
            f'strategy {run.options.strategy_name} scores labels, but {count} of {len(run.pool)} '
            'samples have none: use a strategy that needs no labels, or prune the labelled part '
            'alone'
        )


def _by_training(
    run: 'Run', measure: Measure, runs: int, epochs: int | None, late: bool = False
) -> Selection:
    """The samples with the highest scores of short trainings.

    Those that the proxy cannot look at stay.
    """
    _require_labels(run)
    whole(runs, 'adadedup.strategy.runs', 1)
    every_epoch = late and measure == 'error'
    if epochs is None:
        epochs = default_epochs(run, late)
    whole(epochs, 'adadedup.strategy.epochs', 2 if every_epoch else 1)
    scores = training_scores(run, measure, runs, epochs, every_epoch)
    selection = _highest(run, scores, ~run.for_proxy)
    selection.notes += left_out(run)

    return selection


def _highest(run: 'Run', scores: np.ndarray, unknown: np.ndarray | None = None) -> Selection:
    """The samples with the highest mean score.

    Args:
        run: the pruning run.
        scores: (R, N) float64.
        unknown: (N,) bool, samples without a score; None means those that are dropped.
    """
    score = scores.mean(axis=0)
    dropped = run.dropped
    if unknown is None:
        unknown = dropped
    # What nothing is known about stays, unless it is to be dropped.
    extreme = np.where(dropped, -np.inf, np.inf)
    places = np.where(unknown, extreme, score)
    usable = int((~dropped).sum())
    budget = min(keep_count(run.options.keep_ratio, len(score)), usable)
    selection = Selection.without_features(keep_highest(places, budget))
    selection.score = score

    if len(scores) > 1:
        r, reliability = run_agreement(scores[:, ~unknown])
        selection.notes.append(
            f'The scores of {len(scores)} trainings have a rank correlation of {r:.2f}; their mean '
            f'has a reliability of {reliability:.2f}.'
        )

    empty = int((score[~unknown] == 0).sum())
    if empty:
        selection.notes.append(
            f'{empty} samples have a score of 0, such as those without objects: they go first.'
        )

    return selection
