"""BEVFormer's dataset and pipeline against arrays of the official code, and bad input."""

import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmdet3d.evaluation.metrics.nuscenes_metric import output_to_nusc_box
from mmdet3d.structures import LiDARInstance3DBoxes
from mmengine.registry import DATASETS, MODELS, DefaultScope

from adadedup_mm.base.errors import UserError
from adadedup_mm.models.bevformer import BEVFormerDataset
from adadedup_mm.models.bevformer import dataset as room
from adadedup_mm.models.bevformer.dataset import ContiguousSampler, draw_history
from adadedup_mm.models.bevformer.grid_mask import apply_grid_mask
from adadedup_mm.models.bevformer.infos import temporal_records
from adadedup_mm.models.bevformer.transforms import (
    MultiViewScale,
    lidar2img,
    photometric_distortion,
)

CAMERAS = (
    'CAM_FRONT',
    'CAM_FRONT_RIGHT',
    'CAM_FRONT_LEFT',
    'CAM_BACK',
    'CAM_BACK_LEFT',
    'CAM_BACK_RIGHT',
)
CLASSES = [
    'car',
    'truck',
    'construction_vehicle',
    'bus',
    'trailer',
    'barrier',
    'motorcycle',
    'bicycle',
    'pedestrian',
    'traffic_cone',
]
TRAIN = [
    dict(type='LoadMultiViewImages'),
    dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True),
    dict(type='ObjectRangeFilter', point_cloud_range=[-51.2, -51.2, -5.0, 51.2, 51.2, 3.0]),
    dict(type='ObjectNameFilter', classes=CLASSES),
    dict(type='MultiViewScale', scales=[0.5]),
    dict(type='Pack3DDetInputs', keys=['img', 'gt_bboxes_3d', 'gt_labels_3d']),
]
TEST = [TRAIN[0], TRAIN[4], dict(type='Pack3DDetInputs', keys=['img'])]


@pytest.fixture(scope='module')
def oracle() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / 'data' / 'bevformer' / 'data_oracle.npz') as arrays:
        return dict(arrays)


def make_info(oracle: dict[str, np.ndarray], index: int) -> dict[str, Any]:
    cams = {
        name: dict(
            data_path=f'./data/nuscenes/samples/{name}/{index}.png',
            cam_intrinsic=oracle['cam_K'][i],
            sensor2lidar_rotation=oracle['cam_sensor2lidar_rotation'][i],
            sensor2lidar_translation=oracle['cam_sensor2lidar_translation'][i],
        )
        for i, name in enumerate(CAMERAS)
    }
    own = {
        key: oracle[f'info{index}_{key}']
        for key in (
            'can_bus',
            'ego2global_translation',
            'ego2global_rotation',
            'gt_boxes',
            'gt_velocity',
            'gt_names',
        )
    }
    return dict(
        token=f'tok{index}',
        scene_token='a' if index < 5 else 'b',
        timestamp=1_000_000 * index,
        cams=cams,
        lidar2ego_translation=[0.9, 0.0, 1.8],
        lidar2ego_rotation=[0.5**0.5, 0.0, 0.0, -(0.5**0.5)],
        valid_flag=oracle['valid_flag'],
        num_lidar_pts=np.ones(6, dtype=int),
        **own,
    )


