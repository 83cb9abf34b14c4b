"""Clusters: k-means on the sphere, and clusters that the user has."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adadedup_mm.base.errors import UserError
from adadedup_mm.clusters import Clusterer, FixedClusterer, SphericalKMeans, kmeans
from adadedup_mm.pool import Pool
from adadedup_mm.vectors.rows import cluster_members, drop_pages, read_rows, snap


def make_pool(ids=('a', 'b', 'c', 'd'), scenes=None, folders=None, dataset_index=None) -> Pool:
    n = len(ids)
    paths = tuple(
        (f'{folder}/{name}.jpg',) for folder, name in zip(folders or ['x'] * n, ids, strict=True)
    )
    return Pool(
        tuple(ids),
        paths,
        ('image',),
        np.zeros((n, 2), np.int32),
        (),
        np.zeros(n + 1, np.int64),
        np.zeros(0, np.int32),
        np.zeros((0, 4), np.float32),
        np.zeros(n, np.int32) if dataset_index is None else np.array(dataset_index, np.int32),
        scenes,
    )


def lumps(
    seed: int, n: int, count: int, d: int = 32, noise: float = 0.1
) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows around well separated directions, and which one each belongs to."""
    generator = np.random.default_rng(seed)
    truth = generator.permutation(np.arange(n) % count)
    rows = generator.normal(size=(count, d))[truth] + noise * generator.normal(size=(n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), truth


def mean_similarity(features: np.ndarray, assignment: np.ndarray) -> float:
    return sum(
        np.linalg.norm(features[members].sum(0)) for members in cluster_members(assignment)
    ) / len(features)


def assert_first_occurrence(assignment: np.ndarray) -> None:
    assert assignment.dtype == np.int32
    labels, first = np.unique(assignment, return_index=True)
    np.testing.assert_array_equal(labels, np.arange(len(labels)))
    assert (np.diff(first) > 0).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 120), st.integers(1, 20))
