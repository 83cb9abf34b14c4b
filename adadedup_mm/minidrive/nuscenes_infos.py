"""Info files of the nuScenes layout: mmdet3d's v1.1, BEVFormer's temporal ones, and mono3d COCO json."""

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..files import atomic_open
from .cameras import HEIGHT, LIDAR2EGO, RIG, WIDTH, Camera, Seen
from .geometry import inverse, quaternion, transform_boxes
from .nuscenes_tables import ATTRIBUTES, VERSION, attribute, sensor_file
from .record import Frame, Record
from .tokens import token
from .traffic import CLASSES

# mmdet3d's order of nuScenes' detection classes.
NUSCENES_CLASSES = ('car', 'truck', 'trailer', 'bus', 'construction_vehicle', 'bicycle', 'motorcycle', 'pedestrian',
                    'traffic_cone', 'barrier')
LABELS = np.array([NUSCENES_CLASSES.index(name) for name in CLASSES])
GRAVITY = 9.81


def write_infos(folder: Path, records: Sequence[Record]) -> None:
    """Writes ``nuscenes_infos_{train,val}.pkl``, ``..._temporal_...`` and ``..._mono3d.coco.json`` into ``folder``."""
    for split in ('train', 'val'):
        chosen = [record for record in records if record.scene.split == split]
        frames = [(record, number) for record in chosen for number in range(len(record.frames))]
        metainfo = dict(categories={name: i
                                    for i, name in enumerate(NUSCENES_CLASSES)}, dataset='nuscenes', version=VERSION,
                        info_version='1.1')
        data_list = [_info(record, number, index) for index, (record, number) in enumerate(frames)]
        write_pickle(folder / f'nuscenes_infos_{split}.pkl', dict(metainfo=metainfo, data_list=data_list))
        write_pickle(
            folder / f'nuscenes_infos_temporal_{split}.pkl',
            dict(infos=[_temporal_info(record, number) for record, number in frames], metadata=dict(version=VERSION)))
        with atomic_open(folder / f'nuscenes_infos_{split}_mono3d.coco.json', 'w') as file:
            file.write(json.dumps(_mono3d(frames), separators=(',', ':')))


def write_pickle(path: Path, value: Any) -> None:
    """Writes a pickle, atomically, in a protocol that every Python 3 reads."""
    with atomic_open(path) as file:
        pickle.dump(value, file, protocol=4)


def matrix_list(matrix: np.ndarray) -> list[list[float]]:
    """A matrix as nested lists of float32 values, as mmdet3d's converters leave them."""
    values: list[list[float]] = matrix.astype(np.float32).tolist()
    return values


def camera_boxes(camera: Camera, ego_boxes: np.ndarray) -> np.ndarray:
    """Boxes (n, 7) in the ego frame to mmdet3d's camera boxes: x y z (centre), length, height, width, rotation.

    The rotation is about the camera's y axis, which points down; 0 looks along x.
    """
    pose = inverse(camera.cam2ego)
    heading = np.column_stack([np.cos(ego_boxes[:, 6]),
                               np.sin(ego_boxes[:, 6]),
                               np.zeros(len(ego_boxes))]) @ pose[:3, :3].T
    centres = ego_boxes[:, :3] @ pose[:3, :3].T + pose[:3, 3]
    return np.column_stack([centres, ego_boxes[:, [3, 5, 4]], np.arctan2(-heading[:, 2], heading[:, 0])])


