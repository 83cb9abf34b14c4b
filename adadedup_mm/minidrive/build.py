"""Plays, films and writes a whole world.

The result does not depend on the number of worker processes.
"""

import contextlib
import fcntl
import functools
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..base.errors import UserError
from ..base.files import write_json
from ..base.progress import progress
from .cameras import CAMERAS, RIG, Seen, look
from .coco import write_coco
from .geometry import pose_matrix
from .kitti import kitti_image_file, kitti_point_files, write_kitti
from .lidar import sweep, to_ego
from .nuscenes_infos import write_nuscenes_infos
from .nuscenes_tables import sensor_file, write_nuscenes_tables
from .record import FilmedFrame, Record, image_name, visible_share
from .render import Stage, make_stage, paint
from .truth import write_truth
from .waymo import waymo_image_file, waymo_points_file, write_waymo
from .world import KINDS, MOST_SCENES, Scene, make_scene

VERSION = 1  # counts up whenever the same options give other files
QUALITY = 92  # of the JPEG files
# The schedule's first scenes hold every kind for training and one scene for validation.
LEAST_SCENES = 6
FORMATS = ('coco', 'nuscenes', 'waymo', 'kitti')


@dataclass(frozen=True)
class WorldOptions:
    """What the world is like.

    Attributes:
        scenes: how many drives.
        frames: how many frames each has.
        seed: the same seed gives the same files.
        cameras: ``'front'`` or ``'all'``: which pictures the COCO layout holds.
        formats: some of ``FORMATS``.
    """

    scenes: int = 50
    frames: int = 30
    seed: int = 0
    cameras: str = 'front'
    formats: tuple[str, ...] = FORMATS


def make_world(out: str | Path, options: WorldOptions, workers: int | None = None) -> bool:
    """Writes a world, or finds that it is already there.

    Everything is written into a folder beside ``out`` that takes its name when it is complete.

    Args:
        out: the folder that the world becomes.
        options: what it is like.
        workers: processes; all CPU cores by default.

    Returns:
        Whether it was written now; False where ``out`` already holds it, perhaps in further
        formats.

    Raises:
        UserError: the options make no sense, ``out`` holds something else, or another process is
            writing it.
    """
    _check(options)
    out = Path(out).resolve()
    if _same_world(out, options):
        return False
    with _partial_folder(out) as folder:
        cores = len(os.sched_getaffinity(0))
        records = _film_all(folder, options, workers or cores)
        _write_labels(folder, options, records)
        write_json(folder / 'minidrive.json', _description(options))

    return True


def _write_labels(folder: Path, options: WorldOptions, records: list[Record]) -> None:
    """Writes everything but pictures and points."""
    cameras = CAMERAS if options.cameras == 'all' else CAMERAS[:1]
    if 'coco' in options.formats:
        write_coco(folder / 'coco', records, cameras)
    if 'nuscenes' in options.formats:
        write_nuscenes_tables(folder / 'nuscenes', records, options.seed)
        write_nuscenes_infos(folder / 'nuscenes', records)

    if 'waymo' in options.formats:
        write_waymo(folder / 'waymo', records)
    if 'kitti' in options.formats:
        write_kitti(folder / 'kitti', records)
    write_truth(folder / 'truth.parquet', records, cameras)


def _check(options: WorldOptions) -> None:
    if options.scenes < LEAST_SCENES:
        raise UserError(
            f'--scenes is {options.scenes}; it must be at least {LEAST_SCENES}: '
            f'the {len(KINDS)} kinds ({", ".join(KINDS)}) for training '
            'and one scene for validation'
        )
    if 'nuscenes' in options.formats and options.scenes > MOST_SCENES:
        raise UserError(
            f'--scenes is {options.scenes}; it must be at most {MOST_SCENES} for nuScenes, whose '
            'evaluation knows no more names; leave nuscenes out of --formats'
        )
    if options.frames < 1:
        raise UserError(f'--frames is {options.frames}; it must be at least 1')
    if options.seed < 0:
        raise UserError(f'--seed is {options.seed}; it must not be negative')
    unknown = sorted(set(options.formats) - set(FORMATS))
    if unknown or not options.formats:
        named = ', '.join(unknown) or 'nothing'
        raise UserError(f'--formats: {named} is not one of {", ".join(FORMATS)}')


def _same_world(out: Path, options: WorldOptions) -> bool:
    if not out.exists() or _is_empty_folder(out):
        return False
    wanted = _description(options)
    try:
        found = json.loads((out / 'minidrive.json').read_text())
        formats = set(found['formats'])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f'{out} exists and is not a MiniDrive world; choose another folder'
        ) from None

    if set(options.formats) <= formats:
        found['formats'] = wanted['formats']
    different = [key for key in wanted if found.get(key) != wanted[key]]
    if different:
        raise UserError(
            f'{out} holds a MiniDrive world with another {", ".join(different)}; '
            'choose another folder or remove it'
        )

    return True


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _description(options: WorldOptions) -> dict[str, Any]:
    """What ``minidrive.json`` in the world's folder says."""
    return dict(
        asdict(options),
        formats=list(options.formats),
        version=VERSION,
    )


