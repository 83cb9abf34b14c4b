"""Policies of dynamic pruning against hand-computed traces."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adadedup_mm.base.errors import UserError
from adadedup_mm.dynamic.policies import POLICIES, ScoreState, build_policy, loss_groups


def generator(epoch=0):
    return np.random.default_rng([3, epoch])


def test_running_mean_and_variance_follow_the_formulas():
    state = ScoreState.empty(3)
    state.update(np.array([0, 2]), np.array([1.0, 2.0]), 0.8)
    # v = .8 (l - 0)^2, m = .8 l
    np.testing.assert_allclose(state.variance, [0.8, 0, 3.2])
    np.testing.assert_allclose(state.mean, [0.8, 0, 1.6])
    state.update(np.array([0]), np.array([0.3]), 0.8)
    # v = .2 * .8 + .8 * (.3 - .8)^2 = .36, m = .2 * .8 + .8 * .3 = .4
    np.testing.assert_allclose(state.variance[0], 0.36)
    np.testing.assert_allclose(state.mean[0], 0.4)
    assert state.seen.tolist() == [2, 0, 1] and np.isnan(state.last[1]) and state.last[0] == 0.3


def test_epsilon_greedy_over_three_periods():
    policy = build_policy('epsilon_greedy', dict(keep_ratio=0.5, epsilon=0.5, rate=0.5, period=1))
    state = ScoreState.empty(8)
    losses = np.array([8.0, 7, 6, 5, 4, 3, 2, 1])
    state.update(np.arange(8), losses, policy.rate)
    # K = 4, two explore: the best two of m = l / 2 are samples 0 and 1.
    indices, weights = policy.select(state, 1, generator(1))
    assert len(indices) == 4 and {0, 1} <= set(indices) and weights.tolist() == [1.0] * 4
    # Samples 0 and 1 get easy: m = (4, 3.5) / 2 + .5 * 0 = (2, 1.75), so that 2 and 3 (m = 3, 2.5)
    # lead.
    state.update(np.array([0, 1]), np.zeros(2), policy.rate)
    indices, _ = policy.select(state, 2, generator(2))
    assert len(indices) == 4 and {2, 3} <= set(indices)
    # And again: m_2 = 1.5, m_3 = 1.25, so that 0 (2), 4 (2) lead before 1 (1.75).
    state.update(np.array([2, 3]), np.zeros(2), policy.rate)
    indices, _ = policy.select(state, 3, generator(3))
    assert len(indices) == 4 and {0, 4} <= set(indices)


def test_epsilon_explores_all_others_equally_often():
    policy = build_policy('epsilon_greedy', dict(keep_ratio=0.5, epsilon=0.5))
    state = ScoreState.empty(8)
    state.update(np.arange(8), np.arange(8.0), 1.0)
    counts = np.zeros(8)
    for epoch in range(600):
        counts[policy.select(state, epoch, generator(epoch))[0]] += 1
    assert counts[6:].tolist() == [600, 600]
    assert np.abs(counts[:6] - 200).max() < 50


def test_ucb_over_two_periods():
    policy = build_policy('ucb', dict(keep_ratio=0.5, c=2.0, rate=0.5))
    state = ScoreState.empty(4)
    state.update(np.arange(4), np.array([1.0, 2.0, 3.0, 4.0]), 0.5)
    # m = .5 1 1.5 2, v = .5 2 4.5 8, m + 2 v = 1.5 5 10.5 18
    assert policy.select(state, 0, generator())[0].tolist() == [2, 3]
    # Sample 3: v = 4 + .5 (2 - 2)^2 = 4, m = 2 -> 10; sample 1: v = 1 + .5 * 9^2 = 41.5, m = 5.5 ->
    # 88.5.
    state.update(np.array([3, 1]), np.array([2.0, 10.0]), 0.5)
    assert policy.select(state, 10, generator())[0].tolist() == [1, 2]


def test_ucb_sees_every_sample_before_it_prefers_any():
    policy = build_policy('ucb', dict(keep_ratio=0.25))
    state = ScoreState.empty(8)
    chosen = []
    for period in range(4):
        indices, _ = policy.select(state, period, generator(period))
        state.update(indices, np.full(2, 1.0 + period), policy.rate)
        chosen += indices.tolist()
    assert sorted(chosen) == list(range(8))
    # m = .8 l, v = .8 l^2: the highest bounds are those of the last period, whose losses were 4.
    assert policy.select(state, 4, generator(4))[0].tolist() == sorted(chosen[-2:])


def test_random_is_a_fresh_uniform_subset_each_period():
    policy = build_policy('random', dict(keep_ratio=0.3))
    subsets = [
        policy.select(ScoreState.empty(10), epoch, generator(epoch))[0] for epoch in range(500)
    ]
    assert all(len(np.unique(subset)) == 3 for subset in subsets)
    counts = np.bincount(np.concatenate(subsets), minlength=10)
    assert np.abs(counts - 150).max() < 45


def test_infobatch_over_a_training():
    policy = build_policy('infobatch', dict(ratio=0.5, delta=0.75, epochs=4))
    state = ScoreState.empty(6)
    indices, weights = policy.select(state, 0, generator(0))
    assert indices.tolist() == list(range(6)) and weights.tolist() == [1.0] * 6
    # The mean is 3: samples 0-2 are well learned, and floor(.5 * 3) = 1 of them stays with weight
    # 2.
    state.update(np.arange(6), np.array([1.0, 1, 1, 5, 5, 5]), policy.rate)
    indices, weights = policy.select(state, 1, generator(1))
    assert (
        len(indices) == 4
        and indices[1:].tolist() == [3, 4, 5]
        and weights.tolist() == [2.0, 1, 1, 1]
    )
    # Samples 3-5 are 0 now, the mean is .5: of samples 3-5 one stays.
    state.update(np.array([3, 4, 5]), np.zeros(3), policy.rate)
    indices, weights = policy.select(state, 2, generator(2))
    assert (
        indices[:3].tolist() == [0, 1, 2]
        and len(indices) == 4
        and weights.tolist() == [1.0, 1, 1, 2]
    )
    # Epoch 3 of 4 is past delta.
    assert policy.select(state, 3, generator(3))[0].tolist() == list(range(6))


def test_infobatch_keeps_the_expected_loss():
    policy = build_policy('infobatch', dict(ratio=0.25, epochs=100))
    state = ScoreState.empty(40)
    losses = np.random.default_rng(0).exponential(size=40)
    state.update(np.arange(40), losses, 1.0)
    totals = [
        np.sum(losses[i] * w)
        for i, w in (policy.select(state, 1, generator(e)) for e in range(2000))
    ]
    # floor(.75 n) instead of .75 n of the well-learned ones stay.
    assert abs(np.mean(totals) - losses.sum()) < 0.02 * losses.sum()


def test_seta_slides_a_window_from_easy_to_hard():
    policy = build_policy('seta', dict(ratio=0.0, groups=4, width=0.5, delta=0.75, epochs=8))
    state = ScoreState.empty(8)
    losses = np.array([0.0, 0, 10, 10, 20, 20, 30, 30])
    assert len(policy.select(state, 0, generator())[0]) == 8
    state.update(np.arange(8), losses, policy.rate)
    # Windows of two groups; t mod 3 = 1, 2, 0, 1, 2, and from epoch 6 on everything.
    seen = [policy.select(state, epoch, generator(epoch))[0].tolist() for epoch in range(1, 8)]
    easy, middle, hard = [0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7]
    assert seen == [middle, hard, easy, middle, hard, list(range(8)), list(range(8))]


def test_loss_groups_are_ordered_and_exact_on_separate_clumps():
    losses = np.array([5.0, 1.0, 9.0, 1.1, 5.1, 9.1])
    assert loss_groups(losses, 3).tolist() == [1, 0, 2, 0, 1, 2]


@given(st.integers(1, 60), st.floats(0.01, 1), st.floats(0, 1), st.integers(0, 10))
def test_every_policy_returns_distinct_samples_and_the_budget(size, ratio, epsilon, epoch):
    state = ScoreState.empty(size)
    rng = np.random.default_rng(size)
    state.update(rng.permutation(size)[: size // 2], rng.exponential(size=size // 2), 0.8)
    for name, arguments in dict(
        random=dict(keep_ratio=ratio),
        epsilon_greedy=dict(keep_ratio=ratio, epsilon=epsilon),
        ucb=dict(keep_ratio=ratio),
        infobatch=dict(epochs=8),
        seta=dict(epochs=8),
    ).items():
        indices, weights = build_policy(name, arguments).select(state, epoch, generator(epoch))
        assert len(indices) == len(weights) > 0 and (np.diff(indices) > 0).all()
        assert indices[0] >= 0 and indices[-1] < size
        if 'keep_ratio' in arguments:
            assert len(indices) == max(1, int(np.floor(ratio * size + 0.5)))
        again = build_policy(name, arguments).select(state, epoch, generator(epoch))[0]
        assert np.array_equal(indices, again)


@pytest.mark.parametrize(
    'name, arguments, words',
    [
        ('random', dict(keep_ratio=0.0), 'keep_ratio is 0.0'),
        ('random', dict(keep_ratio=1.1), 'keep_ratio is 1.1'),
        ('epsilon_greedy', dict(epsilon=-0.1), 'epsilon is -0.1'),
        ('epsilon_greedy', dict(epsilon=2), 'epsilon is 2'),
        ('epsilon_greedy', dict(epsilom=0.1), "did you mean 'epsilon'"),
        ('ucb', dict(rate=0), 'rate is 0'),
        ('ucb', dict(period=0), 'period is 0'),
        ('infobatch', dict(ratio=1.0), 'ratio is 1.0'),
        ('infobatch', dict(ratio=1), 'ratio is 1.0'),
        ('seta', dict(groups=2.5), 'groups is 2.5'),
        ('seta', dict(width=0.0), 'width is 0.0'),
        ('ubc', {}, "did you mean 'ucb'"),
    ],
)
def test_wrong_arguments_are_named(name, arguments, words):
    with pytest.raises(UserError) as error:
        build_policy(name, arguments)
    assert words in str(error.value) and '\n' not in str(error.value)


def test_a_state_is_saved_and_loaded_and_refuses_other_sizes():
    state = ScoreState.empty(5)
    state.update(np.array([1, 3]), np.array([0.5, 2.0]), 0.8)
    other = ScoreState.empty(5)
    other.load_state_dict(state.state_dict())
    for name in POLICIES.module_dict:
        policy = build_policy(name, {})
        policy.epochs = 9
        for a, b in zip(
            policy.select(state, 3, generator()), policy.select(other, 3, generator()), strict=True
        ):
            assert np.array_equal(a, b)
    with pytest.raises(UserError, match='5 samples'):
        ScoreState.empty(6).load_state_dict(state.state_dict())
