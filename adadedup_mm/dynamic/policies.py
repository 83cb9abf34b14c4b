"""Which samples the next period trains on: pure functions of the losses seen so far."""

import dataclasses
import inspect
import math
from typing import Any, ClassVar, Protocol

import numpy as np

from ..base.checks import choose
from ..base.errors import UserError
from ..registry import POLICIES

# Indices, (k,) int64, ascending, and (k,) float64 factors of these samples' losses.
Chosen = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass
class ScoreState:
    """What the training has shown about N samples.

    Attributes:
        mean: (N,) float64, running mean m of the loss, 0 before the first one.
        variance: (N,) float64, running squared surprise v.
        last: (N,) float64, the latest loss, NaN before the first one.
        seen: (N,) int64, number of losses seen.
    """

    mean: np.ndarray
    variance: np.ndarray
    last: np.ndarray
    seen: np.ndarray

    @classmethod
    def empty(cls, size: int) -> 'ScoreState':
        """The state before any training."""
        return cls(
            mean=np.zeros(size),
            variance=np.zeros(size),
            last=np.full(size, np.nan),
            seen=np.zeros(size, np.int64),
        )

    def update(self, indices: np.ndarray, losses: np.ndarray, rate: float) -> None:
        """Takes up one loss of each of some samples.

        ``v <- (1-a) v + a (l - m)^2`` with the old m, then ``m <- (1-a) m + a l`` (arXiv
        2111.12621).

        Args:
            indices: (k,) int64; no sample twice.
            losses: (k,) float64.
            rate: a, in (0, 1].
        """
        mean = self.mean[indices]
        variance = self.variance[indices]
        surprise = (losses - mean) ** 2
        self.variance[indices] = (1 - rate) * variance + rate * surprise
        self.mean[indices] = (1 - rate) * mean + rate * losses
        self.last[indices] = losses
        self.seen[indices] += 1

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of the arrays."""
        arrays = vars(self)
        return {name: array.copy() for name, array in arrays.items()}

    def load_state_dict(self, arrays: dict[str, np.ndarray]) -> None:
        """Takes the arrays of ``state_dict``.

        Raises:
            UserError: they are of another number of samples.
        """
        size = len(self.mean)
        for name, values in arrays.items():
            if len(values) != size:
                raise UserError(
                    f'the checkpoint is of a training on {len(values)} samples, but the dataset '
                    f'has {size}: resume with the same training set'
                )
            setattr(self, name, np.array(values))


class Policy(Protocol):
    """What a class registered in ``POLICIES`` must be.

    Its constructor takes the keys of ``dynamic`` beside ``policy``.

    Attributes:
        period: epochs between two selections.
        needs_losses: whether it looks at losses; if not, none are computed.
        rate: of the running mean of the losses, in (0, 1]; only where it needs them.
        epochs: of the training, which sets it.
    """

    period: int
    needs_losses: ClassVar[bool]
    rate: float
    epochs: int | None

    def select(self, state: 'ScoreState', epoch: int, generator: np.random.Generator) -> Chosen:
        """Chooses what the next period trains on.

        Args:
            state: what the training has shown about N samples.
            epoch: that begins, from 0.
            generator: of all random choices; the same in all processes.

        Returns:
            indices: (k,) int64, ascending.
            weights: (k,) float64 factors of these samples' losses.
        """


@POLICIES.register_module('random')
@dataclasses.dataclass
class RandomSubset:
    """A fresh uniform subset each period.

    Attributes:
        keep_ratio: kept / all samples, in (0, 1].
        period: epochs between two selections.
    """

    keep_ratio: float = 0.5
    period: int = 10
    needs_losses: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _number('keep_ratio', self.keep_ratio, above=True)
        _whole('period', self.period)

    def select(self, state: ScoreState, epoch: int, generator: np.random.Generator) -> Chosen:
        size = len(state.mean)
        budget = _budget(self.keep_ratio, size)
        chosen = generator.permutation(size)[:budget]
        return _unweighted(chosen)


@POLICIES.register_module('epsilon_greedy')
@dataclasses.dataclass
class EpsilonGreedy:
    """The samples with the highest running losses, and some others (arXiv 2111.12621).

    Of K = keep_ratio N samples, floor(epsilon K) are drawn uniformly from those that are not among
    the best. Equal scores, such as those of samples not seen yet, are ordered at random.

    Attributes:
        keep_ratio: kept / all samples, in (0, 1].
        period: epochs between two selections.
        epsilon: share of the subset that explores, in [0, 1].
        rate: a of the running mean, in (0, 1].
    """

    keep_ratio: float = 0.5
    period: int = 10
    epsilon: float = 0.1
    rate: float = 0.8
    needs_losses: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _number('keep_ratio', self.keep_ratio, above=True)
        _number('epsilon', self.epsilon)
        _number('rate', self.rate, above=True)
        _whole('period', self.period)

    def select(self, state: ScoreState, epoch: int, generator: np.random.Generator) -> Chosen:
        order = _descending(state.mean, generator)
        size = len(order)
        budget = _budget(self.keep_ratio, size)
        explorers = math.floor(self.epsilon * budget)
        # Not more explorers than there are samples to explore.
        explorers = min(explorers, size - budget)
        best = budget - explorers
        others = generator.permutation(order[best:])
        chosen = [order[:best], others[:explorers]]

        return _unweighted(np.concatenate(chosen))


@POLICIES.register_module('ucb')
@dataclasses.dataclass
class UCB:
    """The samples with the highest upper bounds of the loss, m + c v (arXiv 2111.12621).

    Samples not seen yet have no bound and come first, in random order (as in UCB1, Auer et al.
    2002): with a score of 0 they would never be chosen, because losses are positive.

    Attributes:
        keep_ratio: kept / all samples, in (0, 1].
        period: epochs between two selections.
        c: weight of the variance, at least 0.
        rate: a of the running mean and variance, in (0, 1].
    """

    keep_ratio: float = 0.5
    period: int = 10
    c: float = 1.0
    rate: float = 0.8
    needs_losses: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _number('keep_ratio', self.keep_ratio, above=True)
        _number('c', self.c, high=math.inf)
        _number('rate', self.rate, above=True)
        _whole('period', self.period)

    def select(self, state: ScoreState, epoch: int, generator: np.random.Generator) -> Chosen:
        is_seen = state.seen > 0
        bound = state.mean + self.c * state.variance
        score = np.where(is_seen, bound, math.inf)
        order = _descending(score, generator)
        budget = _budget(self.keep_ratio, len(order))
        return _unweighted(order[:budget])


@POLICIES.register_module('infobatch')
@dataclasses.dataclass
class InfoBatch:
    """Drops a part of the well-learned samples; the weight of the rest makes up (ICLR 2024).

    Of the samples whose latest loss is below the mean, floor((1-r) n) random ones stay, with weight
    1 / (1-r). The last epochs see all samples. Samples not seen yet count as a loss of 3.

    Attributes:
        ratio: r, share of the well-learned samples that goes, in [0, 1).
        delta: share of the training after which nothing is pruned any more, in [0, 1].
        epochs: length of the training; needed from epoch 1 on.
    """

    ratio: float = 0.5
    delta: float = 0.875
    epochs: int | None = None
    period: ClassVar[int] = 1
    rate: ClassVar[float] = 1.0
    needs_losses: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _number('ratio', self.ratio)
        if self.ratio == 1:
            raise UserError(
                'dynamic.ratio is 1.0, but must be below 1: otherwise no weight can make up for '
                'the rest'
            )
        _number('delta', self.delta)

    def select(self, state: ScoreState, epoch: int, generator: np.random.Generator) -> Chosen:
        size = len(state.last)
        # Epoch 0 sees all samples anyhow, because none is below the mean.
        if epoch == 0 or epoch >= self.delta * _known(self.epochs):
            return _unweighted(np.arange(size))

        unseen = np.isnan(state.last)
        losses = np.where(unseen, 3.0, state.last)
        is_easy = losses < losses.mean()
        hard = np.flatnonzero(~is_easy)
        easy = np.flatnonzero(is_easy)

        share = 1 - self.ratio
        count = math.floor(share * len(easy))
        shuffled = generator.permutation(easy)
        kept = shuffled[:count]
        weights = np.ones(size)
        weights[kept] = 1 / share
        indices = np.concatenate([hard, kept])
        indices = np.sort(indices)

        return indices, weights[indices]


@POLICIES.register_module('seta')
@dataclasses.dataclass
class SeTa:
    """A window that slides from easy to hard losses over a random part of the samples (SeTa).

    A random (1-r) N samples are split into groups of similar loss by k-means. Epoch t trains on
    ``round(width * groups)`` neighbouring groups, the first being ``t mod (groups - window + 1)``;
    epoch 0 and the last epochs train on the random part as it is. Samples not seen yet count as the
    mean loss.

    Attributes:
        ratio: r, share that goes at random, in [0, 1).
        groups: k.
        width: a, width of the window as a share of the groups, in (0, 1].
        delta: share of the training after which only the random part is pruned, in [0, 1].
        epochs: length of the training; needed from epoch 1 on.
    """

    ratio: float = 0.1
    groups: int = 10
    width: float = 0.5
    delta: float = 0.875
    epochs: int | None = None
    period: ClassVar[int] = 1
    rate: ClassVar[float] = 1.0
    needs_losses: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _number('ratio', self.ratio)
        if self.ratio == 1:
            raise UserError('dynamic.ratio is 1.0, but must be below 1: otherwise nothing is left')
        _whole('groups', self.groups)
        _number('width', self.width, above=True)
        _number('delta', self.delta)

    def select(self, state: ScoreState, epoch: int, generator: np.random.Generator) -> Chosen:
        size = len(state.last)
        budget = _budget(1 - self.ratio, size)
        subset = generator.permutation(size)[:budget]
        subset = np.sort(subset)
        seen = ~np.isnan(state.last)
        if self._is_plain(epoch) or not seen.any():
            return _unweighted(subset)

        mean = state.last[seen].mean()
        losses = np.where(seen, state.last, mean)
        group = loss_groups(losses[subset], self.groups)
        first, last = self._window(epoch)
        from_first = group >= first
        up_to_last = group <= last
        in_window = from_first & up_to_last

        # Groups can be empty when many losses are equal.
        if not in_window.any():
            return _unweighted(subset)
        return _unweighted(subset[in_window])

    def _window(self, epoch: int) -> tuple[int, int]:
        """The first and the last group that an epoch trains on."""
        window = math.floor(self.width * self.groups + 0.5)
        window = max(1, window)
        positions = self.groups - window + 1
        first = epoch % positions
        last = first + window - 1
        return first, last

    def _is_plain(self, epoch: int) -> bool:
        """Whether an epoch trains on the random part as it is."""
        if epoch == 0:
            return True
        return epoch >= self.delta * _known(self.epochs)


def loss_groups(losses: np.ndarray, groups: int, iterations: int = 50) -> np.ndarray:
    """One-dimensional k-means from evenly spaced quantiles.

    Args:
        losses: (n,) float64.
        groups: k; some are empty when there are fewer different losses.
        iterations: of Lloyd's algorithm at most.

    Returns:
        (n,) int64: group of each loss, 0 for the lowest.
    """
    shares = (np.arange(groups) + 0.5) / groups
    centres = np.quantile(losses, shares)
    for _ in range(iterations):
        borders = (centres[1:] + centres[:-1]) / 2
        group = np.searchsorted(borders, losses, side='left')
        count = np.bincount(group, minlength=groups)
        total = np.bincount(group, weights=losses, minlength=groups)
        mean = total / np.maximum(count, 1)
        moved = np.where(count > 0, mean, centres)
        if np.array_equal(moved, centres):
            break
        centres = moved

    return group


def build_policy(name: Any, arguments: dict[str, Any]) -> Policy:
    """The policy of that name.

    Raises:
        UserError: the name or an argument is unknown (the message lists the valid ones), or a value
            is out of range.
    """
    POLICIES.import_from_location()
    choose(name, POLICIES.module_dict, 'dynamic.policy')
    kind = POLICIES.module_dict[name]
    valid = inspect.signature(kind).parameters
    for key in arguments:
        choose(key, valid, f'a key of dynamic with policy {name!r}')
    return kind(**arguments)


def check_period(policy: Policy, epochs: int) -> None:
    """Raises UserError if a training of so many epochs never gets to a second selection."""
    if policy.period > epochs:
        raise UserError(
            f'dynamic.period is {policy.period}, but the training has only {epochs} epochs: '
            'nothing would ever be selected anew; shorten the period'
        )


def _budget(ratio: float, size: int) -> int:
    """round(ratio * size), halves up, and at least one sample."""
    rounded = math.floor(ratio * size + 0.5)
    return max(1, rounded)


def _descending(scores: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Indices by falling score, equal ones in random order."""
    shuffled = generator.permutation(len(scores))
    falling = -scores[shuffled]
    order = np.argsort(falling, kind='stable')
    return shuffled[order]


def _unweighted(indices: np.ndarray) -> Chosen:
    weights = np.ones(len(indices))
    return np.sort(indices), weights


def _number(name: str, value: Any, high: float = 1.0, above: bool = False) -> None:
    low = 'above 0' if above else 'of at least 0'
    end = ''
    if high < math.inf:
        end = f' and at most {high:g}'
    is_excluded = above and value == 0
    if is_excluded or not _is_in_range(value, high):
        raise UserError(f'dynamic.{name} is {value!r}, but must be a number {low}{end}')


def _is_in_range(value: Any, high: float) -> bool:
    """Whether a value is a finite number from 0 to ``high``."""
    if isinstance(value, bool):
        return False
    if not isinstance(value, (int, float)):
        return False
    return 0 <= value <= high and math.isfinite(value)


def _whole(name: str, value: Any) -> None:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if is_whole and value >= 1:
        return
    raise UserError(f'dynamic.{name} is {value!r}, but must be a whole number of at least 1')


def _known(epochs: int | None) -> int:
    if epochs is None:
        raise UserError('this policy must know how long the training is: give it epochs')
    return epochs
