"""From density scores and gaps to thresholds that meet the budget exactly."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

import numpy as np

from ..base.errors import UserError
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
    return min(n, max(1, int((Decimal(str(keep_ratio)) * n).to_integral_value(ROUND_HALF_UP))))


def initial_set(
    similarity: np.ndarray, keep_ratio: float, protected: np.ndarray | None = None
) -> tuple[np.ndarray, float]:
    """The least redundant samples under one threshold.

    Args:
        similarity: (N,) float32 density scores; ties are decided by the sample's index.
        keep_ratio: in (0, 1].
        protected: (N,) bool, samples that stay in any case.

    Returns:
        kept: (N,) bool, ``keep_count(keep_ratio, N)`` times True.
        tau_0: the threshold: samples with a higher score go.

    Raises:
        UserError: more samples are protected than may be kept.
    """
    kept, level = _choose(similarity, similarity.astype(np.float64), keep_ratio, protected)
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
    protected: np.ndarray | None = None,
) -> AdaptiveSet:
    """The final set: a threshold for each cluster, moved by its gap, and the same budget.

    tau_k = tau_0 + beta * a_k * spread + b with a_k = alpha_plus * max(delta_k, 0) - alpha_minus *
    max(-delta_k, 0). The spread is the standard deviation of the scores above -1. A sample stays if
    its score is at most its cluster's threshold; ties at the budget's edge are decided by score,
    then by index. Samples with score -1, the first ones of their clusters, stay before all others.
    The symbols are the paper's (arXiv 2507.00049); the equation is our own.

    Args:
        similarity: (N,) float32 density scores, multiples of 2**-20.
        assignment: (N,) int32, labels 0..K-1.
        delta: (K,) gaps as ``shrink`` returns them: without a unit, 0 where nothing is known.
        tau_0: the initial threshold.
        beta: adaptation strength.
        alpha_plus: factor of positive gaps: these clusters keep more.
        alpha_minus: factor of negative gaps: these keep less.
        keep_ratio: in (0, 1].
        protected: (N,) bool, samples that stay in any case.

    Raises:
        UserError: more samples are protected than may be kept.
    """
    seen = similarity > -1
    spread = float(similarity[seen].std(dtype=np.float64)) if seen.any() else 0.0
    shift = np.where(delta > 0, alpha_plus, alpha_minus) * delta * beta * spread
    shift = np.rint(shift / GRID) * GRID
    kept, level = _choose(similarity, similarity - shift[assignment], keep_ratio, protected)
    return AdaptiveSet(kept, np.clip(level + shift, -1, 1), shift, level - tau_0)


def _choose(
    similarity: np.ndarray, score: np.ndarray, keep_ratio: float, protected: np.ndarray | None
) -> tuple[np.ndarray, float]:
    """Keeps protected samples, then those with similarity -1, then the smallest by (score, similarity, index).

    Returns:
        kept: (N,) bool.
        level: the largest score that the budget let in; below all scores where it let none in.
    """
    count = keep_count(keep_ratio, len(similarity))
    protected = np.zeros(len(similarity), bool) if protected is None else protected
    if protected.sum() > count:
        raise UserError(
            f'adadedup.keep_ratio {keep_ratio} keeps {count} samples, but {protected.sum()} must '
            'stay; '
            'raise it'
        )
    competes = ~protected & (similarity > -1)
    ranking = np.lexsort((similarity, score, competes, ~protected))
    kept = np.zeros(len(similarity), bool)
    kept[ranking[:count]] = True
    if (kept & competes).any():
        return kept, float(score[kept & competes].max())
    return kept, float(min(score.min(initial=0), -1) - GRID)


def threshold_curve(similarity: np.ndarray, keep_ratios: Sequence[float]) -> np.ndarray:
    """(R,) float64, the threshold tau_0 that each of R keep ratios means, for N > 0 density scores."""
    ordered = np.sort(similarity).astype(np.float64)
    return ordered[[keep_count(ratio, len(ordered)) - 1 for ratio in keep_ratios]]
