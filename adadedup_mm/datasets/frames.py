"""Frames with several cameras: their pictures, and where their objects are in them."""

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

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
        'CAM_FRONT': 'samples/CAM_FRONT',
        'CAM_FRONT_RIGHT': 'samples/CAM_FRONT_RIGHT',
        'CAM_FRONT_LEFT': 'samples/CAM_FRONT_LEFT',
        'CAM_BACK': 'samples/CAM_BACK',
        'CAM_BACK_LEFT': 'samples/CAM_BACK_LEFT',
        'CAM_BACK_RIGHT': 'samples/CAM_BACK_RIGHT',
    },
    'WaymoDataset': {
        'CAM_FRONT': 'training/image_0',
        'CAM_FRONT_LEFT': 'training/image_1',
        'CAM_FRONT_RIGHT': 'training/image_2',
        'CAM_SIDE_LEFT': 'training/image_3',
        'CAM_SIDE_RIGHT': 'training/image_4',
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
    """What every picture of n frames with V cameras shows.

    Picture ``v`` of frame ``i`` has number ``i * V + v``.

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
    """n frames with their 3D objects: ``counts``, ``labels`` and ``boxes`` as ``Pool`` has them.

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
    """Makes a 3D dataset for LiDAR alone load its frames with their pictures.

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
    folders = dict(dataset.data_prefix)
    for name, folder in _IMAGE_FOLDERS[kind].items():
        if not given.get(name):
            folders[name] = os.path.join(dataset.data_root or '', folder)

    dataset.data_prefix = folders


def known_kind(dataset: Any) -> str | None:
    """Which of mmdet3d's datasets one is or derives from; None for all others."""
    for kind in type(dataset).__mro__:
        if kind.__name__ in _IMAGE_FOLDERS:
            return kind.__name__
    return None


def check_kind(dataset: Any, content: Mapping[str, Any], where: str, ann_file: Any) -> None:
    """Raises UserError if an info file says that it is for another of mmdet3d's datasets."""
    metainfo = content.get('metainfo') or {}
    written_for = _WRITTEN_FOR.get(str(metainfo.get('dataset')).lower())
    if written_for and known_kind(dataset) not in (None, written_for):
        raise UserError(
            f'{where} cannot read {ann_file}, whose metainfo says that it is for {written_for}: '
            'name that type, or another ann_file'
        )


def is_frames(dataset: Any, infos: Sequence[Item]) -> bool:
    """Whether a dataset is one of mmdet3d's detection datasets."""
    has_pictures = all(isinstance(info.get('images'), Mapping) for info in infos)
    return hasattr(dataset, 'box_type_3d') and has_pictures


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
    known_scenes = _scene_table(dataset)
    found = []
    with progress(len(frames), 'reading frames') as bar:
        for items in frames:
            place = f'{where}: frame {_name(items)}'
            with naming_frame(place):
                found.append(_read_frame(dataset, items, views, sizes, known_scenes, place))
            bar.update()

    return _joined(found, views, items=len(frames[0]))


class _Labelled(NamedTuple):
    """Objects: (n,) labels and (n, 4) boxes."""

    labels: np.ndarray
    boxes: np.ndarray


class _Frame(NamedTuple):
    """One frame: V pictures and their sizes, what each shows, and the frame's own objects."""

    pictures: tuple[str, ...]
    sizes: list[tuple[int, int]]
    shown: list[_Labelled]
    own: _Labelled
    scene: str


def _read_frame(
    dataset: Any,
    items: Sequence[Item],
    views: Sequence[str],
    sizes: '_Sizes',
    known_scenes: Mapping[str, str],
    place: str,
) -> _Frame:
    """Takes one frame; the arguments are as of ``read_frames``.

    Args:
        dataset: what has loaded it.
        items: that it is made of.
        views: its V cameras.
        sizes: of pictures.
        known_scenes: see ``_scene_table``.
        place: for the messages.
    """
    cameras = {}
    for item in items:
        for name, camera in _cameras(item).items():
            cameras[name] = (camera, item)

    check_cameras(cameras, views, place)
    pictures = tuple(cameras[view][0]['img_path'] for view in views)
    objects_3d = _objects_3d(items[0]) if len(items) == 1 else None
    shown = []
    own_sizes = []
    for view in views:
        camera, item = cameras[view]
        size = sizes.find(camera, view)
        own_sizes.append(size)
        here = f'{place}, {view}'
        shown.append(_shown(dataset, camera, item, view, objects_3d, size, here))

    first_camera, _ = cameras[views[0]]
    own = _own_objects(
        dataset, objects_3d, first_camera, shown, own_sizes[0], f'{place}, {views[0]}'
    )
    scene = _scene(items[0], pictures[0], known_scenes)

    return _Frame(pictures, own_sizes, [_countable(one) for one in shown], own, scene)


def _countable(objects: _Labelled) -> _Labelled:
    """Those with a label and a box in the picture."""
    has_box = np.isfinite(objects.boxes).all(axis=1)
    chosen = has_box & (objects.labels >= 0)
    return _Labelled(objects.labels[chosen], objects.boxes[chosen])


def _joined(frames: Sequence[_Frame], views: tuple[str, ...], items: int) -> Frames:
    """All frames in arrays."""
    sizes = [size for frame in frames for size in frame.sizes]
    shown = [objects for frame in frames for objects in frame.shown]
    shown_counts = [len(objects.labels) for objects in shown]
    shown_boxes = np.concatenate([objects.boxes for objects in shown])
    own_boxes = np.concatenate([frame.own.boxes for frame in frames])
    objects = ViewObjects(
        sizes=np.array(sizes, np.int32).reshape(-1, 2),
        offsets=np.cumsum([0, *shown_counts], dtype=np.int64),
        labels=np.concatenate([one.labels for one in shown]).astype(np.int32),
        boxes=shown_boxes.astype(np.float32).reshape(-1, 4),
    )

    return Frames(
        image_paths=[frame.pictures for frame in frames],
        views=views,
        counts=np.array([len(frame.own.labels) for frame in frames], np.int64),
        labels=np.concatenate([frame.own.labels for frame in frames]).astype(np.int32),
        boxes=own_boxes.astype(np.float32).reshape(-1, 4),
        scenes=[frame.scene for frame in frames],
        objects=objects,
        items=items,
    )


def check_cameras(cameras: Mapping[str, Any], views: Sequence[str], place: str) -> None:
    """Raises UserError unless a frame has the cameras of the first one, its ``views``."""
    if set(cameras) == set(views):
        return
    missing = [view for view in views if view not in cameras]
    more = sorted(set(cameras) - set(views))
    what = f'lacks {", ".join(missing)}' if missing else f'has {", ".join(more)}'
    raise UserError(
        f'{place} {what}, unlike the first frame: every frame needs the same cameras, so take it '
        'out of the infos or complete it'
    )


def _name(items: Sequence[Item]) -> str:
    return str(record_id(items[0]))


def _cameras(item: Item) -> dict[str, Item]:
    """The cameras with a picture; KITTI's infos list calibrations of others among them."""
    cameras = {}
    for name, camera in item['images'].items():
        if isinstance(camera, Mapping) and isinstance(camera.get('img_path'), str):
            cameras[name] = camera
    return cameras


class _Sizes:
    """Picture sizes; where infos do not give them, a file is opened for each camera."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
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
    size: tuple[int, int],
    place: str,
) -> _Labelled:
    """The objects in one picture; their boxes are NaN where it does not show them."""
    projection = _projection(camera, place)
    has_own_list = objects_3d is None or _only_front(dataset)
    in_cameras = item.get('cam_instances') or {}
    instances = item.get('instances') if has_own_list else in_cameras.get(view)
    if instances is None and objects_3d is not None:
        return _projected(objects_3d, projection, size)
    labels = [dataset.label_mapping[instance['bbox_label']] for instance in instances or ()]
    boxes = [instance['bbox'] for instance in instances or ()]
    return _Labelled(np.array(labels, np.int32), np.array(boxes, np.float32).reshape(-1, 4))


def _only_front(dataset: Any) -> bool:
    """Whether a dataset's frames are those of its first camera, with that camera's own objects."""
    return getattr(dataset, 'load_type', '') == 'fov_image_based'


def _own_objects(
    dataset: Any,
    objects_3d: tuple[np.ndarray, np.ndarray] | None,
    camera: Item,
    shown: Sequence[_Labelled],
    size: tuple[int, int],
    place: str,
) -> _Labelled:
    """A frame's objects, and their 2D boxes in its first view."""
    if objects_3d is None or _only_front(dataset):
        labels = np.concatenate([objects.labels for objects in shown])
        in_other_views = len(labels) - len(shown[0].labels)
        no_boxes = np.full((in_other_views, 4), np.nan, np.float32)
        boxes = np.concatenate([shown[0].boxes, no_boxes])
    else:
        labels, boxes = _projected(objects_3d, _projection(camera, place), size)
    is_counted = labels >= 0
    return _Labelled(labels[is_counted], boxes[is_counted])


def _objects_3d(item: Item) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n,) and corners (n, 8, 3) of a frame's objects in the LiDAR frame.

    NaN for boxes in another frame.
    """
    annotations = item.get('ann_info') or {}
    labels = np.asarray(annotations.get('gt_labels_3d', ()), np.int32).reshape(-1)
    boxes: Any = annotations.get('gt_bboxes_3d')
    if not len(labels) or not type(boxes).__name__.startswith('LiDAR'):
        return labels, np.full((len(labels), 8, 3), np.nan)
    return labels, boxes.corners.numpy().astype(np.float64)


def _projected(
    objects_3d: tuple[np.ndarray, np.ndarray], projection: np.ndarray | None, size: tuple[int, int]
) -> _Labelled:
    """3D objects as a picture of this size shows them."""
    labels, corners = objects_3d
    if projection is None or not all(size):
        return _Labelled(labels, np.full((len(labels), 4), np.nan, np.float32))
    return _Labelled(labels, project_boxes(corners, projection, *size))


def _projection(camera: Item, place: str) -> np.ndarray | None:
    """(4, 4) from the LiDAR frame to pixels times depth; None where the infos have no calibration.

    Raises:
        UserError: a matrix has a wrong shape.
    """
    matrices = {}
    for key, shapes in _SHAPES.items():
        if camera.get(key) is None:
            continue
        matrix = _array(camera[key])
        if matrix.shape not in shapes:
            wanted = ' or '.join(map(str, shapes))
            raise UserError(f'{place}: {key} has shape {matrix.shape} instead of {wanted}')

        if not np.isfinite(matrix).all():
            raise UserError(f'{place}: {key} is not finite')
        rows, columns = matrix.shape
        matrices[key] = np.eye(4)
        matrices[key][:rows, :columns] = matrix

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
    root = Path(getattr(dataset, 'data_root', None) or '.')
    scenes: dict[str, str] = {}
    for table in sorted(root.glob('v1.*/sample.json')):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            rows = json.loads(table.read_bytes())
            scenes |= {row['token']: row['scene_token'] for row in rows}
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
