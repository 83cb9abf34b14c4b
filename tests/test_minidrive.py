"""MiniDrive: the world, what its cameras see, its pictures and its COCO layout."""

import fcntl
import hashlib
import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from adadedup_mm.base.errors import UserError
from adadedup_mm.cli.make_minidrive import main
from adadedup_mm.minidrive import build
from adadedup_mm.minidrive.build import WorldOptions, make_world
from adadedup_mm.minidrive.cameras import HEIGHT, RIG, WIDTH, look
from adadedup_mm.minidrive.geometry import (
    box_corners,
    pose_matrix,
    quaternion,
    transform,
    transform_boxes,
)
from adadedup_mm.minidrive.render import make_stage, paint
from adadedup_mm.minidrive.traffic import CLASSES
from adadedup_mm.minidrive.world import KINDS, MOST_SCENES, make_scene, nuscenes_name, scene_plan

SMALL = WorldOptions(scenes=6, frames=2, seed=3, formats=('coco',))
EGO = np.zeros(3)

angles = st.floats(-3.1, 3.1)
boxes = st.tuples(
    st.floats(-40, 40),
    st.floats(-40, 40),
    st.floats(-2, 2),
    st.floats(0.3, 12),
    st.floats(0.3, 3),
    st.floats(0.5, 4),
    angles,
).map(lambda values: np.array([values]))


