"""Frames with several cameras: their pictures, their objects in 3D, and where those are in every picture."""

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..annotations.infos import naming_frame, record_id
from ..base.errors import UserError
from ..base.progress import progress
from ..images import BadImage, Reader, image_size
from .projection import project_boxes

# Where the pictures lie in the layouts that mmdet3d documents; configs for LiDAR alone do not say
# it.
_IMAGE_FOLDERS = {
    'NuScenesDataset': {
        name: f'samples/{name}'
        for name in (
            'CAM_FRONT',
            'CAM_FRONT_RIGHT',
            'CAM_FRONT_LEFT',
            'CAM_BACK',
            'CAM_BACK_LEFT',
            'CAM_BACK_RIGHT',
        )
    },
    'WaymoDataset': {
        name: f'training/image_{i}'
        for i, name in enumerate(
            ('CAM_FRONT', 'CAM_FRONT_LEFT', 'CAM_FRONT_RIGHT', 'CAM_SIDE_LEFT', 'CAM_SIDE_RIGHT')
        )
    },
    'KittiDataset': {'img': 'training/image_2'},
    'LyftDataset': {'img': 'v1.01-train/images'},
}
# What 'dataset' in the metainfo of the infos says.
_WRITTEN_FOR = {
    'nuscenes': 'NuScenesDataset',
    'waymo': 'WaymoDataset',
    'kitti': 'KittiDataset',
    'lyft': 'LyftDataset',
}
_SHAPES = {
    'cam2img': ((3, 3), (3, 4), (4, 4)),
    'lidar2cam': ((4, 4),),
    'lidar2img': ((3, 4), (4, 4)),
}

Item = Mapping[str, Any]


@dataclass(frozen=True)
class ViewObjects:
    """What every picture of n frames with V cameras shows; picture ``v`` of frame ``i`` has number ``i * V + v``.

    Attributes:
        sizes: (n * V, 2) int32 height and width in pixels, 0 where unknown.
        offsets: (n * V + 1,) int64; picture ``k`` owns rows ``offsets[k]:offsets[k + 1]`` of the
            others.
        labels: (m,) int32, indices into the dataset's classes.
        boxes: (m, 4) float32 x1 y1 x2 y2 in pixels.
    """

    sizes: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray


@dataclass(frozen=True)
class Frames:
    """n frames; ``counts``, ``labels`` and ``boxes`` are those of the 3D objects, as ``Pool`` has them.

    Attributes:
        items: how many items of the dataset make up a frame: 1, or its cameras.
    """

    image_paths: list[tuple[str, ...]]
    views: tuple[str, ...]
    counts: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    scenes: list[str]
    objects: ViewObjects
    items: int


def show_cameras(dataset: Any, given: Mapping[str, str]) -> None:
    """Makes a 3D dataset for LiDAR alone, or one derived from it, load its frames with their pictures.

    Args:
        dataset: with its annotations still to be loaded.
        given: ``data_prefix`` in its settings; what it does not say is where mmdet3d's documented
            layout has it.
    """
    kind = known_kind(dataset)
    if kind is None or dataset.modality['use_camera']:
        return
    # New dicts: the old ones may be the defaults of the class.
    dataset.modality = dict(dataset.modality, use_camera=True)
    folders = {
        name: os.path.join(dataset.data_root or '', folder)
        for name, folder in _IMAGE_FOLDERS[kind].items()
        if not given.get(name)
    }
    dataset.data_prefix = {**dataset.data_prefix, **folders}


def known_kind(dataset: Any) -> str | None:
    """Which of mmdet3d's datasets one is or derives from; None for all others."""
    return next(
        (kind.__name__ for kind in type(dataset).__mro__ if kind.__name__ in _IMAGE_FOLDERS), None
    )


def check_kind(dataset: Any, content: Mapping[str, Any], where: str, ann_file: Any) -> None:
    """Raises UserError if an info file says that it is for another of mmdet3d's datasets."""
    written_for = _WRITTEN_FOR.get(str((content.get('metainfo') or {}).get('dataset')).lower())
    if written_for and known_kind(dataset) not in (None, written_for):
        raise UserError(
            f'{where} cannot read {ann_file}, whose metainfo says that it is for {written_for}: '
            'name that type, or another ann_file'
        )


def is_frames(dataset: Any, infos: Sequence[Item]) -> bool:
    """Whether a dataset is one of mmdet3d's detection datasets."""
    return hasattr(dataset, 'box_type_3d') and all(
        isinstance(info.get('images'), Mapping) for info in infos
    )


