"""Thresholds, gaps and label suspects against their definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adadedup_mm.feedback import (
    Gaps,
    adaptive_set,
    cluster_gaps,
    initial_set,
    keep_count,
    label_suspects,
    shrink,
    standardise,
    threshold_curve,
)

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 80)
ratios = st.integers(1, 100).map(lambda percent: percent / 100)
quick = settings(max_examples=100, deadline=None)


def some_scores(seed: int, n: int, levels: int = 40) -> np.ndarray:
    """Density scores on the grid with many ties and some first samples."""
    generator = np.random.default_rng(seed)
    scores = generator.integers(-levels, levels + 1, n) / levels
    scores[generator.random(n) < 0.1] = -1
    return (np.rint(scores * 2**20) / 2**20).astype(np.float32)


@pytest.mark.parametrize(
    ('ratio', 'n', 'count'),
    [
        (0.5, 5, 3),
        (0.8, 498, 398),
        (0.29, 50, 15),
        (0.35, 10, 4),
        (0.01, 3, 1),
        (1.0, 7, 7),
        (0.7, 5, 4),
        (0.5, 0, 0),
        (np.float32(0.3), 5, 2),
    ],
)
def test_keep_count_rounds_half_up_and_keeps_at_least_one(ratio, n, count):
    assert keep_count(ratio, n) == count


@quick
@given(seeds, sizes, ratios)
def test_initial_set_keeps_the_lowest_scores_with_ties_by_index(seed, n, ratio):
    scores = some_scores(seed, n)
    kept, tau = initial_set(scores, ratio)
    count = keep_count(ratio, n)
    expected = sorted(range(n), key=lambda i: (scores[i], i))[:count]
    np.testing.assert_array_equal(np.flatnonzero(kept), sorted(expected))
    assert tau == max(scores[kept]) and tau == threshold_curve(scores, [ratio])[0]


@quick
@given(seeds, sizes, ratios, ratios)
def test_initial_sets_of_different_ratios_are_nested(seed, n, one, other):
    scores = some_scores(seed, n)
    smaller, larger = (initial_set(scores, ratio)[0] for ratio in sorted([one, other]))
    assert larger[smaller].all()


def adapt(seed: int, n: int, ratio: float, beta: float):
    generator = np.random.default_rng([seed, 3])
    scores = some_scores(seed, n)
    clusters = int(generator.integers(1, 6))
    assignment = generator.integers(0, clusters, n).astype(np.int32)
    delta = generator.normal(size=clusters)
    _, tau = initial_set(scores, ratio)
    return (
        scores,
        assignment,
        delta,
        tau,
        adaptive_set(scores, assignment, delta, tau, beta, 1.0, 0.5, ratio),
    )


@quick
@given(seeds, sizes, ratios, st.sampled_from([0.0, 0.3, 2.0, 50.0]))
def test_adaptive_set_meets_the_budget_and_its_own_thresholds(seed, n, ratio, beta):
    scores, assignment, delta, tau, adaptive = adapt(seed, n, ratio, beta)
    assert adaptive.kept.sum() == keep_count(ratio, n)
    assert np.isfinite(adaptive.thresholds).all() and (np.abs(adaptive.thresholds) <= 1).all()
    assert np.isfinite(adaptive.offset)
    own = adaptive.thresholds[assignment]
    assert (scores[adaptive.kept] <= own[adaptive.kept]).all()
    # What went although it is not above its threshold is a tie at the budget's edge.
    tied = ~adaptive.kept & (scores <= own)
    level = scores - adaptive.shift[assignment]
    first = (scores == -1) | (own == 1)
    assert (first[tied] | (level[tied] == tau + adaptive.offset)).all()
    free = np.abs(adaptive.thresholds) < 1
    np.testing.assert_allclose(
        adaptive.thresholds[free], (tau + adaptive.shift + adaptive.offset)[free], atol=1e-9
    )
    spread = scores[scores > -1].std(dtype=np.float64) if (scores > -1).any() else 0
    a = np.maximum(delta, 0) - 0.5 * np.maximum(-delta, 0)
    np.testing.assert_allclose(adaptive.shift, beta * a * spread, atol=1e-6)


@quick
@given(seeds, sizes, ratios)
def test_without_gaps_the_adaptive_set_is_the_initial_set(seed, n, ratio):
    scores = some_scores(seed, n)
    kept, tau = initial_set(scores, ratio)
    adaptive = adaptive_set(scores, np.zeros(n, np.int32), np.zeros(1), tau, 1.0, 1.0, 1.0, ratio)
    np.testing.assert_array_equal(adaptive.kept, kept)
    assert adaptive.thresholds[0] == tau


@quick
@given(seeds, sizes, st.sampled_from([0.0, 0.5, 50.0]))
def test_keep_ratio_one_keeps_all(seed, n, beta):
    scores, assignment, _, _, adaptive = adapt(seed, n, 1.0, beta)
    assert adaptive.kept.all()
    assert (scores <= adaptive.thresholds[assignment]).all()


@quick
@given(seeds, sizes, ratios)
def test_first_samples_of_their_clusters_stay_before_all_others(seed, n, ratio):
    scores, _, _, _, adaptive = adapt(seed, n, ratio, 50.0)
    first = scores == -1
    assert adaptive.kept[first].all() or not adaptive.kept[~first].any()


def test_an_informative_cluster_keeps_more_and_a_redundant_one_less():
    scores = np.tile(np.linspace(0, 0.75, 100, dtype=np.float32), 3)
    assignment = np.repeat(np.arange(3, dtype=np.int32), 100)
    _, tau = initial_set(scores, 0.5)
    adaptive = adaptive_set(scores, assignment, np.array([1.0, 0.0, -1.0]), tau, 0.5, 1.0, 1.0, 0.5)
    kept = np.bincount(assignment[adaptive.kept])
    assert kept[0] > kept[1] > kept[2]
    assert adaptive.thresholds[0] > adaptive.thresholds[1] > adaptive.thresholds[2]


def planted(
    seed: int, clusters: int = 40, per_cluster: int = 60, signal: float = 1.0, noise: float = 1.0
):
    """Losses whose gap differs between clusters; partners are kept samples of the same cluster."""
    generator = np.random.default_rng(seed)
    n = clusters * per_cluster
    assignment = generator.permutation(np.repeat(np.arange(clusters, dtype=np.int32), per_cluster))
    kept = generator.random(n) < 0.6
    true_gap = 0.5 + signal * generator.normal(size=clusters)
    content = generator.normal(size=clusters)
    loss = (
        content[assignment]
        + noise * generator.normal(size=n)
        + np.where(kept, 0, true_gap[assignment])
    )
    partner = np.full(n, -1, np.int64)
    for cluster in range(clusters):
        members = np.flatnonzero(assignment == cluster)
        inside = members[kept[members]]
        if len(inside):
            partner[members[~kept[members]]] = generator.choice(inside, (~kept[members]).sum())
    return loss, kept, assignment, partner, true_gap


def brute_gap(loss, kept, assignment, partner, kind, held_out, cluster):
    pruned = np.flatnonzero(~kept & (assignment == cluster) & np.isfinite(loss))
    if kind == 'paired':
        pairs = [
            (loss[i], loss[partner[i]])
            for i in pruned
            if partner[i] >= 0 and np.isfinite(loss[partner[i]])
        ]
        return (np.mean([i - j for i, j in pairs]), len(pairs)) if pairs else (np.nan, 0)
    side = kept & (assignment == cluster) & np.isfinite(loss)
    side &= held_out if kind == 'held_out' else True
    if not len(pruned) or not side.any():
        return np.nan, len(pruned)
    return loss[pruned].mean() - loss[side].mean(), len(pruned)


@quick
@given(seeds, st.sampled_from(['mean', 'paired', 'held_out']), st.floats(0, 0.9))
def test_gaps_follow_their_definitions_with_losses_missing(seed, kind, missing):
    loss, kept, assignment, partner, _ = planted(seed, 6, 8)
    generator = np.random.default_rng([seed, 5])
    loss[generator.random(len(loss)) < missing] = np.nan
    partner[generator.random(len(loss)) < 0.1] = -1
    held_out = generator.random(len(loss)) < 0.5
    gaps = cluster_gaps(loss, kept, assignment, partner, kind, held_out)
    for cluster in range(6):
        gap, count = brute_gap(loss, kept, assignment, partner, kind, held_out, cluster)
        np.testing.assert_allclose(gaps.gap[cluster], gap)
        assert gaps.count[cluster] == count
    np.testing.assert_allclose(gaps.loss_pruned - gaps.loss_kept, gaps.gap)
    delta, _ = shrink(gaps)
    assert np.isfinite(delta).all() and (delta[~np.isfinite(gaps.gap)] == 0).all()


@pytest.mark.parametrize('kind', ['mean', 'paired', 'held_out'])
def test_standard_errors_cover_the_true_gaps(kind):
    z = []
    for seed in range(30):
        loss, kept, assignment, partner, true_gap = planted(seed)
        held_out = np.random.default_rng(seed).random(len(loss)) < 0.5
        gaps = cluster_gaps(loss, kept, assignment, partner, kind, held_out)
        z.append((gaps.gap - true_gap) / gaps.gap_se)
    assert np.std(z) == pytest.approx(1, abs=0.12)


def test_partners_shared_by_many_make_paired_gaps_less_certain():
    loss, kept, assignment, partner, _ = planted(0)
    spread_out = cluster_gaps(loss, kept, assignment, partner).gap_se
    for cluster in range(assignment.max() + 1):
        pruned = np.flatnonzero(~kept & (assignment == cluster))
        partner[pruned] = np.flatnonzero(kept & (assignment == cluster))[np.arange(len(pruned)) % 2]
    assert (cluster_gaps(loss, kept, assignment, partner).gap_se > 1.5 * spread_out).all()


@pytest.mark.parametrize('kind', ['mean', 'paired'])
def test_planted_gaps_are_recovered_in_order(kind):
    loss, kept, assignment, partner, true_gap = planted(1)
    delta, reliability = shrink(cluster_gaps(loss, kept, assignment, partner, kind))
    assert np.corrcoef(delta, true_gap)[0, 1] > 0.9
    assert np.std(delta) == pytest.approx(1, abs=0.15)
    assert (
        reliability['split_half'] > 0.85
        and reliability['signal_share'] > 0.85
        and reliability['clusters'] == 40
    )


@pytest.mark.parametrize('kind', ['mean', 'paired'])
def test_pure_noise_leaves_plain_density(kind):
    deltas, shares = [], []
    for seed in range(40):
        loss, kept, assignment, partner, _ = planted(seed, signal=0)
        gaps = cluster_gaps(loss, kept, assignment, partner, kind)
        delta, reliability = shrink(gaps)
        deltas.append(delta)
        shares.append(reliability['signal_share'])
        assert np.std(standardise(gaps)[0]) == pytest.approx(1)
    assert np.mean(shares) < 0.1
    assert np.sqrt(np.mean(np.square(deltas))) < 0.1
    assert np.mean([delta.any() for delta in deltas]) <= 0.15


@quick
@given(seeds, st.floats(0.01, 100), st.floats(-10, 10))
def test_delta_has_no_unit(seed, scale, offset):
    loss, kept, assignment, partner, _ = planted(seed, 8, 20)
    delta, _ = shrink(cluster_gaps(loss, kept, assignment, partner))
    other, _ = shrink(cluster_gaps(scale * loss + offset, kept, assignment, partner))
    np.testing.assert_allclose(delta, other, atol=1e-6)


def test_noisier_gaps_shrink_more():
    gaps = Gaps(
        np.zeros(6),
        np.zeros(6),
        np.array([1.0, 1.0, -1.0, -1.0, 0.0, np.nan]),
        np.array([0.1, 1.0, 0.1, 1.0, 0.1, 0.1]),
        np.ones(6, int),
    )
    delta, reliability = shrink(gaps)
    assert delta[0] > delta[1] > 0 > delta[3] > delta[2]
    assert delta[5] == 0
    assert reliability['split_half'] is None and reliability['clusters'] == 5


def test_gaps_that_do_not_repeat_in_the_other_half_are_not_believed():
    gaps = Gaps(
        np.zeros(4),
        np.zeros(4),
        np.array([1.0, 2.0, 3.0, 4.0]),
        np.full(4, 0.1),
        np.ones(4, int),
        split_half=-0.2,
    )
    delta, reliability = shrink(gaps)
    assert not delta.any() and reliability['signal_share'] == 0
    assert reliability['between_variance'] > 1


def test_gaps_and_reliability_are_the_same_for_the_same_seed():
    loss, kept, assignment, partner, _ = planted(3, signal=0.1)
    one, same, other = (
        cluster_gaps(loss, kept, assignment, partner, seed=seed).split_half for seed in (0, 0, 1)
    )
    assert one == same != other


@pytest.mark.parametrize('kind', ['mean', 'paired', 'held_out'])
@pytest.mark.parametrize(
    'case', ['no losses', 'equal losses', 'nothing pruned', 'one cluster', 'one sample']
)
def test_gaps_without_information_leave_plain_density(kind, case):
    n = 1 if case == 'one sample' else 12
    assignment = (
        np.zeros(n, np.int32)
        if n == 1 or case == 'one cluster'
        else (np.arange(n) % 3).astype(np.int32)
    )
    kept = np.ones(n, bool) if n == 1 or case == 'nothing pruned' else np.arange(n) < 6
    partner = np.where(kept, -1, np.arange(n) % 6)
    loss = {'no losses': np.full(n, np.nan), 'equal losses': np.ones(n)}.get(
        case, np.arange(n) ** 2 / 10.0
    )
    gaps = cluster_gaps(loss, kept, assignment, partner, kind, held_out=np.arange(n) < 3)
    delta, reliability = shrink(gaps)
    assert delta.tolist() == [0] * len(gaps.gap)
    assert reliability['signal_share'] == 0


def test_a_wrong_label_is_suspect_but_shared_difficulty_is_not():
    generator = np.random.default_rng(0)
    loss = generator.normal(1, 0.1, 400)
    partner = np.full(400, -1, np.int64)
    partner[200:] = np.arange(200)
    loss[[250, 10]] = 6  # alone, pruned and kept
    loss[[300, 100]] = 6  # a pruned sample and its partner
    assert np.flatnonzero(label_suspects(loss, partner)).tolist() == [10, 250]


@pytest.mark.parametrize('loss', [np.full(5, np.nan), np.ones(5), np.array([1, np.nan, 1, 1, 1.0])])
def test_equal_or_missing_losses_give_no_suspects(loss):
    assert not label_suspects(loss, np.full(5, -1)).any()
