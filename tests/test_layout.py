"""The label layout: what the annotations say about redundancy."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adadedup_mm.density import joint_features, layout_features
from adadedup_mm.feedback import initial_set

ROOT = Path(__file__).parents[1]
SIZE = (180, 320)


def layouts(*samples: list[tuple[int, float, float, float, float]]) -> np.ndarray:
    """Features of samples given as lists of (kind, x1, y1, x2, y2)."""
    owner = np.repeat(np.arange(len(samples)), [len(objects) for objects in samples])
    rows = np.array([row for objects in samples for row in objects], np.float64).reshape(-1, 5)
    return layout_features(owner, rows[:, 0].astype(np.int64), rows[:, 1:], np.tile(SIZE, (len(rows), 1)), len(samples))


def similarity(*samples: list[tuple[int, float, float, float, float]]) -> np.ndarray:
    features = layouts(*samples)
    return features @ features.T


CAR, SAME_BUS = (0, 10, 20, 60, 50), (1, 10, 20, 60, 50)
boxes = st.tuples(st.integers(0, 3), st.floats(0, 200), st.floats(0, 100), st.floats(210, 320), st.floats(110, 180))


def test_the_same_objects_are_one_and_other_ones_are_less():
    moved = (0, 42, 20, 92, 50)
    table = similarity([CAR, SAME_BUS], [SAME_BUS, CAR], [CAR], [moved], [SAME_BUS])
    assert table[0, 1] == pytest.approx(1, abs=1e-6)
    assert table[2, 3] < .7 and table[2, 4] < .7


def test_the_further_an_object_moves_the_less_similar():
    path = [[(0, 10 + step, 20, 60 + step, 50)] for step in (0, 4, 8, 16, 32)]
    assert (np.diff(similarity(*path)[0]) < 0).all()


def test_the_similarity_of_two_boxes_is_the_documented_kernel():
    """Two single objects: (k + 1) / 2, with the constant; the random features are good to about 1 / sqrt(256)."""
    shift = .05 * SIZE[1]
    seen = similarity([CAR], [(0, 10 + shift, 20, 60 + shift, 50)])[0, 1]
    assert seen == pytest.approx((np.exp(-.5) + 1) / 2, abs=.08)


def test_samples_without_objects_equal_each_other_only():
    table = similarity([], [], [CAR, SAME_BUS])
    assert table[0, 1] == 1 and table[0, 2] < .8


def test_objects_without_a_box_are_passed_over():
    nan = float('nan')
    np.testing.assert_array_equal(layouts([CAR, (1, nan, nan, nan, nan)]), layouts([CAR]))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(boxes, max_size=5), min_size=1, max_size=6))
def test_rows_are_unit_vectors_and_do_not_depend_on_their_neighbours(samples):
    features = layouts(*samples)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    # The same kinds must be known for the same random signs.
    np.testing.assert_allclose(layouts(*samples[::-1])[::-1], features, atol=1e-5)


def test_joint_features_mix_the_two_cosines_and_keep_blank_rows_blank():
    generator = np.random.default_rng(0)
    images = generator.normal(size=(6, 8)).astype(np.float32)
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    images[5] = 0
    layout = layouts([CAR], [SAME_BUS], [CAR, SAME_BUS], [], [CAR], [CAR])
    joint = joint_features(images, layout, .3)
    np.testing.assert_allclose((joint @ joint.T)[:5, :5], .7 * (images @ images.T)[:5, :5]
                               + .3 * (layout @ layout.T)[:5, :5], atol=1e-6)
    assert not joint[5].any()


@pytest.fixture(scope='module')
def run(world, tmp_path_factory):
    from adadedup_mm.config import load_config
    from adadedup_mm.datasets import read_pool
    from adadedup_mm.options import resolve_options
    from adadedup_mm.run import Run
    from adadedup_mm.stages import StageStore
    folder = tmp_path_factory.mktemp('layout')
    (folder / 'config.py').write_text(
        f"_base_ = ['{ROOT}/configs/minidrive/faster_rcnn_minidrive.py', '{ROOT}/configs/_base_/adadedup_offline.py']\n"
        f"train_dataloader = dict(dataset=dict(data_root='{world}/coco/'))\n")
    config = load_config(folder / 'config.py')
    pool, sources = read_pool(config)
    return Run(config, resolve_options(config), StageStore(folder / 'stages', 0, 1), pool, sources)


def test_a_fixed_camera_keeps_more_frames_than_to_the_eye_of_the_embedding(run, world):
    """Its objects change before the same backdrop; a parked car's frames differ by noise alone and go in any case."""
    truth = pq.read_table(world / 'truth.parquet').to_pandas().set_index('sample_id')
    kind = truth.loc[list(run.pool.sample_ids), 'kind'].to_numpy()

    def kept(layout: float) -> dict[str, float]:
        chosen, _ = initial_set(run.density(layout)[1], .6)
        return {name: chosen[kind == name].mean() for name in ('fixed', 'parked')}

    assert kept(.3)['fixed'] > kept(0)['fixed'] + .15
    assert kept(.3)['parked'] <= kept(0)['parked']


def test_layouts_make_scores_of_their_own_stage(run):
    assert not np.array_equal(run.density(.3)[1], run.density(0)[1])
    np.testing.assert_array_equal(run.density(.3)[1], run.density(.3)[1])
    assert run.compared(.3).shape == (len(run.pool), run.features.shape[1] + 257)
