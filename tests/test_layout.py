"""The label layout: what the annotations say about redundancy."""

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adadedup_mm.base.files import write_rows
from adadedup_mm.datasets.boxes import labelled_boxes
from adadedup_mm.density import joint_blocks, joint_features, layout, layout_blocks, layout_features
from adadedup_mm.density import stage as density_stage
from adadedup_mm.feedback import initial_set

ROOT = Path(__file__).parents[1]
SIZE = (180, 320)


def layouts(*samples: list[tuple[int, float, float, float, float]]) -> np.ndarray:
    """Features of samples given as lists of (kind, x1, y1, x2, y2)."""
    owner = np.repeat(np.arange(len(samples)), [len(objects) for objects in samples])
    rows = np.array([row for objects in samples for row in objects], np.float64).reshape(-1, 5)
    return layout_features(
        owner, rows[:, 0].astype(np.int64), rows[:, 1:], np.tile(SIZE, (len(rows), 1)), len(samples)
    )


def similarity(*samples: list[tuple[int, float, float, float, float]]) -> np.ndarray:
    features = layouts(*samples)
    return features @ features.T


CAR, SAME_BUS = (0, 10, 20, 60, 50), (1, 10, 20, 60, 50)
boxes = st.tuples(
    st.integers(0, 3),
    st.floats(0, 200),
    st.floats(0, 100),
    st.floats(210, 320),
    st.floats(110, 180),
)


def test_the_same_objects_are_one_and_other_ones_are_less():
    moved = (0, 42, 20, 92, 50)
    table = similarity([CAR, SAME_BUS], [SAME_BUS, CAR], [CAR], [moved], [SAME_BUS])
    assert table[0, 1] == pytest.approx(1, abs=1e-6)
    assert table[2, 3] < 0.7 and table[2, 4] < 0.7


def test_the_further_an_object_moves_the_less_similar():
    path = [[(0, 10 + step, 20, 60 + step, 50)] for step in (0, 4, 8, 16, 32)]
    assert (np.diff(similarity(*path)[0]) < 0).all()


def test_the_similarity_of_two_boxes_is_the_documented_kernel():
    """Two single objects: (k + 1) / 2, with the constant; good to about 1 / sqrt(256)."""
    shift = 0.05 * SIZE[1]
    seen = similarity([CAR], [(0, 10 + shift, 20, 60 + shift, 50)])[0, 1]
    assert seen == pytest.approx((np.exp(-0.5) + 1) / 2, abs=0.08)


def test_samples_without_objects_equal_each_other_only():
    table = similarity([], [], [CAR, SAME_BUS])
    assert table[0, 1] == 1 and table[0, 2] < 0.8


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
    labels = layouts([CAR], [SAME_BUS], [CAR, SAME_BUS], [], [CAR], [CAR])
    joint = joint_features(images, labels, 0.3)
    np.testing.assert_allclose(
        (joint @ joint.T)[:5, :5],
        0.7 * (images @ images.T)[:5, :5] + 0.3 * (labels @ labels.T)[:5, :5],
        atol=1e-6,
    )
    assert not joint[5].any()


def in_one_piece(owner, kind, boxes, sizes, samples, seed):
    """The layouts of all samples at once."""
    generator = np.random.default_rng(seed)
    frequencies = generator.normal(size=(4, layout.DIMENSIONS)).astype(np.float32)
    phases = generator.uniform(0, 2 * np.pi, layout.DIMENSIONS).astype(np.float32)
    signs = generator.choice(
        np.array([-1, 1], np.float32), (int(kind.max(initial=-1)) + 1, layout.DIMENSIONS)
    )
    seen = np.isfinite(boxes).all(axis=1)
    owner, kind, places = owner[seen], kind[seen], layout._places(boxes[seen], sizes[seen])
    rows = np.zeros((samples, layout.DIMENSIONS + 1), np.float32)
    rows[:, -1] = 1
    for start in range(0, len(owner), layout.CHUNK):
        part = slice(start, start + layout.CHUNK)
        waves = np.cos(places[part] @ frequencies + phases) * signs[kind[part]]
        present, first = np.unique(owner[part], return_index=True)
        rows[present, :-1] += np.add.reduceat(waves, first) * np.float32(
            (2 / layout.DIMENSIONS) ** 0.5
        )
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def some_objects(seed, samples, most):
    """Owner, kind, boxes and sizes of up to ``most`` objects a sample; a tenth has no box."""
    generator = np.random.default_rng(seed)
    owner = np.repeat(np.arange(samples), generator.integers(0, most + 1, samples))
    boxes = generator.uniform(0, 100, (len(owner), 4)).astype(np.float32)
    boxes[:, 2:] += boxes[:, :2]
    boxes[generator.random(len(owner)) < 0.1] = np.nan
    return owner, generator.integers(0, 5, len(owner)), boxes, np.tile(SIZE, (len(owner), 1))


