import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adadedup_mm.base.errors import UserError
from adadedup_mm.pool import Pool
from adadedup_mm.selection.scenes import keep_groups, preference, scene_labels, spread_frames


@st.composite
def choices(draw, most=24):
    """Scenes in any order, a choice of usable samples, and their places."""
    n = draw(st.integers(1, most))
    _, scenes = np.unique(
        draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)), return_inverse=True
    )
    usable = np.array(draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))) > 0
    kept = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n))) & usable
    redundancy = np.array(draw(st.lists(st.floats(-1, 1), min_size=n, max_size=n)))
    return (
        scenes,
        kept,
        preference(kept, redundancy, np.random.default_rng(0), np.zeros(n, bool)),
        usable,
    )


def make_pool(scenes):
    n = len(scenes)
    return Pool(
        tuple(map(str, range(n))),
        (('a.jpg',),) * n,
        ('image',),
        np.zeros((n, 2), np.int32),
        ('car',),
        np.zeros(n + 1, np.int64),
        np.empty(0, np.int32),
        np.empty((0, 4), np.float32),
        np.zeros(n, np.int32),
        tuple(scenes) if any(scenes) else None,
    )


# Preference


def test_samples_are_wanted_in_order_of_choice_and_redundancy():
    kept = np.array([False, True, True, False, True])
    places = preference(
        kept, np.array([0.1, 0.5, 0.2, 0.0, 0.9]), np.random.default_rng(0), np.arange(5) == 4
    )
    assert np.argsort(places).tolist() == [4, 2, 1, 3, 0]


def test_ties_are_broken_at_random_by_the_seed():
    kept, alike, none = np.ones(50, bool), np.zeros(50), np.zeros(50, bool)
    first, again, other = (
        preference(kept, alike, np.random.default_rng(seed), none) for seed in (0, 0, 1)
    )
    assert (first == again).all() and (first != other).any()


# Whole scenes


@given(choices())
def test_scenes_stay_or_go_whole_and_come_as_near_to_the_budget_as_possible(choice):
    scenes, kept, places, usable = choice
    new = keep_groups(scenes, kept, places, usable)
    sizes = [int((usable & (scenes == scene)).sum()) for scene in np.unique(scenes)]
    for scene in np.unique(scenes):
        assert len(set(new[usable & (scenes == scene)])) <= 1
    assert not new[~usable].any()
    budget = kept.sum()
    totals = {
        sum(some)
        for count in range(len(sizes) + 1)
        for some in itertools.combinations(sizes, count)
    }
    totals = {total for total in totals if total or not budget}
    assert abs(new.sum() - budget) == min(abs(total - budget) for total in totals)


@given(st.permutations(range(8)))
def test_of_equal_scenes_those_stay_of_which_most_was_chosen(shares):
    scenes = np.repeat(np.arange(8), 10)
    kept = np.arange(80) % 10 <= np.repeat(shares, 10)
    places = preference(kept, np.zeros(80), np.random.default_rng(0), np.zeros(80, bool))
    new = keep_groups(scenes, kept, places, np.ones(80, bool))
    # 36 of 80 were chosen.
    assert sorted(shares[scene] for scene in np.unique(scenes[new])) == [4, 5, 6, 7]


def test_ties_go_to_the_less_redundant_scene():
    scenes, kept = np.repeat([0, 1], 4), np.tile([True, True, False, False], 2)
    redundancy = np.repeat([0.5, 0.1], 4)
    places = preference(kept, redundancy, np.random.default_rng(0), np.zeros(8, bool))
    assert keep_groups(scenes, kept, places, np.ones(8, bool)).tolist() == [False] * 4 + [True] * 4


def test_hundreds_of_scenes_meet_the_budget_of_whole_scenes():
    rng = np.random.default_rng(0)
    scenes = np.repeat(np.arange(700), rng.integers(38, 42, 700))
    kept = rng.random(len(scenes)) < 0.8
    places = preference(kept, rng.random(len(scenes)), rng, np.zeros(len(scenes), bool))
    new = keep_groups(scenes, kept, places, np.ones(len(scenes), bool))
    assert new.sum() == kept.sum()


# Gaps


def distances(scenes, kept, usable):
    """Frames between neighbouring kept frames of a scene."""
    return [
        gap - 1
        for scene in np.unique(scenes)
        for gap in np.diff(np.flatnonzero(kept[usable & (scenes == scene)]))
    ]


@settings(max_examples=300)
@given(choices(), st.integers(0, 6))
def test_the_gap_is_the_largest_that_the_budget_allows(choice, min_gap):
    scenes, kept, places, usable = choice
    new, gap, room = spread_frames(scenes, kept, places, usable, min_gap)
    assert new.sum() == kept.sum() and not new[~usable].any()
    assert all(between >= gap for between in distances(scenes, new, usable))
    lengths = np.bincount(scenes, usable)
    assert room == np.ceil(lengths / (min_gap + 1)).sum()
    assert gap <= min_gap
    longest = lengths.max()
    assert gap >= min(min_gap, longest) or np.ceil(lengths / (gap + 2)).sum() < kept.sum()


@given(choices(), st.integers(0, 6))
def test_a_choice_that_has_the_gap_stays_as_it_is(choice, min_gap):
    scenes, kept, places, usable = choice
    spread = spread_frames(scenes, kept, places, usable, min_gap)
    again = preference(spread.kept, places, np.random.default_rng(0), np.zeros(len(kept), bool))
    assert (spread_frames(scenes, spread.kept, again, usable, min_gap).kept == spread.kept).all()


@settings(max_examples=200)
@given(choices(most=9), st.integers(1, 3))
def test_frames_are_taken_in_order_of_preference(choice, min_gap):
    """The taken frames, in order, come before those of any other choice with this gap."""
    scenes, kept, places, usable = choice
    new, gap, _ = spread_frames(scenes, kept, places, usable, min_gap)
    candidates = np.flatnonzero(usable)
    best = min(
        (
            sorted(places[list(some)])
            for some in itertools.combinations(candidates, int(kept.sum()))
            if all(
                between >= gap
                for between in distances(scenes, np.isin(np.arange(len(kept)), some), usable)
            )
        ),
        default=[],
    )
    assert sorted(places[new]) == best


# Scenes of a pool


def test_scenes_are_numbered_in_the_order_of_the_pool():
    assert scene_labels(make_pool(['b', 'a', 'b']), 'min_gap').tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    'scenes, words',
    [
        (('', ''), 'adadedup.group_by needs scenes, but the annotation files name no scenes'),
        (('a', '', ''), 'no scene for 2 of 3 samples, first 1'),
    ],
)
def test_samples_without_a_scene_are_named(scenes, words):
    with pytest.raises(UserError, match=words) as error:
        scene_labels(make_pool(scenes), 'group_by')
    assert '\n' not in str(error.value)
