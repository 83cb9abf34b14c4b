import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adadedup_mm.pool import Pool
from adadedup_mm.selection.class_floor import keep_class_floor


def make_pool(labels_per_sample, classes):
    n = len(labels_per_sample)
    labels = np.array([label for labels in labels_per_sample for label in labels], np.int32)
    return Pool(
        tuple(map(str, range(n))),
        tuple((f'{i}.jpg',) for i in range(n)),
        ('image',),
        np.zeros((n, 2), np.int32),
        tuple(f'class {c}' for c in range(classes)),
        np.cumsum([0] + [len(labels) for labels in labels_per_sample]),
        labels,
        np.zeros((len(labels), 4), np.float32),
        np.zeros(n, np.int32),
    )


def images_per_class(pool, kept):
    owner = np.repeat(np.arange(len(pool)), np.diff(pool.offsets))
    return np.array(
        [len(np.unique(owner[(pool.labels == c) & kept[owner]])) for c in range(len(pool.classes))]
    )


def test_a_starved_class_gets_its_least_redundant_sample_back():
    pool = make_pool([[0], [0], [0], [1], [1]], 2)
    kept = np.array([True, True, True, False, False])
    margin = np.array([-0.3, -0.1, -0.2, 0.5, 0.2])
    new, missed = keep_class_floor(pool, kept, margin, 0.5)
    assert new.tolist() == [True, False, True, False, True]
    assert missed == []


def test_locked_samples_stay_as_they_are():
    pool = make_pool([[0], [0], [1], [1]], 2)
    kept = np.array([True, True, False, False])
    new, missed = keep_class_floor(
        pool, kept, np.zeros(4), 0.5, locked=np.array([True, False, False, True])
    )
    assert new.tolist() == [True, False, True, False]
    assert missed == []


def test_the_budget_wins_over_floors_that_cannot_all_be_met():
    pool = make_pool([[0], [1], [2]], 3)
    new, missed = keep_class_floor(pool, np.array([True, False, False]), np.zeros(3), 0.1)
    assert new.sum() == 1
    assert len(missed) == 2


@pytest.mark.parametrize('ratio', [0.0, 0.25, 0.5, 1.0])
@given(data=st.data())
def test_the_budget_is_kept_and_no_floor_gets_worse(ratio, data):
    classes = data.draw(st.integers(1, 4))
    labels = data.draw(
        st.lists(st.lists(st.integers(0, classes - 1), max_size=3), min_size=1, max_size=20)
    )
    pool = make_pool(labels, classes)
    kept = np.array(data.draw(st.lists(st.booleans(), min_size=len(labels), max_size=len(labels))))
    margin = np.array(
        data.draw(st.lists(st.floats(-1, 1), min_size=len(labels), max_size=len(labels)))
    )
    new, missed = keep_class_floor(pool, kept, margin, ratio)
    assert new.sum() == kept.sum()
    floor = np.array(
        [math.ceil(ratio * c) for c in images_per_class(pool, np.ones(len(pool), bool))]
    )
    below = images_per_class(pool, new) < floor
    assert missed == [name for name, bad in zip(pool.classes, below, strict=True) if bad]
    if not (images_per_class(pool, kept) < floor).any():
        assert (new == kept).all()


def test_a_pool_without_objects_is_left_alone():
    pool = make_pool([[], []], 0)
    new, missed = keep_class_floor(pool, np.array([True, False]), np.zeros(2), 0.5)
    assert new.tolist() == [True, False]
    assert missed == []
