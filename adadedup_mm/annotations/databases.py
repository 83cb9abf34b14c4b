"""Ground-truth databases (``*_dbinfos_train.pkl``): of which frame each object is.

An object names its frame in ``image_idx``: by token, by ``sample_idx``, or by the position of the
frame in whichever file the database was made from. Only a token says by itself what it means. For
numbers the boxes decide: an object is of a frame that has its box, and a reading of the numbers
counts as long as no box speaks against it.
"""

import os
import pickle
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..base.errors import UserError
from ..base.files import atomic_open
from .frame_index import Frame, FrameIndex, Reading, footprints
from .infos import PROTOCOL, Key, as_key
from .pickles import load_pickle

Objects = Mapping[str, Sequence[Mapping[str, Any]]]

# Metres by which a box may differ in two files: float32 here, out of a camera's frame there.
_SAME = 1e-3
# Of frames that fit, those count whose boxes are as near as the best one's, but for rounding.
_ROUNDING = 1e-5
# If more frames than these fit, they are not compared that closely.
_MOST_COMPARED = 100
_REMEDY = (
    "make the database anew from the file that is pruned, with mmdet3d's tools/create_data.py, or "
    'take ObjectSample out of the pipeline'
)


class DatabaseCounts(NamedTuple):
    """Objects of a database: all, those that stay, and those of them that no sample holds."""

    records: int
    kept: int
    outside: int


@dataclass(frozen=True)
class _Group:
    """n objects of a database that name the same frame.

    Attributes:
        key: what they name it by.
        places: (n,) in the order of the database's lists.
        names: n class names, None for those that the info files do not know.
        points: n numbers of points, None where unknown.
        boxes: (n, 5) from ``footprints``; NaN where unknown.
    """

    key: Key
    places: np.ndarray
    names: list[str | None]
    points: list[int | None]
    boxes: np.ndarray

    def part(self, chosen: np.ndarray) -> '_Group':
        """Some of the objects, by a (n,) bool."""
        indices = np.flatnonzero(chosen)
        return _Group(
            self.key,
            self.places[indices],
            [self.names[i] for i in indices],
            [self.points[i] for i in indices],
            self.boxes[indices],
        )


def load_database(path: str | Path, trust: bool = False) -> dict[str, list[dict[str, Any]]]:
    """Loads a ground-truth database.

    Raises:
        UserError: it is none.
    """
    content = load_pickle(path, trust)
    lists = list(content.values()) if isinstance(content, dict) else [None]
    if not all(isinstance(items, list) and all(map(_is_object, items)) for items in lists):
        raise UserError(
            f"{path} is no ground-truth database, which has a list of objects with 'image_idx' for "
            "each class: make it with mmdet3d's tools/create_data.py"
        )
    return content


def _is_object(item: Any) -> bool:
    return isinstance(item, dict) and ('image_idx' in item or 'box3d_lidar' in item)


def write_database(content: Objects, stays: np.ndarray, target: Path) -> None:
    """Writes a database with some of its objects, atomically.

    Args:
        content: from ``load_database``.
        stays: (n,) bool, for each object in the order of the lists.
        target: the file.
    """
    flags = iter(stays.tolist())
    kept = {name: [item for item in items if next(flags)] for name, items in content.items()}
    with atomic_open(target) as file:
        pickle.dump(kept, file, protocol=PROTOCOL)


def judge_objects(
    content: Objects, index: FrameIndex, path: Path
) -> tuple[np.ndarray, DatabaseCounts]:
    """Decides which objects of a database stay: all but those of pruned frames.

    Args:
        content: from ``load_database``.
        index: the frames.
        path: of the database, for the messages.

    Returns:
        (n,) bool for each object in the order of the lists, and the counts.

    Raises:
        UserError: no object is of any of the frames, or one may be of a frame that stays as well
            as of one that is pruned.
    """
    stays = np.ones(sum(map(len, content.values())), bool)
    inside = np.zeros(len(stays), bool)
    found_any = False
    for groups in _groups(content, index.known_names):
        for group, candidates in _frames_of(groups, index, path):
            frames = [index.frames[i] for i in sorted(candidates)]
            pasted = [frame.may_be_pasted for frame in frames]
            if len(set(pasted)) > 1:
                kept, pruned = frames[pasted.index(True)], frames[pasted.index(False)]
                raise UserError(
                    f'{path}: the objects with image_idx {group.key} fit frame {kept.name}, which '
                    f'stays, and frame {pruned.name}, which is pruned: {_REMEDY}'
                )
            stays[group.places] = all(pasted)
            inside[group.places] = any(frame.is_sample for frame in frames)
            found_any |= bool(frames)
    if len(stays) and not found_any:
        raise UserError(
            f'{path} belongs to another dataset: none of its objects is of a frame of the training '
            f'set; {_REMEDY}'
        )
    return stays, DatabaseCounts(len(stays), int(stays.sum()), int((stays & ~inside).sum()))


