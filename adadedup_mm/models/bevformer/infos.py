"""BEVFormer's temporal infos (``nuscenes_infos_temporal_*.pkl``) as records of mmdet3d 1.x."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from ...annotations.infos import naming_frame
from ...base.errors import UserError

HOW_TO_MAKE = "made by BEVFormer's tools/create_data.py or by tools/make_minidrive.py"
_NEEDED = [
    'token',
    'scene_token',
    'cams',
    'lidar2ego_translation',
    'lidar2ego_rotation',
    'ego2global_translation',
    'ego2global_rotation',
    'timestamp',
]
_COMPLETE = 'complete the frame, or take it out of the infos'


def temporal_records(
    annotations: Mapping[str, Any], classes: Sequence[str], path: str, with_can_bus: bool
) -> list[dict[str, Any]]:
    """Converts a temporal info file.

    Args:
        annotations: the file's content.
        classes: detection names; a box's label is the index of its name, -1 for other names.
        path: for the messages.
        with_can_bus: whether frames without ``can_bus`` are an error.

    Returns:
        One record per frame in the file's order, as mmdet3d's NuScenesDataset reads them, with
        ``scene_token`` and ``can_bus`` besides. Boxes follow the new convention: (x, y, z, length,
        width, height, yaw) with the gravity centre.

    Raises:
        UserError: the file is no temporal info file, or a frame is incomplete.
    """
    infos = _infos(annotations, path)
    labels = {name: index for index, name in enumerate(classes)}
    cameras: list[str] = []
    records = []
    for index, info in enumerate(infos):
        token = info.get('token', index)
        name = f'{path}, frame {token}'
        _check_keys(info, name, with_can_bus)
        if not cameras:
            cameras = list(info['cams'])
        _check_cameras(info, cameras, name)
        if _has_boxes(info) != _has_boxes(infos[0]):
            raise UserError(f"{name}: only some of the frames have 'gt_boxes'; {_COMPLETE}")
        with naming_frame(name):
            record = _record(info, labels, cameras, name)
        records.append(record)

    return records


def _has_boxes(info: Mapping[str, Any]) -> bool:
    return info.get('gt_boxes') is not None


def _infos(annotations: Mapping[str, Any], path: str) -> Sequence[Mapping[str, Any]]:
    """The frames of a temporal info file."""
    if 'infos' not in annotations:
        raise UserError(
            f'{path}: no temporal infos; mmdet3d 1.x infos hold no history and no can_bus, which '
            'BEVFormer needs: nuscenes_infos_temporal_*.pkl, '
            f'{HOW_TO_MAKE} (BEVFormer-S reads mmdet3d infos)'
        )

    infos = annotations['infos']
    if not isinstance(infos, Sequence) or not all(isinstance(info, Mapping) for info in infos):
        raise UserError(
            f"{path}: 'infos' is no list of dicts; BEVFormer needs nuscenes_infos_temporal_*.pkl, "
            f'{HOW_TO_MAKE}'
        )

    return infos


def frame_name(record: Mapping[str, Any]) -> str:
    """What a user finds a frame by in the infos."""
    token = record.get('token', record.get('sample_idx', '?'))
    return str(token)


def _check_keys(info: Mapping[str, Any], name: str, with_can_bus: bool) -> None:
    needed = [*_NEEDED, 'can_bus'] if with_can_bus else _NEEDED
    missing = [key for key in needed if key not in info]
    if missing:
        raise UserError(
            f"{name}: no '{missing[0]}'; BEVFormer needs nuscenes_infos_temporal_*.pkl, "
            f'{HOW_TO_MAKE}'
        )
    if not isinstance(info['cams'], Mapping):
        raise UserError(
            f"{name}: 'cams' is no dict of cameras; BEVFormer needs nuscenes_infos_temporal_*.pkl, "
            f'{HOW_TO_MAKE}'
        )


def _check_cameras(info: Mapping[str, Any], cameras: Sequence[str], name: str) -> None:
    """All frames have the cameras of the first one."""
    own = info['cams']
    missing = [camera for camera in cameras if camera not in own]
    if missing or len(own) != len(cameras):
        raise UserError(
            f'{name}: has cameras {", ".join(own)}; the first frame has {", ".join(cameras)}'
        )


def _record(
    info: Mapping[str, Any], labels: Mapping[str, int], cameras: Sequence[str], name: str
) -> dict[str, Any]:
    ego2global = _pose(info, 'ego2global', name)
    lidar_points = dict(
        lidar_path=info.get('lidar_path', ''),
        num_pts_feats=5,
        lidar2ego=_pose(info, 'lidar2ego', name),
    )
    images = {}
    for camera in cameras:
        images[camera] = _image(info['cams'][camera], f'{name}, {camera}')
    instances = []
    if info.get('gt_boxes') is not None:
        instances = _instances(info, labels, name)
    record = dict(
        token=info['token'],
        scene_token=info['scene_token'],
        timestamp=info['timestamp'] / 1e6,
        ego2global=ego2global,
        lidar_points=lidar_points,
        images=images,
        instances=instances,
    )
    if 'can_bus' in info:
        record['can_bus'] = _can_bus(info, ego2global, name)
    return record


def _can_bus(info: Mapping[str, Any], ego2global: np.ndarray, name: str) -> np.ndarray:
    """CAN bus signals in BEVFormer's order, (18,) float64.

    They are: position, the quaternion's w four times, 9 signals, heading in radians and in degrees.
    The published weights were trained with w in place of all four entries of the quaternion.
    """
    signals = _array(info, 'can_bus', (18,), name)
    x, y = ego2global[:2, 0]
    heading = np.arctan2(y, x)
    heading = heading % (2 * np.pi)
    signals = signals.copy()
    signals[:3] = info['ego2global_translation']
    signals[3:7] = info['ego2global_rotation'][0]
    signals[16] = heading
    signals[17] = np.degrees(heading)

    return signals


def _image(camera: Any, name: str) -> dict[str, Any]:
    if not isinstance(camera, Mapping):
        raise UserError(f'{name}: is no dict; {_COMPLETE}')
    rotation = _array(camera, 'sensor2lidar_rotation', (3, 3), name)
    translation = _array(camera, 'sensor2lidar_translation', (3,), name)
    sensor2lidar = np.eye(4)
    sensor2lidar[:3, :3] = rotation
    sensor2lidar[:3, 3] = translation
    path = camera.get('data_path')
    if not isinstance(path, str):
        raise UserError(f"{name}: 'data_path' is no text; {_COMPLETE}")
    # The infos' paths begin with where the data lay when they were made.
    _, folder, inside = path.rpartition('samples/')
    if folder:
        path = folder + inside
    return dict(
        img_path=path,
        cam2img=_array(camera, 'cam_intrinsic', (3, 3), name),
        lidar2cam=np.linalg.inv(sensor2lidar),
    )


def _instances(
    info: Mapping[str, Any], labels: Mapping[str, int], name: str
) -> list[dict[str, Any]]:
    """A frame's objects; they lack what the file does not say, which the dataset may not need."""
    boxes = _boxes(info, name)
    count = len(boxes)
    names = _box_names(info, count, name)
    found = [labels.get(one, -1) for one in names]
    columns: dict[str, list[Any]] = dict(
        bbox_3d=_turned(boxes).tolist(),
        bbox_label=found,
        bbox_label_3d=found,
    )
    velocities = _velocities(info, boxes, name)
    if velocities is not None:
        columns['velocity'] = velocities.tolist()
    if info.get('num_lidar_pts') is not None:
        counts = _column(info, 'num_lidar_pts', (count,), name)
        columns['num_lidar_pts'] = [int(points) for points in counts]

    if info.get('valid_flag') is not None:
        flags = _column(info, 'valid_flag', (count,), name)
        columns['bbox_3d_isvalid'] = [bool(valid) for valid in flags]

    instances = []
    for values in zip(*columns.values(), strict=True):
        instance = dict(zip(columns, values, strict=True))
        instances.append(instance)

    return instances


