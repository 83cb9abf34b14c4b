"""What the validation scenes and the seeds say about a curve. Pure NumPy.

Two things make a difference between two selections uncertain: which scenes they are validated on,
and which samples chance has drawn. The first is measured by the delete-a-group jackknife, the
second by the seeds; both add up.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .curve import RANDOM, WHOLE, Curve

LEVEL = 0.95
# Of differences of qualities; smaller ones are rounding.
_LEAST = 1e-9


@dataclass(frozen=True)
class Interval:
    """A value with the ends of its interval; NaN where they are unknown."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def sign(self) -> int:
        """1 or -1 if the whole interval lies above or below zero, else 0."""
        return int(self.low > _LEAST) - int(self.high < -_LEAST)

    @property
    def is_known(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)


@dataclass(frozen=True)
class Draws:
    """Selections that differ in their seed alone.

    Attributes:
        quality: (M,) float64.
        by_scene: (M, S) float64, with each block of validation scenes left out.
    """

    quality: np.ndarray
    by_scene: np.ndarray

    @property
    def mean(self) -> float:
        return float(self.quality.mean())

    @property
    def left_out(self) -> np.ndarray:
        """(S,) means over the seeds, with each block left out."""
        return self.by_scene.mean(axis=0)

    @property
    def spread(self) -> float:
        """Standard deviation over the seeds (M - 1); NaN for one."""
        return float(self.quality.std(ddof=1)) if len(self.quality) > 1 else math.nan

    @property
    def seed_variance(self) -> 'Variance':
        """Of the mean over the seeds; none for a strategy that was measured once."""
        count = len(self.quality)
        if count < 2:
            return Variance(0.0, 1)
        return Variance(self.spread**2 / count, count - 1)


@dataclass(frozen=True)
class Variance:
    """An estimated variance and its degrees of freedom."""

    value: float
    degrees: int

    def times(self, factor: float) -> 'Variance':
        """That of the variable times the root of a factor."""
        return Variance(self.value * factor, self.degrees)


@dataclass(frozen=True)
class Cell:
    """A strategy at a keep ratio, or the whole set.

    Attributes:
        strategy: its name.
        keep_ratio: in (0, 1].
        samples: how many are kept.
        seeds: how many selections the values are means of.
        spread: standard deviation over them; NaN for one.
        quality: the mean, with the uncertainty of both kinds.
        minus_random: mean quality minus random's at this ratio; NaN for random itself and without
            random there, and without ends if random was drawn once.
        minus_whole: the same against the whole set.
        loss: 1 - quality / that of the whole set; NaN where that is 0.
        seed_share: how much of the variance of ``minus_whole`` comes from the seeds; NaN where
            there is none, or that of the scenes is unknown.
    """

    strategy: str
    keep_ratio: float
    samples: int
    seeds: int
    spread: float
    quality: Interval
    minus_random: Interval
    minus_whole: Interval
    loss: Interval
    seed_share: float


@dataclass(frozen=True)
class CurveSummary:
    """A curve with its statistics.

    Attributes:
        curve: what was measured.
        cells: a cell for each strategy and ratio that was measured.
        whole: the cell of the whole set.
        overall: of each strategy but random, the mean over the ratios of its difference to random,
            weighted by the ratios, as chance matters most where little is kept. The intervals are
            wider than those of the cells: all of them together hold with 95 % (Bonferroni).
    """

    curve: Curve
    cells: tuple[Cell, ...]
    whole: Cell
    overall: dict[str, Interval]

    def cell(self, strategy: str, keep_ratio: float) -> Cell | None:
        """A strategy at a ratio; None where that was not measured."""
        for cell in self.cells:
            if cell.strategy == strategy and cell.keep_ratio == keep_ratio:
                return cell
        return None

    @property
    def random(self) -> list[Cell]:
        """The cells of random by rising keep ratio; none where it was not measured."""
        return self.of(RANDOM)

    def of(self, strategy: str) -> list[Cell]:
        """The cells of a strategy by rising keep ratio."""
        cells = [cell for cell in self.cells if cell.strategy == strategy]
        return sorted(cells, key=lambda cell: cell.keep_ratio)


def summarise(curve: Curve) -> CurveSummary:
    """Means, spreads and intervals of a curve."""
    whole = _draws(curve, WHOLE, 1.0)
    cells = []
    for strategy in curve.strategies:
        for ratio in curve.keep_ratios:
            if curve.selections(strategy, ratio):
                cells.append(_cell(curve, strategy, ratio, whole))

    return CurveSummary(
        curve=curve,
        cells=tuple(cells),
        whole=_cell(curve, WHOLE, 1.0, whole),
        overall=_overall(curve),
    )


def jackknife_variance(left_out: np.ndarray) -> Variance:
    """The variance of an estimate by the delete-a-group jackknife (Kott 2001).

    Args:
        left_out: (S,) float64, the estimate without each of S groups; NaN for fewer than two.
    """
    groups = len(left_out)
    if groups < 2:
        return Variance(math.nan, 1)
    deviations = left_out - left_out.mean()
    squares = float(deviations @ deviations)
    return Variance((groups - 1) / groups * squares, groups - 1)


