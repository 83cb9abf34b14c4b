"""The frames of info files, to be found by token, by a number, or by the boxes of their objects."""

import itertools
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
        self._numbers: dict[Any, int] = {}
        records = {}
        places = {}
        for path, content in contents.items():
            records[path] = list(content['infos' if 'infos' in content else 'data_list'])
            frames = _read_frames(records[path], content)
            places[path] = [self._add(frame) for frame in frames]

        orders = [self._mark(part, records[part.path], places[part.path]) for part in parts]

        every_record = list(itertools.chain.from_iterable(records.values()))
        every_place = list(itertools.chain.from_iterable(places.values()))
        every_sample = list(itertools.chain.from_iterable(orders))
        self.tokens = _by_value(every_record, every_place, 'token')
        numbers = _by_value(every_record, every_place, 'sample_idx')
        by_number = Reading(numbers, all(map(_are_counted, records.values())))
        lists = [*places.values(), *orders, every_place, every_sample]
        self.readings = _distinct([by_number, *map(_positions, lists)])

    def _add(self, frame: Frame) -> int:
        """The frame's index; one that is there already is not added."""
        identity = frame.name, tuple(frame.names), frame.boxes.tobytes()
        if identity not in self._numbers:
            self._numbers[identity] = len(self.frames)
            self.frames.append(frame)
        return self._numbers[identity]

    def _mark(self, part: InfoPart, records: Sequence[Record], places: Sequence[int]) -> list[int]:
        """Notes which frames a part reads and keeps; returns them in its order."""
        names = map(record_id, records)
        place_of = dict(zip(names, places, strict=True))
        if not place_of.keys() >= set(part.ids):
            raise UserError(f'{part.path} lacks frames that it had: it changed since it was read')

        order = [place_of[name] for name in part.ids]
        for place, kept in zip(order, part.kept, strict=True):
            frame = self.frames[place]
            frame.is_sample = True
            frame.is_kept |= bool(kept)

        return order

    def proposed(self, key: Key) -> set[int]:
        """The frames that a number stands for in any reading."""
        frames: set[int] = set()
        for reading in self.readings:
            frames.update(reading.frames.get(key, ()))
        return frames

    @cached_property
    def has_boxes(self) -> bool:
        """Whether any object has a box."""
        for frame in self.frames:
            is_box = np.isfinite(frame.boxes).all(axis=1)
            if is_box.any():
                return True
        return False

    @cached_property
    def known_names(self) -> frozenset[str]:
        """The names of classes that the files say."""
        names: set[str | None] = set()
        for frame in self.frames:
            names.update(frame.names)
        return frozenset(name for name in names if name is not None)

    @cached_property
    def _rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Of every row of boxes: frame, class, whether that is known, whether it is expected."""
        lengths = [len(frame.boxes) for frame in self.frames]
        number = np.repeat(np.arange(len(self.frames)), lengths)
        names: list[str | None] = []
        expected = []
        for frame in self.frames:
            names += [frame.names[owner] for owner in frame.owners]
            expected.append(frame.expected[frame.owners])

        is_known = np.array([name is not None for name in names], bool)

        return number, np.array(names, object), is_known, np.concatenate(expected)

    @cached_property
    def _search(self) -> tuple[cKDTree, list[np.ndarray]]:
        """The distinct boxes, and the rows of each: static objects have one in many frames."""
        boxes = np.concatenate([frame.boxes for frame in self.frames])
        rows = np.flatnonzero(np.isfinite(boxes).all(axis=1))
        rounded = boxes[rows].round(4)
        _, first, which = np.unique(
            rounded,
            axis=0,
            return_index=True,
            return_inverse=True,
        )
        which = which.reshape(-1)
        by_box = rows[np.argsort(which, kind='stable')]
        ends = np.cumsum(np.bincount(which, minlength=len(first)))
        tree = cKDTree(boxes[rows[first]])
        return tree, np.split(by_box, ends[:-1])

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
        no_rows = np.empty(0, np.int64)
        near = tree.query_ball_point(boxes, distance, p=np.inf)
        for found, name in zip(near, names, strict=True):
            rows = np.concatenate([no_rows, *[rows_of[i] for i in found]])
            if name is not None:
                may_be_same = (known[rows] == name) | ~is_known[rows]
                rows = rows[may_be_same]

            expected_rows = rows[expected[rows]]
            shared[np.unique(frame[rows])] += 1
            shared_expected[np.unique(frame[expected_rows])] += 1

        return shared, shared_expected

    def count_expected(self, names: Collection[str]) -> np.ndarray:
        """(F,) how many objects of some classes a database made of each frame has."""
        counts = []
        for frame in self.frames:
            expected = np.array(frame.names, object)[frame.expected]
            counts.append(sum(name in names for name in expected))
        return np.array(counts)


def _distinct(readings: Iterable[Reading]) -> list[Reading]:
    found: list[Reading] = []
    for reading in readings:
        if reading not in found:
            found.append(reading)
    return found


def _are_counted(records: Sequence[Record]) -> bool:
    """Whether ``sample_idx`` is the position in the file."""
    numbers = [as_key(record.get('sample_idx')) for record in records]
    return numbers == list(range(len(records)))


def _positions(places: Sequence[int]) -> Reading:
    frames: dict[Key, tuple[int, ...]] = {}
    for position, place in enumerate(places):
        frames[position] = (place,)
    return Reading(frames, is_complete=True)


def _by_value(
    records: Sequence[Record], places: Sequence[int], key: str
) -> dict[Key, tuple[int, ...]]:
    """The frames that each value of a key stands for."""
    found: dict[Key, tuple[int, ...]] = {}
    for record, place in zip(records, places, strict=True):
        value = as_key(record.get(key))
        known = found.get(value, ())
        if value is not None and place not in known:
            found[value] = (*known, place)
    return found


def _read_frames(records: Sequence[Record], content: Mapping[str, Any]) -> list[Frame]:
    if 'infos' in content:
        return [_read_older(record) for record in records]

    metainfo = content.get('metainfo')
    if not isinstance(metainfo, Mapping):
        metainfo = {}

    categories = metainfo.get('categories')
    names = {}
    if isinstance(categories, Mapping):
        names = {label: name for name, label in categories.items()}

    is_waymo = str(metainfo.get('dataset')).lower() == 'waymo'

    return [_read_newer(record, names, is_waymo) for record in records]


def _read_older(record: Record) -> Frame:
    boxes = footprints(_values(record.get('gt_boxes')))
    names: list[str | None] = [str(name) for name in _values(record.get('gt_names'))]
    names += [None] * (len(boxes) - len(names))
    counts = [_count(value) for value in _values(record.get('num_lidar_pts'))]
    points = _filled(counts, len(names))
    valid = _filled(_values(record.get('valid_flag')), len(names))

    return Frame(
        name=str(record_id(record)),
        names=names,
        points=points,
        boxes=boxes,
        owners=np.arange(len(boxes)),
        expected=_are_expected(names, points, valid),
    )


def _read_newer(record: Record, categories: Mapping[Any, str], is_waymo: bool) -> Frame:
    # Waymo has the objects of the LiDAR's moment, and those of the cameras'.
    instances = []
    for key in ('instances', 'cam_sync_instances'):
        instances += [one for one in _values(record.get(key)) if isinstance(one, Mapping)]

    names = []
    for one in instances:
        label = one.get('bbox_label_3d', one.get('bbox_label'))
        names.append(categories.get(_count(label)))

    points = [_count(one.get('num_lidar_pts')) for one in instances]
    valid = [one.get('bbox_3d_isvalid') for one in instances]
    expected = _are_expected(names, points, valid)
    of_lidar = len(_values(record.get('instances')))
    expected[of_lidar:] = False

    raw = [one.get('bbox_3d') for one in instances]
    boxes = footprints(raw)
    owners = np.arange(len(raw))
    lidar2cam = _reference_camera(record, is_waymo)
    if lidar2cam is not None:
        boxes = np.concatenate([boxes, footprints(raw, lidar2cam)])
        owners = np.tile(owners, 2)

    return Frame(str(record_id(record)), names, points, boxes, owners, expected)


def _are_expected(
    names: Sequence[str | None], points: Sequence[int | None], valid: Sequence[Any]
) -> np.ndarray:
    """(n,) bool, whether a database has an object; flags are True or absent where it has points."""
    expected = []
    for name, count, flag in zip(names, points, valid, strict=True):
        is_valid = flag is None or bool(flag)
        expected.append(name is not None and count != 0 and is_valid)
    return np.array(expected, bool)


def _values(value: Any) -> list[Any]:
    """The items of a list or array; none of anything else."""
    is_array = isinstance(value, np.ndarray) and value.ndim > 0
    if is_array or isinstance(value, (list, tuple)):
        return list(value)
    return []


def _filled(values: list[Any], length: int) -> list[Any]:
    """The values, as many as there should be."""
    padded = values + [None] * length
    return padded[:length]


def _count(value: Any) -> int | None:
    is_whole = isinstance(value, (int, np.integer))
    return int(value) if is_whole else None


def _reference_camera(record: Record, is_waymo: bool) -> np.ndarray | None:
    """(4, 4) from the LiDAR to the camera whose frame the boxes of KITTI and older Waymo are in."""
    images = record.get('images')
    if not isinstance(images, Mapping):
        return None

    camera = images.get('CAM_FRONT' if is_waymo else 'CAM2')
    if not isinstance(camera, Mapping):
        return None

    try:
        matrix = np.asarray(camera['lidar2cam'], np.float64)
    except (KeyError, TypeError, ValueError):
        return None

    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        return None

    return matrix if np.linalg.det(matrix) != 0 else None


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
    numbers = [_six_numbers(box) for box in boxes]
    rows = np.array(numbers, np.float64).reshape(-1, 6)
    centres = rows[:, :3]
    sides = np.sort(rows[:, 3:], axis=1)
    if lidar2cam is not None:
        cam2lidar = np.linalg.inv(lidar2cam)
        rotation = cam2lidar[:3, :3]
        centres = centres @ rotation.T + cam2lidar[:3, 3]

    return np.concatenate([centres[:, :2], sides], axis=1)


def _six_numbers(box: Any) -> np.ndarray:
    try:
        row = np.asarray(box, np.float64).reshape(-1)[:6]
    except (OverflowError, TypeError, ValueError):
        row = np.empty(0)
    is_box = len(row) == 6 and np.isfinite(row).all()
    return row if is_box else np.full(6, np.nan)