def _groups(content: Objects, known_names: Collection[str]) -> list[list[_Group]]:
    """The objects by folder, since two databases may be in one, and there by frame."""
    members: dict[str, dict[Any, list[int]]] = defaultdict(lambda: defaultdict(list))
    items = [
        (name if name in known_names else None, item)
        for name, objects in content.items()
        for item in objects
    ]
    for place, (_, item) in enumerate(items):
        key = as_key(item.get('image_idx'))
        # Objects that name no frame have nothing in common.
        unique = ('', place) if key is None else key
        members[os.path.dirname(str(item.get('path', '')))][unique].append(place)
    boxes = footprints(item.get('box3d_lidar') for _, item in items)
    return [
        [
            _Group(
                None if isinstance(key, tuple) else key,
                np.array(places),
                [items[i][0] for i in places],
                [_points(items[i][1]) for i in places],
                boxes[places],
            )
            for key, places in groups.items()
        ]
        for groups in members.values()
    ]


def _points(item: Mapping[str, Any]) -> int | None:
    points = item.get('num_points_in_gt')
    return int(points) if isinstance(points, (int, np.integer)) else None


def _frames_of(
    groups: Sequence[_Group], index: FrameIndex, path: Path
) -> list[tuple[_Group, Collection[int]]]:
    """The frames that each group's objects may be of; none where the info files lack the frame."""
    has_tokens = any(isinstance(group.key, str) and group.key in index.tokens for group in groups)
    named = [group for group in groups if has_tokens and isinstance(group.key, str)]
    others = [group for group in groups if not (has_tokens and isinstance(group.key, str))]
    found: list[tuple[_Group, Collection[int]]] = [
        (group, index.tokens.get(group.key, ())) for group in named
    ]
    if not others:
        return found
    classes = {name for group in groups for name in group.names if name is not None}
    if index.has_boxes and any(np.isfinite(group.boxes).all(axis=1).any() for group in others):
        return found + _by_boxes(others, index, classes)
    return found + _by_classes(others, index, classes, path)


# Databases with boxes


def _by_boxes(
    groups: Sequence[_Group], index: FrameIndex, classes: Collection[str]
) -> list[tuple[_Group, Collection[int]]]:
    exact = [
        reading
        for reading in index.readings
        if all(_is_exact(group, reading, index, classes) for group in groups)
    ]
    if exact:
        return [
            (group, {frame for reading in exact for frame in reading.frames[group.key]})
            for group in groups
        ]
    expected = index.count_expected(classes)
    fitting = [pair for group in groups for pair in _fitting(group, index, expected)]
    readings = [reading for reading in index.readings if _holds(reading, fitting)]
    return [(group, _choose(group.key, frames, readings, index)) for group, frames in fitting]


def _is_exact(group: _Group, reading: Reading, index: FrameIndex, classes: Collection[str]) -> bool:
    """Whether the frames that a reading gives have just the objects of a group."""
    frames = [index.frames[i] for i in reading.frames.get(group.key, ())]
    return bool(frames) and all(_has_just(group, frame, classes) for frame in frames)


def _has_just(group: _Group, frame: Frame, classes: Collection[str]) -> bool:
    pairs = _matches(group, frame)
    matched = {frame.owners[row] for _, row, _ in pairs}
    wanted = {i for i in np.flatnonzero(frame.expected) if frame.names[i] in classes}
    return len({place for place, _, _ in pairs}) == len(group.places) and wanted <= matched


def _matches(group: _Group, frame: Frame) -> list[tuple[int, int, float]]:
    """Objects of a group and rows of a frame with one box and one class, and how far apart."""
    apart = np.abs(group.boxes[:, None] - frame.boxes).max(axis=2)
    return [
        (int(place), int(row), float(apart[place, row]))
        for place, row in np.argwhere(apart <= _SAME)
        if _may_be_same(frame.names[frame.owners[row]], group.names[place])
    ]


def _may_be_same(name: str | None, other: str | None) -> bool:
    return name is None or other is None or name == other


