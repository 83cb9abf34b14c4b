"""COCO json: the front camera's pictures, or those of all cameras as images of their own."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..base.files import atomic_open
from .cameras import HEIGHT, WIDTH, Seen
from .record import Record, image_id, image_name
from .traffic import CLASSES
from .world import Objects, Scene

INFO = dict(description='MiniDrive, a simulated world of drives', version='1.0')
LICENSES = [
    dict(
        id=1,
        name='CC0 1.0',
        url='https://creativecommons.org/publicdomain/zero/1.0/',
    )
]


def write_coco(folder: Path, records: Sequence[Record], cameras: tuple[str, ...]) -> None:
    """Writes ``annotations/instances_{train,val}.json`` for the pictures of some cameras."""
    for split in ('train', 'val'):
        of_split = [record for record in records if record.scene.split == split]
        content = _coco(of_split, cameras)
        with atomic_open(folder / 'annotations' / f'instances_{split}.json', 'w') as file:
            file.write(json.dumps(content, separators=(',', ':')))


def _coco(records: Sequence[Record], cameras: tuple[str, ...]) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for record in records:
        for number, frame in enumerate(record.frames):
            for camera in cameras:
                image = _image(record.scene, number, camera, cameras)
                images.append(image)
                annotations += _annotations(
                    record.scene,
                    frame.objects,
                    frame.seen[camera],
                    image=image['id'],
                    first_id=len(annotations) + 1,
                )

    categories = [
        dict(
            id=i,
            name=name,
            supercategory='traffic',
        )
        for i, name in enumerate(CLASSES, start=1)
    ]

    return dict(
        info=INFO,
        licenses=LICENSES,
        categories=categories,
        images=images,
        annotations=annotations,
    )


def _image(scene: Scene, frame: int, camera: str, cameras: tuple[str, ...]) -> dict[str, Any]:
    return dict(
        id=image_id(scene, frame, camera, cameras),
        file_name=image_name(scene, frame, camera),
        width=WIDTH,
        height=HEIGHT,
        license=1,
        scene=scene.name,
        frame_idx=frame,
        camera=camera,
        timestamp=int(scene.timestamps[frame]),
    )


def _annotations(
    scene: Scene, objects: Objects, seen: Seen, image: int, first_id: int
) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = []
    for i in np.flatnonzero(seen.labelled):
        x1, y1, x2, y2 = (round(float(value), 2) for value in seen.boxes[i])
        width = round(x2 - x1, 2)
        height = round(y2 - y1, 2)
        result.append(
            dict(
                id=first_id + len(result),
                image_id=image,
                category_id=int(objects.labels[i]) + 1,
                bbox=[x1, y1, width, height],
                area=round(width * height, 2),
                iscrowd=0,
                segmentation=[[x1, y1, x2, y1, x2, y2, x1, y2]],
                visibility=round(float(seen.visibility[i]), 3),
                instance_id=scene.index * 100_000 + int(objects.actors[i]),
            )
        )

    return result
