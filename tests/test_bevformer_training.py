"""BEVFormer through mmengine's runner: trained on a small drawn drive, judged as nuScenes does."""

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

import adadedup_mm.models.bevformer  # noqa: F401
from adadedup_mm.base.errors import UserError

CONFIGS = Path(__file__).parents[1] / 'configs' / 'bevformer'
RIG = {
    'CAM_FRONT': 0,
    'CAM_FRONT_RIGHT': -55,
    'CAM_FRONT_LEFT': 55,
    'CAM_BACK': 180,
    'CAM_BACK_LEFT': 110,
    'CAM_BACK_RIGHT': -110,
}
HEIGHT, WIDTH, FOCAL = 96, 160, 80
COLOURS = {'car': (40, 40, 220), 'pedestrian': (60, 200, 60)}
SIZES = {'car': (4.4, 1.9, 1.6), 'pedestrian': (0.7, 0.7, 1.8)}
LIDAR2EGO = (0.0, 0.0, 1.8)


def pose(x: float, y: float, yaw: float, z: float = 0.0) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler('z', yaw).as_matrix()
    matrix[:3, 3] = x, y, z
    return matrix


def quaternion(matrix: np.ndarray) -> list[float]:
    return np.roll(Rotation.from_matrix(matrix[:3, :3]).as_quat(), 1).tolist()


# The ego frame is x forward, the LiDAR's y forward, a camera's z forward.
LIDAR = pose(*LIDAR2EGO[:2], -np.pi / 2, LIDAR2EGO[2])
LENS = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]])
INTRINSIC = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1.0]])


def camera2ego(degrees: float) -> np.ndarray:
    return pose(0, 0, np.deg2rad(degrees), 1.5) @ LENS


def objects(rng: np.random.Generator) -> list[tuple[str, np.ndarray]]:
    """Six standing objects around the origin: name, and their pose in the global frame."""
    found = []
    for i in range(6):
        angle, distance = i * np.pi / 3 + rng.uniform(-0.3, 0.3), rng.uniform(8, 22)
        name = 'car' if i % 3 else 'pedestrian'
        place = distance * np.cos(angle), distance * np.sin(angle)
        found.append((name, pose(*place, rng.uniform(-3, 3), SIZES[name][2] / 2)))
    return found


def draw(cam2global: np.ndarray, things: Sequence[tuple[str, np.ndarray]]) -> np.ndarray:
    image = np.full((HEIGHT, WIDTH, 3), 110, dtype=np.uint8)
    image[HEIGHT // 2 :] = 80
    for name, box in things:
        corners = np.array(
            [[a, b, c, 1] for a in (-0.5, 0.5) for b in (-0.5, 0.5) for c in (-0.5, 0.5)]
        )
        corners[:, :3] *= SIZES[name]
        seen = np.linalg.inv(cam2global) @ box @ corners.T
        if (seen[2] > 0.5).all():
            pixels = (INTRINSIC @ seen[:3] / seen[2])[:2].T
            hull = pixels[ConvexHull(pixels).vertices]
            cv2.fillConvexPoly(image, np.round(hull).astype(np.int32), COLOURS[name])
    return image


def frame_info(
    folder: Path,
    index: int,
    ego: np.ndarray,
    things: Sequence[tuple[str, np.ndarray]],
    signals: np.ndarray,
) -> dict[str, Any]:
    """One frame as BEVFormer's tools/create_data.py describes it; writes its pictures."""
    cams = {}
    for camera, degrees in RIG.items():
        path = f'samples/{camera}/{index}.png'
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / path), draw(ego @ camera2ego(degrees), things))
        sensor2lidar = np.linalg.inv(LIDAR) @ camera2ego(degrees)
        cams[camera] = dict(
            data_path=f'./data/nuscenes/{path}',
            cam_intrinsic=INTRINSIC,
            sensor2lidar_rotation=sensor2lidar[:3, :3],
            sensor2lidar_translation=sensor2lidar[:3, 3],
        )
    boxes = []
    for name, box in things:
        local = np.linalg.inv(ego @ LIDAR) @ box
        length, width, height = SIZES[name]
        yaw = np.arctan2(local[1, 0], local[0, 0])
        boxes.append([*local[:3, 3], width, length, height, -yaw - np.pi / 2])
    return dict(
        token=f'sample{index}',
        scene_token='scene0',
        frame_idx=index,
        timestamp=1_000_000 + 500_000 * index,
        cams=cams,
        lidar_path='',
        lidar2ego_translation=LIDAR[:3, 3].tolist(),
        lidar2ego_rotation=quaternion(LIDAR),
        ego2global_translation=ego[:3, 3].tolist(),
        ego2global_rotation=quaternion(ego),
        can_bus=signals,
        gt_boxes=np.array(boxes),
        gt_names=np.array([name for name, _ in things]),
        gt_velocity=np.zeros((len(boxes), 2)),
        num_lidar_pts=np.full(len(boxes), 9),
        num_radar_pts=np.zeros(len(boxes), dtype=int),
        valid_flag=np.ones(len(boxes), dtype=bool),
    )


