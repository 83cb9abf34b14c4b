"""The thirteen tables of nuScenes' own layout, as its devkit and ``NuScenesMetric`` read them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..base.files import atomic_open
from .cameras import HEIGHT, LIDAR2EGO, RIG, WIDTH
from .geometry import quaternion
from .record import Frame, Record
from .tokens import token
from .traffic import BICYCLE, CONE, PEDESTRIAN
from .world import Scene

VERSION = 'v1.0-trainval'
MAP = 'maps/minidrive.png'
SENSORS = (*(camera.name for camera in RIG), 'LIDAR_TOP')
CATEGORIES = (
    'vehicle.car',
    'vehicle.truck',
    'vehicle.bus.rigid',
    'vehicle.bicycle',
    'human.pedestrian.adult',
    'movable_object.trafficcone',
)
ATTRIBUTES = (
    'cycle.with_rider',
    'cycle.without_rider',
    'pedestrian.moving',
    'pedestrian.standing',
    'pedestrian.sitting_lying_down',
    'vehicle.moving',
    'vehicle.parked',
    'vehicle.stopped',
)

Rows = list[dict[str, Any]]


def sensor_file(scene: Scene, frame: int, sensor: str) -> str:
    """Where a sensor's data lies, below the nuScenes folder."""
    suffix = 'pcd.bin' if sensor == 'LIDAR_TOP' else 'jpg'
    return f'samples/{sensor}/{scene.name}__{sensor}__{scene.timestamps[frame]}.{suffix}'


def attribute(label: int, speed: float) -> int | None:
    """The index into ``ATTRIBUTES`` that fits a class and a speed in m/s; None for cones."""
    if label == CONE:
        return None
    moving = speed > 0.2
    names = {
        BICYCLE: 'cycle.with_rider',
        PEDESTRIAN: 'pedestrian.moving' if moving else 'pedestrian.standing',
    }
    return ATTRIBUTES.index(names.get(label, 'vehicle.moving' if moving else 'vehicle.parked'))


def write_tables(folder: Path, records: Sequence[Record], seed: int) -> None:
    """Writes ``v1.0-trainval`` and the map's picture below ``folder``."""
    tables: dict[str, Rows] = dict(
        _constant_tables(seed),
        scene=[],
        sample=[],
        sample_data=[],
        ego_pose=[],
        instance=[],
        sample_annotation=[],
    )
    for record in records:
        _add_scene(tables, record)
    for name, rows in tables.items():
        with atomic_open(folder / VERSION / f'{name}.json', 'w') as file:
            file.write(json.dumps(rows, separators=(',', ':')))
    with atomic_open(folder / MAP) as file:
        file.write(cv2.imencode('.png', np.zeros((1, 1), dtype=np.uint8))[1].tobytes())


def _constant_tables(seed: int) -> dict[str, Rows]:
    """The tables that are the same for all scenes."""
    sensors, calibrated = [], []
    cameras = {camera.name: camera for camera in RIG}
    for sensor in SENSORS:
        camera = cameras.get(sensor)
        pose = camera.cam2ego if camera else LIDAR2EGO
        name, modality = token(seed, 'sensor', sensor), 'camera' if camera else 'lidar'
        sensors.append(dict(token=name, channel=sensor, modality=modality))
        calibrated.append(
            dict(
                token=token(seed, 'calibrated_sensor', sensor),
                sensor_token=name,
                translation=pose[:3, 3].tolist(),
                rotation=quaternion(pose[:3, :3]),
                camera_intrinsic=camera.intrinsic.tolist() if camera else [],
            )
        )
    log = dict(
        token=token(seed, 'log'),
        logfile='minidrive',
        vehicle='minidrive',
        date_captured='2020-09-13',
        location='minidrive',
    )
    world = dict(
        token=token(seed, 'map'), category='semantic_prior', filename=MAP, log_tokens=[log['token']]
    )
    visibility = [
        dict(token=str(i), level=f'v{level}', description=f'visibility of whole object is {level}%')
        for i, level in enumerate(('0-40', '40-60', '60-80', '80-100'), start=1)
    ]
    categories = [
        dict(token=token(seed, 'category', name), name=name, description='') for name in CATEGORIES
    ]
    attributes = [
        dict(token=token(seed, 'attribute', name), name=name, description='') for name in ATTRIBUTES
    ]
    return dict(
        category=categories,
        attribute=attributes,
        visibility=visibility,
        sensor=sensors,
        calibrated_sensor=calibrated,
        log=[log],
        map=[world],
    )


