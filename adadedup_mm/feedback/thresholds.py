"""From density scores and gaps to thresholds that meet the budget exactly."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

import numpy as np

from ..vectors.rows import GRID


@dataclass(frozen=True)
class AdaptiveSet:
    """What ``adaptive_set`` chose.

    Attributes:
        kept: (N,) bool.
        thresholds: (K,) float64 tau_k in [-1, 1]: samples with a higher score go.
        shift: (K,) float64, beta * a_k * spread: how far each threshold moves before the budget is
            met.
        offset: b, the same for all clusters, which meets the budget.
    """

    kept: np.ndarray
    thresholds: np.ndarray
    shift: np.ndarray
    offset: float


def keep_count(keep_ratio: float, n: int) -> int:
    """``keep_ratio * n`` rounded half up, at least 1 (0 for no samples).

    The ratio is taken as written in decimals: .29 of 50 is 14.5 and gives 15, though binary .29 is
    a little less.
    """
    exact = Decimal(str(keep_ratio)) * n
    rounded = int(exact.to_integral_value(ROUND_HALF_UP))
    return min(n, max(1, rounded))


def initial_set(similarity: np.ndarray, keep_ratio: float) -> tuple[np.ndarray, float]:
    """The least redundant samples under one threshold.

    Args:
        similarity: (N,) float32 density scores; ties are decided by the sample's index.
        keep_ratio: in (0, 1].

    Returns:
        kept: (N,) bool, ``keep_count(keep_ratio, N)`` times True.
        tau_0: the threshold: samples with a higher score go.
    """
    score = similarity.astype(np.float64)
    kept, level = _choose(similarity, score, keep_ratio)
    return kept, max(level, -1.0)


def adaptive_set(
    similarity: np.ndarray,
    assignment: np.ndarray,
    delta: np.ndarray,
    tau_0: float,
    beta: float,
    alpha_plus: float,
    alpha_minus: float,
    keep_ratio: float,
) -> AdaptiveSet:
    """The final set: a threshold for each cluster, moved by its gap, and the same budget.

    tau_k = tau_0 + beta * a_k * spread + b with
    a_k = alpha_plus * max(delta_k, 0) - alpha_minus * max(-delta_k, 0). The spread is the standard
    deviation of the scores above -1. A sample stays if its score is at most its cluster's
    threshold; ties at the budget's edge are decided by score, then by index. Samples with score -1,
    the first ones of their clusters, stay before all others. The symbols are the paper's (arXiv
    2507.00049); the equation is our own.

    Args:
        similarity: (N,) float32 density scores, multiples of 2**-20.
        assignment: (N,) int32, labels 0..K-1.
        delta: (K,) gaps as ``shrink`` returns them: without a unit, 0 where nothing is known.
        tau_0: the initial threshold.
        beta: adaptation strength.
        alpha_plus: factor of positive gaps: these clusters keep more.
        alpha_minus: factor of negative gaps: these keep less.
        keep_ratio: in (0, 1].
    """
    strength = np.where(delta > 0, alpha_plus, alpha_minus)
    shift = strength * delta * beta * _spread(similarity)
    shift = np.rint(shift / GRID) * GRID
    score = similarity - shift[assignment]
    kept, level = _choose(similarity, score, keep_ratio)

    return AdaptiveSet(
        kept=kept,
        thresholds=np.clip(level + shift, -1, 1),
        shift=shift,
        offset=level - tau_0,
    )


def _spread(similarity: np.ndarray) -> float:
    """Standard deviation of the scores above -1; 0 where there is none."""
    above = similarity[similarity > -1]
    if not len(above):
        return 0.0
    return float(above.std(dtype=np.float64))


def _choose(
    similarity: np.ndarray, score: np.ndarray, keep_ratio: float
) -> tuple[np.ndarray, float]:
    """Keeps samples with similarity -1, then the smallest by (score, similarity, index).

    Returns:
        kept: (N,) bool.
        level: the largest score that the budget let in; below all scores where it let none in.
    """
    count = keep_count(keep_ratio, len(similarity))
    competes = similarity > -1
    ranking = np.lexsort((similarity, score, competes))
    kept = np.zeros(len(similarity), bool)
    kept[ranking[:count]] = True
    let_in = kept & competes
    if let_in.any():
        return kept, float(score[let_in].max())
    below_all = min(score.min(initial=0), -1) - GRID

    return kept, float(below_all)


def threshold_curve(similarity: np.ndarray, keep_ratios: Sequence[float]) -> np.ndarray:
    """The threshold that each keep ratio means.

    Args:
        similarity: (N,) float32 density scores, N > 0.
        keep_ratios: R numbers in (0, 1].

    Returns:
        (R,) float64, tau_0.
    """
    ordered = np.sort(similarity).astype(np.float64)
    last = [keep_count(ratio, len(ordered)) - 1 for ratio in keep_ratios]
    return ordered[last]
