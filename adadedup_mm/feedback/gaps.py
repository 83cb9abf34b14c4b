"""The gap of each cluster: how much higher the proxy's loss is on pruned samples than on kept ones, and how certainly.

Losses vary far more between samples than gaps do between clusters: a gap is only worth what its
standard error allows.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

# Weight of the variance pooled over clusters beside a cluster's own, in degrees of freedom: a few
# equal losses must not make a gap look certain. Moderated variances after Smyth (2004), with a
# fixed prior.
PRIOR = 4.0
# Random halvings that the split-half correlation is the mean of.
SPLITS = 20


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
        across_proxies: mean correlation of the gaps of two proxies; NaN for one.
    """

    loss_kept: np.ndarray
    loss_pruned: np.ndarray
    gap: np.ndarray
    gap_se: np.ndarray
    count: np.ndarray
    split_half: float = np.nan
    across_proxies: float = np.nan


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
        loss: (N,) float losses, NaN where none was computed; (R, N) for R proxies, whose mean is
            taken.
        kept: (N,) bool, the initial set.
        assignment: (N,) int32, labels 0..K-1.
        partner: (N,) int64 sample index of the partner, -1 for none; read by ``'paired'`` only.
        kind: ``'mean'``, ``'paired'`` or ``'held_out'``.
        held_out: (N,) bool, kept samples that the proxy was not trained on; read by ``'held_out'``
            only.
        seed: of the random halves.
    """
    losses = np.atleast_2d(loss).astype(np.float64)
    known = np.isfinite(losses).all(0)
    pruned = np.flatnonzero(~kept & known)
    if kind == 'paired':
        pruned = pruned[partner[pruned] >= 0]
        pruned = pruned[known[partner[pruned]]]
        reference = partner[pruned]
        comparison = _Comparison(
            pruned, assignment[pruned], reference, assignment[pruned], paired=True
        )
    else:
        standing = kept & known if kind == 'mean' or held_out is None else kept & known & held_out
        reference = np.flatnonzero(standing)
        comparison = _Comparison(
            pruned, assignment[pruned], reference, assignment[reference], paired=False
        )
    clusters = int(assignment.max(initial=-1)) + 1
    mean = losses.mean(0)
    loss_kept, loss_pruned, gap = comparison.means(mean, clusters)
    gap_se = np.sqrt(comparison.variance(mean, clusters))
    count = np.bincount(comparison.pruned_cluster, minlength=clusters)
    weights = _weights(gap, gap_se)
    per_proxy = [comparison.means(one, clusters)[2] for one in losses]
    across = [
        _correlation(one, other, weights) for one, other in itertools.combinations(per_proxy, 2)
    ]
    return Gaps(
        loss_kept,
        loss_pruned,
        gap,
        gap_se,
        count,
        _split_half(comparison, mean, assignment, weights, seed),
        float(np.mean(across)) if across else np.nan,
    )


def shrink(gaps: Gaps) -> tuple[np.ndarray, dict[str, Any]]:
    """Gaps reduced to what can be told from noise, in units of the spread of the gaps (empirical Bayes).

    delta_k = v / (v + se_k^2) * (gap_k - mean) / sqrt(v + s^2), after Efron and Morris (1975). The
    variance v between clusters is the moment estimate of DerSimonian and Laird (1986), or what the
    split-half correlation allows if that is less; the mean weighs gaps by 1 / (v + se_k^2); s^2 is
    the typical squared standard error of Higgins and Thompson (2002). Unless v is more than noise
    gives in 19 of 20 cases (Cochran's test), there is no signal: all delta are 0, which leaves
    plain density.

    Returns:
        delta: (K,) float64; 0 for clusters without a gap.
        reliability: ``clusters`` (with a gap), ``between_variance`` v as DerSimonian and Laird have
            it, ``noise_variance`` s^2, ``signal_share`` v / (v + s^2) as used, ``split_half`` and
            ``across_proxies`` as in ``Gaps``; None where unknown.
    """
    delta = np.zeros(len(gaps.gap))
    usable = np.isfinite(gaps.gap) & np.isfinite(gaps.gap_se)
    gap, squared_error = gaps.gap[usable], gaps.gap_se[usable] ** 2
    between = noise = share = 0.0
    if len(gap) > 1 and gap.var() > 0:
        squared_error = np.maximum(squared_error, 1e-9 * gap.var())
        between, noise = _variances(gap, squared_error)
        share = between / (between + noise) if between > _chance(len(gap) - 1) * noise else 0.0
        if np.isfinite(gaps.split_half):
            share = min(share, max(gaps.split_half, 0.0))
    if share > 0:
        # The variance between clusters that this share stands for.
        used = min(between, noise * share / max(1 - share, 1e-9))
        mean = np.average(gap, weights=1 / (used + squared_error))
        delta[usable] = used / (used + squared_error) * (gap - mean) / np.sqrt(used + noise)
    reliability = {
        'between_variance': between,
        'noise_variance': noise,
        'signal_share': share,
        'split_half': gaps.split_half,
        'across_proxies': gaps.across_proxies,
    }
    return delta, {
        'clusters': len(gap),
        **{
            name: float(value) if np.isfinite(value) else None
            for name, value in reliability.items()
        },
    }


def standardise(gaps: Gaps) -> tuple[np.ndarray, dict[str, Any]]:
    """Gaps as they are, minus their mean and over their standard deviation: the form without shrinkage.

    Returns:
        As ``shrink``.
    """
    usable = np.isfinite(gaps.gap)
    gap = gaps.gap[usable]
    delta = np.zeros(len(gaps.gap))
    if len(gap) and gap.std() > 0:
        delta[usable] = (gap - gap.mean()) / gap.std()
    return delta, shrink(gaps)[1]


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
        kept = _group_means(loss[self.reference], self.reference_cluster, clusters)
        pruned = _group_means(loss[self.pruned], self.pruned_cluster, clusters)
        return kept, pruned, pruned - kept

    def variance(self, loss: np.ndarray, clusters: int) -> np.ndarray:
        """(K,) squared standard errors of the gaps; NaN for clusters without a gap."""
        if self.paired:
            # The differences to one partner share its noise, so their mean counts as one
            # observation. It is weighted by how many they are, which leaves (sum n)^2 / sum n^2
            # observations (Kish).
            partners, group, size = np.unique(
                self.reference_cluster.astype(np.int64) * len(loss) + self.reference,
                return_inverse=True,
                return_counts=True,
            )
            difference = (
                np.bincount(group, loss[self.pruned] - loss[self.reference], len(partners)) / size
            )
            home = partners // len(loss)
            observations = _ratio(
                np.bincount(home, size, clusters) ** 2, np.bincount(home, size**2, clusters)
            )
            return _moderated_variance([(difference, home)], clusters) / observations
        both = [
            (loss[self.reference], self.reference_cluster),
            (loss[self.pruned], self.pruned_cluster),
        ]
        sizes = [np.bincount(home, minlength=clusters) for _, home in both]
        return _moderated_variance(both, clusters) * (_ratio(1, sizes[0]) + _ratio(1, sizes[1]))

    def part(self, chosen: np.ndarray) -> '_Comparison':
        """The comparison of the chosen samples; (N,) bool. Pairs follow their reference."""
        reference = chosen[self.reference]
        pruned = reference if self.paired else chosen[self.pruned]
        return _Comparison(
            self.pruned[pruned],
            self.pruned_cluster[pruned],
            self.reference[reference],
            self.reference_cluster[reference],
            self.paired,
        )


def _moderated_variance(sides: list[tuple[np.ndarray, np.ndarray]], clusters: int) -> np.ndarray:
    """(K,) variance of values around their side's cluster mean, moderated by the pooled one; NaN where nothing varies.

    Args:
        sides: pairs of values (n,) and their clusters (n,).
        clusters: K.
    """
    squares, freedom = np.zeros(clusters), np.zeros(clusters)
    for values, home in sides:
        squares += np.bincount(
            home, (values - _group_means(values, home, clusters)[home]) ** 2, clusters
        )
        freedom += np.maximum(np.bincount(home, minlength=clusters) - 1, 0)
    pooled = _ratio(squares.sum(), freedom.sum())
    return (PRIOR * pooled + squares) / (PRIOR + freedom)


def _group_means(values: np.ndarray, home: np.ndarray, clusters: int) -> np.ndarray:
    """(K,) mean of the values of each cluster; NaN for none."""
    return _ratio(np.bincount(home, values, clusters), np.bincount(home, minlength=clusters))


def _ratio(top: Any, bottom: Any) -> np.ndarray:
    """``top / bottom`` as float64, NaN where ``bottom`` is 0."""
    bottom = np.asarray(bottom, np.float64)
    return np.divide(top, bottom, out=np.full(bottom.shape, np.nan), where=bottom > 0)


def _variances(gap: np.ndarray, squared_error: np.ndarray) -> tuple[float, float]:
    """Variance between clusters (DerSimonian and Laird) and the typical one of the noise (Higgins and Thompson)."""
    weights = 1 / squared_error
    total = weights.sum()
    excess = float((weights * (gap - np.average(gap, weights=weights)) ** 2).sum()) - (len(gap) - 1)
    scale = float(total - (weights**2).sum() / total)
    return max(0.0, excess / scale), (len(gap) - 1) / scale


def _chance(freedom: int) -> float:
    """The v / s^2 that noise alone exceeds once in 20 times, from chi-squared as Wilson and Hilferty (1931) have it."""
    return (1 - 2 / (9 * freedom) + 1.645 * (2 / (9 * freedom)) ** 0.5) ** 3 - 1


def _weights(gap: np.ndarray, gap_se: np.ndarray) -> np.ndarray:
    """(K,) precision of each gap as a sample of the gaps of all clusters; 0 for clusters without one."""
    usable = np.isfinite(gap) & np.isfinite(gap_se)
    weights = np.zeros(len(gap))
    if usable.sum() > 1 and gap[usable].var() > 0:
        squared_error = np.maximum(gap_se[usable] ** 2, 1e-9 * gap[usable].var())
        weights[usable] = 1 / (_variances(gap[usable], squared_error)[0] + squared_error)
    return weights


def _split_half(
    comparison: _Comparison,
    loss: np.ndarray,
    assignment: np.ndarray,
    weights: np.ndarray,
    seed: int,
) -> float:
    """Split-half correlation of the gaps, for the full length; NaN where no split has 3 clusters with two gaps."""
    generator = np.random.default_rng(seed)
    samples = np.unique(np.concatenate([comparison.pruned, comparison.reference]))
    side = 2 * assignment[samples].astype(np.int64) + np.isin(samples, comparison.reference)
    correlations = []
    for _ in range(SPLITS):
        # Dealt out in turn inside each side of each cluster, so that the halves are of equal size.
        shuffled = generator.permutation(len(samples))
        dealt = samples[shuffled[np.argsort(side[shuffled], kind='stable')]]
        first, second = np.zeros(len(loss), bool), np.zeros(len(loss), bool)
        first[dealt[::2]] = second[dealt[1::2]] = True
        halves = [comparison.part(half).means(loss, len(weights))[2] for half in (first, second)]
        correlations.append(_correlation(halves[0], halves[1], weights))
    known = [value for value in correlations if np.isfinite(value)]
    if not known:
        return np.nan
    half = float(np.mean(known))
    return 2 * half / (1 + abs(half))


def _correlation(one: np.ndarray, other: np.ndarray, weights: np.ndarray) -> float:
    """Weighted correlation over the clusters where both are finite; NaN for fewer than 3, or where one is constant."""
    usable = np.isfinite(one) & np.isfinite(other) & (weights > 0)
    if usable.sum() < 3:
        return np.nan
    covariance = np.cov(one[usable], other[usable], aweights=weights[usable], ddof=0)
    scale = np.sqrt(covariance[0, 0] * covariance[1, 1])
    return float(covariance[0, 1] / scale) if scale > 0 else np.nan
