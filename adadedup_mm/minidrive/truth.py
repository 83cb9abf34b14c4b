"""The truth about redundancy, kept beside the data for tests and benchmarks."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from ..base.files import write_table
from .cameras import CAMERAS
from .record import Record, image_id, image_name
from .tokens import token

SCHEMA = pa.schema(
    [
        ('sample_id', pa.string()),
        ('file_name', pa.string()),
        ('split', pa.string()),
        ('scene', pa.string()),
        ('kind', pa.string()),
        ('night', pa.bool_()),
        ('duplicate_group', pa.int32()),
        ('is_duplicate', pa.bool_()),
        ('camera', pa.string()),
        ('frame_idx', pa.int32()),
        ('token', pa.string()),
    ]
)


def write_truth(path: Path, records: Sequence[Record], cameras: tuple[str, ...]) -> None:
    """Writes one row per COCO image.

    ``sample_id`` is the COCO image id as text and ``token`` the nuScenes sample's. The pictures
    that a camera of a parked scene takes show the same: they are one ``duplicate_group``, in which
    all but the first are ``is_duplicate``. Any one of a group can stand for it. Pictures with
    content of their own are in group -1.
    """
    rows = []
    for record in records:
        scene = record.scene
        for frame in range(len(scene)):
            for camera in cameras:
                group = -1
                if scene.kind == 'parked':
                    group = scene.index * len(CAMERAS) + CAMERAS.index(camera)
                rows.append(
                    dict(
                        sample_id=str(image_id(scene, frame, camera, cameras)),
                        file_name=image_name(scene, frame, camera),
                        split=scene.split,
                        scene=scene.name,
                        kind=scene.kind,
                        night=scene.night,
                        duplicate_group=group,
                        is_duplicate=group >= 0 and frame > 0,
                        camera=camera,
                        frame_idx=frame,
                        token=token(scene.seed, 'sample', scene.index, frame),
                    )
                )

    write_table(path, pa.Table.from_pylist(rows, SCHEMA))
