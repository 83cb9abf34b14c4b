import collections
import copy
import datetime
import itertools
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.config import Config
from PIL import Image
from torchvision.ops import box_iou

pytest.importorskip('mmdet3d')

from mmdet3d.datasets import NuScenesDataset
from mmdet3d.structures import LiDARInstance3DBoxes
from mmengine.registry import DATASETS, DefaultScope
from pruning_runs import read_without_images

import adadedup_mm.models.bevformer
from adadedup_mm.annotations.databases import judge_objects
from adadedup_mm.annotations.frame_index import FrameIndex, InfoPart
from adadedup_mm.annotations.infos import info_records, relink, rewrite_infos
from adadedup_mm.annotations.pickles import load_pickle
from adadedup_mm.base.errors import UserError
from adadedup_mm.datasets import pruned_config, read_pool, write_pruned
from adadedup_mm.datasets.projection import MIN_SIZE, project_boxes
from adadedup_mm.datasets.view_samples import view_sizes, write_view_samples
from adadedup_mm.detectors.config import is_3d, proxy_config, scoring_dataset
from adadedup_mm.settings.load import load_config

SHARED = Path(__file__).resolve().parents[2] / 'shared' / 'data'
CAMERAS = ('CAM_FRONT', 'CAM_BACK')
# 20 x 10 pixels, 10 pixels of focal length; cameras look along the LiDAR's x axis, and against it.
INTRINSIC = [[10.0, 0, 10], [0, 10.0, 5], [0, 0, 1]]
LIDAR2CAM = {
    'CAM_FRONT': [[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]],
    'CAM_BACK': [[0.0, 1, 0, 0], [0, 0, -1, 0], [-1, 0, 0, 0], [0, 0, 0, 1]],
}


class Evil:
    def __reduce__(self):
        return os.system, ('true',)


def dump(path, value):
    path.write_bytes(pickle.dumps(value, protocol=4))
    return path


def instance(x=8.0, label=0):
    return dict(
        bbox_3d=[x, 0.0, 0.0, 4.0, 4.0, 4.0, 0.0],
        bbox_label=label,
        bbox_label_3d=label,
        velocity=[0.0, 0.0],
        num_lidar_pts=np.int64(3),
        num_radar_pts=0,
        bbox_3d_isvalid=np.bool_(True),
    )


def make_frame(root, i, cameras=CAMERAS, **more):
    images = {}
    for camera in cameras:
        name = f'log{i // 3}__{camera}__{i}.png'
        file = root / 'samples' / camera / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (20, 10), (i, i, i)).save(file)
        images[camera] = dict(
            img_path=name,
            cam2img=copy.deepcopy(INTRINSIC),
            lidar2cam=copy.deepcopy(LIDAR2CAM[camera]),
        )
    return dict(
        sample_idx=i,
        token=f't{i}',
        timestamp=float(i),
        ego2global=np.eye(4).tolist(),
        images=images,
        lidar_points=dict(lidar_path=f'{i}.bin', num_pts_feats=5),
        instances=[instance(), instance(-8.0, 7)],
        extra=dict(array=np.arange(3.0)),
        **more,
    )


def make_nuscenes(root, damage=None, count=6, **settings):
    """A folder in nuScenes' layout; its config."""
    frames = [make_frame(root, i) for i in range(count)]
    content = dict(
        metainfo=dict(categories={'car': 0}, dataset='nuscenes', version='v1.0-mini', mine=(1, 2)),
        data_list=frames,
    )
    content = (damage(content) or content) if damage else content
    dump(root / 'infos.pkl', content)
    prefix = {name: f'samples/{name}' for name in CAMERAS}
    dataset = dict(
        type='NuScenesDataset',
        data_root=f'{root}/',
        ann_file='infos.pkl',
        data_prefix=prefix,
        modality=dict(use_camera=True),
        **settings,
    )
    return Config(dict(default_scope='mmdet3d', train_dataloader=dict(dataset=dataset)))


def make_temporal(root, scenes=(3, 4)):
    """BEVFormer's infos, whose frames are not in order of time."""
    infos = []
    for scene, length in enumerate(scenes):
        for i in range(length):
            number = sum(scenes[:scene]) + i
            frame = make_frame(root, number)
            cams = {
                name: dict(
                    data_path=f'./data/nuscenes/samples/{name}/{frame["images"][name]["img_path"]}',
                    sensor2lidar_rotation=np.linalg.inv(np.array(LIDAR2CAM[name])[:3, :3]),
                    sensor2lidar_translation=np.zeros(3),
                    cam_intrinsic=np.array(INTRINSIC),
                )
                for name in CAMERAS
            }
            infos.append(
                dict(
                    token=f't{number}',
                    prev=f't{number - 1}' if i else '',
                    next=f't{number + 1}' if i + 1 < length else '',
                    scene_token=f's{scene}',
                    frame_idx=i,
                    can_bus=np.arange(18.0),
                    sweeps=[],
                    cams=cams,
                    lidar2ego_translation=[0.0, 0, 0],
                    lidar2ego_rotation=[1.0, 0, 0, 0],
                    ego2global_translation=[float(i), 0, 0],
                    ego2global_rotation=[1.0, 0, 0, 0],
                    timestamp=number,
                    gt_boxes=np.array([[8.0, 0, 0, 4, 4, 4, 0]]),
                    gt_names=np.array(['car']),
                    gt_velocity=np.zeros((1, 2)),
                    num_lidar_pts=np.array([3]),
                    num_radar_pts=np.array([0]),
                    valid_flag=np.array([True]),
                )
            )
    dump(root / 'temporal.pkl', dict(infos=infos[::-1], metadata=dict(version='v1.0-mini')))
    dataset = dict(
        type='BEVFormerDataset', data_root=f'{root}/', ann_file='temporal.pkl', queue_length=2
    )
    return Config(dict(default_scope='mmdet3d', train_dataloader=dict(dataset=dataset)))


def equal(a, b):
    if isinstance(a, dict):
        return list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    return type(a) is type(b) and (a == b or a != a)


# Pickles


@pytest.mark.parametrize('protocol', range(6))
def test_plain_data_comes_through_every_protocol(tmp_path, protocol):
    value = dict(
        array=np.arange(6.0).reshape(2, 3),
        words=np.array(['a', 'bc']),
        scalar=np.float32(2),
        flag=np.bool_(True),
        objects=np.array([{}, 1], object),
        when=datetime.datetime(2020, 1, 2),
        bytes=b'\xff\x00',
        items={1, 2},
        ordered=collections.OrderedDict(a=1),
        kind=np.float32,
        number=complex(1, 2),
    )
    (tmp_path / 'x.pkl').write_bytes(pickle.dumps(value, protocol=protocol))
    assert equal(load_pickle(tmp_path / 'x.pkl') | dict(items=0), value | dict(items=0))


