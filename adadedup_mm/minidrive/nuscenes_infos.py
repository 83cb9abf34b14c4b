"""Info files of nuScenes' layout: mmdet3d's v1.1, BEVFormer's temporal ones, mono3d COCO json."""

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
from .record import FilmedFrame, Record
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
Moment = tuple[Scene, int, FilmedFrame]  # a frame with its scene and number


def write_nuscenes_infos(folder: Path, records: Sequence[Record]) -> None:
    """Writes the info files of both splits into ``folder``.

    They are ``nuscenes_infos_{train,val}.pkl``, ``nuscenes_infos_temporal_{train,val}.pkl`` and
    ``nuscenes_infos_{train,val}_mono3d.coco.json``.
    """
    categories = {name: i for i, name in enumerate(NUSCENES_CLASSES)}
    metainfo = dict(
        categories=categories,
        dataset='nuscenes',
        version=VERSION,
        info_version='1.1',
    )
    for split in ('train', 'val'):
        moments = _moments(records, split)
        infos = [dict(sample_idx=i, **_info(*moment)) for i, moment in enumerate(moments)]
        content = dict(metainfo=metainfo, data_list=infos)
        write_pickle(folder / f'nuscenes_infos_{split}.pkl', content)

        temporal = [_temporal_info(*moment) for moment in moments]
        content = dict(infos=temporal, metadata=dict(version=VERSION))
        write_pickle(folder / f'nuscenes_infos_temporal_{split}.pkl', content)

        text = json.dumps(_mono3d(moments), separators=(',', ':'))
        mono3d_file = folder / f'nuscenes_infos_{split}_mono3d.coco.json'
        with atomic_open(mono3d_file, 'w') as file:
            file.write(text)


def _moments(records: Sequence[Record], split: str) -> list[Moment]:
    moments: list[Moment] = []
    for record in records:
        if record.scene.split == split:
            moments += [(record.scene, number, frame) for number, frame in enumerate(record.frames)]
    return moments


def _lidar_state(frame: FilmedFrame, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (n, 7) and velocities (n, 2) of some objects in the LiDAR frame."""
    global2lidar = inverse(frame.ego2global @ LIDAR2EGO)
    boxes = transform_boxes(global2lidar, frame.objects.boxes[chosen])
    velocities = frame.objects.velocities[chosen] @ global2lidar[:2, :2].T
    return boxes, velocities


def _info(scene: Scene, number: int, frame: FilmedFrame) -> Info:
    """A sample of mmdet3d's v1.1 infos without its index; file names come without folders."""
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
    boxes, velocities = _lidar_state(frame, chosen)
    instances = []
    for i, box, velocity in zip(chosen, boxes, velocities, strict=True):
        label = int(LABELS[frame.objects.labels[i]])
        points = int(frame.points[i])
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
        lidar_points=dict(
            num_pts_feats=5,
            lidar_path=lidar_path,
            lidar2ego=matrix_list(LIDAR2EGO),
        ),
        instances=instances,
        cam_instances={camera.name: _camera_instances(camera, frame) for camera in RIG},
    )


def _camera_instances(camera: Camera, frame: FilmedFrame) -> list[Info]:
    """What a camera sees, in the order of the objects; ``attr_label`` 8 stands for no attribute."""
    seen = frame.seen[camera.name]
    objects = frame.objects
    ahead = seen.centres[:, 2] > 0
    chosen = np.flatnonzero(seen.labelled & ahead)
    ego_boxes = transform_boxes(inverse(frame.ego2global), objects.boxes[chosen])
    boxes = camera_boxes(camera, ego_boxes)

    cam2global = frame.ego2global @ camera.cam2ego
    rotation = inverse(cam2global)[:3, :2]
    camera_velocities = objects.velocities[chosen] @ rotation.T
    velocities = camera_velocities[:, [0, 2]]

    result = []
    for i, box, velocity in zip(chosen, boxes, velocities, strict=True):
        label = int(objects.labels[i])
        speed = float(np.hypot(*objects.velocities[i]))
        kind = attribute(label, speed)
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


def _mono3d(moments: Sequence[Moment]) -> Info:
    """All cameras' pictures as COCO images with 3D boxes in the camera frame."""
    images: list[Info] = []
    annotations: list[Info] = []
    for scene, number, frame in moments:
        for camera in RIG:
            image = _mono3d_image(scene, number, frame, camera)
            images.append(image)
            for instance in _camera_instances(camera, frame):
                annotation = _mono3d_annotation(image, instance, len(annotations))
                annotations.append(annotation)

    categories = [dict(id=i, name=name) for i, name in enumerate(NUSCENES_CLASSES)]

    return dict(
        annotations=annotations,
        images=images,
        categories=categories,
    )


