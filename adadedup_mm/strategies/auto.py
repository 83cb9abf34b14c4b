"""The strategy ``auto``: of several, what does best in cross-validation on the training set."""

import copy
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..base.checks import choose
from ..base.errors import UserError
from ..feedback import keep_count
from ..probe.held_out import JUDGES, is_lower
from ..registry import STRATEGIES, bind
from ..selection import Selection
from .needs import Needs, needs_of, says

if TYPE_CHECKING:
    from .run import Run

# Random choices that stand for chance.
DRAWS = 3
_CHANCE = 'random'


def _candidates(given: Sequence[str] | None) -> list[str]:
    """The strategies that are compared; by default those that say so of themselves."""
    if given is not None:
        if not isinstance(given, (list, tuple)) or not given:
            raise UserError(
                f'adadedup.strategy.candidates is {given!r}, but must be a list of strategies'
            )
        for name in given:
            choose(name, STRATEGIES.module_dict, 'adadedup.strategy.candidates')
        return list(given)
    STRATEGIES.import_from_location()
    functions = STRATEGIES.module_dict.items()
    return [name for name, function in functions if getattr(function, 'competes', False)]


def _needs(run: 'Run', keep_ratio: float, candidates: Sequence[str] | None) -> Needs:
    """All that its candidates need, and the probe's look at every picture."""
    others = [needs_of(_with(run, name), keep_ratio) for name in _candidates(candidates)]
    return Needs(
        by_density=True,
        layout=max(other.layout for other in others),
        trained=sum(other.trained for other in others),
        scored=sum(other.scored for other in others),
        probed=len(run.probe_stages.pictures),
    )


@STRATEGIES.register_module()
@says(_needs)
def auto(run: 'Run', candidates: Sequence[str] | None = None) -> Selection:
    """Of several strategies, the one whose choice teaches the probe most.

    Each one's choice is learned by the probe (``adadedup_mm.probe``) and judged by its loss on
    the whole training set, in cross-validation: scenes and near-duplicates are left out together.

    Args:
        run: the pruning run.
        candidates: names of strategies; by default all that compete by themselves.

    Raises:
        UserError: there are no boxes to learn from, a candidate is unknown, or none are named.
    """
    names = _candidates(candidates)
    _ = run.probe_stages.pictures
    selections = {}
    for name in names:
        other = _with(run, name)
        selections[name] = bind(STRATEGIES, other.options.strategy, 'adadedup.strategy')(other)

    fold = run.folds(JUDGES)
    chance = np.mean([_loss(run, kept, fold) for kept in _draws(run)], axis=0)
    losses = {name: _loss(run, item.kept, fold) for name, item in selections.items()}
    best = min(names, key=lambda name: losses[name].sum())
    chosen = selections[best]
    chosen.notes.extend(_notes(losses, chance, best))
    return chosen


def _with(run: 'Run', strategy: str) -> 'Run':
    """The same run, stages and all, with another strategy."""
    other = copy.copy(run)
    other.options = dataclasses.replace(run.options, strategy=strategy)
    return other


def _draws(run: 'Run') -> list[np.ndarray]:
    """(N,) bool each, random choices of as many samples."""
    usable = np.flatnonzero(~run.dropped)
    budget = min(len(usable), keep_count(run.options.keep_ratio, len(run.pool)))
    generator = run.generator('chance')
    draws = []
    for _ in range(DRAWS):
        kept = np.zeros(len(run.pool), bool)
        kept[generator.choice(usable, budget, replace=False)] = True
        draws.append(kept)
    return draws


def _loss(run: 'Run', kept: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """(F,) float64, the loss of each fold by what was kept outside it."""
    losses = run.probe_stages.held_out_losses(kept, fold)
    return np.bincount(fold, losses)


def _notes(losses: dict[str, np.ndarray], chance: np.ndarray, best: str) -> list[str]:
    """What was compared, and whether chance would do."""
    parts = []
    for name in sorted(losses, key=lambda name: losses[name].sum()):
        change = losses[name].sum() / chance.sum() - 1
        parts.append(f'{name} {change:+.1%}')
    notes = [
        f'auto chose {best}: in {len(chance)}-fold cross-validation by the probe its choice has '
        f'the lowest loss; beside random choices: {", ".join(parts)}.'
    ]
    if best != _CHANCE and not is_lower(losses[best], chance):
        notes.append('Random choices would do: the difference to them is within the noise.')
    return notes
