"""KITTI's layout as mmdet3d uses it: one camera, texts of labels and calibrations, info files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..base.files import atomic_open
from .cameras import HEIGHT, LIDAR2EGO, RIG, WIDTH, to_pixels
from .geometry import inverse, transform, transform_boxes, wrap_angle
from .infos import bottom_centred, camera_boxes, matrix_list, write_pickle
from .lidar import to_ego
from .record import FilmedFrame, Record
from .traffic import BICYCLE, BUS, CAR, PEDESTRIAN, TRUCK
from .world import Scene

CLASSES = ('Pedestrian', 'Cyclist', 'Car', 'Van', 'Truck', 'Person_sitting', 'Tram', 'Misc')
LABELS = {PEDESTRIAN: 0, BICYCLE: 1, CAR: 2, TRUCK: 4, BUS: 7}  # cones are not labelled
CAMERA = RIG[0]

# KITTI's LiDAR frame: x forward, y left, z up, at the LiDAR's place.
VELODYNE2EGO = np.eye(4)
VELODYNE2EGO[:3, 3] = LIDAR2EGO[:3, 3]
VELODYNE2CAM = inverse(CAMERA.cam2ego) @ VELODYNE2EGO
PROJECTION = np.eye(4)
PROJECTION[:3, :3] = CAMERA.intrinsic


def sample_number(scene: Scene, frame: int) -> int:
    """The number of a frame; it does not depend on the number of scenes."""
    moments_before = scene.index * len(scene)
    return moments_before + frame


def kitti_image_file(scene: Scene, frame: int) -> str:
    """Where the picture lies below the KITTI folder."""
    return f'training/image_2/{sample_number(scene, frame):06d}.jpg'


def kitti_point_files(scene: Scene, frame: int, points: np.ndarray) -> dict[str, np.ndarray]:
    """The LiDAR's points by file: all of them, and those that the picture shows.

    Args:
        scene: whose frame it is.
        frame: its number.
        points: (P, 4) float32 in nuScenes' LiDAR frame.

    Returns:
        Points (n, 4) float32 in KITTI's LiDAR frame by the file's place below the KITTI folder.
    """
    velodyne = to_ego(points)
    velodyne[:, :3] -= VELODYNE2EGO[:3, 3].astype(np.float32)
    places = velodyne[:, :3].astype(np.float64)
    name = f'{sample_number(scene, frame):06d}.bin'
    return {
        f'training/velodyne/{name}': velodyne,
        f'training/velodyne_reduced/{name}': velodyne[_in_picture(places)],
    }


def _in_picture(places: np.ndarray) -> np.ndarray:
    """(P,) bool: which places (P, 3) in KITTI's LiDAR frame the picture shows."""
    in_camera = transform(VELODYNE2CAM, places)
    ahead = in_camera[:, 2] > 0.1
    projectable = np.where(ahead[:, None], in_camera, 1.0)
    pixels = to_pixels(CAMERA.intrinsic, projectable)
    inside = (pixels >= 0) & (pixels < (WIDTH, HEIGHT))
    shown: np.ndarray = ahead & inside.all(axis=1)
    return shown


def write_kitti(folder: Path, records: Sequence[Record]) -> None:
    """Writes info files, image sets, labels and calibrations."""
    infos: dict[str, list[dict[str, Any]]] = dict(train=[], val=[])
    for record in records:
        for number, frame in enumerate(record.frames):
            info = _info(record.scene, number, frame)
            infos[record.scene.split].append(info)
            _write_texts(folder / 'training', info)

    infos['trainval'] = infos['train'] + infos['val']
    for split, data_list in infos.items():
        _write_split(folder, split, data_list)


def _write_texts(folder: Path, info: dict[str, Any]) -> None:
    """Writes the labels and the calibration of one picture."""
    name = f'{_stem(info)}.txt'
    labels = [_label_line(instance) for instance in info['instances']]
    _write_lines(folder / 'label_2' / name, labels)
    _write_lines(folder / 'calib' / name, _calibration())


def _write_split(folder: Path, split: str, data_list: list[dict[str, Any]]) -> None:
    """Writes the info file and the image set of one split."""
    metainfo = dict(
        categories={name: i for i, name in enumerate(CLASSES)},
        dataset='kitti',
        info_version='1.1',
    )
    content = dict(metainfo=metainfo, data_list=data_list)
    write_pickle(folder / f'kitti_infos_{split}.pkl', content)

    stems = [_stem(info) for info in data_list]
    image_set = folder / 'ImageSets' / f'{split}.txt'
    with atomic_open(image_set, 'w') as file:
        file.write('\n'.join(stems) + '\n')


def _stem(info: dict[str, Any]) -> str:
    """The name of a picture's files without their ending."""
    return f'{info["sample_idx"]:06d}'


def _write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = ''.join(f'{line}\n' for line in lines)
    path.write_text(text)