@pytest.mark.parametrize(
    'old, new',
    [
        (b'numpy.core.multiarray', b'numpy._core.multiarray'),
        (b'numpy._core.multiarray', b'numpy.core.multiarray'),
    ],
)
def test_arrays_of_other_numpy_versions_are_read(tmp_path, old, new):
    content = pickle.dumps(np.arange(3), protocol=0).replace(old, new)
    (tmp_path / 'x.pkl').write_bytes(content)
    assert load_pickle(tmp_path / 'x.pkl').tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    'value, name',
    [
        (Evil(), 'system'),
        (dict(a=[np.save]), 'save'),
        (eval, 'eval'),
        (collections.Counter(), 'Counter'),
        (Path('x'), 'pathlib'),
    ],
)
def test_anything_else_is_refused_by_name(tmp_path, value, name):
    dump(tmp_path / 'x.pkl', value)
    with pytest.raises(UserError, match=rf'x.pkl holds .*{name}.*trust_pickles=True'):
        load_pickle(tmp_path / 'x.pkl')


def test_trusted_pickles_may_hold_anything(tmp_path):
    assert load_pickle(dump(tmp_path / 'x.pkl', Path('x')), trust=True) == Path('x')


def test_a_damaged_pickle_is_named(tmp_path):
    (tmp_path / 'x.pkl').write_bytes(pickle.dumps(dict(a=np.arange(100)))[:-50])
    with pytest.raises(UserError, match='x.pkl is no valid pickle'):
        load_pickle(tmp_path / 'x.pkl')


def test_datasets_do_not_run_what_their_infos_hold(tmp_path):
    config = make_nuscenes(tmp_path, lambda content: content.update(evil=Evil()))
    with pytest.raises(UserError, match=r'infos.pkl holds .*system'):
        read_pool(config)


# Reading


def test_frames_become_samples_with_all_cameras(tmp_path):
    pool, (source,) = read_pool(make_nuscenes(tmp_path))
    assert pool.views == CAMERAS
    assert pool.sample_ids == tuple(f't{i}' for i in range(6))
    assert pool.image_paths[2] == tuple(
        f'{tmp_path}/samples/{name}/log0__{name}__2.png' for name in CAMERAS
    )
    assert pool.scenes == ('log0',) * 3 + ('log1',) * 3
    assert [pool.classes[label] for label in pool.labels[:2]] == ['car', 'pedestrian']
    assert (
        np.isfinite(pool.boxes).all(axis=1).tolist() == [True, False] * 6
    )  # the second one is behind
    assert pool.image_sizes.tolist() == [[10, 20]] * 6
    assert np.diff(source.objects.offsets).tolist() == [1, 1] * 6


@pytest.mark.parametrize('modality', [dict(use_lidar=True, use_camera=False), None])
def test_configs_for_lidar_alone_find_their_pictures(tmp_path, modality):
    config = make_nuscenes(tmp_path)
    settings = config.train_dataloader.dataset
    settings.data_prefix = dict(pts='samples/LIDAR_TOP', img='', sweeps='sweeps/LIDAR_TOP')
    settings.pop('modality') if modality is None else settings.update(modality=modality)
    assert read_pool(config)[0].image_paths == read_pool(make_nuscenes(tmp_path))[0].image_paths


@DATASETS.register_module()
class OurDrives(NuScenesDataset):
    """Somebody's dataset, whose constructor has its own defaults and takes no modality."""

    def __init__(self, data_root, ann_file, pipeline=(), data_prefix=None, lazy_init=False):
        super().__init__(
            data_root,
            ann_file,
            list(pipeline),
            lazy_init=lazy_init,
            data_prefix=data_prefix or dict(pts='samples/LIDAR_TOP', img='', sweeps=''),
        )


def test_datasets_derived_from_those_of_mmdet3d_find_their_pictures_too(tmp_path):
    config = make_nuscenes(tmp_path)
    config.train_dataloader.dataset = dict(
        type='OurDrives', data_root=f'{tmp_path}/', ann_file='infos.pkl'
    )
    assert read_pool(config)[0].image_paths == read_pool(make_nuscenes(tmp_path))[0].image_paths
    assert OurDrives(f'{tmp_path}/', 'infos.pkl').modality == dict(use_camera=False, use_lidar=True)


def test_folders_that_a_derived_dataset_names_are_used(tmp_path):
    config = make_nuscenes(tmp_path)
    (tmp_path / 'samples' / 'CAM_FRONT').rename(tmp_path / 'front')
    config.train_dataloader.dataset = dict(
        type='OurDrives',
        data_root=f'{tmp_path}/',
        ann_file='infos.pkl',
        data_prefix=dict(CAM_FRONT='front'),
    )
    assert read_pool(config)[0].image_paths[0][0] == f'{tmp_path}/front/log0__CAM_FRONT__0.png'


def test_classes_are_those_of_the_dataset(tmp_path):
    pool, (source,) = read_pool(make_nuscenes(tmp_path, metainfo=dict(classes=['pedestrian'])))
    assert pool.classes == ('pedestrian',)
    assert len(pool.labels) == 6 and not pool.labels.any()
    assert np.diff(source.objects.offsets).tolist() == [0, 1] * 6


def test_boxes_of_the_cameras_are_preferred_to_projected_ones(tmp_path):
    def add(content):
        seen = dict(CAM_FRONT=[dict(bbox=[1.0, 2.0, 3.0, 4.0], bbox_label=7)], CAM_BACK=[])
        content['data_list'][0]['cam_instances'] = seen

    pool, (source,) = read_pool(make_nuscenes(tmp_path, add))
    assert source.objects.boxes[0].tolist() == [1, 2, 3, 4]
    assert pool.classes[source.objects.labels[0]] == 'pedestrian'
    assert np.diff(source.objects.offsets)[:4].tolist() == [1, 0, 1, 1]


def test_wrappers_are_seen_through(tmp_path):
    config = make_nuscenes(tmp_path)
    inner = config.train_dataloader.dataset
    config.train_dataloader.dataset = dict(type='CBGSDataset', dataset=inner)
    assert len(read_pool(config)[0]) == 6


