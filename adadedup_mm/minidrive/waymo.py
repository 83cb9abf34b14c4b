"""Waymo's layout as mmdet3d converts it: five cameras, LiDAR in the vehicle frame, info files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .cameras import HEIGHT, RIG, WIDTH, Camera
from .geometry import inverse, transform_boxes
from .infos import bottom_centred, camera_boxes, matrix_list, write_pickle
from .record import FilmedFrame, Record
from .traffic import BICYCLE, BUS, CAR, PEDESTRIAN, TRUCK
from .world import Scene

# Waymo's cameras, in the order of their folders, and the cameras of the rig that stand for them.
WAYMO_CAMERAS = {
    'CAM_FRONT': 'CAM_FRONT',
    'CAM_FRONT_LEFT': 'CAM_FRONT_LEFT',
    'CAM_FRONT_RIGHT': 'CAM_FRONT_RIGHT',
    'CAM_SIDE_LEFT': 'CAM_BACK_LEFT',
    'CAM_SIDE_RIGHT': 'CAM_BACK_RIGHT',
}
# Car, Pedestrian, Cyclist; cones are not labelled.
LABELS = {CAR: 0, TRUCK: 0, BUS: 0, PEDESTRIAN: 1, BICYCLE: 2}


def waymo_stem(scene: Scene, frame: int) -> str:
    """The stem of a frame's files: 0 or 1 for the split, the scene's number in it, the frame."""
    split = '1' if scene.split == 'val' else '0'
    last_frame = str(len(scene) - 1)
    digits = max(3, len(last_frame))
    return f'{split}{scene.order:03d}{frame:0{digits}d}'


def waymo_image_file(scene: Scene, frame: int, camera: str) -> str | None:
    """Where a picture lies below the Waymo folder; None for the rig's camera that Waymo lacks."""
    for folder, name in enumerate(WAYMO_CAMERAS.values()):
        if name == camera:
            return f'kitti_format/training/image_{folder}/{waymo_stem(scene, frame)}.jpg'
    return None


def waymo_points_file(scene: Scene, frame: int) -> str:
    """Where the points lie below the Waymo folder."""
    return f'kitti_format/training/velodyne/{waymo_stem(scene, frame)}.bin'


def write_waymo(folder: Path, records: Sequence[Record]) -> None:
    """Writes the info files into ``folder/kitti_format``."""
    for split in ('train', 'val'):
        data_list = []
        for record in records:
            if record.scene.split != split:
                continue
            for number, frame in enumerate(record.frames):
                data_list.append(_info(record.scene, number, frame))

        metainfo = dict(
            dataset='waymo',
            version='waymo_v1.4',
            info_version='mmdet3d_v1.4',
        )
        content = dict(data_list=data_list, metainfo=metainfo)
        write_pickle(folder / 'kitti_format' / f'waymo_infos_{split}.pkl', content)


def _info(scene: Scene, number: int, frame: FilmedFrame) -> dict[str, Any]:
    stem = waymo_stem(scene, number)
    rig = {camera.name: camera for camera in RIG}
    instances = _instances(frame)
    images = {}
    cam_instances = {}
    for name, stands_for in WAYMO_CAMERAS.items():
        camera = rig[stands_for]
        lidar2cam = inverse(camera.cam2ego)
        cam2img = np.eye(3, 4)
        cam2img[:, :3] = camera.intrinsic
        images[name] = dict(
            img_path=f'{stem}.jpg',
            height=HEIGHT,
            width=WIDTH,
            lidar2cam=matrix_list(lidar2cam),
            cam2img=matrix_list(cam2img),
            lidar2img=matrix_list(cam2img @ lidar2cam),
        )
        cam_instances[name] = _camera_instances(camera, frame)

    return dict(
        sample_idx=int(stem),
        timestamp=int(scene.timestamps[number]),
        ego2global=matrix_list(frame.ego2global),
        context_name=scene.name,
        images=images,
        lidar_points=dict(lidar_path=f'{stem}.bin', num_pts_feats=6),
        instances=instances,
        cam_sync_instances=[dict(instance) for instance in instances],
        cam_instances=cam_instances,
    )


def _instances(frame: FilmedFrame) -> list[dict[str, Any]]:
    """The boxes with points on them, by bottom centres in the vehicle frame."""
    boxes = transform_boxes(inverse(frame.ego2global), frame.objects.boxes)
    boxes[:, 2] -= boxes[:, 5] / 2
    result: list[dict[str, Any]] = []
    for i, world_label in enumerate(frame.objects.labels):
        label = LABELS.get(int(world_label))
        if label is None or frame.points[i] == 0:
            continue
        camera_id, box = _first_sight(frame, i)
        result.append(
            dict(
                group_id=len(result) + 1,
                camera_id=camera_id,
                bbox=box,
                bbox_label=label,
                bbox_label_3d=label,
                bbox_3d=boxes[i].astype(np.float32).tolist(),
                num_lidar_pts=int(frame.points[i]),
            )
        )

    return result


def _first_sight(frame: FilmedFrame, i: int) -> tuple[int, list[float]]:
    """The first camera that sees object ``i``, and its box there; zeros where none does."""
    for camera_id, name in enumerate(WAYMO_CAMERAS.values()):
        seen = frame.seen[name]
        if seen.labelled[i]:
            return camera_id, seen.boxes[i].tolist()
    return 0, [0.0] * 4


def _camera_instances(camera: Camera, frame: FilmedFrame) -> list[dict[str, Any]]:
    seen = frame.seen[camera.name]
    ego_boxes = transform_boxes(inverse(frame.ego2global), frame.objects.boxes)
    boxes = bottom_centred(camera_boxes(camera, ego_boxes))
    ahead = seen.centres[:, 2] > 0
    hit = frame.points > 0
    result = []
    for i in np.flatnonzero(seen.labelled & ahead & hit):
        label = LABELS.get(int(frame.objects.labels[i]))
        if label is None:
            continue
        result.append(
            dict(
                bbox=seen.boxes[i].tolist(),
                bbox_label=label,
                bbox_3d=boxes[i].astype(np.float32).tolist(),
                bbox_label_3d=label,
                center_2d=seen.centres[i, :2].tolist(),
                depth=float(seen.centres[i, 2]),
                bbox_3d_isvalid=True,
                velocity=-1,
            )
        )

    return result
