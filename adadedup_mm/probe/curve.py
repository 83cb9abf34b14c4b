"""What a probe has measured: the predicted quality of selections of several strategies."""

import math
from dataclasses import dataclass

# The strategy that all are compared with, and the name of what is no selection: all samples.
RANDOM = 'random'
WHOLE = 'whole'

# Of samples and seconds; larger numbers are damage.
_MOST = 2**53

# Notes of a curve that a verdict knows an answer to.
NOISY_COPIES = 'many samples are copies of others with noise'
NO_DUPLICATES = 'hardly any sample has a near-duplicate'


@dataclass(frozen=True)
class Point:
    """One selection that was measured.

    Attributes:
        strategy: its registered name; ``'whole'`` for all samples.
        keep_ratio: kept / all samples, in (0, 1]; 1 for the whole set.
        seed: of the selection.
        samples: how many are kept.
        quality: predicted, in [0, 1].
        by_scene: S qualities in [0, 1], each with another block of validation scenes left out; the
            blocks are the same for all points of a curve.

    Raises:
        ValueError: a number is out of range, or the whole set is said to be a part.
    """

    strategy: str
    keep_ratio: float
    seed: int
    samples: int
    quality: float
    by_scene: tuple[float, ...]

    def __post_init__(self) -> None:
        name = f'{self.strategy} at {self.keep_ratio}'
        if not 0 < self.keep_ratio <= 1:
            raise ValueError(f'{name}: the keep ratio lies outside (0, 1]')
        if self.strategy == WHOLE and self.keep_ratio != 1:
            raise ValueError(f'{name}: the whole set has the keep ratio 1')
        if not 0 < self.samples <= _MOST:
            raise ValueError(f'{name}: it has {self.samples} samples')
        qualities = (self.quality, *self.by_scene)
        if not all(math.isfinite(value) and 0 <= value <= 1 for value in qualities):
            raise ValueError(f'{name}: a quality lies outside [0, 1]')


@dataclass(frozen=True)
class Curve:
    """Predicted quality against keep ratio.

    Attributes:
        measure: what quality is, such as ``'AP50'``.
        validation: what it is measured on, in words.
        samples: size of the training set.
        points: the selections; the whole set is one of them.
        seconds: that measuring took.
        notes: sentences on the data, among them maybe ``NOISY_COPIES`` and ``NO_DUPLICATES``.

    Raises:
        ValueError: the whole set is missing or there twice, a selection is there twice, the points
            have different numbers of blocks, or a number is out of range.
    """

    measure: str
    validation: str
    samples: int
    points: tuple[Point, ...]
    seconds: float
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [(point.strategy, point.keep_ratio, point.seed) for point in self.points]
        if len(set(names)) < len(names):
            raise ValueError('a selection was measured twice')
        if [point.strategy for point in self.points].count(WHOLE) != 1:
            raise ValueError('the whole set must be measured once')
        if not (0 < self.samples <= _MOST and 0 <= self.seconds <= _MOST):
            raise ValueError('the samples or the seconds are out of range')
        blocks = {len(point.by_scene) for point in self.points}
        if len(blocks) > 1:
            raise ValueError('the points have different numbers of validation blocks')

    @property
    def strategies(self) -> list[str]:
        """Their names in the order of the points, without the whole set."""
        names = dict.fromkeys(point.strategy for point in self.points)
        return [name for name in names if name != WHOLE]

    @property
    def compared(self) -> list[str]:
        """The strategies that are compared with random."""
        return [name for name in self.strategies if name != RANDOM]

    @property
    def keep_ratios(self) -> list[float]:
        """The keep ratios of selections, rising."""
        ratios = {point.keep_ratio for point in self.points if point.strategy != WHOLE}
        return sorted(ratios)

    @property
    def blocks(self) -> int:
        """How many blocks of validation scenes there are."""
        return len(self.points[0].by_scene)

    def selections(self, strategy: str, keep_ratio: float) -> list[Point]:
        """The points of a strategy at a ratio, by seed."""
        of_strategy = [point for point in self.points if point.strategy == strategy]
        at_ratio = [point for point in of_strategy if point.keep_ratio == keep_ratio]
        return sorted(at_ratio, key=lambda point: point.seed)
