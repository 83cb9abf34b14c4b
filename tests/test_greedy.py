"""Greedy selection inside clusters, and budgets split over groups."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_pipeline import config, fails, prune_main  # noqa: F401

from adadedup_mm.density import greedy_budget, greedy_keep
from adadedup_mm.density.greedy import BLOCK
from adadedup_mm.strategies.baselines import shares
from adadedup_mm.vectors.rows import snap


def rows_of(seed, n, d=6, copies=False):
    rows = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    if copies:
        rows = rows[np.random.default_rng(seed + 1).integers(0, max(n // 3, 1), n)]
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def by_hand(rows, assignment, thresholds, candidates, anchors):
    kept, similarity = np.zeros(len(rows), bool), np.full(len(rows), -1.0)
    between = snap(rows @ rows.T)
    for i in np.flatnonzero(candidates):
        others = np.flatnonzero(
            ((kept & (np.arange(len(rows)) < i)) | anchors) & (assignment == assignment[i])
        )
        similarity[i] = between[i, others].max(initial=-1)
        kept[i] = not len(others) or between[i, others].max() <= thresholds[assignment[i]]
    return kept, similarity


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(1, 60),
    st.integers(1, 4),
    st.booleans(),
    st.floats(-1, 1),
    st.sampled_from([0.0, 0.3]),
)
def test_greedy_choice_equals_the_rule_by_hand(seed, n, k, copies, level, share):
    rng = np.random.default_rng(seed)
    rows, assignment = rows_of(seed, n, copies=copies), rng.integers(0, k, n).astype(np.int32)
    anchors = rng.random(n) < share
    candidates = ~anchors & (rng.random(n) < 0.8)
    thresholds = level + rng.normal(0, 0.1, k)
    kept, similarity = greedy_keep(rows, assignment, thresholds, candidates, anchors)
    expected, expected_similarity = by_hand(rows, assignment, thresholds, candidates, anchors)
    assert np.array_equal(kept, expected)
    assert np.allclose(similarity, expected_similarity, atol=2e-6)


@pytest.mark.parametrize('workers', [1, 3])
@pytest.mark.parametrize('block', [3, 64])
def test_greedy_choice_does_not_depend_on_blocks_or_threads(block, workers, monkeypatch):
    rows, assignment = rows_of(0, 3 * BLOCK), (np.arange(3 * BLOCK) % 2).astype(np.int32)
    expected = greedy_keep(rows, assignment, np.array([0.7, 0.9]))
    monkeypatch.setattr('adadedup_mm.density.greedy.BLOCK', block)
    kept, similarity = greedy_keep(rows, assignment, np.array([0.7, 0.9]), workers=workers)
    assert np.array_equal(kept, expected[0]) and np.allclose(similarity, expected[1], atol=2e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 5), st.booleans(), st.data())
def test_the_budget_is_exact_and_every_dropped_sample_is_above_the_threshold(
    seed, n, k, copies, data
):
    rng = np.random.default_rng(seed)
    rows, assignment = rows_of(seed, n, copies=copies), rng.integers(0, k, n).astype(np.int32)
    candidates = rng.random(n) < 0.9
    candidates[0] = True
    count = data.draw(st.integers(1, int(candidates.sum())))
    kept, similarity, tau = greedy_budget(rows, assignment, count, candidates)
    assert kept.sum() == count and not (kept & ~candidates).any()
    dropped = candidates & ~kept
    firsts = len(np.unique(assignment[candidates]))
    if count >= firsts:
        assert (similarity[dropped] > tau).all()
        for i in np.flatnonzero(dropped):
            peers = rows[kept & (assignment == assignment[i])]
            assert (peers @ rows[i]).max() > tau - 1e-6
    else:
        assert (similarity[kept] == -1).all()


def test_samples_without_a_direction_stay():
    rows = rows_of(0, 6)
    rows[[2, 4]] = 0
    kept, similarity = greedy_keep(rows, np.zeros(6, np.int32), np.array([-2.0]))
    assert (
        kept.tolist() == [True, False, True, False, True, False]
        and (similarity[[2, 4]] == -1).all()
    )


# Random choices of the same share everywhere


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=30), st.data())
def test_shares_meet_the_budget_and_lie_next_to_the_exact_ones(sizes, data):
    sizes = np.array(sizes)
    budget = data.draw(st.integers(0, int(sizes.sum())))
    counts = shares(sizes, budget)
    assert counts.sum() == budget and (counts >= 0).all() and (counts <= sizes).all()
    assert np.abs(counts - sizes * budget / max(sizes.sum(), 1)).max() < 1


def write_config(config, folder, per):  # noqa: F811
    file = folder / 'random.py'
    file.write_text(
        f"_base_ = '{config}'\nadadedup = dict(strategy=dict(type='random', per='{per}', "
        '_delete_=True), '
        'keep_ratio=.4)'
    )
    return file


@pytest.mark.parametrize('per', ['cluster', 'scene'])
def test_random_per_group_keeps_the_same_share_of_each(per, config, tmp_path):  # noqa: F811
    prune_main(
        [
            str(write_config(config, tmp_path, per)),
            '--work-dir',
            str(tmp_path / 'run'),
            '--strategy',
            'random',
        ]
    )
    table = pq.read_table(tmp_path / 'run/samples.parquet')
    kept, groups = table['kept'].to_numpy(), np.array(table[per].to_pylist())
    assert kept.sum() == round(0.4 * len(kept))
    assert len(set(groups)) > 3
    for group in set(groups):
        assert abs(kept[groups == group].sum() - 0.4 * (groups == group).sum()) < 1


def test_random_per_something_else_is_refused(config, tmp_path, capsys):  # noqa: F811
    file = write_config(config, tmp_path, 'frame')
    assert "adadedup.strategy.per is 'frame'" in fails(
        [file, '--work-dir', tmp_path / 'run'], capsys
    )


def test_random_per_scene_needs_scenes(config, world, tmp_path, capsys):  # noqa: F811
    content = json.loads((world / 'coco/annotations/instances_train.json').read_text())
    content['images'] = [
        {key: image[key] for key in ('id', 'file_name', 'height', 'width')}
        for image in content['images']
    ]
    (tmp_path / 'plain.json').write_text(json.dumps(content))
    line = fails(
        [
            write_config(config, tmp_path, 'scene'),
            '--work-dir',
            tmp_path / 'run',
            '--cfg-options',
            f'train_dataloader.dataset.ann_file={tmp_path / "plain.json"}',
        ],
        capsys,
    )
    assert 'adadedup.strategy.per needs scenes' in line