def test_cameras_of_a_split_frame_stay_together(tmp_path):
    def add(content):
        seen = dict(
            bbox=[1.0, 2.0, 3.0, 4.0],
            bbox_label=0,
            bbox_label_3d=0,
            bbox_3d=[0.0, 0, 8, 4, 4, 4, 0],
            bbox_3d_isvalid=True,
            velocity=[0.0, 0],
            center_2d=[2.0, 3.0],
            depth=8.0,
            attr_label=0,
        )
        for frame in content['data_list']:
            frame['cam_instances'] = {name: [dict(seen)] for name in CAMERAS}

    config = make_nuscenes(
        tmp_path, add, load_type='mv_image_based', box_type_3d='Camera', use_valid_flag=True
    )
    pool, (source,) = read_pool(config)
    assert (len(pool), source.items, pool.views) == (6, 2, CAMERAS)
    assert np.diff(pool.offsets).tolist() == [2] * 6


def test_scenes_come_from_the_tables_where_they_are(tmp_path):
    (tmp_path / 'v1.0-mini').mkdir()
    (tmp_path / 'v1.0-mini' / 'sample.json').write_text(
        '['
        + ','.join(f'{{"token": "t{i}", "scene_token": "scene{i // 2}"}}' for i in range(6))
        + ']'
    )
    assert (
        read_pool(make_nuscenes(tmp_path))[0].scenes
        == ('scene0',) * 2 + ('scene1',) * 2 + ('scene2',) * 2
    )


def drop_camera(content):
    del content['data_list'][3]['images']['CAM_BACK']


def no_objects(content):
    for frame in content['data_list']:
        frame['instances'] = []


def wrong_matrix(content):
    content['data_list'][3]['images']['CAM_BACK']['cam2img'] = [[1.0, 2.0], [3.0, 4.0]]


def mix(content):
    content['data_list'][3]['cams'] = {}


def of_waymo(content):
    content['metainfo']['dataset'] = 'waymo'


@pytest.mark.parametrize(
    'damage, words',
    [
        (
            of_waymo,
            'NuScenesDataset.* cannot read .*infos.pkl, whose metainfo says that it is for '
            'WaymoDataset',
        ),
        (drop_camera, 'frame t3 lacks CAM_BACK'),
        (no_objects, 'no frame .* has an object'),
        (wrong_matrix, r'frame t3, CAM_BACK: cam2img has shape \(2, 2\) instead of \(3, 3\)'),
        (mix, 'record 3 .*not of the same generation'),
        (
            lambda content: dict(infos=content['data_list'][:0], metadata={}),
            'holds older infos: use BEVFormerDataset',
        ),
        (lambda content: content['data_list'], 'infos.pkl holds a list instead of'),
        (
            lambda content: dict(content, infos=[]),
            'infos.pkl holds a dict with metainfo, data_list, infos',
        ),
        (
            lambda content: content['data_list'][1].update(token='t0'),
            '1 ids appear more than once, first t0',
        ),
        (
            lambda content: content['data_list'][1]['instances'][0].__delitem__('bbox_3d'),
            'record with token t1',
        ),
        (lambda content: content['data_list'].clear(), 'is empty'),
    ],
)
def test_bad_infos_are_named_in_one_line(tmp_path, damage, words):
    with pytest.raises(UserError, match=words) as error:
        read_pool(make_nuscenes(tmp_path, damage))
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    'views, missing',
    [('front', False), (['CAM_FRONT'], False), ('all', True), (['CAM_BACK'], True)],
)
def test_only_the_cameras_that_are_looked_at_need_pictures(tmp_path, views, missing):
    config = make_nuscenes(tmp_path)
    config.adadedup = dict(views=views)
    shutil.rmtree(tmp_path / 'samples' / 'CAM_BACK')
    if missing:
        with pytest.raises(UserError, match='none of the 6 images in .*samples/CAM_BACK exists'):
            read_pool(config)
    else:
        assert read_pool(config)[0].views == CAMERAS


def test_a_view_that_the_frames_lack_is_named(tmp_path):
    config = make_nuscenes(tmp_path)
    config.adadedup = dict(views=['CAM_TOP'])
    with pytest.raises(
        UserError,
        match="adadedup.views names 'CAM_TOP', but the dataset has 'CAM_FRONT', 'CAM_BACK'",
    ):
        read_pool(config)


def test_infos_of_both_generations_do_not_go_together(tmp_path):
    config, temporal = make_nuscenes(tmp_path), make_temporal(tmp_path)
    both = [config.train_dataloader.dataset, temporal.train_dataloader.dataset]
    config.train_dataloader.dataset = dict(type='ConcatDataset', datasets=both)
    with pytest.raises(
        UserError, match=r'datasets.1 reads temporal infos .*datasets.0 those of mmdet3d 1.x'
    ) as error:
        read_pool(config)
    assert '\n' not in str(error.value)


def test_frames_without_objects_are_samples_too(tmp_path):
    pool, _ = read_pool(
        make_nuscenes(tmp_path, lambda content: content['data_list'][2]['instances'].clear())
    )
    assert np.diff(pool.offsets).tolist() == [2, 2, 0, 2, 2, 2]


def test_frames_to_test_on_need_no_objects_at_all(tmp_path):
    pool, _ = read_pool(make_nuscenes(tmp_path, no_objects, test_mode=True))
    assert (len(pool), pool.offsets[-1]) == (6, 0)


@pytest.mark.parametrize(
    'name, kind, prefix, sizes',
    [
        ('nus_info.pkl', 'NuScenesDataset', {}, 2),
        ('lyft_infos.pkl', 'LyftDataset', dict(pts='lidar', sweeps=''), 1),
        ('kitti_infos_train.pkl', 'KittiDataset', {}, 1),
        ('waymo_infos_train.pkl', 'WaymoDataset', {}, 1),
    ],
)
def test_real_infos_are_read_and_rewritten(tmp_path, name, kind, prefix, sizes):
    path = SHARED / 'mmdet3d_infos' / name
    if not path.exists():
        pytest.skip('no real infos here')
    dataset = dict(
        type=kind,
        data_root=str(tmp_path),
        ann_file=str(path),
        data_prefix=dict(dict(pts='', img='', sweeps=''), **prefix),
    )
    config = Config(dict(default_scope='mmdet3d', train_dataloader=dict(dataset=dataset)))
    pool, sources = read_without_images(config)
    assert len(pool) == sizes and len(pool.labels)
    kept = np.arange(len(pool)) == len(pool) - 1
    write_pruned(sources, kept, tmp_path / 'out')
    before, after = load_pickle(path), load_pickle(tmp_path / 'out' / name)
    assert equal(after, before | dict(data_list=before['data_list'][-1:]))