def write_tables(
    folder: Path, egos: Sequence[np.ndarray], things: Sequence[tuple[str, np.ndarray]]
) -> None:
    """The nuScenes tables that the devkit's detection evaluation reads."""
    count, names = len(egos), sorted(SIZES)
    neighbours = [
        dict(prev=f'{i - 1}' if i else '', next=f'{i + 1}' if i + 1 < count else '')
        for i in range(count)
    ]
    samples = [
        dict(
            token=f'sample{i}',
            timestamp=1_000_000 + 500_000 * i,
            scene_token='scene0',
            **{key: value and f'sample{value}' for key, value in neighbours[i].items()},
        )
        for i in range(count)
    ]
    annotations = [
        dict(
            token=f'a{i}_{j}',
            sample_token=f'sample{i}',
            instance_token=f'instance{j}',
            visibility_token='4',
            attribute_tokens=['parked' if name == 'car' else 'standing'],
            translation=box[:3, 3].tolist(),
            size=[SIZES[name][1], SIZES[name][0], SIZES[name][2]],
            rotation=quaternion(box),
            num_lidar_pts=9,
            num_radar_pts=0,
            **{key: value and f'a{value}_{j}' for key, value in neighbours[i].items()},
        )
        for i in range(count)
        for j, (name, box) in enumerate(things)
    ]
    tables = dict(
        log=[dict(token='log0', logfile='', vehicle='', date_captured='', location='')],
        map=[dict(token='map0', log_tokens=['log0'], category='', filename='map.png')],
        scene=[
            dict(
                token='scene0',
                name='scene-0003',
                description='',
                log_token='log0',
                nbr_samples=count,
                first_sample_token='sample0',
                last_sample_token=f'sample{count - 1}',
            )
        ],
        sample=samples,
        sample_annotation=annotations,
        category=[
            dict(
                token=name,
                name='vehicle.car' if name == 'car' else 'human.pedestrian.adult',
                description='',
            )
            for name in names
        ],
        attribute=[
            dict(token='parked', name='vehicle.parked', description=''),
            dict(token='standing', name='pedestrian.standing', description=''),
        ],
        visibility=[dict(token='4', level='v80-100', description='')],
        instance=[
            dict(
                token=f'instance{j}',
                category_token=name,
                nbr_annotations=count,
                first_annotation_token=f'a0_{j}',
                last_annotation_token=f'a{count - 1}_{j}',
            )
            for j, (name, _) in enumerate(things)
        ],
        sensor=[dict(token='lidar', channel='LIDAR_TOP', modality='lidar')],
        calibrated_sensor=[
            dict(
                token='calibrated',
                sensor_token='lidar',
                translation=LIDAR[:3, 3].tolist(),
                rotation=quaternion(LIDAR),
                camera_intrinsic=[],
            )
        ],
        ego_pose=[
            dict(
                token=f'ego{i}',
                timestamp=0,
                translation=ego[:3, 3].tolist(),
                rotation=quaternion(ego),
            )
            for i, ego in enumerate(egos)
        ],
        sample_data=[
            dict(
                token=f'data{i}',
                sample_token=f'sample{i}',
                ego_pose_token=f'ego{i}',
                is_key_frame=True,
                calibrated_sensor_token='calibrated',
                timestamp=0,
                fileformat='pcd',
                height=0,
                width=0,
                filename='',
                prev='',
                next='',
            )
            for i in range(count)
        ],
    )
    (folder / 'v1.0-trainval').mkdir()
    for name, rows in tables.items():
        (folder / 'v1.0-trainval' / f'{name}.json').write_text(json.dumps(rows))
    cv2.imwrite(str(folder / 'map.png'), np.zeros((1, 1), dtype=np.uint8))