def test_every_sample_is_with_the_centroid_of_its_cluster_and_labels_go_by_first_occurrence(
    seed, n, count
):
    features, _ = lumps(seed, n, max(1, n // 8), noise=0.4)
    count = min(count, n)
    assignment = SphericalKMeans(count, iterations=50)(features, None, seed)
    assert_first_occurrence(assignment)
    assert assignment.max() < count
    centroids = np.stack([features[members].sum(0) for members in cluster_members(assignment)])
    own = features @ centroids.T / np.linalg.norm(centroids, axis=1)
    # Lloyd's last step moves the centroids once more than the samples.
    assert (own.argmax(1) == assignment).mean() > 0.85


def test_separated_lumps_are_found():
    features, truth = lumps(0, 400, 4)
    assignment = SphericalKMeans(16)(features, None, 0)
    assert len(np.unique(assignment * 4 + truth)) == assignment.max() + 1


def test_the_number_of_clusters_is_the_square_root_of_the_number_of_samples():
    features, _ = lumps(0, 400, 400, noise=1)
    assert SphericalKMeans()(features, None, 0).max() + 1 == 20


def test_the_same_seed_gives_the_same_clusters_and_another_seed_others():
    features, _ = lumps(0, 600, 100, noise=0.5)
    one, same, other = (SphericalKMeans(10)(features, None, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_the_number_of_threads_does_not_change_the_clusters():
    program = """if True:
        import hashlib
        import numpy as np
        from adadedup_mm.clusters import SphericalKMeans
        features = np.random.default_rng(0).normal(size=(4001, 67)).astype(np.float32)
        print(hashlib.sha256(SphericalKMeans(37)(features, None, 0).tobytes()).hexdigest())
    """
    results = {
        subprocess.run(
            [sys.executable, '-c', program],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, 'OMP_NUM_THREADS': threads, 'OPENBLAS_NUM_THREADS': threads},
        ).stdout
        for threads in ('1', '2', '3')
    }
    assert len(results) == 1


def test_fast_clusters_are_nearly_as_good():
    features, _ = lumps(1, 6000, 300, 32, 0.4)
    full, fast = (SphericalKMeans(20, fast=fast)(features, None, 0) for fast in (False, True))
    assert mean_similarity(features, fast) > 0.97 * mean_similarity(features, full)


def test_clusterers_say_what_they_look_at_and_who_can_help():
    kmeans_like: Clusterer = SphericalKMeans()
    fixed: Clusterer = FixedClusterer()
    assert kmeans_like.learns_centroids and not fixed.learns_centroids
    assert kmeans_like.looks_at == ('features',) and fixed.looks_at == ('samples',)


def test_many_clusters_come_in_two_levels(monkeypatch):
    features, _ = lumps(2, 1500, 200, 16, 0.3)
    flat = SphericalKMeans(100)(features, None, 0)
    monkeypatch.setattr(kmeans, 'FLAT_CLUSTERS', 50)
    features[7] = 0
    levels = SphericalKMeans(100)(features, None, 0)
    assert_first_occurrence(levels)
    assert 90 <= levels.max() + 1 <= 101
    assert (levels == levels[7]).sum() == 1
    assert mean_similarity(features, levels) > 0.92 * mean_similarity(features, flat)
    np.testing.assert_array_equal(levels, SphericalKMeans(100)(features, None, 0))
    assert (SphericalKMeans(100)(np.zeros_like(features), None, 0) == 0).all()


def test_zero_and_nan_features_share_a_cluster_of_their_own():
    features, _ = lumps(3, 200, 5)
    features[[10, 20]] = 0
    features[30, 4] = np.nan
    assignment = SphericalKMeans(5)(features, None, 0)
    assert_first_occurrence(assignment)
    np.testing.assert_array_equal(np.flatnonzero(assignment == assignment[10]), [10, 20, 30])
    assert (SphericalKMeans(5)(np.zeros_like(features), None, 0) == 0).all()
    features[3:] = np.nan
    assignment = SphericalKMeans(5)(features, None, 0)
    assert (assignment[3:] == assignment[3]).all() and (assignment[:3] != assignment[3]).all()


def test_identical_images_by_the_thousand_share_their_clusters():
    one, other = lumps(4, 2, 2)[0]
    features = np.concatenate([np.tile(one, (3000, 1)), np.tile(other, (2000, 1))])
    assignment = SphericalKMeans(20)(features, None, 0)
    assert len(np.unique(assignment[:3000])) == len(np.unique(assignment[3000:])) == 1
    assert assignment[0] != assignment[-1]


@pytest.mark.parametrize(('n', 'count'), [(1, None), (1, 1), (2, 2), (3, None)])
def test_tiny_datasets_are_legal(n, count):
    assignment = SphericalKMeans(count)(lumps(5, n, n)[0], None, 0)
    assert_first_occurrence(assignment)
    assert len(assignment) == n


def test_half_precision_features_on_disk_cluster_like_those_in_memory(tmp_path):
    features, _ = lumps(6, 2500, 10)
    np.save(tmp_path / 'features.npy', features.astype(np.float16))
    stored = np.load(tmp_path / 'features.npy', mmap_mode='r')
    np.testing.assert_array_equal(
        SphericalKMeans(10)(stored, None, 0),
        SphericalKMeans(10)(features.astype(np.float16).astype(np.float32), None, 0),
    )


def test_fewer_samples_than_clusters_are_a_user_error():
    with pytest.raises(
        UserError, match=r'num_clusters is 5, but the dataset has only 4 samples; lower it'
    ):
        SphericalKMeans(5)(lumps(0, 4, 2)[0], None, 0)


@pytest.mark.parametrize(
    'options',
    [dict(num_clusters=0), dict(num_clusters=2.5), dict(num_clusters=True), dict(iterations=0)],
)
def test_senseless_options_are_a_user_error(options):
    with pytest.raises(UserError, match='must be a whole number of at least 1'):
        SphericalKMeans(**options)


def test_rows_are_read_as_unit_float32_and_blank_ones_are_marked():
    features = np.array(
        [[3, 4], [0, 0], [np.inf, 0], [np.nan, 1], [1e30, 0], [0.6, 0.8]], np.float32
    )
    before = features.copy()
    rows, blank = read_rows(features, np.array([5, 0, 1, 2, 3, 4]))
    np.testing.assert_array_equal(blank, [False, False, True, True, True, True])
    np.testing.assert_allclose(rows[:2], [[0.6, 0.8], [0.6, 0.8]])
    assert (rows[2:] == 0).all()
    np.testing.assert_array_equal(features, before)


def resident_megabytes():
    """Of mapped files."""
    [line] = [
        line
        for line in Path('/proc/self/status').read_text().splitlines()
        if line.startswith('RssFile')
    ]
    return int(line.split()[1]) / 1024


def test_dropped_pages_leave_the_process_and_are_read_again(tmp_path):
    array = np.random.default_rng(0).random((4096, 1024), np.float32)
    np.save(tmp_path / 'features.npy', array)
    mapped = np.load(tmp_path / 'features.npy', mmap_mode='r')
    assert mapped.sum() == array.sum()
    before = resident_megabytes()
    drop_pages(mapped[1:].astype(np.float16).view(np.uint16))  # a copy
    assert resident_megabytes() > before - 1
    drop_pages(np.asarray(mapped)[1:])
    assert resident_megabytes() < before - 15
    np.testing.assert_array_equal(mapped, array)
    changed = np.load(tmp_path / 'features.npy', mmap_mode='c')
    changed[0] = 7
    drop_pages(changed)
    assert (changed[0] == 7).all()


def test_snapped_similarities_are_clipped_and_forget_the_last_bits():
    values = snap(
        np.array([1 + 1e-7, 1 - 1e-7, -1.5, 0.25, 0.25 + 1e-7, np.float32(1 / 3)], np.float32)
    )
    assert values[:5].tolist() == [1, 1, -1, 0.25, 0.25]
    assert abs(values[5] - 1 / 3) < 2**-21


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 70000), max_size=50))
def test_cluster_members_are_ascending_and_complete(labels):
    members = cluster_members(np.array(labels, np.int32))
    assert len(members) == max(labels, default=-1) + 1
    for label in set(labels):
        np.testing.assert_array_equal(
            members[label], [i for i, other in enumerate(labels) if other == label]
        )
    assert sum(map(len, members)) == len(labels)


