"""What a curve means for its user: a few sentences and the next command. Pure."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from ..base import words
from .curve import NO_DUPLICATES, NOISY_COPIES, RANDOM
from .statistics import Cell, CurveSummary

# A loss below this share of the whole set's quality is what a validation set must be able to tell
# before "no loss can be measured" says something.
TELLING = 0.1
# A measured loss that is surely smaller is none to act on: other seeds of a training move it more.
SMALL = 0.01
ONE_DRAW = 'Random was drawn once, so nothing can be compared with it: add --seeds 3.'


@dataclass(frozen=True)
class Verdict:
    """What to make of a curve.

    Attributes:
        sentences: one to three.
        next_step: a command or, where there is none, what to do in words.
        strategy: what to choose samples with.
        keep_ratio: the smallest harmless one, see ``judge``; None to train on everything, and
            where the curve cannot tell.
    """

    sentences: tuple[str, ...]
    next_step: str
    strategy: str
    keep_ratio: float | None


def judge(
    summary: CurveSummary, config: str = 'CONFIG', options: Sequence[str] = (), usual: str = ''
) -> Verdict:
    """The verdict on a curve.

    Only differences that are more than noise decide: a strategy is better than random if it is over
    all ratios, at 95 % for all strategies together; a ratio is harmless if the interval of its loss
    holds 0 and ends below ``TELLING``, or ends below ``SMALL``.

    Args:
        summary: of the curve.
        config: the config's path, for the command.
        options: further arguments of the command.
        usual: the strategy that the command need not name.
    """
    strategy = best_strategy(summary)
    cells = summary.of(strategy)
    enough = smallest_harmless(cells)
    command = _Command(config, tuple(options), usual)
    comparison = _comparison(summary, strategy)
    if enough is not None:
        loss_sentence = _harmless(summary, enough)
        next_step = command.prune(enough.keep_ratio, strategy)
    elif cells and cells[-1].loss.sign > 0:
        loss_sentence = _lossy(summary, cells[-1])
        next_step = _after_loss(summary, cells[-1], command)
    else:
        loss_sentence = _unclear(cells)
        next_step = _after_doubt(summary, cells, command)

    sentences = [loss_sentence, comparison]
    if NOISY_COPIES in summary.curve.notes:
        sentences.append(
            'Many samples are copies with noise, which hides them from the features: '
            'try embedder.median=5.'
        )
        next_step = command.median()

    return Verdict(
        sentences=tuple(filter(None, sentences)),
        next_step=next_step,
        strategy=strategy,
        keep_ratio=enough.keep_ratio if enough else None,
    )


def best_strategy(summary: CurveSummary) -> str:
    """What is most better than random over all ratios; random where nothing is beyond noise.

    Of those that are better, one that is harmless at some ratio goes first. Where random loses at
    every ratio, what looks best and is harmless at some is tried instead. Without random: the
    strategy that comes first.
    """
    overall = summary.overall
    strategies = summary.curve.strategies
    if strategies and RANDOM not in strategies:
        return strategies[0]
    known = [name for name in overall if math.isfinite(overall[name].value)]
    by_gain = sorted(known, key=lambda name: -overall[name].value)
    better = [name for name in by_gain if overall[name].sign > 0]
    not_worse = [name for name in by_gain if overall[name].sign == 0]
    candidates = better or [RANDOM, *not_worse]
    for name in candidates:
        if smallest_harmless(summary.of(name)):
            return name
    return candidates[0]


def smallest_harmless(cells: Sequence[Cell]) -> Cell | None:
    """The smallest keep ratio that is harmless, as are all above; None if there is none.

    Args:
        cells: of a strategy, by rising ratio.
    """
    found = None
    for cell in reversed(cells):
        if not _is_harmless(cell):
            break
        found = cell
    return found


def _is_harmless(cell: Cell) -> bool:
    loss = cell.loss
    return loss.is_known and loss.high < (SMALL if loss.sign > 0 else TELLING)


def _harmless(summary: CurveSummary, enough: Cell) -> str:
    """Down to where no loss can be measured, and what happens below."""
    cells = summary.of(enough.strategy)
    bound = words.share(max(enough.loss.high, 0), _digits(enough.loss.high))
    lost = 'hardly anything is lost' if enough.loss.sign > 0 else 'no loss can be measured'
    text = (
        f'At {_ratio(enough)}{_chosen_by(enough)} {lost} (at most {bound} of the '
        f"whole set's {summary.curve.measure})"
    )
    if enough.loss.sign < 0:
        gained = words.share(-enough.loss.value)
        text = f'{_ratio(enough)} of the samples{_chosen_by(enough)} teach more than all ({gained})'

    below = [cell for cell in cells if cell.keep_ratio < enough.keep_ratio]
    if not below:
        return f'{text}; smaller ratios were not measured.'
    fallen = below[-1]
    if fallen.loss.sign > 0:
        return f'{text}; at {_ratio(fallen)} it falls by {_loss(fallen)}.'
    return f'{text}; what is lost at {_ratio(fallen)} cannot be told from noise.'


def _chosen_by(cell: Cell) -> str:
    return '' if cell.strategy == RANDOM else f', chosen by {cell.strategy},'


def _lossy(summary: CurveSummary, highest: Cell) -> str:
    """Where even the highest ratio loses."""
    text = f'Even at {_ratio(highest)}, {_loss(highest)} of the {summary.curve.measure} is lost'
    if not summary.overall:
        return f'{text}, chosen by {highest.strategy}; no other strategy was measured.'
    if highest.strategy == RANDOM and NO_DUPLICATES in summary.curve.notes:
        return f'{text}: hardly any sample has a near-duplicate, train on all of them.'
    if highest.strategy == RANDOM:
        return f'{text}, and no strategy finds samples to spare: train on all of them.'
    at_random = summary.cell(RANDOM, highest.keep_ratio)
    if at_random is not None:
        text += f', and {words.share(at_random.loss.value)} with random pruning'
    return f'{text}: prune only where time matters more.'


def _unclear(cells: Sequence[Cell]) -> str:
    """Where the validation set cannot tell whether the highest ratio loses."""
    if not cells or not cells[-1].loss.is_known:
        return (
            'What is lost cannot be told: the validation set is too small for an interval, or '
            'the probe finds next to nothing on it.'
        )
    highest = cells[-1]
    at_ratio = f'at {_ratio(highest)}{_chosen_by(highest)}'
    if highest.loss.high >= 1:
        return f'What is lost cannot be told from noise: {at_ratio} it may be anything.'
    bound = words.share(highest.loss.high, 0)
    return (
        f'What is lost cannot be told from noise: {at_ratio} it may be up to {bound}, and the '
        'validation set would not show it.'
    )


def _comparison(summary: CurveSummary, strategy: str) -> str:
    """What is better or worse than random; empty if there is nothing to compare."""
    overall = summary.overall
    known = [name for name, value in overall.items() if value.is_known]
    if not known:
        drawn = [cell.seeds for cell in summary.random]
        return ONE_DRAW if overall and drawn and min(drawn) < 2 else ''
    better = [name for name in known if overall[name].sign > 0]
    worse = [name for name in known if overall[name].sign < 0]
    if not better:
        return _nothing_better(known, worse)

    gain = _points(overall[strategy].value)
    text = f'{strategy} is better than random, by {gain} points of {summary.curve.measure}'
    text += f' on average{_where(summary, strategy)}'
    others = [name for name in better if name != strategy]
    if others:
        text += f'; so {_is(others)} {words.joined(others)}'
    if worse:
        text += f'; {words.joined(worse)} {_is(worse)} worse'
    same = [name for name in known if overall[name].sign == 0]
    if same:
        text += f'; {words.joined(same)} cannot be told from random'
    return f'{text}.'


def _nothing_better(compared: Sequence[str], worse: Sequence[str]) -> str:
    text = f'{compared[0]} does not beat random on this data by more than noise'
    if len(compared) > 1:
        text = (
            f'No strategy beats random on this data by more than noise ({words.joined(compared)})'
        )
    if worse:
        text += f'; {words.joined(worse)} {_is(worse)} even worse'
    return f'{text}.'


def _where(summary: CurveSummary, strategy: str) -> str:
    """The ratios at which a strategy is better by itself, if those are not all."""
    cells = summary.of(strategy)
    ratios = [_ratio(cell) for cell in cells if cell.minus_random.sign > 0]
    if not ratios or len(ratios) == len(cells):
        return ''
    return f', most clearly at {words.joined(ratios)}'


def _after_loss(summary: CurveSummary, highest: Cell, command: '_Command') -> str:
    if not summary.overall:
        return command.probe()
    if highest.strategy == RANDOM:
        return 'train on all samples: take our line out of the _base_ list of your config'
    return command.prune(highest.keep_ratio, highest.strategy)


def _after_doubt(summary: CurveSummary, cells: Sequence[Cell], command: '_Command') -> str:
    """More seeds where these are what is uncertain, else more validation data."""
    if cells and cells[-1].seed_share > 0.5:
        return command.probe('--seeds', '10')
    return (
        f'validate on more scenes than now ({summary.curve.validation}), for example by another '
        'val_dataloader, and run tools/probe.py again'
    )


@dataclass(frozen=True)
class _Command:
    """Writes the command lines of our tools for a config."""

    config: str
    options: tuple[str, ...]
    usual: str

    def prune(self, keep_ratio: float, strategy: str) -> str:
        flags = ['--keep-ratio', f'{keep_ratio:g}']
        if strategy != self.usual:
            flags += ['--strategy', strategy]
        return self._line('tools/prune.py', flags)

    def probe(self, *flags: str) -> str:
        return self._line('tools/probe.py', flags)

    def median(self) -> str:
        return self.probe('--cfg-options', 'adadedup.embedder.median=5')

    def _line(self, tool: str, flags: Sequence[str]) -> str:
        return shlex.join(['python', tool, self.config, *flags, *self.options])


def _ratio(cell: Cell) -> str:
    """A keep ratio in per cent, with the decimals it has."""
    return f'{100 * cell.keep_ratio:g}{words.SPACE}%'


def _loss(cell: Cell) -> str:
    """A loss in per cent of the whole set's quality, with its interval."""
    loss = cell.loss
    digits = _digits(loss.value)
    low = words.number(100 * loss.low, digits)
    high = words.share(loss.high, digits)
    return f'{words.share(loss.value, digits)} ({low} to {high})'


def _digits(value: float) -> int:
    """Decimals of a percentage."""
    return 0 if abs(value) >= 0.1 else 1


def _points(value: float) -> str:
    """A difference of qualities in points, hundredths of the whole scale."""
    points = 100 * value
    return words.number(points, 2 if abs(points) < 1 else 1)


def _is(names: Sequence[str]) -> str:
    return 'are' if len(names) > 1 else 'is'