@pytest.fixture(scope='module')
def folder(oracle: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('nuscenes')
    for index, frame in enumerate(oracle['raw_bgr']):
        for name, image in zip(CAMERAS, frame, strict=True):
            path = folder / 'samples' / name / f'{index}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), image)
    write(
        folder / 'temporal.pkl',
        dict(
            infos=[make_info(oracle, i) for i in (3, 0, 7, 1, 6, 2, 5, 4)],
            metadata=dict(version='v1.0-mini'),
        ),
    )
    return folder


def write(path: Path, payload: Any) -> None:
    path.write_bytes(pickle.dumps(payload))


def build(folder: Path, ann_file: str = 'temporal.pkl', **options: Any) -> Any:
    config = dict(
        type='BEVFormerDataset',
        data_root=str(folder),
        ann_file=ann_file,
        pipeline=TRAIN,
        queue_length=3,
        metainfo=dict(classes=CLASSES),
    )
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        return DATASETS.build(
            {key: value for key, value in {**config, **options}.items() if value is not None}
        )


def collate(*samples: dict[str, Any]) -> dict[str, Any]:
    """What the model gets: normalised and padded."""
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        preprocessor = MODELS.build(
            dict(
                type='Det3DDataPreprocessor',
                mean=[123.675, 116.28, 103.53],
                std=[58.395, 57.12, 57.375],
                bgr_to_rgb=True,
                pad_size_divisor=32,
            )
        )
    return preprocessor(
        dict(
            inputs={'img': [sample['inputs']['img'] for sample in samples]},
            data_samples=[sample['data_samples'] for sample in samples],
        )
    )


@pytest.mark.parametrize('seed', [0, 1])
def test_queues_equal_the_official_code(
    oracle: dict[str, np.ndarray], folder: Path, seed: int
) -> None:
    dataset = build(folder)
    assert dataset.metainfo['version'] == 'v1.0-mini'
    for index in range(8):
        random.seed(seed)
        queue = dataset[index]['data_samples'].queue
        key = f'q{index}_{seed}'
        assert [frame['token'] for frame in queue] == [f'tok{i}' for i in oracle[f'{key}_picked']]
        assert [frame['prev_bev_exists'] for frame in queue] == oracle[
            f'{key}_prev_bev_exists'
        ].tolist()
        if index > 1:
            np.testing.assert_allclose(
                [frame['can_bus'] for frame in queue], oracle[f'{key}_can_bus'], atol=1e-9
            )


def test_the_first_frame_stands_in_for_frames_before_it_without_moving(folder: Path) -> None:
    """Here the official code gives negative positions, because repeated frames share one array."""
    random.seed(0)
    still, moving = (
        np.stack([frame['can_bus'] for frame in build(folder)[index]['data_samples'].queue])
        for index in (0, 1)
    )
    assert not still[:, [0, 1, 2, -1]].any()
    assert not moving[:2, [0, 1, 2, -1]].any()
    assert 0 < np.hypot(*moving[2, :2]) < 5


@pytest.mark.parametrize('index', [3, 6])
def test_images_boxes_and_calibration_equal_the_official_code(
    oracle: dict[str, np.ndarray], folder: Path, index: int
) -> None:
    random.seed(0)
    batch = collate(build(folder)[index])
    sample = batch['data_samples'][0]
    images = batch['inputs']['imgs'].view(3, 6, 3, 32, 64).numpy()
    np.testing.assert_allclose(images, oracle[f'q{index}_0_img'], atol=1e-5)
    np.testing.assert_allclose(
        sample.queue[-1]['lidar2img'], oracle[f'q{index}_0_lidar2img'], atol=1e-9
    )
    boxes, want = sample.gt_instances_3d.bboxes_3d.tensor.numpy(), oracle[f'q{index}_0_gt_bottom']
    np.testing.assert_array_equal(sample.gt_instances_3d.labels_3d, oracle[f'q{index}_0_gt_labels'])
    np.testing.assert_allclose(
        boxes[:, [0, 1, 2, 4, 3, 5, 7, 8]], want[:, [0, 1, 2, 3, 4, 5, 7, 8]], atol=1e-5
    )
    np.testing.assert_allclose(
        np.exp(1j * (-boxes[:, 6] - np.pi / 2)), np.exp(1j * want[:, 6]), atol=1e-5
    )


def test_test_frames_equal_the_official_code(oracle: dict[str, np.ndarray], folder: Path) -> None:
    dataset = build(folder, pipeline=TEST, test_mode=True)
    assert [dataset[i]['data_samples'].token for i in range(8)] == [f'tok{i}' for i in range(8)]
    batch = collate(dataset[2])
    np.testing.assert_allclose(batch['inputs']['imgs'][0].numpy(), oracle['test2_img'], atol=1e-5)
    sample = batch['data_samples'][0]
    np.testing.assert_allclose(sample.can_bus, oracle['test2_can_bus'], atol=1e-9)
    np.testing.assert_allclose(sample.lidar2img, oracle['test2_lidar2img'], atol=1e-9)
    assert sample.scene_token == 'a'


def test_queues_of_a_batch_are_stacked(folder: Path) -> None:
    dataset = build(folder)
    batch = collate(dataset[4], dataset[7])
    assert batch['inputs']['imgs'].shape == (2, 18, 3, 32, 64)


def test_frames_drawn_at_different_scales_share_a_queue(folder: Path) -> None:
    np.random.seed(0)
    pipeline = [*TRAIN[:4], dict(type='MultiViewScale', scales=[0.5, 1.0]), TRAIN[5]]
    dataset = build(folder, pipeline=pipeline)
    batch = collate(*(dataset[i] for i in range(2, 8)))
    assert batch['inputs']['imgs'].shape == (6, 18, 3, 64, 96)


def test_frames_without_objects_are_replaced_only_where_asked(
    oracle: dict[str, np.ndarray], folder: Path
) -> None:
    infos = [make_info(oracle, i) for i in range(4)]
    infos[3]['valid_flag'] = np.zeros(6, dtype=bool)
    infos[1]['valid_flag'] = np.zeros(6, dtype=bool)
    write(folder / 'empty.pkl', dict(infos=infos, metadata=dict(version='v1.0-mini')))
    assert build(folder, 'empty.pkl')[3]['data_samples'].queue[-1]['token'] in ('tok0', 'tok2')
    kept = build(folder, 'empty.pkl', filter_empty_gt=False)[3]['data_samples']
    assert kept.queue[-1]['token'] == 'tok3'
    assert len(kept.gt_instances_3d.bboxes_3d) == 0


def test_mmdet3d_infos_give_the_same_single_frames(
    oracle: dict[str, np.ndarray], folder: Path
) -> None:
    infos = [make_info(oracle, i) for i in range(4)]
    records = temporal_records(
        dict(infos=infos), BEVFormerDataset.METAINFO['classes'], 'x', with_can_bus=True
    )
    data_list = [
        {key: value for key, value in record.items() if key not in ('can_bus', 'scene_token')}
        for record in records
    ]
    for record in data_list:
        for image in record['images'].values():
            image['img_path'] = Path(image['img_path']).name
            image['cam2img'] = image['cam2img'].tolist()
    write(folder / 'v1.pkl', dict(metainfo=dict(version='v1.0-mini'), data_list=data_list))
    write(folder / 'ordered.pkl', dict(infos=infos, metadata=dict(version='v1.0-mini')))
    prefix = {name: f'samples/{name}' for name in CAMERAS}
    temporal = build(folder, 'ordered.pkl', queue_length=1)
    new = build(folder, 'v1.pkl', queue_length=1, data_prefix=prefix)
    stock = build(
        folder,
        'v1.pkl',
        queue_length=None,
        type='NuScenesDataset',
        data_prefix=prefix,
        modality=dict(use_camera=True, use_lidar=False),
        use_valid_flag=True,
    )
    for index in range(4):
        first, *others = (dataset[index] for dataset in (temporal, new, stock))
        for other in others:
            assert torch.equal(first['inputs']['img'], other['inputs']['img'])
            a, b = first['data_samples'], other['data_samples']
            np.testing.assert_allclose(a.lidar2img, b.lidar2img, atol=1e-9)
            assert torch.equal(
                a.gt_instances_3d.bboxes_3d.tensor, b.gt_instances_3d.bboxes_3d.tensor
            )
            np.testing.assert_array_equal(a.gt_instances_3d.labels_3d, b.gt_instances_3d.labels_3d)


def drop(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda info: info.pop(key)


@pytest.mark.parametrize(
    ('damage', 'words'),
    [
        (drop('can_bus'), ('tok2', 'can_bus', 'create_data.py', 'make_minidrive.py')),
        (drop('scene_token'), ('tok2', 'scene_token')),
        (lambda info: info.update(can_bus=np.zeros(16)), ('tok2', 'can_bus', '(16,)')),
        (lambda info: info['cams'].pop('CAM_BACK'), ('tok2', 'CAM_BACK')),
        (
            lambda info: info['cams']['CAM_BACK'].update(cam_intrinsic=np.zeros((4, 3))),
            ('tok2', 'CAM_BACK', '(4, 3)'),
        ),
        (
            lambda info: info['cams']['CAM_BACK'].pop('sensor2lidar_rotation'),
            ('tok2', 'sensor2lidar_rotation'),
        ),
    ],
)
def test_damaged_infos_are_named(
    oracle: dict[str, np.ndarray],
    folder: Path,
    damage: Callable[[dict[str, Any]], Any],
    words: tuple[str, ...],
) -> None:
    infos = [make_info(oracle, i) for i in range(4)]
    damage(infos[2])
    write(folder / 'damaged.pkl', dict(infos=infos, metadata=dict(version='v1.0-mini')))
    with pytest.raises(UserError) as caught:
        build(folder, 'damaged.pkl')
    assert all(word in str(caught.value) for word in ('damaged.pkl', *words))
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('damage', 'words'),
    [
        (drop('gt_velocity'), ('tok2', 'gt_velocity', 'with_velocity=False')),
        (drop('valid_flag'), ('tok2', 'valid_flag', 'use_valid_flag=False')),
        (drop('gt_boxes'), ('tok2', 'gt_boxes', 'only some')),
        (drop('gt_names'), ('tok2', 'gt_names', 'take it out')),
        (
            lambda info: info.update(gt_boxes=info['gt_boxes'][:, :6]),
            ('tok2', 'gt_boxes', '(6, 6)', '(n, 7)'),
        ),
        (
            lambda info: info.update(gt_names=np.append(info['gt_names'], 'car')),
            ('tok2', 'gt_names', '(7,)', '(6,) texts'),
        ),
        (lambda info: info.update(gt_names=np.arange(6)), ('tok2', 'gt_names', 'texts')),
        (
            lambda info: info.update(gt_velocity=np.zeros((5, 2))),
            ('tok2', 'gt_velocity', '(5, 2)', '(6, 2)'),
        ),
        (lambda info: info.update(valid_flag=[]), ('tok2', 'valid_flag', '(0,)', '(6,)')),
        (lambda info: info.update(num_lidar_pts=[np.nan] * 6), ('tok2', 'take it out')),
        (lambda info: info.update(timestamp='noon'), ('tok2', 'take it out')),
        (
            lambda info: info.update(ego2global_rotation=[1.0, 0, 0]),
            ('tok2', 'ego2global_rotation', '(3,)', '(4,)'),
        ),
        (
            lambda info: info.update(ego2global_translation=[np.nan] * 3),
            ('tok2', 'ego2global_translation', 'finite'),
        ),
        (lambda info: info.update(ego2global_rotation=np.zeros(4)), ('tok2', 'take it out')),
        (lambda info: info['cams'].update(CAM_BACK=None), ('tok2', 'CAM_BACK', 'no dict')),
        (lambda info: info['cams']['CAM_BACK'].pop('data_path'), ('tok2', 'CAM_BACK', 'data_path')),
        (
            lambda info: info['cams']['CAM_BACK'].update(cam_intrinsic=[[1, 'x', 2]] * 3),
            ('tok2', 'cam_intrinsic'),
        ),
    ],
)
def test_what_a_frame_lacks_is_named_with_what_to_do(
    oracle: dict[str, np.ndarray],
    folder: Path,
    damage: Callable[[dict[str, Any]], Any],
    words: tuple[str, ...],
) -> None:
    test_damaged_infos_are_named(oracle, folder, damage, words)


def test_infos_are_read_without_what_the_dataset_does_not_ask_for(
    oracle: dict[str, np.ndarray], folder: Path
) -> None:
    """As officially: use_valid_flag=False counts points, with_velocity=False boxes of 7 numbers."""
    infos = [make_info(oracle, i) for i in range(2)]
    for info in infos:
        info.update(num_lidar_pts=np.array([0, 1, 1, 1, 1, 0]))
        del info['valid_flag'], info['gt_velocity']
    write(folder / 'few.pkl', dict(infos=infos))
    boxes = build(folder, 'few.pkl', use_valid_flag=False, with_velocity=False)[1][
        'data_samples'
    ].gt_instances_3d
    for info in infos:
        info.update(
            valid_flag=np.array([0, 1, 1, 1, 1, 0], bool), gt_velocity=oracle['info1_gt_velocity']
        )
        del info['num_lidar_pts']
    write(folder / 'few.pkl', dict(infos=infos))
    others = build(folder, 'few.pkl')[1]['data_samples'].gt_instances_3d
    assert torch.equal(boxes.bboxes_3d.tensor, others.bboxes_3d.tensor[:, :7]) and len(
        boxes.bboxes_3d
    )
    np.testing.assert_array_equal(boxes.labels_3d, others.labels_3d)


def test_boxes_of_nine_numbers_bring_their_velocities(
    oracle: dict[str, np.ndarray], folder: Path
) -> None:
    infos = [make_info(oracle, i) for i in range(2)]
    write(folder / 'seven.pkl', dict(infos=infos))
    for info in infos:
        info['gt_boxes'] = np.concatenate([info['gt_boxes'], info.pop('gt_velocity')], axis=1)
    write(folder / 'nine.pkl', dict(infos=infos))
    seven, nine = (
        build(folder, name)[1]['data_samples'].gt_instances_3d for name in ('seven.pkl', 'nine.pkl')
    )
    assert torch.equal(seven.bboxes_3d.tensor, nine.bboxes_3d.tensor)


@pytest.mark.parametrize('content', [dict(metadata='v1.0-mini'), dict(metadata=['v1.0-mini'])])
def test_a_header_that_is_no_dict_is_named(
    oracle: dict[str, np.ndarray], folder: Path, content: dict[str, Any]
) -> None:
    write(folder / 'text.pkl', dict(content, infos=[make_info(oracle, 0)]))
    with pytest.raises(
        UserError, match=r"text.pkl: 'metadata' is a \w+ instead of a dict, such as dict\(version="
    ):
        build(folder, 'text.pkl')


@pytest.mark.parametrize('content', [[], 'text', dict(infos=None), dict(infos=[None])])
def test_what_is_no_infos_is_named(folder: Path, content: Any) -> None:
    write(folder / 'none.pkl', content)
    with pytest.raises(UserError, match=r'none\.pkl.* (dict with infos|list of dicts)'):
        build(folder, 'none.pkl')


def test_infos_of_the_wrong_generation_are_named(folder: Path) -> None:
    write(folder / 'wrong.pkl', dict(metainfo={}, data_list=[]))
    with pytest.raises(
        UserError, match=r'wrong.pkl.*nuscenes_infos_temporal.*create_data.py.*make_minidrive'
    ):
        build(folder, 'wrong.pkl')


@pytest.mark.parametrize('content', [None, b'no picture'])
def test_missing_and_damaged_images_are_named(
    oracle: dict[str, np.ndarray], folder: Path, content: bytes | None
) -> None:
    info = make_info(oracle, 0)
    path = folder / 'samples' / 'broken.png'
    path.unlink(missing_ok=True)
    if content:
        path.write_bytes(content)
    info['cams']['CAM_BACK']['data_path'] = 'samples/broken.png'
    write(folder / 'broken.pkl', dict(infos=[info]))
    with pytest.raises(UserError, match=r'broken\.png'):
        build(folder, 'broken.pkl', queue_length=1)[0]


@pytest.mark.parametrize('shape', [(3, 3), (3, 4), (4, 4)])
def test_calibration_of_every_dataset_gives_square_matrices(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    intrinsic, extrinsic = np.eye(4), rng.normal(size=(4, 4))
    intrinsic[:3, :3] = rng.normal(size=(3, 3))
    got = lidar2img(dict(cam2img=intrinsic[: shape[0], : shape[1]], lidar2cam=extrinsic), 'x')
    np.testing.assert_allclose(got, intrinsic @ extrinsic)
    with pytest.raises(UserError, match=r'cam2img.*\(2, 2\)'):
        lidar2img(dict(cam2img=np.eye(2), lidar2cam=extrinsic), 'x')
    with pytest.raises(UserError, match='lidar2cam'):
        lidar2img(dict(cam2img=intrinsic), 'x')


def test_scaling_moves_projected_points_with_the_image() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(4, 4))
    results = MultiViewScale([0.5])(
        dict(img=[np.zeros((45, 81, 3), np.float32)], lidar2img=[matrix])
    )
    assert results['img'][0].shape == (22, 40, 3)
    assert results['img_shape'] == (22, 40)
    point = np.append(rng.normal(size=3), 1)
    before, after = matrix @ point, results['lidar2img'][0] @ point
    np.testing.assert_allclose(after[:2] / after[2], 0.5 * before[:2] / before[2])


def test_photometric_distortion_equals_the_official_code(oracle: dict[str, np.ndarray]) -> None:
    rng = np.random.RandomState(5)
    got = [
        photometric_distortion(image.astype(np.float32), rng) for image in oracle['raw_bgr'][0, :2]
    ]
    np.testing.assert_array_equal(got, oracle['photometric_seed5_out'])


@pytest.mark.parametrize('seed', range(6))
def test_grid_mask_equals_the_official_code(oracle: dict[str, np.ndarray], seed: int) -> None:
    got = apply_grid_mask(torch.ones(2, 6, 3, 48, 64), np.random.RandomState(seed))
    assert torch.equal(got, got[:1, :1, :1].expand_as(got))
    np.testing.assert_array_equal(got[0, 0, 0], oracle[f'gridmask_seed{seed}'])


def test_exported_boxes_equal_the_official_code(oracle: dict[str, np.ndarray]) -> None:
    boxes = oracle['eval_in_boxes_bottom'][:, [0, 1, 2, 4, 3, 5, 6, 7, 8]]
    boxes[:, 6] = -boxes[:, 6] - np.pi / 2
    found, _ = output_to_nusc_box(
        dict(
            bboxes_3d=LiDARInstance3DBoxes(boxes, box_dim=9),
            scores_3d=torch.from_numpy(oracle['eval_in_scores']),
            labels_3d=torch.from_numpy(oracle['eval_in_labels']),
        )
    )
    np.testing.assert_allclose(
        [box.center for box in found], oracle['eval_lidar_center'], atol=1e-6
    )
    np.testing.assert_allclose([box.wlh for box in found], oracle['eval_lidar_wlh'], atol=1e-6)
    turned = np.array([box.orientation.elements for box in found])
    np.testing.assert_allclose(np.abs((turned * oracle['eval_lidar_quat']).sum(1)), 1, atol=1e-6)


@given(index=st.integers(0, 50), length=st.integers(1, 6))
def test_history_is_ordered_and_recent(index: int, length: int) -> None:
    drawn = draw_history(index, length)
    assert len(drawn) == length - 1
    assert drawn == sorted(drawn)
    assert all(max(index - length, 0) <= i < index or i == index == 0 for i in drawn)


@pytest.mark.parametrize(('count', 'world'), [(10, 4), (3, 4), (8, 1)])
def test_blocks_of_all_processes_are_the_whole_set_in_order(
    monkeypatch: pytest.MonkeyPatch, count: int, world: int
) -> None:
    seen = []
    for rank in range(world):
        monkeypatch.setattr(room, 'get_dist_info', lambda rank=rank: (rank, world))
        sampler = ContiguousSampler(range(count), seed=3)
        assert len(sampler) == len(list(sampler))
        seen += list(sampler)
    assert seen == list(range(count))