def tree(folder: Path) -> dict[str, str]:
    """Hashes of all files below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


@pytest.fixture(scope='module')
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('minidrive') / 'world'
    assert make_world(out, SMALL, workers=1)
    return out


def test_any_number_of_workers_writes_the_same_bytes(world, tmp_path):
    make_world(tmp_path / 'other', SMALL, workers=2)
    assert tree(tmp_path / 'other') == tree(world)


def test_a_scene_does_not_depend_on_the_number_of_scenes(world, tmp_path):
    make_world(tmp_path / 'more', replace(SMALL, scenes=8), workers=1)
    more = tree(tmp_path / 'more')
    pictures = {
        name: digest for name, digest in tree(world).items() if name.startswith('coco/images')
    }
    assert len(pictures) == 12
    assert pictures.items() <= more.items()
    few, many = (
        json.loads((folder / 'coco/annotations/instances_train.json').read_text())
        for folder in (world, tmp_path / 'more')
    )
    assert few['images'] == many['images'][: len(few['images'])]
    assert few['annotations'] == many['annotations'][: len(few['annotations'])]


def test_another_seed_is_another_world(world):
    here, there = (make_scene(seed, 0, 1) for seed in (3, 4))
    assert not np.array_equal(here.ego, there.ego)
    assert not np.array_equal(
        paint(make_stage(here), 0, RIG[0], 0), paint(make_stage(there), 0, RIG[0], 0)
    )


def test_every_world_trains_on_all_kinds_and_validates_without_duplicates():
    plans = [scene_plan(index) for index in range(200)]
    for count in range(build.LEAST_SCENES, 200):
        train, val = (
            {kind for kind, _, split in plans[:count] if split == wanted}
            for wanted in ('train', 'val')
        )
        assert train == set(KINDS)
        assert val
        assert 'parked' not in val
    assert {kind for kind, _, split in plans[:12] if split == 'val'} == set(KINDS) - {'parked'}
    assert {night for _, night, split in plans[:12] if split == 'val'} == {False, True}


@pytest.mark.parametrize('scenes, frames', [(12, 20), (24, 20), (50, 30), (200, 30)])
def test_about_a_third_of_the_training_samples_are_duplicates(scenes, frames):
    train = [kind for kind, _, split in map(scene_plan, range(scenes)) if split == 'train']
    assert 0.25 < train.count('parked') * (frames - 1) / (len(train) * frames) < 0.37


def test_scene_names_are_those_of_the_official_splits():
    splits = pytest.importorskip('nuscenes.utils.splits').create_splits_scenes()
    orders: Counter[str] = Counter()
    names = set()
    for index in range(MOST_SCENES):
        split = scene_plan(index)[2]
        name = nuscenes_name(index, orders[split], split)
        orders[split] += 1
        assert name in splits[split]
        names.add(name)
    assert len(names) == MOST_SCENES


def test_every_class_can_be_learned_and_is_validated():
    found: dict[str, Counter[str]] = dict(train=Counter(), val=Counter())
    for index in range(12):
        scene = make_scene(0, index, 10)
        for frame in range(len(scene)):
            objects = scene.objects(frame)
            seen = look(RIG[0], scene.ego[frame], objects.boxes)
            found[scene.split].update(CLASSES[label] for label in objects.labels[seen.labelled])
    assert set(found['train']) == set(found['val']) == set(CLASSES)
    assert all(number >= 5 for counts in found.values() for number in counts.values())


def test_nothing_moves_in_a_parked_scene_but_the_sensor_is_noisy():
    scene = make_scene(0, 1, 3)
    assert scene.kind == 'parked'
    assert (
        np.ptp(scene.poses, axis=0).max()
        == np.ptp(scene.ego, axis=0).max()
        == np.abs(scene.velocities).max()
        == 0
    )
    stage = make_stage(scene)
    first, second = (paint(stage, frame, RIG[0], 0).astype(float) for frame in (0, 1))
    assert 0 < np.abs(first - second).mean() < 4


def test_the_camera_stands_still_in_a_fixed_scene_while_small_objects_move():
    scene = make_scene(0, 2, 8)
    assert scene.kind == 'fixed'
    assert np.ptp(scene.ego, axis=0).max() == 0
    seen = [look(RIG[0], scene.ego[frame], scene.objects(frame).boxes) for frame in range(8)]
    moving = [np.hypot(*scene.objects(frame).velocities.T) > 0 for frame in range(8)]
    heights = np.concatenate(
        [
            (view.boxes[:, 3] - view.boxes[:, 1])[view.labelled & moves]
            for view, moves in zip(seen, moving, strict=True)
        ]
    )
    assert len(heights) > 8
    assert heights.max() < 40


def test_velocities_are_those_of_the_tracks():
    scene = make_scene(0, 0, 5)
    seconds = np.diff(scene.timestamps)[:, None, None] / 1e6
    middle = (scene.velocities[1:] + scene.velocities[:-1]) / 2
    steady = scene.present[1:] & scene.present[:-1]
    assert np.abs(np.diff(scene.poses[..., :2], axis=0) / seconds - middle)[steady].max() < 0.5


@settings(max_examples=60, deadline=None)
@given(boxes, st.floats(-50, 50), st.floats(-50, 50), angles)
def test_boxes_and_their_corners_move_alike(box, x, y, yaw):
    pose = pose_matrix(x, y, yaw, 1.0)
    np.testing.assert_allclose(
        box_corners(transform_boxes(pose, box)), transform(pose, box_corners(box)), atol=1e-9
    )


@settings(max_examples=60, deadline=None)
@given(angles, angles, angles)
def test_quaternions_give_back_their_rotation(a, b, c):
    turns = [pose_matrix(0, 0, angle)[:3, :3] for angle in (a, b, c)]
    swap = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
    rotation = turns[0] @ swap @ turns[1] @ swap @ turns[2]
    w, x, y, z = quaternion(rotation)
    assert w >= 0
    again = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    np.testing.assert_allclose(again, rotation, atol=1e-7)


@settings(max_examples=100, deadline=None)
@given(boxes)
def test_seen_boxes_lie_in_the_picture_and_bound_the_corners(box):
    seen = look(RIG[0], EGO, box)
    x1, y1, x2, y2 = seen.boxes[0]
    assert 0 <= x1 <= x2 <= WIDTH
    assert 0 <= y1 <= y2 <= HEIGHT
    assert 0 <= seen.inside[0] <= 1
    assert 0 <= seen.visibility[0] <= 1
    corners = transform(np.linalg.inv(RIG[0].cam2ego), box_corners(box))[0]
    if corners[:, 2].min() > 0.5 and seen.inside[0] > 0.9999:
        flat = corners @ RIG[0].intrinsic.T
        flat = flat[:, :2] / flat[:, 2:]
        np.testing.assert_allclose(
            [x1, y1, x2, y2], [*flat.min(axis=0), *flat.max(axis=0)], atol=1e-2
        )


def test_hidden_and_passed_boxes_are_not_labelled():
    wall, behind_wall = [10.0, 0, 1.5, 0.5, 8, 3, 0], [20.0, 0, 0.8, 4, 2, 1.6, 0]
    seen = look(RIG[0], EGO, np.array([wall, behind_wall, [-20.0, 0, 0.8, 4, 2, 1.6, 0]]))
    assert seen.labelled.tolist() == [True, False, False]
    assert seen.visibility[1] < 0.05
    assert look(RIG[0], EGO, np.array([behind_wall])).labelled.all()
    assert look(RIG[3], EGO, np.array([[-20.0, 0, 0.8, 4, 2, 1.6, 0]])).labelled.all()


@pytest.mark.parametrize('index', [0, 5, 6])
def test_an_object_is_painted_inside_its_box(index):
    scene = make_scene(0, index, 3)
    objects = scene.objects(1)
    seen = look(RIG[0], scene.ego[1], objects.boxes)
    whole = paint(make_stage(scene), 1, RIG[0], 0).astype(int)
    checked = 0
    for i in np.flatnonzero(seen.labelled):
        present = scene.present.copy()
        present[1, objects.actors[i]] = False
        without = paint(make_stage(replace(scene, present=present)), 1, RIG[0], 0).astype(int)
        rows, columns = np.nonzero(np.abs(whole - without).max(axis=2) > 3)
        x1, y1, x2, y2 = seen.boxes[i]
        assert len(rows) > 0.2 * seen.visibility[i] * (x2 - x1) * (y2 - y1)
        assert columns.min() >= x1 - 2
        assert columns.max() <= x2 + 2
        assert rows.min() >= y1 - 2
        assert rows.max() <= y2 + 2
        checked += 1
    assert checked >= 3


def test_nights_are_darker():
    day = make_scene(0, 0, 1)
    bright, dark = (
        paint(make_stage(replace(day, night=night)), 0, RIG[0], 0).mean() for night in (False, True)
    )
    assert dark < 0.6 * bright


def test_the_coco_files_load_and_are_sound(world):
    for split in ('train', 'val'):
        coco = COCO(world / f'coco/annotations/instances_{split}.json')
        assert [category['name'] for category in coco.loadCats([1, 2, 3, 4, 5, 6])] == list(CLASSES)
        assert len(coco.anns) == len(coco.dataset['annotations']) > 0
        for image in coco.dataset['images']:
            picture = cv2.imread(str(world / 'coco/images' / image['file_name']))
            assert picture.shape == (image['height'], image['width'], 3) == (HEIGHT, WIDTH, 3)
        for annotation in coco.dataset['annotations']:
            x, y, width, height = annotation['bbox']
            assert min(width, height) > 4.9
            assert min(x, y) >= 0
            assert x + width <= WIDTH + 0.01
            assert y + height <= HEIGHT + 0.01
            assert annotation['area'] == pytest.approx(width * height, abs=0.01)
            assert annotation['image_id'] in coco.imgs


def test_the_truth_names_every_picture_and_its_duplicates(world):
    truth = pq.read_table(world / 'truth.parquet').to_pandas()
    images = [
        image
        for split in ('train', 'val')
        for image in json.loads((world / f'coco/annotations/instances_{split}.json').read_text())[
            'images'
        ]
    ]
    assert {
        (str(image['id']), image['file_name'], image['scene'], image['camera']) for image in images
    } == set(zip(truth.sample_id, truth.file_name, truth.scene, truth.camera, strict=True))
    assert truth.sample_id.is_unique
    parked = truth[truth.kind == 'parked']
    assert (truth.duplicate_group[truth.kind != 'parked'] == -1).all()
    assert (parked.groupby('scene').duplicate_group.nunique() == 1).all()
    assert (truth.is_duplicate == ((truth.kind == 'parked') & (truth.frame_idx > 0))).all()
    assert set(parked.split) == {'train'}


def test_all_cameras_are_images_of_their_own(world, tmp_path):
    options = replace(SMALL, frames=1, cameras='all')
    make_world(tmp_path / 'all', options, workers=1)
    train = json.loads((tmp_path / 'all/coco/annotations/instances_train.json').read_text())
    assert Counter(image['camera'] for image in train['images']) == {
        camera.name: 5 for camera in RIG
    }
    truth = pq.read_table(tmp_path / 'all/truth.parquet').to_pandas()
    assert (truth[truth.kind == 'parked'].groupby('camera').duplicate_group.nunique() == 1).all()
    assert truth[truth.kind == 'parked'].duplicate_group.nunique() == 6


@pytest.mark.parametrize(
    'changes, words',
    [
        (dict(scenes=5), ('--scenes', '5', 'at least 6')),
        (dict(frames=0), ('--frames', '0')),
        (dict(seed=-1), ('--seed', '-1')),
        (dict(formats=('voc',)), ('--formats', 'voc', 'coco')),
        (dict(scenes=MOST_SCENES + 1, formats=('nuscenes',)), ('--scenes', str(MOST_SCENES))),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path, changes, words):
    with pytest.raises(UserError) as caught:
        make_world(tmp_path / 'out', replace(SMALL, **changes))
    assert all(word in str(caught.value) for word in words)
    assert '\n' not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_world_is_reused_only_for_the_same_options(world):
    before = {path: path.stat().st_mtime_ns for path in world.rglob('*')}
    assert not make_world(world, SMALL)
    for change in (
        dict(seed=4),
        dict(frames=3),
        dict(cameras='all'),
        dict(formats=('coco', 'kitti')),
    ):
        with pytest.raises(UserError, match=next(iter(change))):
            make_world(world, replace(SMALL, **change))
    assert before == {path: path.stat().st_mtime_ns for path in world.rglob('*')}


@pytest.mark.parametrize('content', [None, '', '[]', '{"seed": 3}'])
def test_other_peoples_folders_are_left_alone(tmp_path, content):
    out = tmp_path / 'mine'
    out.mkdir()
    (out / 'thesis.tex').write_text('x')
    if content is not None:
        (out / 'minidrive.json').write_text(content)
    with pytest.raises(UserError, match='mine exists and is not a MiniDrive world'):
        make_world(out, SMALL)
    assert (out / 'thesis.tex').read_text() == 'x'
    assert [path.name for path in tmp_path.iterdir()] == ['mine']


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError('No space left on device')

    monkeypatch.setattr(build, 'write_coco', fail)
    with pytest.raises(OSError, match='space'):
        make_world(tmp_path / 'out', replace(SMALL, frames=1), workers=1)
    assert not list(tmp_path.iterdir())


def test_leftovers_of_a_killed_run_do_not_enter_the_next(world, tmp_path):
    partial = tmp_path / '.out.partial'
    (partial / 'coco').mkdir(parents=True)
    (partial / 'coco' / 'half.jpg').write_text('x')
    (tmp_path / 'out').mkdir()
    make_world(tmp_path / 'out', SMALL, workers=1)
    assert tree(tmp_path / 'out') == tree(world)
    assert [path.name for path in tmp_path.iterdir()] == ['out']


def test_two_processes_do_not_write_one_folder(tmp_path):
    partial = tmp_path / '.out.partial'
    partial.mkdir()
    lock = os.open(partial, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(UserError, match='another process'):
        make_world(tmp_path / 'out', SMALL)
    os.close(lock)


def test_the_command_line_ends_with_the_right_codes(world, capsys):
    flags = ['--scenes', '6', '--frames', '2', '--seed', '3', '--formats', 'coco']
    main([str(world), *flags])
    assert 'already there' in capsys.readouterr().out
    for wrong in (['--seed', '9'], ['--workers', '0'], ['--frames', '0']):
        with pytest.raises(SystemExit) as caught:
            main([str(world), *flags, *wrong])
        assert caught.value.code == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