# Rewriting


@pytest.mark.parametrize('keep', [[0, 3, 5], [1], range(6)])
def test_kept_records_and_all_else_stay_equal(tmp_path, keep):
    config = make_nuscenes(tmp_path)
    before = (tmp_path / 'infos.pkl').read_bytes()
    _, sources = read_pool(config)
    files = write_pruned(sources, np.isin(np.arange(6), list(keep)), tmp_path / 'out')
    old, new = load_pickle(tmp_path / 'infos.pkl'), load_pickle(tmp_path / 'out' / 'infos.pkl')
    assert equal(new, old | dict(data_list=[old['data_list'][i] for i in keep]))
    assert (files[0]['records'], files[0]['kept']) == (6, len(keep))
    assert (tmp_path / 'infos.pkl').read_bytes() == before


def test_the_pruned_config_differs_in_its_annotation_file_alone(tmp_path):
    config = make_nuscenes(tmp_path)
    _, sources = read_pool(config)
    pruned = pruned_config(config, sources, tmp_path / 'out')
    assert pruned.train_dataloader.dataset.pop('ann_file') == str(tmp_path / 'out' / 'infos.pkl')
    config.train_dataloader.dataset.pop('ann_file')
    assert pruned.to_dict() == config.to_dict()


@pytest.mark.parametrize('interval', [1, 2, 4])
def test_waymo_frames_that_are_passed_over_are_not_in_the_pruned_file(tmp_path, interval):
    def to_waymo(content):
        content['metainfo']['dataset'] = 'waymo'
        for i, frame in enumerate(content['data_list']):
            del frame['token']
            for camera in frame['images'].values():
                camera['lidar2img'] = np.eye(4).tolist()
            frame['instances'] = [instance()]
            frame.update(
                sample_idx=1000 + i, context_name='drive', cam_sync_instances=frame['instances']
            )

    config = make_nuscenes(tmp_path, to_waymo)
    config.train_dataloader.dataset.update(type='WaymoDataset', load_interval=interval)
    pool, sources = read_pool(config)
    assert pool.sample_ids == tuple(str(1000 + i) for i in range(0, 6, interval)) and set(
        pool.scenes
    ) == {'drive'}
    kept = np.arange(len(pool)) > 0
    write_pruned(sources, kept, tmp_path / 'out')
    again, _ = read_pool(pruned_config(config, sources, tmp_path / 'out'))
    assert again.sample_ids == pool.sample_ids[1:]


@pytest.mark.parametrize('address', ['token', 'position'])
def test_pruned_objects_leave_the_database(tmp_path, address):
    config = make_nuscenes(
        tmp_path, lambda content: content['data_list'][0]['instances'].__delitem__(1)
    )
    items = [
        dict(name=name, path=f'{i}.bin', image_idx=f't{i}' if address == 'token' else i, gt_idx=0)
        for i in range(6)
        for name in ('car', 'pedestrian')
        if i or name == 'car'
    ]
    database = {
        name: [item for item in items if item['name'] == name] for name in ('car', 'pedestrian')
    }
    dump(tmp_path / 'dbinfos_train.pkl', database)
    sampler = dict(
        type='ObjectSample', db_sampler=dict(info_path=str(tmp_path / 'dbinfos_train.pkl'))
    )
    config.train_dataloader.dataset.pipeline = [sampler]
    _, sources = read_pool(config)
    write_pruned(sources, np.isin(np.arange(6), [0, 4]), tmp_path / 'out')
    pruned = (
        pruned_config(config, sources, tmp_path / 'out')
        .train_dataloader.dataset.pipeline[0]
        .db_sampler.info_path
    )
    assert load_pickle(pruned) == {
        name: [item for item in found if item['path'] in ('0.bin', '4.bin')]
        for name, found in database.items()
    }


def test_a_missing_database_is_named(tmp_path):
    config = make_nuscenes(tmp_path)
    config.train_dataloader.dataset.pipeline = [
        dict(type='ObjectSample', db_sampler=dict(info_path='none.pkl'))
    ]
    with pytest.raises(UserError, match=r'none.pkl does not exist.*db_sampler.info_path'):
        read_pool(config)


# Databases whose numbers do not say what they mean


def world_with_boxes(count=6):
    """A damage for ``make_nuscenes``: every frame has two objects with boxes of its own."""

    def change(content):
        content['metainfo']['categories'] = {'car': 0, 'pedestrian': 7}
        for i, frame in enumerate(content['data_list'][:count]):
            frame['instances'] = [instance(8 + i), instance(-8.0 - i / 2, 7)]

    return change


def cut_out(frames, keys, **more):
    """The database that create_data.py makes of frames whose objects are cars and pedestrians in
    turn."""
    database = {'car': [], 'pedestrian': []}
    for frame, key in zip(frames, keys, strict=True):
        for i, one in enumerate(frame['instances']):
            name = ('car', 'pedestrian')[i]
            bottom = np.array(one['bbox_3d'], np.float32) - np.float32([0, 0, 2, 0, 0, 0, 0])
            database[name].append(
                dict(
                    name=name,
                    path=f'gt_database/{key}_{name}_{i}.bin',
                    image_idx=key,
                    gt_idx=i,
                    box3d_lidar=bottom,
                    num_points_in_gt=30,
                    of=frame['token'],
                    **more,
                )
            )
    return database


def sampled(config, path, database):
    """The config with an ``ObjectSample`` that draws from a database."""
    dump(path, database)
    sampler = dict(type='ObjectSample', db_sampler=dict(info_path=str(path)))
    config.train_dataloader.dataset.pipeline = [sampler]
    return config


def pasted(config, tmp_path, kept):
    """Tokens of the frames whose objects stay in the databases of a run that keeps some frames."""
    pool, sources = read_pool(config)
    names = [name.split(':')[-1] for name in pool.sample_ids]
    files = write_pruned(sources, np.isin(names, kept), tmp_path / 'out')
    outputs = [file['output'] for file in files if 'outside' in file]
    contents = [load_pickle(output) for output in outputs]
    assert contents and all(equal(content, contents[0]) for content in contents)
    return {item['of'] for items in contents[0].values() for item in items}