def read_frames(
    dataset: Any, frames: Sequence[Sequence[Item]], where: str, reader: Reader
) -> Frames:
    """Takes pictures, objects and scenes from what a 3D dataset has loaded.

    2D boxes come from ``cam_instances`` where a frame has them, otherwise from projecting its 3D
    boxes.

    Args:
        dataset: one of mmdet3d's, or BEVFormerDataset.
        frames: for each frame the items of the dataset that it is made of: one, or one for each
            camera.
        where: for the messages.
        reader: how the training reads the pictures.

    Raises:
        UserError: a frame lacks a camera, a calibration matrix has a wrong shape, or there are no
            pictures.
    """
    views = tuple(camera for item in frames[0] for camera in _cameras(item))
    if not views:
        raise UserError(
            f'{where}: frame {_name(frames[0])} has no image: pruning looks at images, so the '
            'infos must name them'
        )
    sizes = _Sizes(reader)
    pictures, counts, labels, boxes, scenes = [], [], [], [], []
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    known_scenes = _scene_table(dataset)
    with progress(len(frames), 'reading frames') as bar:
        for items in frames:
            place = f'{where}: frame {_name(items)}'
            with naming_frame(place):
                cameras = {
                    name: (camera, item)
                    for item in items
                    for name, camera in _cameras(item).items()
                }
                check_cameras(cameras, views, place)
                pictures.append(tuple(cameras[view][0]['img_path'] for view in views))
                objects_3d = _objects_3d(items[0]) if len(items) == 1 else None
                shown = [
                    _shown(dataset, *cameras[view], view, objects_3d, sizes, f'{place}, {view}')
                    for view in views
                ]
                seen += [
                    (view_labels[valid], view_boxes[valid])
                    for view_labels, view_boxes in shown
                    for valid in [np.isfinite(view_boxes).all(axis=1) & (view_labels >= 0)]
                ]
                own_labels, own_boxes = _own_objects(
                    dataset,
                    objects_3d,
                    cameras[views[0]][0],
                    shown,
                    sizes.used[-len(views)],
                    f'{place}, {views[0]}',
                )
                scenes.append(_scene(items[0], pictures[-1][0], known_scenes))
            counts.append(len(own_labels))
            labels.append(own_labels)
            boxes.append(own_boxes)
            bar.update()
    objects = ViewObjects(
        np.array(sizes.used, np.int32).reshape(-1, 2),
        np.cumsum([0, *(len(found) for found, _ in seen)], dtype=np.int64),
        np.concatenate([found for found, _ in seen]).astype(np.int32),
        np.concatenate([found for _, found in seen]).astype(np.float32).reshape(-1, 4),
    )
    return Frames(
        pictures,
        views,
        np.array(counts, np.int64),
        np.concatenate(labels).astype(np.int32),
        np.concatenate(boxes).astype(np.float32).reshape(-1, 4),
        scenes,
        objects,
        len(frames[0]),
    )


def check_cameras(cameras: Mapping[str, Any], views: Sequence[str], place: str) -> None:
    """Raises UserError unless a frame has the cameras of the first one, its ``views``."""
    if set(cameras) != set(views):
        missing = [view for view in views if view not in cameras]
        what = (
            f'lacks {", ".join(missing)}'
            if missing
            else f'has {", ".join(sorted(set(cameras) - set(views)))}'
        )
        raise UserError(
            f'{place} {what}, unlike the first frame: every frame needs the same cameras, so take '
            'it out of the infos or complete it'
        )


def _name(items: Sequence[Item]) -> str:
    return str(record_id(items[0]))


def _cameras(item: Item) -> dict[str, Item]:
    """The cameras with a picture; KITTI's infos list calibrations of others among them."""
    return {
        name: camera
        for name, camera in item['images'].items()
        if isinstance(camera, Mapping) and isinstance(camera.get('img_path'), str)
    }


