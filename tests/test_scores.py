"""The formulas of static scores."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from adadedup_mm.scores import (
    class_shares,
    error_norms,
    forgetting_counts,
    keep_highest,
    last_layer_gradient_norms,
    per_object,
    run_agreement,
    shape_complexity,
    sum_per_sample,
)

SEEDS = st.integers(0, 2**32 - 1)


def predictions(seed, n=12, classes=4):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, classes)) * 3
    return (
        logits,
        np.exp(logits) / np.exp(logits).sum(1, keepdims=True),
        rng.integers(classes, size=n),
    )


def test_the_error_norm_is_0_for_a_sure_right_answer_and_sqrt_2_for_a_sure_wrong_one():
    assert error_norms(np.eye(3), np.array([0, 1, 0])) == pytest.approx([0, 0, np.sqrt(2)])
    assert error_norms(np.zeros((1, 5)), np.array([2])) == pytest.approx([1])
    assert error_norms(np.array([[0.25, 0.75]]), np.array([0])) == pytest.approx(
        [0.75 * np.sqrt(2)]
    )


@given(SEEDS)
def test_error_norms_do_not_depend_on_the_other_rows_and_leave_their_input_alone(seed):
    _, scores, labels = predictions(seed)
    before = scores.copy()
    norms = error_norms(scores, labels)
    assert np.array_equal(before, scores)
    assert (norms >= 0).all() and (norms <= np.sqrt(2) + 1e-12).all()
    assert np.array_equal(norms[3:5], error_norms(scores[3:5], labels[3:5]))


@given(SEEDS)
def test_gradient_norms_of_the_last_layer_are_those_of_autograd(seed):
    rng = np.random.default_rng(seed)
    layer, inputs = torch.nn.Linear(5, 4).double(), torch.from_numpy(rng.normal(size=(6, 5)))
    labels = rng.integers(4, size=6)
    expected = []
    for row, label in zip(inputs, labels, strict=True):
        layer.zero_grad()
        torch.nn.functional.cross_entropy(layer(row)[None], torch.tensor([label])).backward()
        expected.append(torch.cat([layer.weight.grad.ravel(), layer.bias.grad]).norm().item())
    scores = layer(inputs).softmax(1).detach().numpy()
    assert last_layer_gradient_norms(scores, labels, inputs.numpy()) == pytest.approx(expected)


def test_forgetting_counts_falls_from_right_to_wrong_by_hand():
    traces = dict(always='1111', once='1010', twice='1100', late='0001', never='0000', end='0110')
    correct = np.array([[step == '1' for step in trace] for trace in traces.values()]).T
    assert dict(zip(traces, forgetting_counts(correct).tolist(), strict=True)) == dict(
        always=0, once=2, twice=1, late=0, never=4, end=1
    )


@given(arrays(bool, st.tuples(st.integers(1, 8), st.integers(1, 20))))
def test_what_was_never_right_is_above_all_that_was(correct):
    counts = forgetting_counts(correct)
    never = ~correct.any(axis=0)
    assert (counts[never] == len(correct)).all()
    assert (counts[~never] <= len(correct) // 2).all()
    assert np.array_equal(counts, [forgetting_counts(column[:, None])[0] for column in correct.T])


def test_an_object_has_the_mean_error_of_its_predictions_and_is_right_if_one_is():
    errors, right = per_object(
        np.array([0.2, 0.4, 1.0]), np.array([False, True, False]), np.array([1, 1, 0]), 3
    )
    assert errors == pytest.approx([1.0, 0.3, 1.0])
    assert right.tolist() == [False, True, False]


@given(SEEDS, st.integers(1, 9))
def test_samples_have_the_sum_of_their_objects_in_any_order(seed, count):
    rng = np.random.default_rng(seed)
    values, owner = rng.random(20), rng.integers(count, size=20)
    sums = sum_per_sample(values, owner, count)
    assert sums == pytest.approx([values[owner == i].sum() for i in range(count)])
    shuffled = rng.permutation(20)
    assert sum_per_sample(values[shuffled], owner[shuffled], count) == pytest.approx(sums)
    assert sum_per_sample(np.empty(0), np.empty(0, int), count).tolist() == [0] * count


@given(arrays(np.int64, st.integers(1, 40), elements=st.integers(0, 5)), st.data())
def test_exactly_the_highest_stay_and_sets_are_nested(scores, data):
    few = data.draw(st.integers(0, len(scores)))
    many = data.draw(st.integers(few, len(scores)))
    small, large = keep_highest(scores.astype(float), few), keep_highest(scores.astype(float), many)
    assert (small.sum(), large.sum()) == (few, many)
    assert not (small & ~large).any()
    if 0 < few < len(scores):
        assert scores[small].min() >= scores[~small].max()
        border = np.flatnonzero(scores == scores[small].min())
        assert np.array_equal(small[border], np.arange(len(border)) < small[border].sum())


@settings(max_examples=30)
@given(SEEDS, st.integers(2, 5))
def test_trainings_that_agree_are_reliable_and_noise_is_not(seed, runs):
    rng = np.random.default_rng(seed)
    truth = rng.random(400)
    same = run_agreement(np.stack([np.exp(truth * (i + 1)) for i in range(runs)]))
    assert same == pytest.approx((1, 1))
    r, reliability = run_agreement(
        np.stack([truth + 0.3 * rng.normal(size=400) for _ in range(runs)])
    )
    assert 0 < r < reliability < 1
    noise, nothing = run_agreement(rng.normal(size=(runs, 400)))
    assert abs(noise) < 0.2 and 0 <= nothing < 0.5
    assert run_agreement(np.ones((runs, 5))) == (0, 0)


def test_shapes_are_compared_with_a_circle_of_their_area_at_any_scale():
    perimeter, area = np.array([2 * np.pi, 4.0, 22.0, 0.0]), np.array([np.pi, 1.0, 10.0, 0.0])
    expected = [1, 2 / np.sqrt(np.pi), 11 / np.sqrt(10 * np.pi), 0]
    assert shape_complexity(perimeter, area) == pytest.approx(expected)
    assert shape_complexity(perimeter * 7, area * 49) == pytest.approx(expected)


@given(SEEDS)
def test_every_class_shares_out_the_same(seed):
    rng = np.random.default_rng(seed)
    scores, labels = rng.random(30), rng.integers(4, size=30)
    scores[labels == 2] = 0
    shares = class_shares(scores, labels)
    for label in range(4):
        total = shares[labels == label].sum()
        assert total == pytest.approx(0 if label == 2 or not (labels == label).any() else 1)
    assert class_shares(scores * 5, labels) == pytest.approx(shares)