@pytest.mark.parametrize(
    'indices, taken', [(4, range(4)), (-2, (4, 5)), ([5, 0, 2], (0, 2, 5)), ([1, 1, 3], (1, 3))]
)
@pytest.mark.parametrize('keys', ['position', 'text', 'token'])
def test_objects_of_frames_outside_the_training_set_stay_in_the_database(
    tmp_path, indices, taken, keys
):
    config = make_nuscenes(tmp_path, world_with_boxes(), indices=indices)
    frames = load_pickle(tmp_path / 'infos.pkl')['data_list']
    numbers = dict(
        position=range(6), text=[f'{i:06d}' for i in range(6)], token=[f't{i}' for i in range(6)]
    )[keys]
    sampled(config, tmp_path / 'dbinfos_train.pkl', cut_out(frames, numbers))
    gone = {f't{i}' for i in taken[1:]}
    assert pasted(config, tmp_path, [f't{taken[0]}']) == {f't{i}' for i in range(6)} - gone


@pytest.mark.parametrize('numbered', [True, False])
def test_boxes_find_frames_that_have_another_position_in_the_database(tmp_path, numbered):
    def reorder(content):
        world_with_boxes()(content)
        content['data_list'] = [content['data_list'][i] for i in (4, 1, 3)]
        for i, frame in enumerate(content['data_list']):
            frame['sample_idx'] = i if numbered else frame['sample_idx']

    whole = make_nuscenes(tmp_path / 'whole', world_with_boxes())
    frames = load_pickle(tmp_path / 'whole' / 'infos.pkl')['data_list']
    config = make_nuscenes(tmp_path, reorder)
    sampled(config, tmp_path / 'dbinfos_train.pkl', cut_out(frames, range(6)))
    assert pasted(config, tmp_path, ['t1']) == {'t0', 't1', 't2', 't5'}
    assert whole.default_scope == 'mmdet3d'


def test_parts_that_share_a_database_get_the_same_one(tmp_path):
    config = make_nuscenes(tmp_path, world_with_boxes())
    frames = load_pickle(tmp_path / 'infos.pkl')['data_list']
    sampled(config, tmp_path / 'dbinfos_train.pkl', cut_out(frames, range(6)))
    inner = config.train_dataloader.dataset.to_dict()
    halves = [dict(inner, indices=[0, 1, 2]), dict(inner, indices=[5, 4, 3])]
    config.train_dataloader.dataset = dict(type='ConcatDataset', datasets=halves)
    assert pasted(config, tmp_path, ['t0', 't4']) == {'t0', 't4'}


def test_two_databases_in_one_are_told_apart_by_their_folders(tmp_path):
    config = make_nuscenes(tmp_path, world_with_boxes())
    frames = load_pickle(tmp_path / 'infos.pkl')['data_list']
    other = [
        dict(frame, token=f'v{i}', instances=[instance(20.0 + i), instance(-30.0, 7)])
        for i, frame in enumerate(frames)
    ]
    both = cut_out(frames, range(6))
    for name, items in cut_out(other, range(6)).items():
        both[name] += [item | dict(path=f'val_{item["path"]}') for item in items]
    sampled(config, tmp_path / 'dbinfos_train.pkl', both)
    assert pasted(config, tmp_path, ['t3']) == {'t3', *(f'v{i}' for i in range(6))}


def test_databases_in_cameras_coordinates_find_their_frames(tmp_path):
    """KITTI's infos have boxes in the camera's frame, its databases in the LiDAR's."""
    lidar2cam = np.array(LIDAR2CAM['CAM_FRONT'])
    frames = [
        dict(
            sample_idx=100 + i,
            images=dict(CAM2=dict(lidar2cam=lidar2cam.tolist())),
            instances=[
                dict(
                    bbox_label_3d=0,
                    bbox_3d=[*(lidar2cam @ [8.0 + i, 3, -1, 1])[:3], 4.0, 1.5, 1.6, 0.0],
                )
            ],
        )
        for i in (2, 0, 1)
    ]
    content = dict(metainfo=dict(categories=dict(Car=0)), data_list=frames)
    database = dict(
        Car=[
            dict(
                name='Car',
                image_idx=i,
                path=f'd/{i}_Car_0.bin',
                box3d_lidar=np.array([8 + i, 3, -0.2, 4, 1.6, 1.5, 0.3], np.float32),
            )
            for i in range(3)
        ]
    )
    part = InfoPart(tmp_path / 'x.pkl', ['102', '100', '101'], [False, True, False])
    stays, counts = judge_objects(
        database, FrameIndex([part], {part.path: content}), tmp_path / 'db.pkl'
    )
    assert stays.tolist() == [True, False, False] and counts.outside == 0


def test_boxes_are_enough_where_the_database_has_other_names_for_classes(tmp_path):
    config = make_nuscenes(tmp_path, world_with_boxes())
    frames = load_pickle(tmp_path / 'infos.pkl')['data_list'][::-1]
    database = {f'my_{name}': items for name, items in cut_out(frames, range(6)).items()}
    sampled(config, tmp_path / 'dbinfos_train.pkl', database)
    assert pasted(config, tmp_path, ['t1', 't2']) == {'t1', 't2'}


def test_a_corrected_box_does_not_lose_its_frame(tmp_path):
    config = make_nuscenes(tmp_path, world_with_boxes())
    frames = load_pickle(tmp_path / 'infos.pkl')['data_list']
    database = cut_out(frames, range(6))
    for item in database['car'][:1] + [items[2] for items in database.values()]:
        item['box3d_lidar'] = item['box3d_lidar'] + np.float32(0.3)
    sampled(config, tmp_path / 'dbinfos_train.pkl', database)
    assert pasted(config, tmp_path, ['t1', 't2']) == {'t1', 't2'}


def test_objects_that_fit_a_kept_and_a_pruned_frame_are_refused(tmp_path):
    def stand_still(content):
        for frame in content['data_list']:
            frame['instances'] = [instance(), instance(-8.0, 7)]

    config = make_nuscenes(tmp_path, stand_still)
    frames = load_pickle(tmp_path / 'infos.pkl')['data_list']
    sampled(config, tmp_path / 'dbinfos_train.pkl', cut_out(frames, range(100, 106)))
    with pytest.raises(
        UserError, match='image_idx 100 fit frame t0, which stays, and frame t1, which is pruned'
    ):
        pasted(config, tmp_path, ['t0'])
    assert not (tmp_path / 'out').exists()
    sampled(config, tmp_path / 'dbinfos_train.pkl', cut_out(frames, range(6)))
    assert pasted(config, tmp_path, ['t0']) == {'t0'}


