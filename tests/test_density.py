"""Density scores and partners against brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adadedup_mm.base.errors import UserError
from adadedup_mm.density import KCenter, SemDeDup, kcenter_scores, nearest_kept, semdedup_scores

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 60)
cluster_counts = st.integers(1, 5)
exact_only = settings(max_examples=60, deadline=None)


def exact_features(seed: int, n: int, d: int = 8) -> np.ndarray:
    """Unit rows whose products are multiples of 1/4 in any order of summation; many are tied."""
    generator = np.random.default_rng(seed)
    rows = np.zeros((n, d), np.float32)
    for row in rows:
        row[generator.choice(d, 4, replace=False)] = generator.choice([-0.5, 0.5], 4, p=[0.2, 0.8])
    return rows


def smooth_features(seed: int, n: int, d: int = 16, lumps: int = 8) -> np.ndarray:
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(lumps, d))[
        generator.integers(0, lumps, n)
    ] + 0.3 * generator.normal(size=(n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def some_clusters(seed: int, n: int, k: int) -> np.ndarray:
    return np.random.default_rng([seed, 1]).integers(0, k, n).astype(np.int32)


def in_order(order: np.ndarray, members: np.ndarray) -> np.ndarray:
    """The members of a cluster as the order has them; fails if positions are not 0..n-1."""
    assert sorted(order[members]) == list(range(len(members)))
    return members[np.argsort(order[members])]


def nearest_earlier(features: np.ndarray, sequence: np.ndarray) -> np.ndarray:
    similarity = features[sequence].astype(np.float64) @ features[sequence].astype(np.float64).T
    return np.array([-1 if not j else similarity[:j, j].max() for j in range(len(sequence))])


def centrality(rows: np.ndarray) -> np.ndarray:
    return rows.astype(np.float64) @ rows.astype(np.float64).sum(0)


@exact_only
@given(seeds, sizes, cluster_counts, st.sampled_from(['hard', 'easy', 'random']))
def test_semdedup_scores_are_the_similarity_to_the_nearest_earlier_sample(seed, n, k, kind):
    features, assignment = exact_features(seed, n), some_clusters(seed, n, k)
    order, similarity = semdedup_scores(features, assignment, kind, seed)
    assert order.dtype == np.int32 and similarity.dtype == np.float32
    for cluster in np.unique(assignment):
        sequence = in_order(order, np.flatnonzero(assignment == cluster))
        np.testing.assert_array_equal(similarity[sequence], nearest_earlier(features, sequence))


@exact_only
@given(seeds, sizes)
def test_semdedup_goes_from_the_farthest_to_the_centroid_or_back_with_ties_by_index(seed, n):
    features, assignment = exact_features(seed, n), np.zeros(n, np.int32)
    closeness = centrality(features)
    hard = in_order(semdedup_scores(features, assignment, 'hard')[0], np.arange(n))
    easy = in_order(semdedup_scores(features, assignment, 'easy')[0], np.arange(n))
    np.testing.assert_array_equal(hard, np.lexsort((np.arange(n), closeness)))
    np.testing.assert_array_equal(easy, np.lexsort((np.arange(n), -closeness)))


def test_semdedup_random_order_follows_the_seed():
    features, assignment = smooth_features(0, 50), np.zeros(50, np.int32)
    first, again, other = (
        semdedup_scores(features, assignment, 'random', seed)[0] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@exact_only
@given(seeds, sizes, cluster_counts)
def test_kcenter_is_the_farthest_first_traversal_from_the_most_central_sample(seed, n, k):
    features, assignment = exact_features(seed, n), some_clusters(seed, n, k)
    order, similarity = kcenter_scores(features, assignment)
    for cluster in np.unique(assignment):
        members = np.flatnonzero(assignment == cluster)
        expected = [members[centrality(features[members]).argmax()]]
        scores = [-1.0]
        while len(expected) < len(members):
            nearest = (features[members] @ features[expected].T).max(1)
            nearest[np.isin(members, expected)] = 9
            expected.append(members[nearest.argmin()])
            scores.append(nearest.min())
        np.testing.assert_array_equal(in_order(order, members), expected)
        np.testing.assert_array_equal(similarity[expected], scores)


@pytest.mark.parametrize(
    'features',
    [
        smooth_features(0, 3000),
        smooth_features(1, 2500, lumps=700),
        exact_features(2, 2000, 16),
        np.repeat(smooth_features(3, 30), 60, axis=0),
    ],
    ids=['lumps', 'fine', 'ties', 'copies'],
)
def test_kcenter_picks_a_farthest_sample_every_time_in_large_clusters(features):
    order, similarity = kcenter_scores(features, np.zeros(len(features), np.int32))
    sequence = in_order(order, np.arange(len(features)))
    assert (np.diff(similarity[sequence]) >= 0).all()
    nearest = np.full(len(features), -np.inf)
    for earlier, sample in itertools.pairwise(sequence):
        nearest = np.maximum(nearest, features @ features[earlier])
        nearest[earlier] = np.inf
        assert nearest[sample] == pytest.approx(similarity[sample], abs=2e-6)
        assert nearest[sample] <= nearest.min() + 2e-6


@exact_only
@given(seeds, sizes, cluster_counts, st.floats(-1, 1))
def test_kcenter_leaves_each_pruned_sample_a_kept_partner_as_similar_as_the_threshold(
    seed, n, k, tau
):
    features, assignment = smooth_features(seed, n), some_clusters(seed, n, k)
    _, similarity = kcenter_scores(features, assignment)
    kept = similarity <= tau
    partner, closeness = nearest_kept(features, assignment, kept)
    assert (partner[~kept] >= 0).all()
    assert (closeness[~kept] >= tau - 2e-6).all()
    assert (assignment[partner[~kept]] == assignment[~kept]).all()


@exact_only
@given(seeds, sizes, cluster_counts, st.booleans())
def test_partners_are_the_most_similar_kept_samples_of_the_cluster_or_of_all(seed, n, k, sparse):
    features, assignment = exact_features(seed, n), some_clusters(seed, n, k)
    kept = np.random.default_rng([seed, 2]).random(n) < (0.1 if sparse else 0.6)
    partner, similarity = nearest_kept(features, assignment, kept)
    assert (partner[kept] == -1).all() and np.isnan(similarity[kept]).all()
    for sample in np.flatnonzero(~kept):
        pool = np.flatnonzero(kept & (assignment == assignment[sample]))
        pool = pool if len(pool) else np.flatnonzero(kept)
        if not len(pool):
            assert partner[sample] == -1 and np.isnan(similarity[sample])
            continue
        closeness = features[pool] @ features[sample]
        assert partner[sample] == pool[closeness.argmax()]
        assert similarity[sample] == closeness.max()


def test_partners_outside_the_cluster_are_found_across_blocks():
    features = smooth_features(0, 9000, 8)
    assignment = (np.arange(9000) % 2).astype(np.int32)
    kept = assignment == 1
    kept[:100] = False
    partner, similarity = nearest_kept(features, assignment, kept)
    for sample in (0, 1, 4000, 8998):
        closeness = features[kept] @ features[sample]
        assert similarity[sample] == pytest.approx(closeness.max(), abs=2e-6)
        assert features[partner[sample]] @ features[sample] == pytest.approx(
            closeness.max(), abs=2e-6
        )


@pytest.mark.parametrize('score', [semdedup_scores, kcenter_scores])
def test_scores_and_partners_do_not_depend_on_the_number_of_workers(score):
    features, assignment = smooth_features(4, 2000, 96), some_clusters(4, 2000, 7)
    results = [score(features, assignment, workers=workers) for workers in (1, 2, 5)]
    kept = results[0][1] < 0.9
    results = [
        (*result, *nearest_kept(features, assignment, kept, workers))
        for result, workers in zip(results, (1, 2, 5), strict=True)
    ]
    for result in results[1:]:
        for one, other in zip(results[0], result, strict=True):
            np.testing.assert_array_equal(one, other)


def test_semdedup_scores_do_not_depend_on_the_block_size():
    features, assignment = smooth_features(5, 1500, 96), some_clusters(5, 1500, 3)
    order, similarity = semdedup_scores(features, assignment)
    for block in (31, 64, 5000):
        other_order, other = semdedup_scores(features, assignment, block=block)
        np.testing.assert_array_equal(order, other_order)
        np.testing.assert_allclose(similarity, other, atol=1e-6)


@pytest.mark.parametrize('score', [semdedup_scores, kcenter_scores])
def test_scores_follow_the_samples_when_these_are_shuffled(score):
    features, assignment = smooth_features(6, 400, 32), some_clusters(6, 400, 4)
    shuffle = np.random.default_rng(0).permutation(400)
    order, similarity = score(features, assignment)
    shuffled_order, shuffled = score(features[shuffle], assignment[shuffle])
    np.testing.assert_array_equal(order[shuffle], shuffled_order)
    np.testing.assert_allclose(similarity[shuffle], shuffled, atol=1e-6)


@pytest.mark.parametrize('score', [semdedup_scores, kcenter_scores])
def test_zero_and_nan_features_are_never_redundant(score):
    features, assignment = smooth_features(7, 40), some_clusters(7, 40, 2)
    features[3] = 0
    features[11, 2] = np.nan
    features[12] = np.inf
    order, similarity = score(features, assignment)
    blank = [3, 11, 12]
    assert (similarity[blank] == -1).all() and np.isfinite(similarity).all()
    for cluster in (0, 1):
        members = np.flatnonzero(assignment == cluster)
        sequence = in_order(order, members)
        own = [sample for sample in blank if sample in members]
        np.testing.assert_array_equal(sequence[: len(own)], own)
        clean = sequence[len(own) :]
        np.testing.assert_allclose(similarity[clean], nearest_earlier(features, clean), atol=2e-6)
    kept = np.zeros(40, bool)
    kept[[3, 20]] = True
    partner, _ = nearest_kept(features, np.zeros(40, np.int32), kept)
    assert (partner[[11, 12]] == -1).all()
    assert set(partner[~kept]) == {-1, 20}


@pytest.mark.parametrize('score', [semdedup_scores, kcenter_scores])
def test_identical_samples_by_the_thousand_score_one_and_go_by_index(score):
    features = np.repeat(smooth_features(8, 1, 512), 3000, axis=0)
    order, similarity = score(features, np.zeros(3000, np.int32))
    np.testing.assert_array_equal(order, np.arange(3000))
    assert similarity[0] == -1 and (similarity[1:] == 1).all()


@pytest.mark.parametrize('score', [semdedup_scores, kcenter_scores])
@pytest.mark.parametrize('n', [0, 1])
def test_no_sample_and_one_sample_are_legal(score, n):
    order, similarity = score(smooth_features(9, n), np.zeros(n, np.int32))
    assert order.tolist() == [0] * n and similarity.tolist() == [-1] * n


def test_clusters_of_one_and_empty_clusters_are_legal():
    assignment = np.array([5, 2, 9], np.int32)
    for score in (semdedup_scores, kcenter_scores):
        order, similarity = score(smooth_features(10, 3), assignment)
        assert order.tolist() == [0, 0, 0] and similarity.tolist() == [-1, -1, -1]


@pytest.mark.parametrize('score', [semdedup_scores, kcenter_scores])
def test_half_precision_features_on_disk_give_nearly_the_same_scores(score, tmp_path):
    features, assignment = smooth_features(11, 300, 64), some_clusters(11, 300, 3)
    np.save(tmp_path / 'features.npy', features.astype(np.float16))
    stored = np.load(tmp_path / 'features.npy', mmap_mode='r')
    in_memory = score(features.astype(np.float16).astype(np.float32), assignment)
    on_disk = score(stored, assignment)
    for one, other in zip(in_memory, on_disk, strict=True):
        np.testing.assert_array_equal(one, other)
    assert on_disk[1].max() <= 1


def test_features_of_any_length_and_their_originals_stay_as_they_are():
    features, assignment = smooth_features(12, 100), np.zeros(100, np.int32)
    scaled = features * np.float32(3)
    before = scaled.copy()
    _, similarity = kcenter_scores(scaled, assignment)
    np.testing.assert_array_equal(scaled, before)
    np.testing.assert_allclose(similarity, kcenter_scores(features, assignment)[1], atol=2e-6)


def test_components_call_the_functions():
    features, assignment = smooth_features(13, 100), some_clusters(13, 100, 2)
    for component, expected in (
        (SemDeDup(order='random'), semdedup_scores(features, assignment, 'random', 3)),
        (SemDeDup(), semdedup_scores(features, assignment)),
        (KCenter(), kcenter_scores(features, assignment)),
    ):
        for one, other in zip(component(features, assignment, seed=3), expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_an_unknown_order_is_a_user_error():
    with pytest.raises(
        UserError, match=r"density\.order is 'harder', but must be one of hard, easy, random"
    ):
        SemDeDup(order='harder')
