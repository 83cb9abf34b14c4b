"""The frames of info files, to be found by token, by a number, or by the boxes of their objects."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from ..base.errors import UserError
from .infos import Key, as_key, record_id

Record = Mapping[str, Any]


class InfoPart(NamedTuple):
    """The share of a training set that comes from one info file.

    Attributes:
        path: of the file.
        ids: of the frames that the training reads, in its order (see ``record_id``).
        kept: for each of them, whether it stays.
    """

    path: Path
    ids: Sequence[str]
    kept: Sequence[bool]


@dataclass
class Frame:
    """A frame of an info file and its n objects.

    Attributes:
        name: for messages.
        names: n class names, None where the file does not say.
        points: n numbers of LiDAR points, None where the file does not say.
        boxes: (m, 5) what ``footprints`` says of the objects; NaN where a box is none.
        owners: (m,) int, the object of each row; it has one for each coordinate system that it may
            be in.
        expected: (n,) bool, whether a database made from the file has the object: it has a class
            and points.
        is_sample: whether the training set has the frame.
        is_kept: whether it stays in the training set.
    """

    name: str
    names: list[str | None]
    points: list[int | None]
    boxes: np.ndarray
    owners: np.ndarray
    expected: np.ndarray
    is_sample: bool = False
    is_kept: bool = False

    @property
    def may_be_pasted(self) -> bool:
        """Whether its objects may be pasted: it stays, or it has never been a sample."""
        return self.is_kept or not self.is_sample


class Reading(NamedTuple):
    """One way to read numbers as frames.

    Attributes:
        frames: indices of the frames that a number may stand for.
        is_complete: whether there can be no other numbers, which is so for positions in a file.
    """

    frames: Mapping[Key, tuple[int, ...]]
    is_complete: bool


class FrameIndex:
    """The frames of all info files of a training set.

    Args:
        parts: of the training set, in its order.
        contents: what each of the info files holds (see ``info_records``).

    Attributes:
        frames: all frames; one that two files have is one.
        tokens: indices of the frames with a token.
        readings: the ways to read numbers.
    """

    def __init__(
        self, parts: Sequence[InfoPart], contents: Mapping[Path, Mapping[str, Any]]
    ) -> None:
        self.frames: list[Frame] = []
        records = {
            path: list(content['infos' if 'infos' in content else 'data_list'])
            for path, content in contents.items()
        }
        same: dict[Any, int] = {}
        places = {
            path: [self._add(frame, same) for frame in _read_frames(records[path], content)]
            for path, content in contents.items()
        }
        orders = [self._mark(part, records[part.path], places[part.path]) for part in parts]
        every_record = [record for found in records.values() for record in found]
        every_place = [place for found in places.values() for place in found]
        self.tokens = _by_value(every_record, every_place, 'token')
        is_counted = all(
            as_key(record.get('sample_idx')) == position
            for found in records.values()
            for position, record in enumerate(found)
        )
        by_number = Reading(_by_value(every_record, every_place, 'sample_idx'), is_counted)
        every_sample = [place for order in orders for place in order]
        by_position = [
            _positions(found) for found in (*places.values(), *orders, every_place, every_sample)
        ]
        self.readings = _distinct([by_number, *by_position])

    def _add(self, frame: Frame, same: dict[Any, int]) -> int:
        identity = frame.name, tuple(frame.names), frame.boxes.tobytes()
        if identity not in same:
            same[identity] = len(self.frames)
            self.frames.append(frame)
        return same[identity]

    def _mark(self, part: InfoPart, records: Sequence[Record], places: Sequence[int]) -> list[int]:
        """Notes which frames a part reads and keeps; returns them in its order."""
        number = {record_id(record): place for record, place in zip(records, places, strict=True)}
        if not set(part.ids) <= set(number):
            raise UserError(f'{part.path} lacks frames that it had: it changed since it was read')
        order = [number[name] for name in part.ids]
        for place, kept in zip(order, part.kept, strict=True):
            self.frames[place].is_sample = True
            self.frames[place].is_kept |= bool(kept)
        return order

    def proposed(self, key: Key) -> set[int]:
        """The frames that a number stands for in any reading."""
        return {frame for reading in self.readings for frame in reading.frames.get(key, ())}

    @cached_property
    def has_boxes(self) -> bool:
        """Whether any object has a box."""
        return any(np.isfinite(frame.boxes).all(axis=1).any() for frame in self.frames)

    @cached_property
    def known_names(self) -> frozenset[str]:
        """The names of classes that the files say."""
        return frozenset(name for frame in self.frames for name in frame.names if name is not None)

    @cached_property
    def _rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Of every row of boxes: frame, class, whether that is known, whether it is expected."""
        frame = np.repeat(np.arange(len(self.frames)), [len(frame.boxes) for frame in self.frames])
        names = [frame.names[i] for frame in self.frames for i in frame.owners]
        expected = [frame.expected[frame.owners] for frame in self.frames]
        is_known = np.array([name is not None for name in names], bool)
        return frame, np.array(names, object), is_known, np.concatenate(expected)

    @cached_property
    def _search(self) -> tuple[cKDTree, list[np.ndarray]]:
        """The distinct boxes, and the rows of each: static objects have one in many frames."""
        boxes = np.concatenate([frame.boxes for frame in self.frames])
        rows = np.flatnonzero(np.isfinite(boxes).all(axis=1))
        _, first, which = np.unique(
            boxes[rows].round(4), axis=0, return_index=True, return_inverse=True
        )
        which = which.reshape(-1)
        ends = np.cumsum(np.bincount(which, minlength=len(first)))
        return cKDTree(boxes[rows[first]]), np.split(
            rows[np.argsort(which, kind='stable')], ends[:-1]
        )

    def count_shared(
        self, boxes: np.ndarray, names: Sequence[str | None], distance: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """How many of some objects each frame has: with the same class or none, and a box as near.

        Args:
            boxes: (n, 5) from ``footprints``.
            names: of their n classes, None where any will do.
            distance: by which two numbers of a box may differ.

        Returns:
            (F,) for every frame: how many of the objects it has, and how many of its expected ones
            are among them.
        """
        tree, rows_of = self._search
        frame, known, is_known, expected = self._rows
        shared = np.zeros(len(self.frames), np.int64)
        shared_expected = np.zeros(len(self.frames), np.int64)
        near = tree.query_ball_point(boxes, distance, p=np.inf)
        for found, name in zip(near, names, strict=True):
            rows = np.concatenate([np.empty(0, np.int64), *(rows_of[i] for i in found)])
            if name is not None:
                rows = rows[(known[rows] == name) | ~is_known[rows]]
            shared[np.unique(frame[rows])] += 1
            shared_expected[np.unique(frame[rows[expected[rows]]])] += 1
        return shared, shared_expected

    def count_expected(self, names: Collection[str]) -> np.ndarray:
        """(F,) how many objects of some classes a database made of each frame has."""
        return np.array(
            [
                sum(name in names for name in np.array(frame.names, object)[frame.expected])
                for frame in self.frames
            ]
        )


def _distinct(readings: Iterable[Reading]) -> list[Reading]:
    found: list[Reading] = []
    for reading in readings:
        if reading not in found:
            found.append(reading)
    return found


def _positions(places: Sequence[int]) -> Reading:
    return Reading({position: (place,) for position, place in enumerate(places)}, is_complete=True)


def _by_value(
    records: Sequence[Record], places: Sequence[int], key: str
) -> dict[Key, tuple[int, ...]]:
    found: dict[Key, tuple[int, ...]] = {}
    for record, place in zip(records, places, strict=True):
        value = as_key(record.get(key))
        if value is not None and place not in found.get(value, ()):
            found[value] = (*found.get(value, ()), place)
    return found


def _read_frames(records: Sequence[Record], content: Mapping[str, Any]) -> list[Frame]:
    metainfo = content.get('metainfo')
    metainfo = metainfo if isinstance(metainfo, Mapping) else {}
    categories = metainfo.get('categories')
    names = (
        {label: name for name, label in categories.items()}
        if isinstance(categories, Mapping)
        else {}
    )
    is_waymo = str(metainfo.get('dataset')).lower() == 'waymo'
    if 'infos' in content:
        return [_read_older(record) for record in records]
    return [_read_newer(record, names, is_waymo) for record in records]


def _read_older(record: Record) -> Frame:
    boxes = footprints(_values(record.get('gt_boxes')))
    names: list[str | None] = [str(name) for name in _values(record.get('gt_names'))]
    names += [None] * (len(boxes) - len(names))
    points = _filled([_count(value) for value in _values(record.get('num_lidar_pts'))], len(names))
    valid = _filled(_values(record.get('valid_flag')), len(names))
    expected = [_is_expected(*one) for one in zip(names, points, valid, strict=True)]
    return Frame(
        str(record_id(record)),
        names,
        points,
        boxes,
        np.arange(len(boxes)),
        np.array(expected, bool),
    )


def _read_newer(record: Record, categories: Mapping[Any, str], is_waymo: bool) -> Frame:
    # Waymo has the objects of the LiDAR's moment, and those of the cameras'.
    instances = [
        one
        for key in ('instances', 'cam_sync_instances')
        for one in _values(record.get(key))
        if isinstance(one, Mapping)
    ]
    raw = [one.get('bbox_3d') for one in instances]
    names = [
        categories.get(_count(one.get('bbox_label_3d', one.get('bbox_label')))) for one in instances
    ]
    points = [_count(one.get('num_lidar_pts')) for one in instances]
    valid = [one.get('bbox_3d_isvalid') for one in instances]
    expected = np.array(
        [_is_expected(*one) for one in zip(names, points, valid, strict=True)], bool
    )
    expected[len(_values(record.get('instances'))) :] = False
    boxes, owners = footprints(raw), np.arange(len(raw))
    lidar2cam = _reference_camera(record, is_waymo)
    if lidar2cam is not None:
        boxes, owners = np.concatenate([boxes, footprints(raw, lidar2cam)]), np.tile(owners, 2)
    return Frame(str(record_id(record)), names, points, boxes, owners, expected)


def _is_expected(name: str | None, points: int | None, valid: Any) -> bool:
    """Whether a database has an object; flags are True or absent where it has points."""
    return name is not None and points != 0 and (valid is None or bool(valid))


def _values(value: Any) -> list[Any]:
    is_list = isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim)
    return list(value) if is_list else []