def test_a_database_of_another_dataset_is_refused(tmp_path):
    config = make_nuscenes(tmp_path, world_with_boxes())
    frames = load_pickle(tmp_path / 'infos.pkl')['data_list']
    other = [dict(frame, instances=[instance(60.0 + i)]) for i, frame in enumerate(frames)]
    sampled(config, tmp_path / 'dbinfos_train.pkl', cut_out(other, range(6)))
    with pytest.raises(UserError, match='belongs to another dataset: none of its objects'):
        pasted(config, tmp_path, ['t0'])


def test_positions_without_boxes_that_do_not_fit_are_refused(tmp_path):
    config = make_nuscenes(tmp_path, world_with_boxes())
    frames = load_pickle(tmp_path / 'infos.pkl')['data_list']
    database = {
        name: [
            {key: value for key, value in item.items() if key != 'box3d_lidar'} for item in items
        ]
        for name, items in cut_out(frames, range(2, 8)).items()
    }
    sampled(config, tmp_path / 'dbinfos_train.pkl', database)
    with pytest.raises(UserError, match='are neither sample_idx nor positions'):
        pasted(config, tmp_path, ['t0'])


def test_databases_of_wrappers_and_hooks_are_pruned_too(tmp_path):
    config = make_nuscenes(tmp_path, world_with_boxes())
    frames = load_pickle(tmp_path / 'infos.pkl')['data_list']
    path = str(dump(tmp_path / 'dbinfos_train.pkl', cut_out(frames, range(6))))
    pipeline = [dict(type='ObjectSample', db_sampler=dict(info_path=path))]
    config.train_dataloader.dataset = dict(
        type='MultiImageMixDataset', dataset=config.train_dataloader.dataset, pipeline=pipeline
    )
    config.custom_hooks = [
        dict(type='PipelineSwitchHook', switch_epoch=1, switch_pipeline=pipeline)
    ]
    assert pasted(config, tmp_path, ['t2']) == {'t2'}
    _, sources = read_pool(config)
    pruned = pruned_config(config, sources, tmp_path / 'out')
    places = pruned.train_dataloader.dataset.pipeline[0], pruned.custom_hooks[0].switch_pipeline[0]
    assert all(
        Path(place.db_sampler.info_path).is_relative_to(tmp_path / 'out') for place in places
    )


# Cameras, links, and records that lack something


@pytest.mark.parametrize(
    'indices, words',
    [
        (3, 'indices takes 1 of the 2 cameras of frame t1'),
        ([0, 2, 4], 'indices takes 1 of the 2 cameras of frame t0'),
        ([1, 0, 5, 4, 4], None),
    ],
)
def test_indices_of_single_cameras_take_whole_frames_or_are_refused(tmp_path, indices, words):
    def add_views(content):
        for frame in content['data_list']:
            box = [
                dict(
                    instance(),
                    bbox=[1.0, 1.0, 5.0, 5.0],
                    center_2d=[3.0, 3.0],
                    depth=4.0,
                    attr_label=0,
                )
            ]
            frame['cam_instances'] = dict.fromkeys(CAMERAS, box)

    config = make_nuscenes(
        tmp_path, add_views, load_type='mv_image_based', box_type_3d='Camera', indices=indices
    )
    if words:
        with pytest.raises(UserError, match=words):
            read_pool(config)
    else:
        pool, _ = read_pool(config)
        assert pool.sample_ids == ('t0', 't2') and all(
            len(paths) == 2 for paths in pool.image_paths
        )


@pytest.mark.parametrize(
    'ids, end', [([0, 1, 2, 3], -1), ([7, 8, 9, 10], None), (['00', '01', '02', '03'], '')]
)
def test_links_by_sample_idx_join_over_whatever_is_pruned(ids, end):
    records = [
        dict(
            token=f't{i}',
            sample_idx=ids[i],
            scene_token='s',
            prev=ids[i - 1] if i else end,
            next=ids[i + 1] if i < 3 else end,
        )
        for i in range(4)
    ]
    kept = relink(records, [records[0], records[3]])
    assert [(record['prev'], record['next']) for record in kept] == [(end, ids[3]), (ids[0], end)]
    assert relink(records, records) == records


def test_integer_tokens_are_links_too():
    records = [
        dict(token=i, prev=i - 1 if i else '', next=i + 1 if i < 2 else '') for i in range(3)
    ]
    assert relink(records, [records[0], records[2]]) == [
        dict(token=0, prev='', next=2),
        dict(token=2, prev=0, next=''),
    ]


@pytest.mark.parametrize(
    'damage, words',
    [
        (lambda frame: frame.pop('images'), "frame t2 has no 'images': pruning looks at pictures"),
        (lambda frame: frame.update(images=None), "frame t2 has no 'images'"),
        (lambda frame: frame.update(images={}), 'frame t2 lacks CAM_FRONT, CAM_BACK'),
        (
            lambda frame: [one.pop('velocity') for one in frame['instances']],
            r't2 .*set with_velocity=False',
        ),
        (
            lambda frame: [one.pop('num_lidar_pts') for one in frame['instances']],
            r't2 .*set use_valid_flag=True',
        ),
        (
            lambda frame: frame['instances'][1].update(bbox_label_3d='bus'),
            r't2 .*correct it there, or take it out',
        ),
        (
            lambda frame: frame.update(cam_instances=dict(CAM_BACK=[{}])),
            r'frame t2: .*correct it there',
        ),
    ],
)
def test_a_frame_that_lacks_something_is_named_with_what_to_do(tmp_path, damage, words):
    with pytest.raises(UserError, match=words):
        read_pool(make_nuscenes(tmp_path, lambda content: damage(content['data_list'][2]) and None))


def test_datasets_that_do_without_a_key_read_infos_without_it(tmp_path):
    def lack(content):
        for frame in content['data_list']:
            for one in frame['instances']:
                del one['velocity'], one['num_lidar_pts']

    pool, _ = read_pool(make_nuscenes(tmp_path, lack, with_velocity=False, use_valid_flag=True))
    assert np.diff(pool.offsets).tolist() == [2] * 6


# Temporal infos