def _info(scene: Scene, number: int, frame: FilmedFrame) -> dict[str, Any]:
    lidar2img = matrix_list(PROJECTION @ VELODYNE2CAM)
    images: dict[str, Any] = {}
    for i in range(4):
        images[f'CAM{i}'] = dict(cam2img=PROJECTION.tolist(), lidar2img=lidar2img)
    images['CAM2'] = dict(
        img_path=Path(kitti_image_file(scene, number)).name,
        height=HEIGHT,
        width=WIDTH,
        cam2img=PROJECTION.tolist(),
        lidar2cam=matrix_list(VELODYNE2CAM),
        lidar2img=lidar2img,
    )
    images['R0_rect'] = np.eye(4).tolist()
    sample = sample_number(scene, number)
    lidar = dict(
        num_pts_feats=4,
        lidar_path=f'{sample:06d}.bin',
        Tr_velo_to_cam=matrix_list(VELODYNE2CAM),
        Tr_imu_to_velo=matrix_list(inverse(VELODYNE2EGO)),
    )
    instances = _instances(frame)

    return dict(
        sample_idx=sample,
        images=images,
        lidar_points=lidar,
        instances=instances,
        cam_instances=dict(CAM2=_camera_instances(instances)),
    )


def _instances(frame: FilmedFrame) -> list[dict[str, Any]]:
    """What the picture shows.

    Boxes are bottom centres in the camera frame, length, height, width and rotation.
    """
    seen = frame.seen[CAMERA.name]
    ego_boxes = transform_boxes(inverse(frame.ego2global), frame.objects.boxes)
    boxes = bottom_centred(camera_boxes(CAMERA, ego_boxes))
    ahead = seen.centres[:, 2] > 0
    result: list[dict[str, Any]] = []
    for i in np.flatnonzero(seen.labelled & ahead):
        label = LABELS.get(int(frame.objects.labels[i]))
        if label is None:
            continue
        pixel_height = seen.boxes[i, 3] - seen.boxes[i, 1]
        truncated = float(1 - seen.inside[i])
        hidden = 1 - seen.visibility[i]
        occluded = int(np.searchsorted([0.25, 0.6], hidden, side='right'))
        result.append(
            dict(
                bbox=seen.boxes[i].tolist(),
                bbox_label=label,
                bbox_3d=boxes[i].tolist(),
                bbox_label_3d=label,
                depth=float(seen.centres[i, 2]),
                center_2d=seen.centres[i, :2].tolist(),
                num_lidar_pts=int(frame.points[i]),
                difficulty=_difficulty(pixel_height, occluded, truncated),
                truncated=round(truncated, 2),
                occluded=occluded,
                alpha=_alpha(boxes[i]),
                score=0.0,
                index=len(result),
                group_id=len(result),
            )
        )

    return result


def _alpha(box: np.ndarray) -> float:
    """KITTI's angle of a camera box (7,) to the ray from the camera to it, -pi..pi."""
    x = box[0]
    z = box[2]
    rotation = box[6]
    return float(wrap_angle(rotation + np.arctan2(z, x) - np.pi / 2))


# least height in KITTI's pixels, largest occlusion and truncation of easy, moderate, hard
_DIFFICULTIES = ((40, 0, 0.15), (25, 1, 0.3), (25, 2, 0.5))


def _difficulty(height: float, occluded: int, truncated: float) -> int:
    """KITTI's rule: 0 easy, 1 moderate, 2 hard, -1 none of them."""
    kitti_height = height * 2.8  # its focal length is so much longer
    for level, (least_height, most_occluded, most_truncated) in enumerate(_DIFFICULTIES):
        large = kitti_height >= least_height
        visible = occluded <= most_occluded and truncated <= most_truncated
        if large and visible:
            return level
    return -1


def _camera_instances(instances: list[dict[str, Any]]) -> list[dict[str, Any]]:
    keys = ('bbox', 'bbox_label', 'bbox_3d', 'bbox_label_3d', 'center_2d', 'depth')
    result = []
    for instance in instances:
        if instance['bbox_label'] <= 2:
            chosen = {key: instance[key] for key in keys}
            result.append(dict(chosen, bbox_3d_isvalid=True, velocity=-1))
    return result


def _label_line(instance: dict[str, Any]) -> str:
    x, y, z, length, height, width, rotation = instance['bbox_3d']
    name = CLASSES[instance['bbox_label']]
    numbers = [
        instance['alpha'],
        *instance['bbox'],
        height,
        width,
        length,
        x,
        y,
        z,
        rotation,
    ]
    words = [name, f'{instance["truncated"]:.2f}', str(instance['occluded'])]
    words += [f'{value:.2f}' for value in numbers]

    return ' '.join(words)


def _calibration() -> list[str]:
    lines = [_matrix_line(f'P{i}', PROJECTION[:3]) for i in range(4)]
    return [
        *lines,
        _matrix_line('R0_rect', np.eye(3)),
        _matrix_line('Tr_velo_to_cam', VELODYNE2CAM[:3]),
        _matrix_line('Tr_imu_to_velo', inverse(VELODYNE2EGO)[:3]),
    ]


def _matrix_line(name: str, matrix: np.ndarray) -> str:
    values = [f'{value:.12e}' for value in matrix.ravel()]
    return f'{name}: ' + ' '.join(values)