def test_fixed_clusters_are_scenes_folders_or_datasets():
    pool = make_pool(
        scenes=('s2', 's1', 's2', 's3'),
        folders=['CAM_BACK', 'CAM_BACK', 'CAM_FRONT', 'CAM_BACK'],
        dataset_index=[1, 1, 0, 0],
    )
    for column, expected in (
        ('scene', [0, 1, 0, 2]),
        ('folder', [0, 0, 1, 0]),
        ('dataset', [0, 0, 1, 1]),
    ):
        assignment = FixedClusterer(column)(None, pool, 0)
        assert assignment.dtype == np.int32 and assignment.tolist() == expected


@pytest.mark.parametrize('suffix', ['parquet', 'csv'])
def test_fixed_clusters_are_read_from_a_file_in_the_order_of_the_samples(tmp_path, suffix):
    path = tmp_path / f'table.{suffix}'
    if suffix == 'csv':
        path.write_text('sample_id,camera\n0003,left\n0001,right\n0002,left\n9999,none\n')
    else:
        pq.write_table(
            pa.table(
                {
                    'sample_id': ['0003', '0001', '0002', '9999'],
                    'camera': ['left', 'right', 'left', 'none'],
                }
            ),
            path,
        )
    assert FixedClusterer('camera', str(path))(
        None, make_pool(['0001', '0002', '0003']), 0
    ).tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('sample_id,group\na,1\n', r"has no column 'cluster'; it has: sample_id, group"),
        ('sample_id,cluster\na,1\nb,2\n', r"has no 'cluster' for 2 of 4 samples, for example 'c'"),
        (
            'sample_id,cluster\na,1\na,2\nb,1\nc,1\nd,1\n',
            r"has two values of 'cluster' for sample 'a'",
        ),
        ('sample_id,cluster\na,1\nb\n', 'cannot be read as a table'),
        ('', 'cannot be read as a table'),
        (None, 'does not exist'),
    ],
)
def test_files_that_do_not_say_every_cluster_are_a_user_error(tmp_path, text, message):
    path = tmp_path / 'clusters.csv'
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        FixedClusterer('cluster', str(path))(None, make_pool(), 0)
    assert '\n' not in str(error.value) and str(path) in str(error.value)


def test_a_broken_parquet_file_is_a_user_error(tmp_path):
    path = tmp_path / 'clusters.parquet'
    path.write_bytes(b'PAR1 no table')
    with pytest.raises(UserError, match='cannot be read as a table'):
        FixedClusterer('cluster', str(path))(None, make_pool(), 0)


def test_a_missing_column_is_a_user_error():
    with pytest.raises(UserError, match='must be one of scene, dataset, folder, or come with'):
        FixedClusterer('camera')
    with pytest.raises(UserError, match='the annotation files name no scenes'):
        FixedClusterer('scene')(None, make_pool(), 0)