def walk(records):
    """Tokens of every chain, by scene; fails on dangling, crossing or one-sided links."""
    by_token = {record['token']: record for record in records}
    chains = {}
    for head in (record for record in records if not record['prev']):
        assert head['scene_token'] not in chains
        chain = chains[head['scene_token']] = [head]
        while chain[-1]['next']:
            follower = by_token[chain[-1]['next']]
            assert (
                follower['prev'] == chain[-1]['token']
                and follower['scene_token'] == head['scene_token']
            )
            chain.append(follower)
    return {scene: [record['frame_idx'] for record in chain] for scene, chain in chains.items()}


@settings(deadline=None, max_examples=100)
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4), data=st.data())
def test_chains_join_over_whatever_is_pruned(lengths, data):
    records = [
        dict(
            token=f'{scene}.{i}',
            scene_token=scene,
            frame_idx=i,
            prev=f'{scene}.{i - 1}' if i else '',
            next=f'{scene}.{i + 1}' if i + 1 < length else '',
        )
        for scene, length in enumerate(lengths)
        for i in range(length)
    ]
    original = copy.deepcopy(records)
    kept = (
        data.draw(st.lists(st.sampled_from(records), unique_by=lambda record: record['token']))
        or records[:1]
    )
    expected = {
        scene: sorted(record['frame_idx'] for record in group)
        for scene, group in itertools.groupby(
            sorted(kept, key=lambda record: record['scene_token']),
            key=lambda record: record['scene_token'],
        )
    }
    assert walk(relink(records, kept)) == expected
    assert records == original


def test_links_that_lead_out_of_the_file_end():
    records = [
        dict(token='a', prev='gone', next='b', scene_token='s'),
        dict(token='b', prev='a', next='gone', scene_token='s'),
    ]
    assert [(record['prev'], record['next']) for record in relink(records, records)] == [
        ('', 'b'),
        ('a', ''),
    ]


def test_temporal_infos_are_pruned_and_read_again(tmp_path):
    config = make_temporal(tmp_path)
    pool, sources = read_pool(config)
    assert (
        pool.sample_ids == tuple(f't{i}' for i in range(7))
        and pool.scenes == ('s0',) * 3 + ('s1',) * 4
    )
    assert np.isfinite(pool.boxes).all()
    write_pruned(sources, np.isin(np.arange(7), [0, 2, 4, 6]), tmp_path / 'out')
    old, new = (
        load_pickle(tmp_path / 'temporal.pkl'),
        load_pickle(tmp_path / 'out' / 'temporal.pkl'),
    )
    assert walk(new['infos']) == dict(s0=[0, 2], s1=[1, 3])
    links = dict(prev=0, next=0)
    assert equal(
        [record | links for record in new['infos']],
        [record | links for record in old['infos'][::2]],
    )
    assert new['metadata'] == old['metadata']
    again, _ = read_pool(pruned_config(config, sources, tmp_path / 'out'))
    assert again.sample_ids == ('t0', 't2', 't4', 't6')


def test_links_are_left_alone_on_request(tmp_path):
    config = make_temporal(tmp_path)
    config.adadedup = dict(temporal='keep')
    _, sources = read_pool(config)
    write_pruned(sources, np.isin(np.arange(7), [0, 2, 4, 6]), tmp_path / 'out')
    old, new = (
        load_pickle(tmp_path / 'temporal.pkl'),
        load_pickle(tmp_path / 'out' / 'temporal.pkl'),
    )
    assert equal(new['infos'], old['infos'][::2])


def test_a_file_that_changed_since_it_was_read_is_not_pruned(tmp_path):
    make_temporal(tmp_path)
    with pytest.raises(UserError, match='1 frames for 2 ids'):
        rewrite_infos(tmp_path / 'temporal.pkl', tmp_path / 'out.pkl', ['t1', 'other'])
    assert not (tmp_path / 'out.pkl').exists()


def test_records_without_an_id_are_named():
    with pytest.raises(
        UserError, match="x.pkl: record 1 of 'data_list' has neither 'token' nor 'sample_idx'"
    ):
        info_records(dict(data_list=[dict(token='a'), {}]), 'x.pkl')


def test_the_dataset_refuses_code_unless_it_is_trusted(tmp_path):
    config = make_temporal(tmp_path)
    content = load_pickle(tmp_path / 'temporal.pkl')
    dump(tmp_path / 'temporal.pkl', content | dict(evil=Path('x')))
    settings = dict(data_root=f'{tmp_path}/', ann_file='temporal.pkl')
    with pytest.raises(UserError, match='pathlib'):
        adadedup_mm.models.bevformer.BEVFormerDataset(**settings)
    assert len(adadedup_mm.models.bevformer.BEVFormerDataset(**settings, trust_pickles=True)) == 7
    assert config.train_dataloader.dataset.ann_file == 'temporal.pkl'


# Projection


def cube(x, y, z, size):
    return np.array([[x, y, z]]) + size / 2 * np.array(list(itertools.product((-1, 1), repeat=3)))


PROJECTION = np.array([[100.0, 0, 50, 0], [0, 100, 40, 0], [0, 0, 1, 0]])


def test_a_box_in_front_covers_its_corners():
    # The near side is 9 m away and 2 m wide.
    box = project_boxes(cube(0, 0, 10, 2)[None], PROJECTION, 80, 100)[0]
    assert box == pytest.approx([50 - 100 / 9, 40 - 100 / 9, 50 + 100 / 9, 40 + 100 / 9], abs=1e-4)


@pytest.mark.parametrize('where', [(0, 0, -10), (100, 0, 10), (0, -100, 10)])
def test_boxes_behind_or_beside_the_picture_have_no_2d_box(where):
    assert np.isnan(project_boxes(cube(*where, 2)[None], PROJECTION, 80, 100)).all()


def test_a_box_that_reaches_behind_the_camera_is_cut_at_the_border():
    box = project_boxes(cube(2, 0, 0, 3)[None], PROJECTION, 80, 100)[0]
    assert box[0] > 50 and box[2] == 100 and (box[1], box[3]) == (0, 80)


def test_boxes_of_a_few_pixels_do_not_count():
    assert np.isnan(project_boxes(cube(0, 0, 100, 0.1)[None], PROJECTION, 80, 100)).all()


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.floats(-20, 20)] * 3, st.floats(0.1, 10)), max_size=5), st.randoms())
def test_2d_boxes_lie_in_the_picture_whatever_the_order_of_corners(cubes, random):
    corners = np.array([cube(*one) for one in cubes]).reshape(-1, 8, 3)
    boxes = project_boxes(corners, PROJECTION, 80, 100)
    order = random.sample(range(8), 8)
    np.testing.assert_array_equal(boxes, project_boxes(corners[:, order], PROJECTION, 80, 100))
    found = boxes[np.isfinite(boxes).all(axis=1)]
    assert ((found >= 0) & (found <= [100, 80, 100, 80])).all()
    assert (found[:, 2:] - found[:, :2] >= MIN_SIZE - 1e-4).all()