def interval(value: float, variances: Sequence[Variance], level: float = LEVEL) -> Interval:
    """Student's t interval of a value whose variance is a sum of independent estimates.

    The degrees of freedom are Satterthwaite's (1946).

    Args:
        value: the estimate.
        variances: of its parts; the ends are NaN where one is.
        level: how often the interval is to hold.
    """
    total = sum(variance.value for variance in variances)
    if not (math.isfinite(total) and math.isfinite(value)):
        return Interval(value)
    squares = sum(variance.value**2 / variance.degrees for variance in variances)
    if not squares > 0:
        return Interval(value, value, value)
    from scipy.stats import t

    quantile = float(t.ppf((1 + level) / 2, total**2 / squares))
    half = quantile * math.sqrt(total)
    return Interval(value, value - half, value + half)


def difference(first: Draws, second: Draws, level: float = LEVEL) -> Interval:
    """Mean of the first minus mean of the second, on the same blocks of scenes.

    Args:
        first: M selections, of one strategy.
        second: of another one.
        level: of the interval.
    """
    left_out = first.left_out - second.left_out
    variances = [jackknife_variance(left_out), first.seed_variance, second.seed_variance]
    return interval(first.mean - second.mean, variances, level)


def loss(draws: Draws, whole: Draws) -> Interval:
    """The share of the whole set's quality that selections lack.

    NaN where the whole set has none; without ends where it has none without some block.
    """
    if not whole.mean > 0:
        return Interval(math.nan)
    value = 1 - draws.mean / whole.mean
    if not np.all(whole.left_out > 0):
        return Interval(value)
    left_out = 1 - draws.left_out / whole.left_out
    from_seeds = draws.seed_variance.times(whole.mean**-2)
    return interval(value, [jackknife_variance(left_out), from_seeds])


def _draws(curve: Curve, strategy: str, keep_ratio: float) -> Draws:
    """The selections of a strategy at a ratio; there must be some."""
    points = curve.selections(strategy, keep_ratio)
    return Draws(
        np.array([point.quality for point in points], np.float64),
        np.array([point.by_scene for point in points], np.float64),
    )


def _cell(curve: Curve, strategy: str, keep_ratio: float, whole: Draws) -> Cell:
    points = curve.selections(strategy, keep_ratio)
    draws = _draws(curve, strategy, keep_ratio)
    quality = interval(draws.mean, [jackknife_variance(draws.left_out), draws.seed_variance])
    return Cell(
        strategy=strategy,
        keep_ratio=keep_ratio,
        samples=points[0].samples,
        seeds=len(points),
        spread=draws.spread,
        quality=quality,
        minus_random=_minus_random(curve, strategy, keep_ratio),
        minus_whole=difference(draws, whole),
        loss=loss(draws, whole),
        seed_share=_seed_share(draws, whole),
    )


def _seed_share(draws: Draws, whole: Draws) -> float:
    from_scenes = jackknife_variance(draws.left_out - whole.left_out).value
    from_seeds = draws.seed_variance.value
    total = from_scenes + from_seeds
    return from_seeds / total if total > 0 else math.nan


def _minus_random(curve: Curve, strategy: str, keep_ratio: float) -> Interval:
    """Against random at the same ratio; its own spread must be known for an interval."""
    if strategy == RANDOM or not curve.selections(RANDOM, keep_ratio):
        return Interval(math.nan)
    random = _draws(curve, RANDOM, keep_ratio)
    compared = difference(_draws(curve, strategy, keep_ratio), random)
    return compared if len(random.quality) > 1 else Interval(compared.value)


def _overall(curve: Curve) -> dict[str, Interval]:
    """Each strategy against random, over all ratios that both were measured at."""
    level = 1 - (1 - LEVEL) / max(len(curve.compared), 1)
    differences = {}
    for strategy in curve.compared:
        ratios = [
            ratio
            for ratio in curve.keep_ratios
            if curve.selections(strategy, ratio) and curve.selections(RANDOM, ratio)
        ]
        mean = _over_ratios(curve, strategy, ratios)
        random = _over_ratios(curve, RANDOM, ratios)
        if mean is None or random is None:
            differences[strategy] = Interval(math.nan)
        elif len(random.quality) < 2:
            differences[strategy] = Interval(mean.mean - random.mean)
        else:
            differences[strategy] = difference(mean, random, level)

    return differences


def _over_ratios(curve: Curve, strategy: str, ratios: Sequence[float]) -> Draws | None:
    """For each seed the weighted mean over ratios; None if no seed was measured at all of them.

    By seed, because what a seed draws at one ratio may be part of what it draws at the next.
    """
    seeds: set[int] | None = None
    for ratio in ratios:
        at_ratio = {point.seed for point in curve.selections(strategy, ratio)}
        seeds = at_ratio if seeds is None else seeds & at_ratio

    if not seeds:
        return None
    qualities, left_out = [], []
    for ratio in ratios:
        points = [point for point in curve.selections(strategy, ratio) if point.seed in seeds]
        qualities.append([point.quality for point in points])
        left_out.append([point.by_scene for point in points])
    return Draws(
        np.average(qualities, axis=0, weights=ratios),
        np.average(left_out, axis=0, weights=ratios),
    )