def _lidar_state(frame: Frame, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (n, 7) and velocities (n, 2) of some objects in the LiDAR frame."""
    pose = inverse(frame.ego2global @ LIDAR2EGO)
    return transform_boxes(pose, frame.objects.boxes[chosen]), frame.objects.velocities[chosen] @ pose[:2, :2].T


def _info(record: Record, number: int, index: int) -> dict[str, Any]:
    scene, frame = record.scene, record.frames[number]
    stamp = int(scene.timestamps[number]) / 1e6
    images = {
        camera.name: dict(img_path=Path(sensor_file(scene, number, camera.name)).name,
                          cam2img=camera.intrinsic.tolist(), sample_data_token=token(
                              scene.seed, 'sample_data', scene.index, number,
                              camera.name), timestamp=stamp, cam2ego=matrix_list(camera.cam2ego), lidar2cam=matrix_list(
                                  inverse(camera.cam2ego) @ LIDAR2EGO))
        for camera in RIG
    }
    chosen = frame.annotated
    boxes, velocities = _lidar_state(frame, chosen)
    instances = []
    for i, box, velocity in zip(chosen, boxes, velocities, strict=True):
        label = int(LABELS[frame.objects.labels[i]])
        instances.append(dict(
            bbox_label=label, bbox_3d=box.tolist(), bbox_3d_isvalid=bool(frame.points[i] > 0), bbox_label_3d=label,
            num_lidar_pts=int(frame.points[i]), num_radar_pts=0, velocity=velocity.tolist()))
    lidar = dict(num_pts_feats=5, lidar_path=Path(sensor_file(scene, number, 'LIDAR_TOP')).name,
                 lidar2ego=matrix_list(LIDAR2EGO))
    return dict(sample_idx=index, token=token(scene.seed, 'sample', scene.index, number), timestamp=stamp,
                ego2global=matrix_list(frame.ego2global), images=images, lidar_points=lidar, instances=instances,
                cam_instances={camera.name: _camera_instances(camera, frame) for camera in RIG})


def _camera_instances(camera: Camera, frame: Frame) -> list[dict[str, Any]]:
    result = []
    for i, seen, box, velocity in _in_camera(camera, frame):
        label, kind = int(LABELS[frame.objects.labels[i]]), _attribute_label(frame, i)
        result.append(
            dict(bbox_label=label, bbox_label_3d=label, bbox=seen.boxes[i].tolist(),
                 bbox_3d_isvalid=bool(frame.points[i] > 0), bbox_3d=box.tolist(), velocity=velocity.tolist(),
                 center_2d=seen.centres[i, :2].tolist(), depth=float(seen.centres[i, 2]), attr_label=kind))
    return result


def _in_camera(camera: Camera, frame: Frame) -> list[tuple[int, Seen, np.ndarray, np.ndarray]]:
    """Of every object that is labelled in a camera: its number, what is seen, its camera box and its velocity along x, z."""
    seen = frame.seen[camera.name]
    chosen = np.flatnonzero(seen.labelled & (seen.centres[:, 2] > 0))
    boxes = camera_boxes(camera, transform_boxes(inverse(frame.ego2global), frame.objects.boxes[chosen]))
    rotation = inverse(frame.ego2global @ camera.cam2ego)[:3, :2]
    velocities = (frame.objects.velocities[chosen] @ rotation.T)[:, [0, 2]]
    return [(int(i), seen, box, velocity) for i, box, velocity in zip(chosen, boxes, velocities, strict=True)]


def _attribute_label(frame: Frame, i: int) -> int:
    """mmdet3d's number of the attribute; 8 stands for none."""
    kind = attribute(int(frame.objects.labels[i]), float(np.hypot(*frame.objects.velocities[i])))
    return len(ATTRIBUTES) if kind is None else kind


def _mono3d(frames: Sequence[tuple[Record, int]]) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for record, number in frames:
        scene, frame = record.scene, record.frames[number]
        pose = frame.ego2global
        for camera in RIG:
            image = token(scene.seed, 'sample_data', scene.index, number, camera.name)
            images.append(
                dict(file_name=sensor_file(scene, number, camera.name), id=image, token=token(
                    scene.seed, 'sample', scene.index, number), cam2ego_rotation=quaternion(camera.cam2ego[:3, :3]),
                     cam2ego_translation=camera.cam2ego[:3, 3].tolist(), ego2global_rotation=quaternion(
                         pose[:3, :3]), ego2global_translation=pose[:3, 3].tolist(),
                     cam_intrinsic=camera.intrinsic.tolist(), width=WIDTH, height=HEIGHT))
            for i, seen, box, velocity in _in_camera(camera, frame):
                x1, y1, x2, y2 = seen.boxes[i].tolist()
                label, kind = int(LABELS[frame.objects.labels[i]]), _attribute_label(frame, i)
                annotations.append(
                    dict(file_name=images[-1]['file_name'], image_id=image,
                         area=(x2 - x1) * (y2 - y1), category_name=NUSCENES_CLASSES[label], category_id=label, bbox=[
                             x1, y1, x2 - x1, y2 - y1
                         ], iscrowd=0, bbox_cam3d=box.tolist(), velo_cam3d=velocity.tolist(),
                         center2d=seen.centres[i].tolist(), attribute_name=(*ATTRIBUTES, 'None')[kind],
                         attribute_id=kind, segmentation=[], id=len(annotations)))
    return dict(annotations=annotations, images=images,
                categories=[dict(id=i, name=name) for i, name in enumerate(NUSCENES_CLASSES)])


def _temporal_info(record: Record, number: int) -> dict[str, Any]:
    """BEVFormer's legacy record: boxes as x y z w l h and -yaw - pi/2 in the LiDAR frame, paths below the nuScenes folder."""
    scene, frame = record.scene, record.frames[number]

    def name(kind: str, at: int, *numbers: object) -> str:
        return token(scene.seed, kind, scene.index, at, *numbers) if 0 <= at < len(scene) else ''

    stamp, pose = int(scene.timestamps[number]), frame.ego2global
    ego = dict(ego2global_translation=pose[:3, 3].tolist(), ego2global_rotation=quaternion(pose[:3, :3]))
    cams = {}
    for camera in RIG:
        to_lidar = inverse(LIDAR2EGO) @ camera.cam2ego
        cams[camera.name] = dict(
            data_path=sensor_file(scene, number, camera.name), type=camera.name, sample_data_token=name(
                'sample_data', number,
                camera.name), sensor2ego_translation=camera.cam2ego[:3, 3].tolist(), sensor2ego_rotation=quaternion(
                    camera.cam2ego[:3, :3]), **ego, timestamp=stamp, sensor2lidar_rotation=to_lidar[:3, :3],
            sensor2lidar_translation=to_lidar[:3, 3], cam_intrinsic=camera.intrinsic)
    chosen = frame.annotated
    boxes, velocities = _lidar_state(frame, chosen)
    points = frame.points[chosen].astype(np.int64)
    return dict(lidar_path=sensor_file(scene, number, 'LIDAR_TOP'), token=name('sample', number), prev=name(
        'sample', number - 1), next=name('sample', number + 1), can_bus=_can_bus(
            record, number), frame_idx=number, sweeps=[], cams=cams, scene_token=token(
                scene.seed, 'scene', scene.index), lidar2ego_translation=LIDAR2EGO[:3, 3].tolist(),
                lidar2ego_rotation=quaternion(LIDAR2EGO[:3, :3]), **ego, timestamp=stamp, gt_boxes=np.column_stack([
                    boxes[:, [0, 1, 2, 4, 3, 5]], -boxes[:, 6] - np.pi / 2
                ]), gt_names=np.array([CLASSES[label] for label in frame.objects.labels[chosen]],
                                      dtype='<U20'), gt_velocity=velocities, num_lidar_pts=points,
                num_radar_pts=np.zeros_like(points), valid_flag=points > 0)


def _can_bus(record: Record, number: int) -> np.ndarray:
    """(18,) position, orientation w x y z, acceleration, rotation rate, velocity, and two places that readers fill in."""
    scene, pose = record.scene, record.frames[number].ego2global
    near = np.clip([number - 1, number + 1], 0, len(scene) - 1)
    seconds = max(float(np.diff(scene.timestamps[near])[0]) / 1e6, 1e-6)
    turn = float(np.diff(np.unwrap(scene.ego[near, 2]))[0]) / seconds
    speed_up = float(np.diff(scene.speed[near])[0]) / seconds
    speed = float(scene.speed[number])
    return np.array(
        [*pose[:3, 3], *quaternion(pose[:3, :3]), speed_up, speed * turn, GRAVITY, 0, 0, turn, speed, 0, 0, 0, 0])