def test_projected_boxes_of_a_real_frame_are_those_of_its_cameras():
    files = sorted((SHARED / 'nusc_two' / 'raw').glob('*.pkl'))
    if not files:
        pytest.skip('no real infos here')
    frame = load_pickle(files[0])['data_list'][0]
    raw = np.array([one['bbox_3d'] for one in frame['instances']], np.float32)
    corners = LiDARInstance3DBoxes(raw, origin=(0.5, 0.5, 0.5)).corners.numpy()
    overlaps = []
    for camera, image in frame['images'].items():
        intrinsic = np.eye(4)
        intrinsic[:3, :3] = image['cam2img']
        boxes = torch.from_numpy(
            project_boxes(corners, intrinsic @ np.array(image['lidar2cam']), 900, 1600)
        )
        given = torch.tensor([one['bbox'] for one in frame['cam_instances'][camera]])
        overlaps += box_iou(given, boxes[boxes.isfinite().all(dim=1)]).max(dim=1).values.tolist()
    # Not 1: the infos' matrices leave out how far the car drives between the LiDAR's and the
    # cameras' moments.
    assert np.mean(np.array(overlaps) > 0.9) > 0.9


# Views


@pytest.mark.parametrize('columns', [[0], [1, 0]])
def test_frames_taken_apart_have_the_boxes_of_their_views(tmp_path, columns):
    pool, sources = read_pool(make_nuscenes(tmp_path))
    chosen = np.arange(6) >= 4
    dataset = write_view_samples(pool, sources, columns, chosen, tmp_path / 'views.json')
    with DefaultScope.overwrite_default_scope('mmdet'):
        samples = DATASETS.build(dict(dataset, pipeline=[]))
    infos = [samples.get_data_info(i) for i in range(len(samples))]
    assert [info['img_path'] for info in infos] == [
        pool.image_paths[i][column] for i in (4, 5) for column in columns
    ]
    assert [[pool.classes[one['bbox_label']] for one in info['instances']] for info in infos] == [
        [['car'], ['pedestrian']][column] for _ in (4, 5) for column in columns
    ]
    assert view_sizes(pool, sources, columns, chosen).tolist() == [[10, 20]] * (2 * len(columns))


# mono3d json


def make_mono(root, damage=None):
    """Three frames of two cameras; the second shows nothing, the others an object in front."""
    images = [
        dict(
            make_mono_image(root, i, camera), id=f'{camera}{i}', token=f't{i}', width=20, height=10
        )
        for i in range(3)
        for camera in CAMERAS
    ]
    annotations = [
        dict(
            id=i,
            image_id=f'CAM_FRONT{i}',
            category_id=0,
            bbox=[1.0, 2.0, 5.0, 6.0],
            area=30.0,
            iscrowd=0,
            bbox_cam3d=[1.0] * 7,
        )
        for i in (0, 2)
    ]
    content = dict(images=images, annotations=annotations, categories=[dict(id=0, name='car')])
    if damage:
        damage(content)
    (root / 'mono.json').write_text(json.dumps(content))
    return Config(
        dict(
            default_scope='mmdet',
            train_dataloader=dict(
                dataset=dict(
                    type='CocoDataset',
                    data_root=f'{root}/',
                    ann_file='mono.json',
                    data_prefix=dict(img=''),
                    metainfo=dict(classes=['car']),
                    pipeline=[],
                )
            ),
        )
    )


def make_mono_image(root, i, camera):
    make_frame(root, i)
    return dict(file_name=f'samples/{camera}/log0__{camera}__{i}.png')


def test_cameras_of_a_mono3d_frame_go_together(tmp_path):
    config = make_mono(tmp_path)
    pool, sources = read_pool(config)
    assert (pool.sample_ids, pool.views) == (('t0', 't1', 't2'), CAMERAS)
    assert np.diff(pool.offsets).tolist() == [1, 0, 1] and pool.boxes[0].tolist() == [1, 2, 6, 8]
    files = write_pruned(sources, np.array([False, True, True]), tmp_path / 'out')
    old = json.loads((tmp_path / 'mono.json').read_text())
    new = json.loads((tmp_path / 'out' / 'mono.json').read_text())
    assert new == old | dict(images=old['images'][2:], annotations=old['annotations'][1:])
    assert (files[0]['records'], files[0]['kept']) == (6, 4)


def test_mono3d_frames_that_show_nothing_follow_the_filter(tmp_path):
    config = make_mono(tmp_path)
    config.train_dataloader.dataset.filter_cfg = dict(filter_empty_gt=True)
    pool, sources = read_pool(config)
    assert pool.sample_ids == ('t0', 't2')
    assert write_pruned(sources, np.array([False, True]), tmp_path / 'out')[0]['kept'] == 2


def test_a_mono3d_frame_without_one_of_its_cameras_is_named(tmp_path):
    with pytest.raises(UserError, match='frame t2 lacks CAM_BACK'):
        read_pool(make_mono(tmp_path, lambda content: content['images'].pop()))


# Proxies


@pytest.mark.parametrize(
    'path, classes',
    [('configs/bevformer/bevformer_minidrive.py', 10), ('configs/proxy/faster_rcnn_tiny.py', 3)],
)
def test_only_2d_detectors_are_fitted_to_the_classes(path, classes):
    config = proxy_config(load_config(Path(__file__).resolve().parents[1] / path), 3, epochs=1)
    head = config.model.pts_bbox_head if is_3d(config) else config.model.roi_head.bbox_head
    assert head.num_classes == classes


def test_3d_proxies_score_every_frame_with_the_objects_they_train_on():
    config = load_config(
        Path(__file__).resolve().parents[1] / 'configs/bevformer/bevformer_minidrive.py'
    )
    dataset = scoring_dataset(
        config, dict(type='PrunedDataset', dataset=dict(type='BEVFormerDataset', ann_file='x'))
    )
    assert dataset.dataset.filter_empty_gt is False
    assert [step.type for step in dataset.dataset.pipeline] == [
        'LoadMultiViewImages',
        'LoadAnnotations3D',
        'ObjectRangeFilter',
        'ObjectNameFilter',
        'Pack3DDetInputs',
    ]
