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
from .record import FilmedFrame, Record
from .tokens import token
from .traffic import BICYCLE, CONE, PEDESTRIAN
from .world import Scene

VERSION = 'v1.0-trainval'
MAP = 'maps/minidrive.png'
LIDAR = 'LIDAR_TOP'
SENSORS = (*(camera.name for camera in RIG), LIDAR)
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
    stamp = scene.timestamps[frame]
    suffix = 'pcd.bin' if sensor == LIDAR else 'jpg'
    return f'samples/{sensor}/{scene.name}__{sensor}__{stamp}.{suffix}'


def attribute(label: int, speed: float) -> int | None:
    """The index into ``ATTRIBUTES`` that fits a class and a speed in m/s; None for cones."""
    if label == CONE:
        return None
    moving = speed > 0.2
    if label == BICYCLE:
        name = 'cycle.with_rider'
    elif label == PEDESTRIAN:
        name = 'pedestrian.moving' if moving else 'pedestrian.standing'
    else:
        name = 'vehicle.moving' if moving else 'vehicle.parked'

    return ATTRIBUTES.index(name)


def write_nuscenes_tables(folder: Path, records: Sequence[Record], seed: int) -> None:
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

    blank = np.zeros((1, 1), dtype=np.uint8)
    _, encoded = cv2.imencode('.png', blank)
    with atomic_open(folder / MAP) as file:
        file.write(encoded.tobytes())


def _constant_tables(seed: int) -> dict[str, Rows]:
    """The tables that are the same for all scenes."""
    log = dict(
        token=token(seed, 'log'),
        logfile='minidrive',
        vehicle='minidrive',
        date_captured='2020-09-13',
        location='minidrive',
    )
    world = dict(
        token=token(seed, 'map'),
        category='semantic_prior',
        filename=MAP,
        log_tokens=[log['token']],
    )
    return dict(
        category=_named_rows(seed, 'category', CATEGORIES),
        attribute=_named_rows(seed, 'attribute', ATTRIBUTES),
        visibility=_visibility_rows(),
        sensor=[_sensor_row(seed, sensor) for sensor in SENSORS],
        calibrated_sensor=[_calibrated_sensor_row(seed, sensor) for sensor in SENSORS],
        log=[log],
        map=[world],
    )


def _named_rows(seed: int, kind: str, names: tuple[str, ...]) -> Rows:
    return [
        dict(
            token=token(seed, kind, name),
            name=name,
            description='',
        )
        for name in names
    ]


def _visibility_rows() -> Rows:
    rows = []
    for i, level in enumerate(('0-40', '40-60', '60-80', '80-100'), start=1):
        description = f'visibility of whole object is {level}%'
        rows.append(
            dict(
                token=str(i),
                level=f'v{level}',
                description=description,
            )
        )
    return rows


def _sensor_row(seed: int, sensor: str) -> dict[str, Any]:
    return dict(
        token=token(seed, 'sensor', sensor),
        channel=sensor,
        modality='lidar' if sensor == LIDAR else 'camera',
    )


def _calibrated_sensor_row(seed: int, sensor: str) -> dict[str, Any]:
    if sensor == LIDAR:
        pose = LIDAR2EGO
        intrinsic = []
    else:
        camera = RIG[SENSORS.index(sensor)]
        pose = camera.cam2ego
        intrinsic = camera.intrinsic.tolist()

    return dict(
        token=token(seed, 'calibrated_sensor', sensor),
        sensor_token=token(seed, 'sensor', sensor),
        translation=pose[:3, 3].tolist(),
        rotation=quaternion(pose[:3, :3]),
        camera_intrinsic=intrinsic,
    )


def _add_scene(tables: dict[str, Rows], record: Record) -> None:
    scene = record.scene
    brightness = 'night' if scene.night else 'day'
    tables['scene'].append(
        dict(
            token=_token(scene, 'scene'),
            log_token=token(scene.seed, 'log'),
            nbr_samples=len(scene),
            name=scene.name,
            first_sample_token=_token(scene, 'sample', 0),
            last_sample_token=_token(scene, 'sample', len(scene) - 1),
            description=f'{scene.kind}, {scene.setting}, {brightness}',
        )
    )
    for number, frame in enumerate(record.frames):
        _add_sample(tables, scene, number, frame)
    _add_annotations(tables, record)