# Objects of one sample in several chunks, chunks of several blocks, samples without objects, no
# objects at all.
@pytest.mark.parametrize(
    'samples, most, chunk, rows',
    [
        (3000, 7, 1000, 256),
        (100, 300, 64, 7),
        (2000, 1, 4096, 100),
        (1, 5, 2, 8),
        (64, 0, 8, 8),
        (65, 4, 1000, 64),
    ],
)
def test_blocks_of_joint_vectors_are_the_same_bits_as_all_at_once(
    samples, most, chunk, rows, monkeypatch
):
    monkeypatch.setattr(layout, 'CHUNK', chunk)
    monkeypatch.setattr(layout, 'ROWS', rows)
    objects = some_objects(samples, samples, most)
    images = np.random.default_rng(1).standard_normal((samples, 16)).astype(np.float32)
    images[::7] = 0
    whole = in_one_piece(*objects, samples, seed=3)
    np.testing.assert_array_equal(layout_features(*objects, samples, seed=3), whole)
    blocks = list(joint_blocks(images, layout_blocks(*objects, samples, seed=3), 0.3))
    assert max(map(len, blocks)) <= rows
    np.testing.assert_array_equal(np.concatenate(blocks), joint_features(images, whole, 0.3))


def test_joint_vectors_are_written_in_the_memory_of_some_blocks(tmp_path):
    samples = 100_000
    objects = some_objects(0, samples, 2)
    images = np.zeros((samples, 512), np.float32)
    tracemalloc.start()
    write_rows(
        tmp_path / 'joint.npy',
        (samples, 769),
        joint_blocks(images, layout_blocks(*objects, samples), 0.3),
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / 'joint.npy').stat().st_size > 4 * 769 * samples > 2 * peak


@pytest.fixture(scope='module')
def run(world, tmp_path_factory):
    from adadedup_mm.datasets import read_pool
    from adadedup_mm.settings.load import load_config
    from adadedup_mm.settings.options import resolve_options
    from adadedup_mm.stages import StageStore
    from adadedup_mm.strategies.run import Run

    folder = tmp_path_factory.mktemp('layout')
    (folder / 'config.py').write_text(
        f"_base_ = ['{ROOT}/configs/minidrive/faster_rcnn_minidrive.py', "
        f"'{ROOT}/configs/_base_/adadedup_offline.py']\n"
        f"train_dataloader = dict(dataset=dict(data_root='{world}/coco/'))\n"
    )
    config = load_config(folder / 'config.py')
    pool, sources = read_pool(config)
    return Run(config, resolve_options(config), StageStore(folder / 'stages', 0, 1), pool, sources)


def test_a_fixed_camera_keeps_more_frames_than_to_the_eye_of_the_embedding(run, world):
    """Its objects change before one backdrop; frames of a parked car differ by noise and go."""
    truth = pq.read_table(world / 'truth.parquet').to_pandas().set_index('sample_id')
    kind = truth.loc[list(run.pool.sample_ids), 'kind'].to_numpy()

    def kept(share: float) -> dict[str, float]:
        chosen, _ = initial_set(run.density(share)[1], 0.6)
        return {name: chosen[kind == name].mean() for name in ('fixed', 'parked')}

    assert kept(0.3)['fixed'] > kept(0)['fixed'] + 0.15
    assert kept(0.3)['parked'] <= kept(0)['parked']


def test_layouts_make_scores_of_their_own_stage(run):
    assert not np.array_equal(run.density(0.3)[1], run.density(0)[1])
    np.testing.assert_array_equal(run.density(0.3)[1], run.density(0.3)[1])
    assert run.density_stages.compared(0.3).shape == (len(run.pool), run.features.shape[1] + 257)


def test_vectors_that_are_compared_are_one_mapped_file(run):
    vectors = run.density_stages.compared(0.3)
    assert isinstance(vectors.base, np.memmap) and not vectors.flags.writeable
    labels = layout_features(
        *labelled_boxes(run.pool, run.sources, run.options.views), len(run.pool), run.options.seed
    )
    np.testing.assert_array_equal(vectors, joint_features(np.array(run.features), labels, 0.3))
    assert run.store.record('joint')['bytes'] > 4 * vectors.size


def test_likeness_is_the_same_bits_whatever_is_compared_at_a_time(run, monkeypatch):
    partner = np.random.default_rng(0).integers(-1, len(run.pool), len(run.pool))
    whole = run.density_stages.likeness(partner)
    monkeypatch.setattr(density_stage, '_ROWS', 5)
    np.testing.assert_array_equal(run.density_stages.likeness(partner), whole)