def _fitting(
    group: _Group, index: FrameIndex, expected: np.ndarray
) -> list[tuple[_Group, list[int]]]:
    """The frames that a group's boxes fit best; what these do not have is looked for by itself.

    Args:
        group: n objects.
        index: F frames.
        expected: (F,) how many objects a database has of each.
    """
    has_box = np.isfinite(group.boxes).all(axis=1)
    names = [group.names[i] for i in np.flatnonzero(has_box)]
    shared, shared_expected = index.count_shared(group.boxes[has_box], names, _SAME)
    most = shared.max(initial=0)
    if not most:
        return [(group, [])]
    # A frame with further objects is one from which the same static objects are seen.
    further = np.where(shared == most, expected - shared_expected, np.inf)
    best = np.flatnonzero(further == further.min()).tolist()
    if len(best) <= _MOST_COMPARED:
        errors = [max(error for _, _, error in _matches(group, index.frames[i])) for i in best]
        best = [
            i for i, error in zip(best, errors, strict=True) if error <= 2 * min(errors) + _ROUNDING
        ]
    is_covered = further.min() <= 0 and expected[best].min() > 0
    is_whole = most == len(names) or is_covered
    if not is_whole and (_is_open(best, index) or 2 * most <= len(names)):
        # A frame of another file, from which some of the same static objects are seen.
        return [(group, [])]
    matched = np.isin(
        np.arange(len(has_box)), [place for place, _, _ in _matches(group, index.frames[best[0]])]
    )
    rest = group.part(~matched & has_box)
    elsewhere = _fitting(rest, index, expected) if len(rest.places) else []
    if any(found and not _is_open(found, index) for _, found in elsewhere):
        return [(group.part(matched | ~has_box), best), *elsewhere]
    return [(group, best)]


def _is_open(frames: Sequence[int], index: FrameIndex) -> bool:
    """Whether some of the frames stay and others are pruned."""
    return len({index.frames[frame].may_be_pasted for frame in frames}) > 1


def _holds(reading: Reading, fitting: Sequence[tuple[_Group, list[int]]]) -> bool:
    """Whether boxes confirm a reading, and none speaks against it.

    Static objects agree with many readings, so that most groups must fit one frame only, which is
    the one that is read.
    """
    if reading.is_complete and any(group.key not in reading.frames for group, _ in fitting):
        return False
    pairs = [(reading.frames.get(group.key, ()), frames) for group, frames in fitting if frames]
    agrees = [not set(frames).isdisjoint(proposed) for proposed, frames in pairs]
    is_wrong = any(
        proposed and not agreed for (proposed, _), agreed in zip(pairs, agrees, strict=True)
    )
    clear = sum(
        agreed and len(frames) == 1 for (_, frames), agreed in zip(pairs, agrees, strict=True)
    )
    return not is_wrong and 2 * clear > len(pairs)


def _choose(
    key: Key, fitting: Sequence[int], readings: Sequence[Reading], index: FrameIndex
) -> Collection[int]:
    """The frames that a group's objects may be of, by their boxes and by the readings that hold."""
    proposed = {frame for reading in readings for frame in reading.frames.get(key, ())}
    if not fitting:
        # Labels may have been corrected since the database was made.
        return proposed
    if _is_open(fitting, index) and readings and not proposed:
        # A frame of another file, from which the same static objects are seen.
        return ()
    return proposed.intersection(fitting) or fitting


# Databases without boxes


def _by_classes(
    groups: Sequence[_Group], index: FrameIndex, classes: Collection[str], path: Path
) -> list[tuple[_Group, Collection[int]]]:
    """Takes the readings that agree with the classes (and numbers of points) of all objects."""
    levels = [_level(reading, groups, index, classes) for reading in index.readings]
    if not any(levels):
        numbers = [group.key for group in groups]
        raise UserError(
            f'{path}: its image_idx (such as {numbers[0]}) are neither sample_idx nor positions in '
            f'the info files that are pruned, whose frames have other objects; {_REMEDY}'
        )
    readings = [
        reading
        for reading, level in zip(index.readings, levels, strict=True)
        if level == max(levels)
    ]
    return [
        (group, {frame for reading in readings for frame in reading.frames.get(group.key, ())})
        for group in groups
    ]


def _level(
    reading: Reading, groups: Sequence[_Group], index: FrameIndex, classes: Collection[str]
) -> int:
    """0 if a reading is wrong, 1 if classes agree with it, 2 if numbers of points do too."""
    level = 2
    for group in groups:
        frames = reading.frames.get(group.key, ())
        if not frames and reading.is_complete:
            return 0
        if frames:
            level = min(
                level, max(_agreement(group, index.frames[frame], classes) for frame in frames)
            )
    proposes = any(group.key in reading.frames for group in groups)
    return level if proposes else 0


def _agreement(group: _Group, frame: Frame, classes: Collection[str]) -> int:
    """As ``_level``, for a frame, which must have the group's objects and no others."""
    are_counted = None not in group.points and None not in frame.points
    points = group.points if are_counted else [None] * len(group.points)
    wanted: Counter[Any] = Counter(zip(group.names, points, strict=True))
    known: Counter[Any] = Counter()
    expected: Counter[Any] = Counter()
    for name, count, is_expected in zip(frame.names, frame.points, frame.expected, strict=True):
        kind = name, count if are_counted else None
        known[kind] += 1
        expected[kind] += bool(is_expected and name in classes)
    missing = sum(count for (name, _), count in (wanted - known).items() if name is not None)
    unnamed = sum(count for (name, _), count in known.items() if name is None)
    if missing > unnamed or expected - wanted:
        return 0
    return 2 if are_counted else 1