def _token(scene: Scene, kind: str, *numbers: object) -> str:
    """The token of something that belongs to a scene."""
    return token(scene.seed, kind, scene.index, *numbers)


def _neighbours(scene: Scene, kind: str, number: int, *rest: object) -> dict[str, str]:
    """``prev`` and ``next`` of something that every frame has; empty at the scene's ends."""
    is_first = number == 0
    is_last = number + 1 == len(scene)
    return dict(
        prev='' if is_first else _token(scene, kind, number - 1, *rest),
        next='' if is_last else _token(scene, kind, number + 1, *rest),
    )


def _add_sample(tables: dict[str, Rows], scene: Scene, number: int, frame: FilmedFrame) -> None:
    sample = _token(scene, 'sample', number)
    stamp = int(scene.timestamps[number])
    rotation = quaternion(frame.ego2global[:3, :3])
    translation = frame.ego2global[:3, 3].tolist()
    tables['sample'].append(
        dict(
            token=sample,
            timestamp=stamp,
            scene_token=_token(scene, 'scene'),
            **_neighbours(scene, 'sample', number),
        )
    )
    for sensor in SENSORS:
        data = _token(scene, 'sample_data', number, sensor)
        lidar = sensor == LIDAR
        tables['ego_pose'].append(
            dict(
                token=data,
                timestamp=stamp,
                rotation=rotation,
                translation=translation,
            )
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
                filename=sensor_file(scene, number, sensor),
                **_neighbours(scene, 'sample_data', number, sensor),
            )
        )


def _add_annotations(tables: dict[str, Rows], record: Record) -> None:
    scene = record.scene
    tracks: dict[int, Rows] = {}
    for number, frame in enumerate(record.frames):
        for i in frame.annotated:
            actor = int(frame.objects.actors[i])
            track = tracks.setdefault(actor, [])
            track.append(_annotation(scene, number, frame, int(i)))

    for actor, track in sorted(tracks.items()):
        category = CATEGORIES[int(scene.actors.label[actor])]
        names = [row['token'] for row in track]
        before = ['', *names[:-1]]
        after = [*names[1:], '']
        for row, previous, following in zip(track, before, after, strict=True):
            row.update(prev=previous, next=following)
        tables['instance'].append(
            dict(
                token=_token(scene, 'instance', actor),
                category_token=token(scene.seed, 'category', category),
                nbr_annotations=len(track),
                first_annotation_token=names[0],
                last_annotation_token=names[-1],
            )
        )
        tables['sample_annotation'] += track


def _annotation(scene: Scene, number: int, frame: FilmedFrame, i: int) -> dict[str, Any]:
    """One box in nuScenes' global frame: centre, width, length, height and a quaternion.

    The tokens of its neighbours follow later.
    """
    objects = frame.objects
    box = objects.boxes[i]
    width_length_height = box[[4, 3, 5]]
    half_yaw = box[6] / 2
    actor = int(objects.actors[i])
    visibility_bin = np.searchsorted([0.4, 0.6, 0.8], frame.visible[i], side='right')
    visibility = 1 + int(visibility_bin)

    label = int(objects.labels[i])
    speed = float(np.hypot(*objects.velocities[i]))
    kind = attribute(label, speed)
    attributes = []
    if kind is not None:
        attributes.append(token(scene.seed, 'attribute', ATTRIBUTES[kind]))

    return dict(
        token=_token(scene, 'sample_annotation', number, actor),
        sample_token=_token(scene, 'sample', number),
        instance_token=_token(scene, 'instance', actor),
        visibility_token=str(visibility),
        attribute_tokens=attributes,
        translation=box[:3].round(4).tolist(),
        size=width_length_height.round(4).tolist(),
        rotation=[
            float(np.cos(half_yaw)),
            0.0,
            0.0,
            float(np.sin(half_yaw)),
        ],
        num_lidar_pts=int(frame.points[i]),
        num_radar_pts=0,
    )