@contextlib.contextmanager
def _partial_folder(out: Path) -> Iterator[Path]:
    """A locked folder beside ``out`` that takes its name at the end.

    Leftovers of a killed process are removed first.
    """
    partial = out.with_name(f'.{out.name}.partial')
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'{out.parent} cannot be written to: {error.strerror}') from None

    lock = os.open(partial, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held the lock until now may have finished and renamed the folder.
            os.lstat(partial)
        except OSError:
            raise UserError(f'{out} is being written by another process; wait for it') from None

        for leftover in partial.iterdir():
            if leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()

        try:
            yield partial
            os.rename(partial, out)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    finally:
        os.close(lock)


def _film_all(folder: Path, options: WorldOptions, workers: int) -> list[Record]:
    """Plays and films all scenes, in their order."""
    film = functools.partial(_film, folder, options)
    records = []
    moments = options.scenes * options.frames
    with progress(moments, 'MiniDrive', 'frame') as bar:
        for record in _map(film, range(options.scenes), workers):
            records.append(record)
            bar.update(options.frames)
    return records


def _map(film: Callable[[int], Record], scenes: Sequence[int], workers: int) -> Iterator[Record]:
    if workers == 1:
        yield from map(film, scenes)
        return

    pool = ProcessPoolExecutor(
        max_workers=workers,
        mp_context=multiprocessing.get_context('spawn'),
        initializer=cv2.setNumThreads,
        initargs=(1,),
    )
    with pool:
        yield from pool.map(film, scenes)


def _film(folder: Path, options: WorldOptions, index: int) -> Record:
    """Plays one scene, writes its pictures and points and returns what was seen and hit."""
    scene = make_scene(options.seed, index, options.frames)
    stage = make_stage(scene)
    frames = [_film_frame(folder, options, stage, frame) for frame in range(len(scene))]
    return Record(scene, tuple(frames))


def _film_frame(folder: Path, options: WorldOptions, stage: Stage, frame: int) -> FilmedFrame:
    scene = stage.scene
    ego = scene.ego[frame]
    objects = scene.objects(frame)
    in_3d = options.formats != ('coco',)
    seen: dict[str, Seen] = {}
    for number, camera in enumerate(RIG):
        places = [folder / place for place in _pictures(options, scene, frame, camera.name)]
        # Where the LiDAR's points go depends on what is visible from any side.
        if places or in_3d:
            seen[camera.name] = look(camera, ego, objects.boxes)
        if places:
            picture = paint(stage, frame, camera, number)
            _write_picture(picture, places)

    visible = visible_share(seen)
    if in_3d:
        points = _write_points(folder, options, scene, frame, visible)
    else:
        points = np.zeros(len(objects.boxes), np.int64)

    return FilmedFrame(
        objects=objects,
        ego2global=pose_matrix(*ego),
        seen=seen,
        visible=visible,
        points=points,
    )


def _pictures(options: WorldOptions, scene: Scene, frame: int, camera: str) -> list[str]:
    """Where a picture goes, below the world's folder."""
    is_front = camera == CAMERAS[0]
    places = []
    if 'coco' in options.formats and (options.cameras == 'all' or is_front):
        places.append(f'coco/images/{image_name(scene, frame, camera)}')
    if 'nuscenes' in options.formats:
        places.append(f'nuscenes/{sensor_file(scene, frame, camera)}')
    waymo_place = waymo_image_file(scene, frame, camera)
    if 'waymo' in options.formats and waymo_place:
        places.append(f'waymo/{waymo_place}')
    if 'kitti' in options.formats and is_front:
        places.append(f'kitti/{kitti_image_file(scene, frame)}')
    return places


def _write_picture(picture: np.ndarray, places: list[Path]) -> None:
    """Writes a picture once; other layouts get further names of the same file."""
    _, encoded = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    content = encoded.tobytes()
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            if place is not places[0]:
                os.link(places[0], place)
                continue
        except OSError:
            pass  # a file system without hard links gets copies

        place.write_bytes(content)


def _write_points(
    folder: Path, options: WorldOptions, scene: Scene, frame: int, visible: np.ndarray
) -> np.ndarray:
    """Writes the LiDAR's points for the layouts that have them.

    Returns:
        (n,) how many there are on each object.
    """
    points, counts = sweep(scene, frame, visible)
    blank = np.zeros((len(points), 2), dtype=np.float32)
    clouds = {}
    if 'nuscenes' in options.formats:
        name = sensor_file(scene, frame, 'LIDAR_TOP')
        clouds[f'nuscenes/{name}'] = np.column_stack([points, blank[:, :1]])

    if 'waymo' in options.formats:
        name = waymo_points_file(scene, frame)
        clouds[f'waymo/{name}'] = np.column_stack([to_ego(points), blank])

    if 'kitti' in options.formats:
        for name, cloud in kitti_point_files(scene, frame, points).items():
            clouds[f'kitti/{name}'] = cloud

    for name, cloud in clouds.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(cloud.tobytes())

    return counts