@pytest.fixture(scope='module')
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four frames of one scene, the ego vehicle moving forward and turning left."""
    folder, rng = tmp_path_factory.mktemp('drive'), np.random.default_rng(0)
    things = objects(rng)
    egos = [pose(1.5 * i, 0.1 * i**2, 0.1 * i) for i in range(4)]
    infos = [frame_info(folder, i, ego, things, rng.normal(size=18)) for i, ego in enumerate(egos)]
    for name in ('train', 'val'):
        payload = dict(infos=infos[::-1], metadata=dict(version='v1.0-trainval'))
        (folder / f'nuscenes_infos_temporal_{name}.pkl').write_bytes(pickle.dumps(payload))
    write_tables(folder, egos, things)
    return folder


def config(folder: Path, work_dir: Path, epochs: int) -> Config:
    """The MiniDrive config made smaller, on the drawn drive."""
    config = Config.fromfile(CONFIGS / 'bevformer_minidrive.py')
    root = f'{folder}/'
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.data_root = root
    for evaluator in (config.val_evaluator, config.test_evaluator):
        evaluator.update(data_root=root, ann_file=f'{root}nuscenes_infos_temporal_val.pkl')
    config.merge_from_dict(
        dict(
            work_dir=str(work_dir),
            randomness=dict(seed=0),
            train_dataloader=dict(batch_size=4),
            model=dict(
                img_backbone=dict(base_channels=8),
                img_neck=dict(in_channels=[16, 32], out_channels=32),
                pts_bbox_head=dict(
                    bev_h=16,
                    bev_w=16,
                    num_query=30,
                    max_num=60,
                    transformer=dict(embed_dims=32, ffn_channels=64),
                ),
            ),
            optim_wrapper=dict(optimizer=dict(lr=4e-3)),
            train_cfg=dict(max_epochs=epochs, val_interval=epochs),
            default_hooks=dict(checkpoint=dict(interval=-1, save_last=False)),
        )
    )
    config.param_scheduler[0].end = 10
    config.param_scheduler[1].update(end=epochs, T_max=epochs)
    return config


def metric(values: dict[str, float], name: str) -> float:
    return next(value for key, value in values.items() if key.endswith(f'/{name}'))


def test_a_few_frames_are_learnt_by_heart(drive: Path, tmp_path: Path) -> None:
    """Two of the ten classes exist, so .2 is perfect."""
    small = config(drive, tmp_path, epochs=50)
    small.train_cfg.val_interval = 51
    runner = Runner.from_cfg(small)
    runner.train()
    found = runner.val_loop.run()
    assert metric(found, 'mAP') > 0.02
    assert metric(found, 'car_AP_dist_2.0') > 0.1


def test_ground_truth_is_judged_as_perfect_in_any_order(drive: Path, tmp_path: Path) -> None:
    runner = Runner.from_cfg(config(drive, tmp_path, epochs=1))
    dataset = DATASETS.build(
        dict(
            runner.cfg.train_dataloader.dataset,
            ann_file='nuscenes_infos_temporal_val.pkl',
            queue_length=1,
        )
    )
    results = []
    for index in (2, 0, 3, 1):
        sample = dataset[index]['data_samples']
        truth = sample.gt_instances_3d
        results.append(
            dict(
                sample_idx=sample.sample_idx,
                token=sample.token,
                pred_instances={},
                pred_instances_3d=dict(
                    bboxes_3d=truth.bboxes_3d,
                    labels_3d=torch.as_tensor(truth.labels_3d),
                    scores_3d=torch.ones(len(truth.labels_3d)),
                ),
            )
        )
    evaluator = runner.build_evaluator(runner.cfg.val_evaluator)
    evaluator.dataset_meta = dataset.metainfo
    evaluator.process(results, {})
    found = evaluator.evaluate(4)
    for name in ('car', 'pedestrian'):
        assert metric(found, f'{name}_AP_dist_0.5') > 0.99
        assert metric(found, f'{name}_trans_err') < 0.01
        assert metric(found, f'{name}_scale_err') < 0.01
        assert metric(found, f'{name}_orient_err') < 0.01
    with pytest.raises(UserError, match='no frame elsewhere'):
        evaluator.process([dict(results[0], token='elsewhere')], {})
        evaluator.evaluate(1)


def test_the_static_variant_trains_and_is_judged_on_single_frames(
    drive: Path, tmp_path: Path
) -> None:
    small = config(drive, tmp_path, epochs=1)
    small.merge_from_dict(
        dict(
            model=dict(
                temporal=False,
                use_grid_mask=True,
                pts_bbox_head=dict(
                    transformer=dict(use_can_bus=False, use_shift=False, rotate_prev_bev=False)
                ),
            )
        )
    )
    small.train_dataloader.dataset.queue_length = 1
    runner = Runner.from_cfg(small)
    runner.train()
    model = runner.model
    assert model.history is None
    batch = model.data_preprocessor(next(iter(runner.train_dataloader)), True)
    sum(model.loss(batch['inputs'], batch['data_samples']).values()).backward()
    # Distributed training needs a gradient, if only of zero, for every parameter.
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