def _velocities(info: Mapping[str, Any], boxes: np.ndarray, name: str) -> np.ndarray | None:
    """(n, 2) in metres per second, or None where the infos have none."""
    if info.get('gt_velocity') is not None:
        return _column(info, 'gt_velocity', (len(boxes), 2), name)
    if boxes.shape[1] == 9:
        return boxes[:, 7:]
    return None


def _boxes(info: Mapping[str, Any], name: str) -> np.ndarray:
    """(n, 7), or (n, 9) with velocities, as mmdet3d 0.x has them."""
    boxes = np.asarray(info['gt_boxes'], dtype=np.float64)
    if not boxes.size:
        boxes = np.zeros((0, 7))
    if boxes.ndim != 2 or boxes.shape[1] not in (7, 9):
        raise UserError(
            f"{name}: 'gt_boxes' has shape {boxes.shape}, expected (n, 7), or (n, 9) with "
            f'velocities; {_COMPLETE}'
        )
    return boxes


def _box_names(info: Mapping[str, Any], count: int, name: str) -> np.ndarray:
    """(count,) texts."""
    names = np.asarray(info['gt_names'], dtype=object)
    if names.shape != (count,) or not all(isinstance(one, str) for one in names):
        raise UserError(
            f"{name}: 'gt_names' has shape {names.shape}, expected ({count},) texts, one for each "
            f"of 'gt_boxes'; {_COMPLETE}"
        )
    return names


def _turned(boxes: np.ndarray) -> np.ndarray:
    """(..., w, l, h, yaw') of mmdet3d 0.x to (..., l, w, h, yaw), where yaw' = -yaw - pi / 2."""
    order = [0, 1, 2, 4, 3, 5]
    yaw = -boxes[:, 6:7]
    yaw = yaw - np.pi / 2
    return np.concatenate([boxes[:, order], yaw], axis=1)


def _column(info: Mapping[str, Any], key: str, shape: tuple[int, ...], name: str) -> np.ndarray:
    """An array with a row for each object; NaN is what nuScenes has for unknown velocities."""
    expected = f'expected {shape}; {_COMPLETE}'
    array = np.asarray(info[key], dtype=np.float64)
    if array.size == 0 and shape[0] == 0:
        return np.zeros(shape)
    if array.shape != shape:
        raise UserError(f"{name}: '{key}' has shape {array.shape}, {expected}")
    return array


def _pose(info: Mapping[str, Any], key: str, name: str) -> np.ndarray:
    """4 x 4 from a quaternion (w, x, y, z) and a translation."""
    pose = np.eye(4)
    w_first = _array(info, f'{key}_rotation', (4,), name)
    rotation = Rotation.from_quat(np.roll(w_first, -1))
    pose[:3, :3] = rotation.as_matrix()
    pose[:3, 3] = _array(info, f'{key}_translation', (3,), name)
    return pose


def _array(values: Mapping[str, Any], key: str, shape: tuple[int, ...], name: str) -> np.ndarray:
    if key not in values:
        raise UserError(f"{name}: no '{key}'; {_COMPLETE}")
    try:
        array = np.asarray(values[key], dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError(
            f"{name}: '{key}' is no array of numbers, expected shape {shape}; {_COMPLETE}"
        ) from None

    if array.shape != shape:
        raise UserError(f"{name}: '{key}' has shape {array.shape}, expected {shape}; {_COMPLETE}")
    if not np.isfinite(array).all():
        raise UserError(f"{name}: '{key}' is not finite; {_COMPLETE}")
    return array
