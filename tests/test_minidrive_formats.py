"""MiniDrive's 3D layouts, read by the libraries that they are made for."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip('mmdet3d')

from mmdet3d.datasets import KittiDataset, NuScenesDataset, WaymoDataset
from mmdet3d.evaluation import NuScenesMetric
from mmdet3d.structures import LiDARInstance3DBoxes
from mmengine.registry import init_default_scope
from nuscenes import NuScenes

from adadedup_mm.minidrive.build import WorldOptions, make_world
from adadedup_mm.minidrive.cameras import CAMERAS, HEIGHT, WIDTH
from adadedup_mm.minidrive.nuscenes_infos import NUSCENES_CLASSES
from adadedup_mm.minidrive.traffic import CLASSES

SHARED = Path(__file__).parents[2] / 'shared' / 'data' / 'mmdet3d_infos'
FRAMES = 3
WAYMO_PREFIX = dict(
    pts='training/velodyne',
    CAM_FRONT='training/image_0',
    CAM_FRONT_LEFT='training/image_1',
    CAM_FRONT_RIGHT='training/image_2',
    CAM_SIDE_LEFT='training/image_3',
    CAM_SIDE_RIGHT='training/image_4',
)


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    init_default_scope('mmdet3d')
    out = tmp_path_factory.mktemp('minidrive') / 'world'
    make_world(out, WorldOptions(scenes=6, frames=FRAMES, seed=1), workers=1)
    return out


def load(path: Path) -> Any:
    return pickle.loads(path.read_bytes())


def loading(points: int, views: int) -> list[dict]:
    images = (
        dict(type='LoadMultiViewImageFromFiles', num_views=views)
        if views > 1
        else dict(type='LoadImageFromFile')
    )
    return [
        dict(type='LoadPointsFromFile', coord_type='LIDAR', load_dim=points, use_dim=4),
        images,
        dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True),
        dict(
            type='Pack3DDetInputs',
            keys=['img', 'points', 'gt_bboxes_3d', 'gt_labels_3d'],
            meta_keys=['cam2img', 'lidar2cam', 'lidar2img'],
        ),
    ]


def nuscenes(root: Path, split: str, **options: Any) -> NuScenesDataset:
    return NuScenesDataset(
        data_root=str(root / 'nuscenes'),
        ann_file=f'nuscenes_infos_{split}.pkl',
        box_type_3d='LiDAR',
        data_prefix=dict(pts='samples/LIDAR_TOP', **{name: f'samples/{name}' for name in CAMERAS}),
        modality=dict(use_lidar=True, use_camera=True),
        **options,
    )


def projected(corners: np.ndarray, cam2img: Any, lidar2cam: Any) -> tuple[np.ndarray, np.ndarray]:
    """Bounds (n, 4) in pixels of corners (n, 8, 3), and whether all of them are in the picture."""
    lidar2cam, cam2img = np.array(lidar2cam), np.array(cam2img)[:3, :3]
    points = (corners @ lidar2cam[:3, :3].T + lidar2cam[:3, 3]) @ cam2img.T
    flat = points[..., :2] / np.where(points[..., 2:] == 0, 1, points[..., 2:])
    bounds = np.concatenate([flat.min(axis=1), flat.max(axis=1)], axis=1)
    inside = (
        (points[..., 2] > 0.5).all(axis=1)
        & (bounds[:, :2] > 1).all(axis=1)
        & (bounds[:, 2] < WIDTH - 1)
        & (bounds[:, 3] < HEIGHT - 1)
    )
    return bounds, inside


def matches(bounds: np.ndarray, seen: np.ndarray) -> int:
    """How many seen boxes (n, 4) lie wholly in the picture; each of these must be in ``bounds``."""
    whole = seen[
        (seen[:, :2] > 1).all(axis=1) & (seen[:, 2] < WIDTH - 1) & (seen[:, 3] < HEIGHT - 1)
    ]
    for box in whole:
        assert np.abs(bounds - box).max(axis=1).min() < 0.05
    return len(whole)


def test_nuscenes_dataset_reads_pictures_points_and_boxes(root):
    dataset = nuscenes(root, 'train', pipeline=loading(5, 6))
    assert len(dataset) == 5 * FRAMES
    for index in (0, 4, 14):
        item = dataset[index]
        assert item['inputs']['img'].shape == (6, 3, HEIGHT, WIDTH)
        boxes = item['data_samples'].gt_instances_3d.bboxes_3d
        assert len(item['inputs']['points']) > 400
        assert len(boxes) > 3
        assert boxes.tensor.shape[1] == 9


def test_projected_boxes_agree_with_the_boxes_in_the_pictures(root):
    agreed = 0
    for info in load(root / 'nuscenes/nuscenes_infos_train.pkl')['data_list']:
        boxes = torch.tensor([instance['bbox_3d'] for instance in info['instances']])
        corners = LiDARInstance3DBoxes(boxes, origin=(0.5, 0.5, 0.5)).corners.numpy()
        for name, image in info['images'].items():
            bounds, inside = projected(corners, image['cam2img'], image['lidar2cam'])
            seen = np.array([instance['bbox'] for instance in info['cam_instances'][name]]).reshape(
                -1, 4
            )
            agreed += matches(bounds[inside], seen)
    assert agreed > 50


def test_lidar_points_are_counted_right(root):
    for info in load(root / 'nuscenes/nuscenes_infos_val.pkl')['data_list']:
        points = np.fromfile(
            root / 'nuscenes/samples/LIDAR_TOP' / info['lidar_points']['lidar_path'], np.float32
        )
        points = points.reshape(-1, 5)[:, :3]
        for instance in info['instances']:
            x, y, z, length, width, height, yaw = instance['bbox_3d']
            local = points - (x, y, z)
            along = local[:, 0] * np.cos(yaw) + local[:, 1] * np.sin(yaw)
            across = local[:, 1] * np.cos(yaw) - local[:, 0] * np.sin(yaw)
            inside = (
                2 * np.abs(np.column_stack([along, across, local[:, 2]])) < (length, width, height)
            ).all(axis=1)
            assert inside.sum() >= instance['num_lidar_pts']
            assert instance['bbox_3d_isvalid'] == (instance['num_lidar_pts'] > 0)


def test_the_devkit_walks_the_tables(root):
    tables = NuScenes('v1.0-trainval', str(root / 'nuscenes'), verbose=False)
    assert len(list((root / 'nuscenes/v1.0-trainval').glob('*.json'))) == 13
    assert (len(tables.scene), len(tables.sample)) == (6, 6 * FRAMES)
    for scene in tables.scene:
        token, walked = scene['first_sample_token'], []
        while token:
            walked.append(token)
            sample = tables.get('sample', token)
            assert len(sample['data']) == 7
            for data in sample['data'].values():
                assert (root / 'nuscenes' / tables.get('sample_data', data)['filename']).is_file()
            token = sample['next']
        assert len(walked) == scene['nbr_samples'] == FRAMES
        assert walked[-1] == scene['last_sample_token']
    infos = load(root / 'nuscenes/nuscenes_infos_train.pkl')['data_list']
    _, boxes, _ = tables.get_sample_data(
        tables.get('sample', infos[1]['token'])['data']['LIDAR_TOP']
    )
    ours = np.array(sorted(instance['bbox_3d'][:6] for instance in infos[1]['instances']))
    theirs = np.array(sorted([*box.center, *box.wlh[[1, 0, 2]]] for box in boxes))
    np.testing.assert_allclose(ours, theirs, atol=2e-3)


def test_the_truth_scores_fully_in_the_official_metric(root):
    dataset = nuscenes(
        root, 'val', pipeline=[], test_mode=True, load_eval_anns=True, use_valid_flag=True
    )
    metric = NuScenesMetric(
        data_root=str(root / 'nuscenes'), ann_file=str(root / 'nuscenes/nuscenes_infos_val.pkl')
    )
    metric.dataset_meta = dataset.metainfo
    labels: set[int] = set()
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        truth = info['eval_ann_info']
        labels |= set(truth['gt_labels_3d'].tolist())
        found = dict(
            bboxes_3d=truth['gt_bboxes_3d'],
            labels_3d=torch.as_tensor(truth['gt_labels_3d']),
            scores_3d=torch.ones(len(truth['gt_labels_3d'])),
        )
        metric.process(
            {}, [dict(pred_instances_3d=found, pred_instances={}, sample_idx=info['sample_idx'])]
        )
    result = {name.split('/')[-1]: value for name, value in metric.evaluate(len(dataset)).items()}
    present = [NUSCENES_CLASSES[label] for label in sorted(labels)]
    assert len(present) >= 4
    assert [result[f'{name}_AP_dist_2.0'] for name in present] == pytest.approx(
        [1.0] * len(present)
    )
    # The devkit counts classes that are absent as zero.
    assert result['mAP'] == pytest.approx(len(present) / 10)


def test_temporal_infos_are_chained_and_in_the_old_convention(root):
    for split in ('train', 'val'):
        infos = load(root / f'nuscenes/nuscenes_infos_temporal_{split}.pkl')['infos']
        new = load(root / f'nuscenes/nuscenes_infos_{split}.pkl')['data_list']
        by_token = {info['token']: info for info in infos}
        for info, other in zip(infos, new, strict=True):
            assert info['token'] == other['token']
            assert (info['frame_idx'] == 0) == (info['prev'] == '')
            assert (info['frame_idx'] == FRAMES - 1) == (info['next'] == '')
            if info['prev']:
                before = by_token[info['prev']]
                assert before['next'] == info['token']
                assert before['scene_token'] == info['scene_token']
                assert before['timestamp'] < info['timestamp']
            assert info['can_bus'].shape == (18,)
            np.testing.assert_allclose(info['can_bus'][:3], info['ego2global_translation'])
            old = np.array([instance['bbox_3d'] for instance in other['instances']])
            np.testing.assert_allclose(
                info['gt_boxes'],
                np.column_stack([old[:, [0, 1, 2, 4, 3, 5]], -old[:, 6] - np.pi / 2]),
            )
            names = [NUSCENES_CLASSES[instance['bbox_label']] for instance in other['instances']]
            assert names == info['gt_names'].tolist()
            assert (root / 'nuscenes' / info['cams']['CAM_BACK']['data_path']).is_file()
            camera, lidar2cam = (
                info['cams']['CAM_BACK_LEFT'],
                np.array(other['images']['CAM_BACK_LEFT']['lidar2cam']),
            )
            np.testing.assert_allclose(
                camera['sensor2lidar_rotation'].T, lidar2cam[:3, :3], atol=1e-6
            )


def test_mono3d_json_holds_every_camera(root):
    for split, scenes in (('train', 5), ('val', 1)):
        value = json.loads((root / f'nuscenes/nuscenes_infos_{split}_mono3d.coco.json').read_text())
        assert len(value['images']) == scenes * FRAMES * 6
        ids = {image['id'] for image in value['images']}
        assert len(ids) == len(value['images'])
        assert {annotation['image_id'] for annotation in value['annotations']} <= ids
        assert {annotation['category_name'] for annotation in value['annotations']} <= set(CLASSES)


def test_waymo_dataset_reads_pictures_points_and_boxes(root):
    options = dict(
        data_root=str(root / 'waymo/kitti_format'),
        ann_file='waymo_infos_train.pkl',
        data_prefix=WAYMO_PREFIX,
        pcd_limit_range=[-85, -85, -5, 85, 85, 5],
    )
    dataset = WaymoDataset(
        **options, modality=dict(use_lidar=True, use_camera=True), pipeline=loading(6, 5)
    )
    item = dataset[1]
    assert (len(dataset), item['inputs']['img'].shape[0]) == (5 * FRAMES, 5)
    info = load(root / 'waymo/kitti_format/waymo_infos_train.pkl')['data_list'][1]
    corners, agreed = item['data_samples'].gt_instances_3d.bboxes_3d.corners.numpy(), 0
    for name, image in info['images'].items():
        bounds, inside = projected(corners, image['cam2img'], image['lidar2cam'])
        seen = np.array([instance['bbox'] for instance in info['cam_instances'][name]]).reshape(
            -1, 4
        )
        agreed += matches(bounds[inside], seen)
    assert agreed > 0
    mono = WaymoDataset(
        **options, modality=dict(use_lidar=False, use_camera=True), load_type='mv_image_based'
    )
    assert len(mono) == 5 * FRAMES * 5


def test_kitti_dataset_reads_pictures_points_and_boxes(root):
    dataset = KittiDataset(
        data_root=str(root / 'kitti'),
        ann_file='kitti_infos_train.pkl',
        box_type_3d='LiDAR',
        pipeline=loading(4, 1),
        data_prefix=dict(pts='training/velodyne_reduced', img='training/image_2'),
        modality=dict(use_lidar=True, use_camera=True),
        metainfo=dict(classes=['Pedestrian', 'Cyclist', 'Car']),
    )
    infos = load(root / 'kitti/kitti_infos_train.pkl')['data_list']
    assert len(dataset) == len(infos) == 5 * FRAMES
    agreed = 0
    for index in (0, 4, 8):
        item, info = dataset[index], infos[index]
        image = info['images']['CAM2']
        corners = item['data_samples'].gt_instances_3d.bboxes_3d.corners.numpy()
        bounds, inside = projected(corners, image['cam2img'], image['lidar2cam'])
        seen = [instance['bbox'] for instance in info['instances'] if instance['bbox_label'] <= 2]
        agreed += matches(bounds[inside], np.array(seen).reshape(-1, 4))
        labels = (
            (root / f'kitti/training/label_2/{info["sample_idx"]:06d}.txt').read_text().splitlines()
        )
        assert len(labels) == len(info['instances'])
        assert all(len(line.split()) == 15 for line in labels)
    assert agreed >= 3
    assert len((root / 'kitti/ImageSets/trainval.txt').read_text().split()) == 6 * FRAMES


def test_all_layouts_show_the_same_pictures(root):
    coco = json.loads((root / 'coco/annotations/instances_train.json').read_text())['images'][4]
    nuscenes_info = load(root / 'nuscenes/nuscenes_infos_train.pkl')['data_list'][4]
    waymo = load(root / 'waymo/kitti_format/waymo_infos_train.pkl')['data_list'][4]
    kitti = load(root / 'kitti/kitti_infos_train.pkl')['data_list'][4]
    pictures = [
        root / 'coco/images' / coco['file_name'],
        root / 'nuscenes/samples/CAM_FRONT' / nuscenes_info['images']['CAM_FRONT']['img_path'],
        root / 'waymo/kitti_format/training/image_0' / waymo['images']['CAM_FRONT']['img_path'],
        root / 'kitti/training/image_2' / kitti['images']['CAM2']['img_path'],
    ]
    assert len({picture.read_bytes() for picture in pictures}) == 1


@pytest.mark.skipif(not SHARED.is_dir(), reason='needs real info files')
@pytest.mark.parametrize(
    'ours, theirs',
    [
        ('nuscenes/nuscenes_infos_train.pkl', 'nus_info.pkl'),
        ('kitti/kitti_infos_train.pkl', 'kitti_infos_train.pkl'),
        ('waymo/kitti_format/waymo_infos_train.pkl', 'waymo_infos_train.pkl'),
    ],
)
def test_info_files_have_the_keys_of_real_ones(root, ours, theirs):
    def keys(value: Any, path: str = '') -> set[str]:
        if isinstance(value, dict):
            inner = (keys(part, f'{path}/{key}') for key, part in value.items())
            return {f'{path}/{key}' for key in value}.union(*inner)
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return set().union(*(keys(inner, path) for inner in value))
        return set()

    real, made = (keys(load(path)['data_list'][:4]) for path in (SHARED / theirs, root / ours))
    # There are no frames between ours.
    assert not {key for key in real - made if not key.startswith('/lidar_sweeps')}
    assert {key.split('/')[1] for key in made - real} <= {'cam_instances', 'images'}