def _filled(values: list[Any], length: int) -> list[Any]:
    """The values, as many as there should be."""
    return (values + [None] * length)[:length]


def _count(value: Any) -> int | None:
    return int(value) if isinstance(value, (int, np.integer)) else None


def _reference_camera(record: Record, is_waymo: bool) -> np.ndarray | None:
    """(4, 4) from the LiDAR to the camera whose frame the boxes of KITTI and older Waymo are in."""
    images = record.get('images')
    images = images if isinstance(images, Mapping) else {}
    camera = images.get('CAM_FRONT' if is_waymo else 'CAM2')
    try:
        matrix = (
            np.asarray(camera['lidar2cam'], np.float64)
            if isinstance(camera, Mapping)
            else np.empty(0)
        )
    except (KeyError, TypeError, ValueError):
        return None
    is_usable = matrix.shape == (4, 4) and np.isfinite(matrix).all() and np.linalg.det(matrix) != 0
    return matrix if is_usable else None


def footprints(boxes: Iterable[Any], lidar2cam: np.ndarray | None = None) -> np.ndarray:
    """What is the same of a 3D box in all conventions: where it stands, and its sides.

    Its height differs (middle or bottom), and so do the order of its sides and the direction of its
    angle.

    Args:
        boxes: n sequences that begin with a centre and three sides.
        lidar2cam: (4, 4), for boxes in a camera's frame.

    Returns:
        (n, 5) float64: x and y in the LiDAR frame, and the sides by size; NaN for what is no box.
    """
    rows = np.array([_six_numbers(box) for box in boxes], np.float64).reshape(-1, 6)
    centres, sides = rows[:, :3], np.sort(rows[:, 3:], axis=1)
    if lidar2cam is not None:
        cam2lidar = np.linalg.inv(lidar2cam)
        centres = centres @ cam2lidar[:3, :3].T + cam2lidar[:3, 3]
    return np.concatenate([centres[:, :2], sides], axis=1)


def _six_numbers(box: Any) -> np.ndarray:
    try:
        row = np.asarray(box, np.float64).reshape(-1)[:6]
    except (OverflowError, TypeError, ValueError):
        row = np.empty(0)
    return row if len(row) == 6 and np.isfinite(row).all() else np.full(6, np.nan)
