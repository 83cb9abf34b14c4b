"""Info files of the nuScenes layout: mmdet3d's v1.1, BEVFormer's temporal ones, and mono3d COCO json."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..base.files import atomic_open
from .cameras import HEIGHT, LIDAR2EGO, RIG, WIDTH, Camera
from .geometry import inverse, quaternion, transform_boxes
from .infos import camera_boxes, matrix_list, write_pickle
from .nuscenes_tables import ATTRIBUTES, VERSION, attribute, sensor_file
from .record import Frame, Record
from .tokens import token
from .traffic import CLASSES
from .world import Scene

# mmdet3d's order of nuScenes' detection classes.
NUSCENES_CLASSES = (
    'car',
    'truck',
    'trailer',
    'bus',
    'construction_vehicle',
    'bicycle',
    'motorcycle',
    'pedestrian',
    'traffic_cone',
    'barrier',
)
LABELS = np.array([NUSCENES_CLASSES.index(name) for name in CLASSES])
GRAVITY = 9.81

Info = dict[str, Any]


def write_infos(folder: Path, records: Sequence[Record]) -> None:
    """Writes ``nuscenes_infos_{train,val}.pkl``, ``..._temporal_...`` and ``..._mono3d.coco.json`` into ``folder``."""
    categories = {name: i for i, name in enumerate(NUSCENES_CLASSES)}
    metainfo = dict(categories=categories, dataset='nuscenes', version=VERSION, info_version='1.1')
    for split in ('train', 'val'):
        frames = [
            (record.scene, number, frame)
            for record in records
            if record.scene.split == split
            for number, frame in enumerate(record.frames)
        ]
        infos = [dict(sample_idx=index, **_info(*place)) for index, place in enumerate(frames)]
        write_pickle(
            folder / f'nuscenes_infos_{split}.pkl', dict(metainfo=metainfo, data_list=infos)
        )
        temporal = [_temporal_info(*place) for place in frames]
        write_pickle(
            folder / f'nuscenes_infos_temporal_{split}.pkl',
            dict(infos=temporal, metadata=dict(version=VERSION)),
        )
        with atomic_open(folder / f'nuscenes_infos_{split}_mono3d.coco.json', 'w') as file:
            file.write(json.dumps(_mono3d(frames), separators=(',', ':')))


def _lidar_state(frame: Frame, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (n, 7) and velocities (n, 2) of some objects in the LiDAR frame."""
    pose = inverse(frame.ego2global @ LIDAR2EGO)
    return transform_boxes(pose, frame.objects.boxes[chosen]), frame.objects.velocities[
        chosen
    ] @ pose[:2, :2].T


def _info(scene: Scene, number: int, frame: Frame) -> Info:
    """A sample of mmdet3d's v1.1 infos, without its index; file names come without their folders."""
    stamp = int(scene.timestamps[number]) / 1e6
    images = {}
    for camera in RIG:
        images[camera.name] = dict(
            img_path=Path(sensor_file(scene, number, camera.name)).name,
            cam2img=camera.intrinsic.tolist(),
            cam2ego=matrix_list(camera.cam2ego),
            lidar2cam=matrix_list(inverse(camera.cam2ego) @ LIDAR2EGO),
            sample_data_token=token(scene.seed, 'sample_data', scene.index, number, camera.name),
            timestamp=stamp,
        )
    chosen = frame.annotated
    instances = []
    for i, box, velocity in zip(chosen, *_lidar_state(frame, chosen), strict=True):
        label, points = int(LABELS[frame.objects.labels[i]]), int(frame.points[i])
        instances.append(
            dict(
                bbox_label=label,
                bbox_3d=box.tolist(),
                bbox_3d_isvalid=points > 0,
                bbox_label_3d=label,
                num_lidar_pts=points,
                num_radar_pts=0,
                velocity=velocity.tolist(),
            )
        )
    lidar_path = Path(sensor_file(scene, number, 'LIDAR_TOP')).name
    return dict(
        token=token(scene.seed, 'sample', scene.index, number),
        timestamp=stamp,
        ego2global=matrix_list(frame.ego2global),
        images=images,
        lidar_points=dict(num_pts_feats=5, lidar_path=lidar_path, lidar2ego=matrix_list(LIDAR2EGO)),
        instances=instances,
        cam_instances={camera.name: _camera_instances(camera, frame) for camera in RIG},
    )


def _camera_instances(camera: Camera, frame: Frame) -> list[Info]:
    """What a camera sees, in the order of the objects; ``attr_label`` 8 stands for no attribute."""
    seen, objects = frame.seen[camera.name], frame.objects
    chosen = np.flatnonzero(seen.labelled & (seen.centres[:, 2] > 0))
    boxes = camera_boxes(camera, transform_boxes(inverse(frame.ego2global), objects.boxes[chosen]))
    rotation = inverse(frame.ego2global @ camera.cam2ego)[:3, :2]
    velocities = (objects.velocities[chosen] @ rotation.T)[:, [0, 2]]
    result = []
    for i, box, velocity in zip(chosen, boxes, velocities, strict=True):
        label, kind = (
            int(objects.labels[i]),
            attribute(int(objects.labels[i]), float(np.hypot(*objects.velocities[i]))),
        )
        result.append(
            dict(
                bbox_label=int(LABELS[label]),
                bbox_label_3d=int(LABELS[label]),
                bbox=seen.boxes[i].tolist(),
                bbox_3d_isvalid=bool(frame.points[i] > 0),
                bbox_3d=box.tolist(),
                velocity=velocity.tolist(),
                center_2d=seen.centres[i, :2].tolist(),
                depth=float(seen.centres[i, 2]),
                attr_label=len(ATTRIBUTES) if kind is None else kind,
            )
        )
    return result