def _mono3d_image(scene: Scene, number: int, frame: FilmedFrame, camera: Camera) -> Info:
    pose = frame.ego2global
    return dict(
        file_name=sensor_file(scene, number, camera.name),
        id=token(scene.seed, 'sample_data', scene.index, number, camera.name),
        token=token(scene.seed, 'sample', scene.index, number),
        cam2ego_rotation=quaternion(camera.cam2ego[:3, :3]),
        cam2ego_translation=camera.cam2ego[:3, 3].tolist(),
        ego2global_rotation=quaternion(pose[:3, :3]),
        ego2global_translation=pose[:3, 3].tolist(),
        cam_intrinsic=camera.intrinsic.tolist(),
        width=WIDTH,
        height=HEIGHT,
    )


def _mono3d_annotation(image: Info, instance: Info, annotation_id: int) -> Info:
    x1, y1, x2, y2 = instance['bbox']
    width = x2 - x1
    height = y2 - y1
    label = instance['bbox_label']
    kind = instance['attr_label']

    return dict(
        file_name=image['file_name'],
        image_id=image['id'],
        area=width * height,
        category_name=NUSCENES_CLASSES[label],
        category_id=label,
        bbox=[x1, y1, width, height],
        iscrowd=0,
        bbox_cam3d=instance['bbox_3d'],
        velo_cam3d=instance['velocity'],
        center2d=[*instance['center_2d'], instance['depth']],
        attribute_id=kind,
        attribute_name=(*ATTRIBUTES, 'None')[kind],
        segmentation=[],
        id=annotation_id,
    )


def _temporal_info(scene: Scene, number: int, frame: FilmedFrame) -> Info:
    """BEVFormer's record.

    Boxes are x y z w l h and -yaw - pi/2 in the LiDAR frame, paths are below the nuScenes folder.
    """
    stamp = int(scene.timestamps[number])
    pose = frame.ego2global
    ego = dict(
        ego2global_translation=pose[:3, 3].tolist(),
        ego2global_rotation=quaternion(pose[:3, :3]),
    )
    chosen = frame.annotated
    boxes, velocities = _lidar_state(frame, chosen)
    x_y_z_w_l_h = boxes[:, [0, 1, 2, 4, 3, 5]]
    rotation = -boxes[:, 6] - np.pi / 2
    points = frame.points[chosen].astype(np.int64)
    names = [CLASSES[label] for label in frame.objects.labels[chosen]]

    return dict(
        lidar_path=sensor_file(scene, number, 'LIDAR_TOP'),
        token=_sample_token(scene, number),
        prev=_sample_token(scene, number - 1),
        next=_sample_token(scene, number + 1),
        can_bus=_can_bus(scene, number, pose),
        frame_idx=number,
        sweeps=[],
        cams={camera.name: _temporal_camera(scene, number, camera, ego, stamp) for camera in RIG},
        scene_token=token(scene.seed, 'scene', scene.index),
        lidar2ego_translation=LIDAR2EGO[:3, 3].tolist(),
        lidar2ego_rotation=quaternion(LIDAR2EGO[:3, :3]),
        **ego,
        timestamp=stamp,
        gt_boxes=np.column_stack([x_y_z_w_l_h, rotation]),
        gt_names=np.array(names, dtype='<U20'),
        gt_velocity=velocities,
        num_lidar_pts=points,
        num_radar_pts=np.zeros_like(points),
        valid_flag=points > 0,
    )


def _sample_token(scene: Scene, number: int) -> str:
    """The token of a sample; empty before the first and after the last of the scene."""
    if not 0 <= number < len(scene):
        return ''
    return token(scene.seed, 'sample', scene.index, number)


def _temporal_camera(scene: Scene, number: int, camera: Camera, ego: Info, stamp: int) -> Info:
    to_lidar = inverse(LIDAR2EGO) @ camera.cam2ego
    return dict(
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


def _can_bus(scene: Scene, number: int, pose: np.ndarray) -> np.ndarray:
    """(18,) what BEVFormer takes from the vehicle's bus.

    Position, orientation w x y z, acceleration, rotation rate, velocity, and two places that
    readers fill in.
    """
    neighbours = np.clip([number - 1, number + 1], 0, len(scene) - 1)
    stamp_before, stamp_after = scene.timestamps[neighbours]
    yaw_before, yaw_after = np.unwrap(scene.ego[neighbours, 2])
    speed_before, speed_after = scene.speed[neighbours]
    seconds = max(float(stamp_after - stamp_before) / 1e6, 1e-6)
    turn_rate = float(yaw_after - yaw_before) / seconds
    gain = float(speed_after - speed_before) / seconds
    speed = float(scene.speed[number])
    acceleration = (gain, speed * turn_rate, GRAVITY)
    rotation_rate = (0, 0, turn_rate)
    velocity = (speed, 0, 0)
    values = [
        *pose[:3, 3],
        *quaternion(pose[:3, :3]),
        *acceleration,
        *rotation_rate,
        *velocity,
        0,
        0,
    ]

    return np.array(values)