def _add_scene(tables: dict[str, Rows], record: Record) -> None:
    scene = record.scene

    def name(kind: str, *numbers: object) -> str:
        return token(scene.seed, kind, scene.index, *numbers)

    def neighbours(kind: str, frame: int, *numbers: object) -> dict[str, str]:
        return dict(
            prev=name(kind, frame - 1, *numbers) if frame else '',
            next=name(kind, frame + 1, *numbers) if frame + 1 < len(scene) else '',
        )

    tables['scene'].append(
        dict(
            token=name('scene'),
            log_token=token(scene.seed, 'log'),
            nbr_samples=len(scene),
            name=scene.name,
            first_sample_token=name('sample', 0),
            last_sample_token=name('sample', len(scene) - 1),
            description=f'{scene.kind}, {scene.setting}, {"night" if scene.night else "day"}',
        )
    )
    for frame, moment in enumerate(record.frames):
        sample, stamp, pose = name('sample', frame), int(scene.timestamps[frame]), moment.ego2global
        rotation, translation = quaternion(pose[:3, :3]), pose[:3, 3].tolist()
        tables['sample'].append(
            dict(
                token=sample,
                timestamp=stamp,
                scene_token=name('scene'),
                **neighbours('sample', frame),
            )
        )
        for sensor in SENSORS:
            data, lidar = name('sample_data', frame, sensor), sensor == 'LIDAR_TOP'
            tables['ego_pose'].append(
                dict(token=data, timestamp=stamp, rotation=rotation, translation=translation)
            )
            tables['sample_data'].append(
                dict(
                    token=data,
                    sample_token=sample,
                    ego_pose_token=data,
                    timestamp=stamp,
                    is_key_frame=True,
                    calibrated_sensor_token=token(scene.seed, 'calibrated_sensor', sensor),
                    fileformat='pcd' if lidar else 'jpg',
                    height=0 if lidar else HEIGHT,
                    width=0 if lidar else WIDTH,
                    filename=sensor_file(scene, frame, sensor),
                    **neighbours('sample_data', frame, sensor),
                )
            )
    _add_annotations(tables, record)


def _add_annotations(tables: dict[str, Rows], record: Record) -> None:
    scene = record.scene
    tracks: dict[int, Rows] = {}
    for number, frame in enumerate(record.frames):
        for i in frame.annotated:
            track = tracks.setdefault(int(frame.objects.actors[i]), [])
            track.append(_annotation(scene, number, frame, int(i)))
    for actor, track in sorted(tracks.items()):
        names, category = (
            [row['token'] for row in track],
            CATEGORIES[int(scene.actors.label[actor])],
        )
        for row, before, after in zip(track, ['', *names[:-1]], [*names[1:], ''], strict=True):
            row.update(prev=before, next=after)
        tables['instance'].append(
            dict(
                token=token(scene.seed, 'instance', scene.index, actor),
                category_token=token(scene.seed, 'category', category),
                nbr_annotations=len(track),
                first_annotation_token=names[0],
                last_annotation_token=names[-1],
            )
        )
        tables['sample_annotation'] += track


def _annotation(scene: Scene, number: int, frame: Frame, i: int) -> dict[str, Any]:
    """One box in nuScenes' global frame: centre, width, length, height and a quaternion; neighbours follow later."""
    objects = frame.objects
    box, label, actor = objects.boxes[i], int(objects.labels[i]), int(objects.actors[i])
    kind = attribute(label, float(np.hypot(*objects.velocities[i])))
    visibility = 1 + int(np.searchsorted([0.4, 0.6, 0.8], frame.visible[i], side='right'))
    return dict(
        token=token(scene.seed, 'sample_annotation', scene.index, number, actor),
        sample_token=token(scene.seed, 'sample', scene.index, number),
        instance_token=token(scene.seed, 'instance', scene.index, actor),
        visibility_token=str(visibility),
        attribute_tokens=[] if kind is None else [token(scene.seed, 'attribute', ATTRIBUTES[kind])],
        translation=box[:3].round(4).tolist(),
        size=box[[4, 3, 5]].round(4).tolist(),
        rotation=[float(np.cos(box[6] / 2)), 0.0, 0.0, float(np.sin(box[6] / 2))],
        num_lidar_pts=int(frame.points[i]),
        num_radar_pts=0,
    )