def _mono3d(frames: Sequence[tuple[Scene, int, Frame]]) -> Info:
    """All cameras' pictures as COCO images with 3D boxes in the camera frame."""
    images: list[Info] = []
    annotations: list[Info] = []
    for scene, number, frame in frames:
        pose = frame.ego2global
        for camera in RIG:
            file_name = sensor_file(scene, number, camera.name)
            image = token(scene.seed, 'sample_data', scene.index, number, camera.name)
            images.append(
                dict(
                    file_name=file_name,
                    id=image,
                    token=token(scene.seed, 'sample', scene.index, number),
                    cam2ego_rotation=quaternion(camera.cam2ego[:3, :3]),
                    cam2ego_translation=camera.cam2ego[:3, 3].tolist(),
                    ego2global_rotation=quaternion(pose[:3, :3]),
                    ego2global_translation=pose[:3, 3].tolist(),
                    cam_intrinsic=camera.intrinsic.tolist(),
                    width=WIDTH,
                    height=HEIGHT,
                )
            )
            for instance in _camera_instances(camera, frame):
                x1, y1, x2, y2 = instance['bbox']
                label, kind = instance['bbox_label'], instance['attr_label']
                annotations.append(
                    dict(
                        file_name=file_name,
                        image_id=image,
                        area=(x2 - x1) * (y2 - y1),
                        category_name=NUSCENES_CLASSES[label],
                        category_id=label,
                        bbox=[x1, y1, x2 - x1, y2 - y1],
                        iscrowd=0,
                        bbox_cam3d=instance['bbox_3d'],
                        velo_cam3d=instance['velocity'],
                        center2d=[*instance['center_2d'], instance['depth']],
                        attribute_id=kind,
                        attribute_name=(*ATTRIBUTES, 'None')[kind],
                        segmentation=[],
                        id=len(annotations),
                    )
                )
    categories = [dict(id=i, name=name) for i, name in enumerate(NUSCENES_CLASSES)]
    return dict(annotations=annotations, images=images, categories=categories)


def _temporal_info(scene: Scene, number: int, frame: Frame) -> Info:
    """BEVFormer's record: boxes x y z w l h and -yaw - pi/2 in the LiDAR frame, paths below the nuScenes folder."""

    def sample(at: int) -> str:
        return token(scene.seed, 'sample', scene.index, at) if 0 <= at < len(scene) else ''

    stamp, pose = int(scene.timestamps[number]), frame.ego2global
    ego = dict(
        ego2global_translation=pose[:3, 3].tolist(), ego2global_rotation=quaternion(pose[:3, :3])
    )
    cams = {}
    for camera in RIG:
        to_lidar = inverse(LIDAR2EGO) @ camera.cam2ego
        cams[camera.name] = dict(
            data_path=sensor_file(scene, number, camera.name),
            type=camera.name,
            sample_data_token=token(scene.seed, 'sample_data', scene.index, number, camera.name),
            sensor2ego_translation=camera.cam2ego[:3, 3].tolist(),
            sensor2ego_rotation=quaternion(camera.cam2ego[:3, :3]),
            **ego,
            timestamp=stamp,
            sensor2lidar_rotation=to_lidar[:3, :3],
            sensor2lidar_translation=to_lidar[:3, 3],
            cam_intrinsic=camera.intrinsic,
        )
    chosen = frame.annotated
    boxes, velocities = _lidar_state(frame, chosen)
    points = frame.points[chosen].astype(np.int64)
    return dict(
        lidar_path=sensor_file(scene, number, 'LIDAR_TOP'),
        token=sample(number),
        prev=sample(number - 1),
        next=sample(number + 1),
        can_bus=_can_bus(scene, number, pose),
        frame_idx=number,
        sweeps=[],
        cams=cams,
        scene_token=token(scene.seed, 'scene', scene.index),
        lidar2ego_translation=LIDAR2EGO[:3, 3].tolist(),
        lidar2ego_rotation=quaternion(LIDAR2EGO[:3, :3]),
        **ego,
        timestamp=stamp,
        gt_boxes=np.column_stack([boxes[:, [0, 1, 2, 4, 3, 5]], -boxes[:, 6] - np.pi / 2]),
        gt_names=np.array([CLASSES[label] for label in frame.objects.labels[chosen]], dtype='<U20'),
        gt_velocity=velocities,
        num_lidar_pts=points,
        num_radar_pts=np.zeros_like(points),
        valid_flag=points > 0,
    )


def _can_bus(scene: Scene, number: int, pose: np.ndarray) -> np.ndarray:
    """(18,) position, orientation w x y z, acceleration, rotation rate, velocity, two places that readers fill in."""
    near = np.clip([number - 1, number + 1], 0, len(scene) - 1)
    seconds = max(float(np.diff(scene.timestamps[near])[0]) / 1e6, 1e-6)
    turn = float(np.diff(np.unwrap(scene.ego[near, 2]))[0]) / seconds
    gain, speed = float(np.diff(scene.speed[near])[0]) / seconds, float(scene.speed[number])
    motion = (gain, speed * turn, GRAVITY, 0, 0, turn, speed, 0, 0)
    return np.array([*pose[:3, 3], *quaternion(pose[:3, :3]), *motion, 0, 0])
