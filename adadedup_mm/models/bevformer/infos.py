"""BEVFormer's temporal infos (``nuscenes_infos_temporal_*.pkl``) as records of mmdet3d 1.x."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from ...errors import UserError

HOW_TO_MAKE = "made by BEVFormer's tools/create_data.py or by tools/make_minidrive.py"


def temporal_records(annotations: Mapping[str, Any], classes: Sequence[str], path: str,
                     with_can_bus: bool) -> list[dict[str, Any]]:
    """Converts a temporal info file.

    Args:
        annotations: the file's content.
        classes: detection names; a box's label is the index of its name, -1 for other names.
        path: for the messages.
        with_can_bus: whether frames without ``can_bus`` are an error.

    Returns:
        One record per frame in the file's order, as mmdet3d's NuScenesDataset reads them, with ``scene_token`` and
        ``can_bus`` besides. Boxes follow the new convention: (x, y, z, length, width, height,
        yaw) with the gravity centre.

    Raises:
        UserError: the file is no temporal info file, or a frame is incomplete.
    """
    if 'infos' not in annotations:
        raise UserError(f'{path}: no temporal infos; mmdet3d 1.x infos hold no history and no can_bus, which BEVFormer '
                        f'needs: nuscenes_infos_temporal_*.pkl, {HOW_TO_MAKE} (BEVFormer-S reads mmdet3d infos)')
    labels = {name: index for index, name in enumerate(classes)}
    cameras = list(annotations['infos'][0]['cams']) if annotations['infos'] else []
    records = []
    for index, info in enumerate(annotations['infos']):
        name = f"{path}, frame {info.get('token', index)}"
        _check_keys(info, name, with_can_bus)
        missing = [camera for camera in cameras if camera not in info['cams']]
        if missing or len(info['cams']) != len(cameras):
            raise UserError(f'{name}: has cameras {", ".join(info["cams"])}; the first frame has {", ".join(cameras)}')
        records.append(_record(info, labels, cameras, name))
    return records


def frame_name(record: Mapping[str, Any]) -> str:
    """What a user finds a frame by in the infos."""
    return str(record.get('token', record.get('sample_idx', '?')))


def _check_keys(info: Mapping[str, Any], name: str, with_can_bus: bool) -> None:
    needed = ['token', 'scene_token', 'cams', 'lidar2ego_translation', 'lidar2ego_rotation', 'ego2global_translation',
              'ego2global_rotation', 'timestamp', *(['can_bus'] if with_can_bus else [])]
    missing = [key for key in needed if key not in info]
    if missing:
        raise UserError(f"{name}: no '{missing[0]}'; BEVFormer needs nuscenes_infos_temporal_*.pkl, {HOW_TO_MAKE}")
    if not isinstance(info['cams'], Mapping):
        raise UserError(f"{name}: 'cams' is no dict of cameras; BEVFormer needs nuscenes_infos_temporal_*.pkl, "
                        f'{HOW_TO_MAKE}')


def _record(info: Mapping[str, Any], labels: Mapping[str, int], cameras: Sequence[str], name: str) -> dict[str, Any]:
    ego2global = _pose(info['ego2global_rotation'], info['ego2global_translation'])
    record = dict(
        token=info['token'], scene_token=info['scene_token'], timestamp=info['timestamp'] / 1e6, ego2global=ego2global,
        lidar_points=dict(lidar_path=info.get('lidar_path', ''), num_pts_feats=5,
                          lidar2ego=_pose(info['lidar2ego_rotation'], info['lidar2ego_translation'])),
        images={camera: _image(info['cams'][camera], f'{name}, {camera}') for camera in cameras},
        instances=_instances(info, labels) if 'gt_boxes' in info else [])
    if 'can_bus' in info:
        record['can_bus'] = _can_bus(info, ego2global, name)
    return record


def _can_bus(info: Mapping[str, Any], ego2global: np.ndarray, name: str) -> np.ndarray:
    """(18,): position, the quaternion's w four times, 9 signals of the CAN bus, heading in radians and in degrees.

    The published weights were trained with w in place of all four entries of the quaternion.
    """
    signals = _array(info['can_bus'], (18,), f"{name}: 'can_bus'").copy()
    heading = np.arctan2(ego2global[1, 0], ego2global[0, 0]) % (2 * np.pi)
    signals[:3] = info['ego2global_translation']
    signals[3:7] = info['ego2global_rotation'][0]
    signals[16:] = heading, np.degrees(heading)
    return signals


def _image(camera: Mapping[str, Any], name: str) -> dict[str, Any]:
    sensor2lidar = np.eye(4)
    shapes = {'sensor2lidar_rotation': (3, 3), 'sensor2lidar_translation': (3,), 'cam_intrinsic': (3, 3)}
    for key, shape in shapes.items():
        if key not in camera:
            raise UserError(f"{name}: no '{key}'")
        _array(camera[key], shape, f"{name}: '{key}'")
    sensor2lidar[:3, :3] = camera['sensor2lidar_rotation']
    sensor2lidar[:3, 3] = camera['sensor2lidar_translation']
    # The infos' paths begin with where the data lay when they were made.
    path, inside = str(camera['data_path']), str(camera['data_path']).rpartition('samples/')
    return dict(img_path=f'samples/{inside[2]}' if inside[1] else path,
                cam2img=np.asarray(camera['cam_intrinsic'], dtype=np.float64),
                lidar2cam=np.linalg.inv(sensor2lidar))


def _instances(info: Mapping[str, Any], labels: Mapping[str, int]) -> list[dict[str, Any]]:
    boxes = np.asarray(info['gt_boxes'], dtype=np.float64).reshape(-1, 7)
    # (w, l, h, yaw') of mmdet3d 0.x to (l, w, h, yaw), where yaw' = -yaw - pi / 2.
    boxes = np.concatenate([boxes[:, [0, 1, 2, 4, 3, 5]], -boxes[:, 6:] - np.pi / 2], axis=1)
    found = [labels.get(name, -1) for name in info['gt_names']]
    return [dict(bbox_3d=box.tolist(), bbox_label=label, bbox_label_3d=label, velocity=list(velocity),
                 num_lidar_pts=int(points), bbox_3d_isvalid=bool(valid))
            for box, label, velocity, points, valid in zip(
                boxes, found, info['gt_velocity'], info['num_lidar_pts'], info['valid_flag'], strict=True)]


def _pose(rotation: Sequence[float], translation: Sequence[float]) -> np.ndarray:
    """4 x 4 from a quaternion (w, x, y, z) and a translation."""
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_quat(np.roll(np.asarray(rotation, dtype=np.float64), -1)).as_matrix()
    pose[:3, 3] = translation
    return pose


def _array(value: Any, shape: tuple[int, ...], name: str) -> np.ndarray:
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError(f'{name} is no array of numbers, expected shape {shape}') from None
    if array.shape != shape:
        raise UserError(f'{name} has shape {array.shape}, expected {shape}')
    return array
