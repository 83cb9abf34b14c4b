"""The gap of each cluster: how much higher the proxy's loss is on pruned samples than on kept ones.

Losses vary far more between samples than gaps do between clusters: a gap is only worth what its
standard error allows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import chi2

# Weight of the variance pooled over clusters beside a cluster's own, in degrees of freedom: a few
# equal losses must not make a gap look certain. Moderated variances after Smyth (2004), with a
# fixed prior.
PRIOR = 4.0
# Random halvings that the split-half correlation is the mean of.
SPLITS = 20
# How often noise alone may pass for a signal.
SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Gaps:
    """Gaps of K clusters; NaN where one side has no losses.

    Attributes:
        loss_kept: (K,) float64, mean loss of the side that stands for kept samples.
        loss_pruned: (K,) float64, mean loss of pruned samples.
        gap: (K,) float64, loss_pruned - loss_kept.
        gap_se: (K,) float64, standard error of the gap.
        count: (K,) int64, number of pruned samples behind it.
        split_half: how well the gaps of one random half of the samples predict those of the other:
            correlation over the clusters, extrapolated to all samples (Spearman-Brown); NaN for
            fewer than 3 clusters.
    """

    loss_kept: np.ndarray
    loss_pruned: np.ndarray
    gap: np.ndarray
    gap_se: np.ndarray
    count: np.ndarray
    split_half: float = np.nan


def cluster_gaps(
    loss: np.ndarray,
    kept: np.ndarray,
    assignment: np.ndarray,
    partner: np.ndarray,
    kind: str = 'paired',
    held_out: np.ndarray | None = None,
    seed: int = 0,
) -> Gaps:
    """Gaps with standard errors.

    ``'mean'`` (arXiv 2507.00049) compares all pruned with all kept samples of the cluster.
    ``'paired'`` compares each pruned sample with its partner: the same content on both sides, so
    that only the difference remains. ``'held_out'`` compares pruned samples with kept ones that the
    proxy has not seen either.

    Standard errors take samples as independent, and for ``'paired'`` the groups that share a
    partner. The variance in a cluster is its own and the one pooled over all clusters, weighted by
    their degrees of freedom and ``PRIOR``.

    Args:
        loss: (N,) float losses, NaN where none was computed.
        kept: (N,) bool, the initial set.
        assignment: (N,) int32, labels 0..K-1.
        partner: (N,) int64 sample index of the partner, -1 for none; read by ``'paired'`` only.
        kind: ``'mean'``, ``'paired'`` or ``'held_out'``.
        held_out: (N,) bool, kept samples that the proxy was not trained on; read by ``'held_out'``
            only.
        seed: of the random halves.
    """
    loss = loss.astype(np.float64)
    known = np.isfinite(loss)
    if kind == 'paired':
        comparison = _compare_pairs(known, kept, assignment, partner)
    else:
        stands = known
        if kind == 'held_out' and held_out is not None:
            stands = known & held_out
        comparison = _compare_sides(known, kept, assignment, stands)

    clusters = int(assignment.max(initial=-1)) + 1
    loss_kept, loss_pruned, gap = comparison.means(loss, clusters)
    gap_se = np.sqrt(comparison.variance(loss, clusters))
    count = np.bincount(comparison.pruned_cluster, minlength=clusters)
    weights = _weights(gap, gap_se)
    split_half = _split_half(comparison, loss, assignment, weights, seed)

    return Gaps(
        loss_kept=loss_kept,
        loss_pruned=loss_pruned,
        gap=gap,
        gap_se=gap_se,
        count=count,
        split_half=split_half,
    )


def shrink(gaps: Gaps) -> tuple[np.ndarray, dict[str, Any]]:
    """Gaps reduced to what can be told from noise, in units of their spread (empirical Bayes).

    delta_k = v / (v + se_k^2) * (gap_k - mean) / sqrt(v + s^2), after Efron and Morris (1975). The
    variance v between clusters is the moment estimate of DerSimonian and Laird (1986), or what the
    split-half correlation allows if that is less; the mean weighs gaps by 1 / (v + se_k^2); s^2 is
    the typical squared standard error of Higgins and Thompson (2002). Unless v is more than noise
    gives in 19 of 20 cases (Cochran's test), there is no signal: all delta are 0, which leaves
    plain density.

    Returns:
        delta: (K,) float64; 0 for clusters without a gap.
        reliability: ``clusters`` (with a gap), ``between_variance`` v as DerSimonian and Laird have
            it, ``noise_variance`` s^2, ``signal_share`` v / (v + s^2) as used, and ``split_half``
            as in ``Gaps``; None where unknown.
    """
    delta = np.zeros(len(gaps.gap))
    usable = np.isfinite(gaps.gap) & np.isfinite(gaps.gap_se)
    gap = gaps.gap[usable]
    between = noise = share = 0.0
    if len(gap) > 1 and gap.var() > 0:
        squared_error = _squared_errors(gap, gaps.gap_se[usable])
        between, noise = _variances(gap, squared_error)
        share = _signal_share(between, noise, len(gap), gaps.split_half)

    if share > 0:
        # The variance between clusters that this share stands for.
        allowed = noise * share / max(1 - share, 1e-9)
        used = min(between, allowed)
        variance = used + squared_error
        mean = np.average(gap, weights=1 / variance)
        shrinkage = used / variance
        delta[usable] = shrinkage * (gap - mean) / np.sqrt(used + noise)

    reliability: dict[str, Any] = {
        'clusters': len(gap),
        'between_variance': _finite(between),
        'noise_variance': _finite(noise),
        'signal_share': _finite(share),
        'split_half': _finite(gaps.split_half),
    }

    return delta, reliability


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def standardise(gaps: Gaps) -> tuple[np.ndarray, dict[str, Any]]:
    """Gaps minus their mean, over their standard deviation: the form without shrinkage.

    Returns:
        As ``shrink``.
    """
    usable = np.isfinite(gaps.gap)
    gap = gaps.gap[usable]
    delta = np.zeros(len(gaps.gap))
    if len(gap) and gap.std() > 0:
        delta[usable] = (gap - gap.mean()) / gap.std()
    _, reliability = shrink(gaps)
    return delta, reliability


def weighted_gaps(several: Sequence[Gaps]) -> Gaps:
    """The gaps of several signals as one, each cluster's weighted by their precision.

    Signals have units of their own: their gaps are first divided by the spread, of signal and
    noise together, that ``shrink`` takes them to have. Losses are those of the last signal.

    Args:
        several: of the same K clusters.
    """
    precision = np.zeros(len(several[0].gap))
    total = np.zeros_like(precision)
    reliable = []
    for gaps in several:
        usable = np.isfinite(gaps.gap) & np.isfinite(gaps.gap_se)
        if usable.sum() < 2 or not gaps.gap[usable].var() > 0:
            continue
        squared_error = _squared_errors(gaps.gap[usable], gaps.gap_se[usable])
        between, noise = _variances(gaps.gap[usable], squared_error)
        weights = (between + noise) / squared_error
        centred = gaps.gap[usable] - np.average(gaps.gap[usable], weights=weights)
        precision[usable] += weights
        total[usable] += weights * centred / np.sqrt(between + noise)
        reliable.append(gaps.split_half)

    gap = _ratio(total, precision)
    gap_se = np.sqrt(_ratio(np.ones_like(precision), precision))
    known = [value for value in reliable if np.isfinite(value)]
    return replace(
        several[-1],
        gap=gap,
        gap_se=gap_se,
        # As the better of the signals: that the mean is better still is not taken for granted.
        split_half=float(np.max(known)) if known else np.nan,
    )


@dataclass(frozen=True)
class _Comparison:
    """Which samples stand on the two sides of each cluster's gap.

    Attributes:
        pruned: (P,) int64 sample indices.
        pruned_cluster: (P,) int32, their clusters.
        reference: (Q,) int64 sample indices; with repeats if paired.
        reference_cluster: (Q,) int32, the clusters that they stand for.
        paired: whether ``pruned[i]`` is compared with ``reference[i]``.
    """

    pruned: np.ndarray
    pruned_cluster: np.ndarray
    reference: np.ndarray
    reference_cluster: np.ndarray
    paired: bool

    def means(self, loss: np.ndarray, clusters: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(K,) mean losses of the reference and of the pruned side, and the difference."""
        kept_side, pruned_side = loss[self.reference], loss[self.pruned]
        loss_kept = _group_means(kept_side, self.reference_cluster, clusters)
        loss_pruned = _group_means(pruned_side, self.pruned_cluster, clusters)
        gap = loss_pruned - loss_kept
        return loss_kept, loss_pruned, gap

    def variance(self, loss: np.ndarray, clusters: int) -> np.ndarray:
        """(K,) squared standard errors of the gaps; NaN for clusters without a gap."""
        if self.paired:
            return self._variance_of_pairs(loss, clusters)
        kept_side = (loss[self.reference], self.reference_cluster)
        pruned_side = (loss[self.pruned], self.pruned_cluster)
        variance = _moderated_variance([kept_side, pruned_side], clusters)
        kept_count = np.bincount(self.reference_cluster, minlength=clusters)
        pruned_count = np.bincount(self.pruned_cluster, minlength=clusters)
        one_over_counts = _ratio(1, kept_count) + _ratio(1, pruned_count)
        return variance * one_over_counts

    def _variance_of_pairs(self, loss: np.ndarray, clusters: int) -> np.ndarray:
        """``variance`` where the differences to one partner share its noise.

        Their mean counts as one observation. It is weighted by how many they are, which leaves
        (sum n)^2 / sum n^2 observations (Kish).
        """
        samples = len(loss)
        partner_in_cluster = self.reference_cluster.astype(np.int64) * samples + self.reference
        partners, group, size = np.unique(
            partner_in_cluster, return_inverse=True, return_counts=True
        )
        home = partners // samples
        difference = loss[self.pruned] - loss[self.reference]
        mean_difference = np.bincount(group, difference, len(partners)) / size
        total = np.bincount(home, size, clusters)
        total_of_squares = np.bincount(home, size**2, clusters)
        observations = _ratio(total**2, total_of_squares)

        return _moderated_variance([(mean_difference, home)], clusters) / observations

    def gaps_of(self, samples: np.ndarray, loss: np.ndarray, clusters: int) -> np.ndarray:
        """(K,) gaps of some samples, given by their indices; pairs follow their reference."""
        chosen = np.zeros(len(loss), bool)
        chosen[samples] = True
        reference = chosen[self.reference]
        pruned = reference if self.paired else chosen[self.pruned]
        part = _Comparison(
            pruned=self.pruned[pruned],
            pruned_cluster=self.pruned_cluster[pruned],
            reference=self.reference[reference],
            reference_cluster=self.reference_cluster[reference],
            paired=self.paired,
        )
        _, _, gap = part.means(loss, clusters)

        return gap


def _compare_pairs(
    known: np.ndarray, kept: np.ndarray, assignment: np.ndarray, partner: np.ndarray
) -> _Comparison:
    """Pruned samples with their partners, where both have a loss."""
    pruned = np.flatnonzero(~kept & known)
    pruned = pruned[partner[pruned] >= 0]
    pruned = pruned[known[partner[pruned]]]
    cluster = assignment[pruned]

    return _Comparison(
        pruned=pruned,
        pruned_cluster=cluster,
        reference=partner[pruned],
        reference_cluster=cluster,
        paired=True,
    )


def _compare_sides(
    known: np.ndarray, kept: np.ndarray, assignment: np.ndarray, stands: np.ndarray
) -> _Comparison:
    """All pruned samples that have a loss with the kept ones among ``stands``, (N,) bool."""
    pruned = np.flatnonzero(~kept & known)
    reference = np.flatnonzero(kept & stands)
    return _Comparison(
        pruned=pruned,
        pruned_cluster=assignment[pruned],
        reference=reference,
        reference_cluster=assignment[reference],
        paired=False,
    )


def _moderated_variance(sides: list[tuple[np.ndarray, np.ndarray]], clusters: int) -> np.ndarray:
    """Variance of values around their side's cluster mean, moderated by the pooled one.

    Args:
        sides: pairs of values (n,) and their clusters (n,).
        clusters: K.

    Returns:
        (K,) float64; NaN where nothing varies.
    """
    squares = np.zeros(clusters)
    freedom = np.zeros(clusters)
    for values, home in sides:
        mean = _group_means(values, home, clusters)
        deviation = values - mean[home]
        squares += np.bincount(home, deviation**2, clusters)
        count = np.bincount(home, minlength=clusters)
        freedom += np.maximum(count - 1, 0)

    pooled = _ratio(squares.sum(), freedom.sum())

    return (PRIOR * pooled + squares) / (PRIOR + freedom)


def _group_means(values: np.ndarray, home: np.ndarray, clusters: int) -> np.ndarray:
    """(K,) mean of the values of each cluster; NaN for none."""
    total = np.bincount(home, values, clusters)
    count = np.bincount(home, minlength=clusters)
    return _ratio(total, count)


def _ratio(top: Any, bottom: Any) -> np.ndarray:
    """``top / bottom`` as float64, NaN where ``bottom`` is 0."""
    bottom = np.asarray(bottom, np.float64)
    unknown = np.full(bottom.shape, np.nan)
    return np.divide(top, bottom, out=unknown, where=bottom > 0)


def _squared_errors(gap: np.ndarray, gap_se: np.ndarray) -> np.ndarray:
    """(n,) squared standard errors; not 0, so that each gap has a finite weight."""
    least = 1e-9 * gap.var()
    return np.maximum(gap_se**2, least)


def _variances(gap: np.ndarray, squared_error: np.ndarray) -> tuple[float, float]:
    """The variance between clusters and that of the noise.

    Args:
        gap: (n,) float64.
        squared_error: (n,) float64, above 0.

    Returns:
        between: after DerSimonian and Laird (1986).
        noise: the typical squared error of Higgins and Thompson (2002).
    """
    weights = 1 / squared_error
    total = weights.sum()
    freedom = len(gap) - 1
    mean = np.average(gap, weights=weights)
    weighted_squares = weights * (gap - mean) ** 2
    cochran_q = float(weighted_squares.sum())
    scale = float(total - (weights**2).sum() / total)
    excess = cochran_q - freedom
    return max(0.0, excess / scale), freedom / scale


def _signal_share(between: float, noise: float, count: int, split_half: float) -> float:
    """The share v / (v + s^2) of the spread of the gaps that is more than noise.

    Args:
        between: v, as from ``_variances``.
        noise: s^2, likewise.
        count: number of gaps, at least 2.
        split_half: as in ``Gaps``; what the share is at most, where it is known.
    """
    freedom = count - 1
    # What Cochran's Q exceeds by chance; v / s^2 is Q / freedom - 1.
    critical_q = chi2.isf(SIGNIFICANCE, freedom)
    chance = critical_q / freedom - 1
    if not between > chance * noise:
        return 0.0
    share = between / (between + noise)
    if np.isfinite(split_half):
        share = min(share, max(split_half, 0.0))
    return share


def _weights(gap: np.ndarray, gap_se: np.ndarray) -> np.ndarray:
    """(K,) precision of each gap as a sample of the gaps of all clusters; 0 without a gap."""
    weights = np.zeros(len(gap))
    usable = np.isfinite(gap) & np.isfinite(gap_se)
    known = gap[usable]
    if len(known) > 1 and known.var() > 0:
        squared_error = _squared_errors(known, gap_se[usable])
        between, _ = _variances(known, squared_error)
        weights[usable] = 1 / (between + squared_error)
    return weights


def _split_half(
    comparison: _Comparison,
    loss: np.ndarray,
    assignment: np.ndarray,
    weights: np.ndarray,
    seed: int,
) -> float:
    """Split-half correlation of the gaps, for the full length (Spearman-Brown).

    NaN where no split has 3 clusters with two gaps.
    """
    generator = np.random.default_rng(seed)
    samples = np.unique(np.concatenate([comparison.pruned, comparison.reference]))
    is_reference = np.isin(samples, comparison.reference)
    side = 2 * assignment[samples].astype(np.int64) + is_reference
    clusters = len(weights)
    correlations = []
    for _ in range(SPLITS):
        # Dealt out in turn inside each side of each cluster, so that the halves are of equal size.
        shuffled = generator.permutation(len(samples))
        by_side = np.argsort(side[shuffled], kind='stable')
        dealt = samples[shuffled[by_side]]
        one = comparison.gaps_of(dealt[::2], loss, clusters)
        other = comparison.gaps_of(dealt[1::2], loss, clusters)
        correlation = _correlation(one, other, weights)
        if np.isfinite(correlation):
            correlations.append(correlation)

    if not correlations:
        return np.nan
    half = float(np.mean(correlations))

    return 2 * half / (1 + abs(half))


def _correlation(one: np.ndarray, other: np.ndarray, weights: np.ndarray) -> float:
    """Weighted correlation over the clusters where both are finite.

    NaN for fewer than 3 clusters, or where one side is constant.
    """
    usable = np.isfinite(one) & np.isfinite(other) & (weights > 0)
    if usable.sum() < 3:
        return np.nan
    covariance = np.cov(one[usable], other[usable], aweights=weights[usable], ddof=0)
    one_variance, other_variance = covariance.diagonal()
    scale = np.sqrt(one_variance * other_variance)
    if not scale > 0:
        return np.nan
    return float(covariance[0, 1] / scale)