class _Sizes:
    """Picture sizes; where infos do not give them, one file is opened for each camera that took pictures."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.used: list[tuple[int, int]] = []
        self.known: dict[Any, tuple[int, int]] = {}

    def find(self, camera: Item, view: str) -> tuple[int, int]:
        """Height and width; (0, 0) where the file cannot be read."""
        if camera.get('height') and camera.get('width'):
            return int(camera['height']), int(camera['width'])
        key = view, np.asarray(camera.get('cam2img', 0)).tobytes()
        if key not in self.known:
            try:
                self.known[key] = image_size(camera['img_path'], self.reader)
            except BadImage:
                return 0, 0
        return self.known[key]


def _shown(
    dataset: Any,
    camera: Item,
    item: Item,
    view: str,
    objects_3d: tuple[np.ndarray, np.ndarray] | None,
    sizes: _Sizes,
    place: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and 2D boxes of the objects in one picture; NaN for those that it does not show."""
    size = sizes.find(camera, view)
    sizes.used.append(size)
    projection = _projection(camera, place)
    own_list = objects_3d is None or _only_front(dataset)
    instances = item.get('instances') if own_list else (item.get('cam_instances') or {}).get(view)
    if instances is not None or objects_3d is None:
        labels = np.array(
            [dataset.label_mapping[one['bbox_label']] for one in instances or ()], np.int32
        )
        return labels, np.array([one['bbox'] for one in instances or ()], np.float32).reshape(-1, 4)
    return _projected(objects_3d, projection, size)


def _only_front(dataset: Any) -> bool:
    """Whether a dataset's frames are those of its first camera, with that camera's own objects."""
    return getattr(dataset, 'load_type', '') == 'fov_image_based'


def _own_objects(
    dataset: Any,
    objects_3d: tuple[np.ndarray, np.ndarray] | None,
    camera: Item,
    shown: Sequence[tuple[np.ndarray, np.ndarray]],
    size: tuple[int, int],
    place: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Labels of a frame's objects and their 2D boxes in its first view."""
    if objects_3d is None or _only_front(dataset):
        labels = np.concatenate([found for found, _ in shown])
        boxes = np.concatenate(
            [shown[0][1], np.full((len(labels) - len(shown[0][0]), 4), np.nan, np.float32)]
        )
    else:
        labels, boxes = _projected(objects_3d, _projection(camera, place), size)
    return labels[labels >= 0], boxes[labels >= 0]


def _objects_3d(item: Item) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n,) and corners (n, 8, 3) of a frame's objects in the LiDAR frame; NaN for boxes in another frame."""
    annotations = item.get('ann_info') or {}
    labels = np.asarray(annotations.get('gt_labels_3d', ()), np.int32).reshape(-1)
    boxes: Any = annotations.get('gt_bboxes_3d')
    if not len(labels) or not type(boxes).__name__.startswith('LiDAR'):
        return labels, np.full((len(labels), 8, 3), np.nan)
    return labels, boxes.corners.numpy().astype(np.float64)


def _projected(
    objects_3d: tuple[np.ndarray, np.ndarray], projection: np.ndarray | None, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    labels, corners = objects_3d
    if projection is None or not all(size):
        return labels, np.full((len(labels), 4), np.nan, np.float32)
    return labels, project_boxes(corners, projection, *size)


def _projection(camera: Item, place: str) -> np.ndarray | None:
    """(4, 4) from the LiDAR frame to pixels times depth; None where the infos have no calibration.

    Raises:
        UserError: a matrix has a wrong shape.
    """
    matrices = {}
    for key, shapes in _SHAPES.items():
        if camera.get(key) is not None:
            matrix = _array(camera[key])
            if matrix.shape not in shapes or not np.isfinite(matrix).all():
                raise UserError(
                    f'{place}: {key} has shape {matrix.shape} instead of '
                    f'{" or ".join(map(str, shapes))}'
                    if matrix.shape not in shapes
                    else f'{place}: {key} is not finite'
                )
            matrices[key] = np.eye(4)
            matrices[key][: matrix.shape[0], : matrix.shape[1]] = matrix
    if 'cam2img' in matrices and 'lidar2cam' in matrices:
        return matrices['cam2img'] @ matrices['lidar2cam']
    return matrices.get('lidar2img')


def _array(value: Any) -> np.ndarray:
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return np.empty(0)


def _scene_table(dataset: Any) -> dict[str, str]:
    """Scene of each nuScenes sample token, where the dataset's tables lie beside its infos."""
    scenes: dict[str, str] = {}
    for table in sorted(Path(getattr(dataset, 'data_root', None) or '.').glob('v1.*/sample.json')):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            scenes |= {row['token']: row['scene_token'] for row in json.loads(table.read_bytes())}
    return scenes


def _scene(item: Item, path: str, known: Mapping[str, str]) -> str:
    """The infos' own word for it, the tables', or the log that nuScenes' file names begin with."""
    for key in ('scene_token', 'context_name'):
        name = item.get(key)
        if isinstance(name, (str, int, np.integer)) and name:
            return str(name)
    if item.get('token') in known:
        return known[item['token']]
    log, found, _ = Path(path).name.partition('__CAM_')
    return log if found else ''
