"""Ground-truth databases (``*_dbinfos_train.pkl``): of which frame each object is.

An object names its frame in ``image_idx``: by token, by ``sample_idx``, or by the position of the
frame in whichever file the database was made from. Only a token says by itself what it means. For
numbers the boxes decide: an object is of a frame that has its box, and a reading of the numbers
counts as long as no box speaks against it.
"""

import itertools
import os
import pickle
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
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


# A group, and the frames that its objects may be of.
_Candidates = tuple[_Group, Collection[int]]


def load_database(path: str | Path, trust: bool = False) -> dict[str, list[dict[str, Any]]]:
    """Loads a ground-truth database.

    Raises:
        UserError: it is none.
    """
    content = load_pickle(path, trust)
    if not isinstance(content, dict) or not all(map(_is_list_of_objects, content.values())):
        raise UserError(
            f"{path} is no ground-truth database, which has a list of objects with 'image_idx' for "
            "each class: make it with mmdet3d's tools/create_data.py"
        )

    return content


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_object, value))


def _is_object(item: Any) -> bool:
    if not isinstance(item, dict):
        return False
    return 'image_idx' in item or 'box3d_lidar' in item


def write_database(content: Objects, stays: np.ndarray, target: Path) -> None:
    """Writes a database with some of its objects, atomically.

    Args:
        content: from ``load_database``.
        stays: (n,) bool, for each object in the order of the lists.
        target: the file.
    """
    kept = {}
    start = 0
    for name, items in content.items():
        end = start + len(items)
        kept[name] = list(itertools.compress(items, stays[start:end]))
        start = end

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
    total = sum(map(len, content.values()))
    stays = np.ones(total, bool)
    is_inside = np.zeros(total, bool)
    found_any = False
    for groups in _groups(content, index.known_names):
        for group, candidates in _frames_of(groups, index, path):
            frames = [index.frames[i] for i in sorted(candidates)]
            _check_agreement(group, frames, path)
            stays[group.places] = all(frame.may_be_pasted for frame in frames)
            is_inside[group.places] = any(frame.is_sample for frame in frames)
            found_any |= bool(frames)

    if total and not found_any:
        raise UserError(
            f'{path} belongs to another dataset: none of its objects is of a frame of the training '
            f'set; {_REMEDY}'
        )

    is_outside = stays & ~is_inside

    return stays, DatabaseCounts(total, int(stays.sum()), int(is_outside.sum()))


def _check_agreement(group: _Group, frames: Sequence[Frame], path: Path) -> None:
    """Raises UserError where some of the frames that a group fits stay and others do not."""
    pasted = [frame.may_be_pasted for frame in frames]
    if len(set(pasted)) <= 1:
        return

    kept = frames[pasted.index(True)]
    pruned = frames[pasted.index(False)]
    raise UserError(
        f'{path}: the objects with image_idx {group.key} fit frame {kept.name}, which stays, and '
        f'frame {pruned.name}, which is pruned: {_REMEDY}'
    )


def _groups(content: Objects, known_names: Collection[str]) -> list[list[_Group]]:
    """The objects by folder, since two databases may be in one, and there by frame."""
    names: list[str | None] = []
    items: list[Mapping[str, Any]] = []
    for name, objects in content.items():
        known = name if name in known_names else None
        names += [known] * len(objects)
        items += objects

    boxes = footprints(item.get('box3d_lidar') for item in items)
    members: dict[str, dict[Any, list[int]]] = defaultdict(lambda: defaultdict(list))
    for place, item in enumerate(items):
        folder = os.path.dirname(str(item.get('path', '')))
        key = as_key(item.get('image_idx'))
        # Objects that name no frame have nothing in common.
        unique = ('', place) if key is None else key
        members[folder][unique].append(place)

    def group_of(key: Any, places: list[int]) -> _Group:
        return _Group(
            key=None if isinstance(key, tuple) else key,
            places=np.array(places),
            names=[names[place] for place in places],
            points=[_points(items[place]) for place in places],
            boxes=boxes[places],
        )

    return [list(itertools.starmap(group_of, keyed.items())) for keyed in members.values()]


def _points(item: Mapping[str, Any]) -> int | None:
    points = item.get('num_points_in_gt')
    return int(points) if isinstance(points, (int, np.integer)) else None


def _frames_of(groups: Sequence[_Group], index: FrameIndex, path: Path) -> list[_Candidates]:
    """The frames that each group's objects may be of; none where the info files lack the frame."""
    named, others = _split_by_token(groups, index)
    found: list[_Candidates] = [(group, index.tokens.get(group.key, ())) for group in named]
    if not others:
        return found
    classes = {name for group in groups for name in group.names if name is not None}
    if index.has_boxes and any(map(_has_box, others)):
        return found + _by_boxes(others, index, classes)
    return found + _by_classes(others, index, classes, path)


def _split_by_token(
    groups: Sequence[_Group], index: FrameIndex
) -> tuple[list[_Group], list[_Group]]:
    """The groups with a text as key, if some of these texts are tokens, and the others."""
    texts = [group for group in groups if isinstance(group.key, str)]
    if not any(group.key in index.tokens for group in texts):
        return [], list(groups)
    others = [group for group in groups if not isinstance(group.key, str)]
    return texts, others


def _has_box(group: _Group) -> bool:
    return bool(np.isfinite(group.boxes).all(axis=1).any())


# Databases with boxes


def _by_boxes(
    groups: Sequence[_Group], index: FrameIndex, classes: Collection[str]
) -> list[_Candidates]:
    exact = []
    for reading in index.readings:
        if all(_is_exact(group, reading, index, classes) for group in groups):
            exact.append(reading)

    if exact:
        return [(group, _read_by(exact, group.key)) for group in groups]

    expected = index.count_expected(classes)
    fitting: list[tuple[_Group, list[int]]] = []
    for group in groups:
        fitting += _fitting(group, index, expected)

    readings = [reading for reading in index.readings if _holds(reading, fitting)]

    return [(group, _choose(group.key, frames, readings, index)) for group, frames in fitting]


def _read_by(readings: Iterable[Reading], key: Key) -> set[int]:
    """The frames that a key stands for in any of the readings."""
    frames: set[int] = set()
    for reading in readings:
        frames.update(reading.frames.get(key, ()))
    return frames


def _is_exact(group: _Group, reading: Reading, index: FrameIndex, classes: Collection[str]) -> bool:
    """Whether the frames that a reading gives have just the objects of a group."""
    numbers = reading.frames.get(group.key, ())
    if not numbers:
        return False
    return all(_has_just(group, index.frames[number], classes) for number in numbers)


def _has_just(group: _Group, frame: Frame, classes: Collection[str]) -> bool:
    pairs = _matches(group, frame)
    matched_places = {place for place, _, _ in pairs}
    if len(matched_places) != len(group.places):
        return False
    matched_objects = {frame.owners[row] for _, row, _ in pairs}
    expected = np.flatnonzero(frame.expected)
    wanted = {number for number in expected if frame.names[number] in classes}
    return wanted <= matched_objects


def _matches(group: _Group, frame: Frame) -> list[tuple[int, int, float]]:
    """Objects of a group and rows of a frame with one box and one class, and how far apart."""
    apart = np.abs(group.boxes[:, None] - frame.boxes).max(axis=2)
    pairs = []
    for place, row in np.argwhere(apart <= _SAME):
        name = frame.names[frame.owners[row]]
        if _may_be_same(name, group.names[place]):
            pairs.append((int(place), int(row), float(apart[place, row])))
    return pairs


def _may_be_same(name: str | None, other: str | None) -> bool:
    is_unknown = name is None or other is None
    return is_unknown or name == other


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
    boxed = group.part(has_box)
    shared, shared_expected = index.count_shared(boxed.boxes, boxed.names, _SAME)
    most = shared.max(initial=0)
    if not most:
        return [(group, [])]

    # A frame with further objects is one from which the same static objects are seen.
    further = np.where(shared == most, expected - shared_expected, np.inf)
    fewest = further.min()
    best = _nearest(group, index, np.flatnonzero(further == fewest).tolist())
    is_covered = fewest <= 0 and expected[best].min() > 0
    is_whole = most == len(boxed.names) or is_covered
    is_minority = 2 * most <= len(boxed.names)
    if not is_whole and (_is_open(best, index) or is_minority):
        # A frame of another file, from which some of the same static objects are seen.
        return [(group, [])]

    pairs = _matches(group, index.frames[best[0]])
    is_matched = np.zeros(len(has_box), bool)
    is_matched[[place for place, _, _ in pairs]] = True
    rest = group.part(~is_matched & has_box)
    elsewhere = _fitting(rest, index, expected) if len(rest.places) else []
    if any(found and not _is_open(found, index) for _, found in elsewhere):
        return [(group.part(is_matched | ~has_box), best), *elsewhere]

    return [(group, best)]


def _nearest(group: _Group, index: FrameIndex, frames: list[int]) -> list[int]:
    """Those of some frames whose boxes are nearest to a group's, unless there are very many."""
    if len(frames) > _MOST_COMPARED:
        return frames
    errors = []
    for frame in frames:
        pairs = _matches(group, index.frames[frame])
        errors.append(max(error for _, _, error in pairs))
    limit = 2 * min(errors) + _ROUNDING
    return [frame for frame, error in zip(frames, errors, strict=True) if error <= limit]


def _is_open(frames: Sequence[int], index: FrameIndex) -> bool:
    """Whether some of the frames stay and others are pruned."""
    fates = {index.frames[frame].may_be_pasted for frame in frames}
    return len(fates) > 1


def _holds(reading: Reading, fitting: Sequence[tuple[_Group, list[int]]]) -> bool:
    """Whether boxes confirm a reading, and none speaks against it.

    Static objects agree with many readings, so that most groups must fit one frame only, which is
    the one that is read.
    """
    if reading.is_complete and any(group.key not in reading.frames for group, _ in fitting):
        return False

    compared = 0
    confirmed = 0
    for group, frames in fitting:
        if not frames:
            continue
        compared += 1
        proposed = reading.frames.get(group.key, ())
        agrees = not set(frames).isdisjoint(proposed)
        if proposed and not agrees:
            return False
        if agrees and len(frames) == 1:
            confirmed += 1

    return 2 * confirmed > compared


def _choose(
    key: Key, fitting: Sequence[int], readings: Sequence[Reading], index: FrameIndex
) -> Collection[int]:
    """The frames that a group's objects may be of, by their boxes and by the readings that hold."""
    proposed = _read_by(readings, key)
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
) -> list[_Candidates]:
    """Takes the readings that agree with the classes (and numbers of points) of all objects."""
    levels = [_level(reading, groups, index, classes) for reading in index.readings]
    best = max(levels)
    if not best:
        raise UserError(
            f'{path}: its image_idx (such as {groups[0].key}) are neither sample_idx nor positions '
            f'in the info files that are pruned, whose frames have other objects; {_REMEDY}'
        )

    pairs = zip(index.readings, levels, strict=True)
    readings = [reading for reading, level in pairs if level == best]

    return [(group, _read_by(readings, group.key)) for group in groups]


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
            agreements = [_agreement(group, index.frames[frame], classes) for frame in frames]
            level = min(level, max(agreements))

    proposes = any(group.key in reading.frames for group in groups)
    return level if proposes else 0


def _agreement(group: _Group, frame: Frame, classes: Collection[str]) -> int:
    """As ``_level``, for a frame, which must have the group's objects and no others."""
    are_counted = None not in group.points and None not in frame.points
    wanted = Counter(_kinds(group.names, group.points, are_counted))
    known: Counter[Any] = Counter()
    expected: Counter[Any] = Counter()
    kinds = _kinds(frame.names, frame.points, are_counted)
    for kind, is_expected in zip(kinds, frame.expected, strict=True):
        name, _ = kind
        known[kind] += 1
        expected[kind] += bool(is_expected and name in classes)

    missing = 0
    for (name, _), count in (wanted - known).items():
        missing += count if name is not None else 0

    unnamed = 0
    for (name, _), count in known.items():
        unnamed += count if name is None else 0

    if missing > unnamed or expected - wanted:
        return 0

    return 2 if are_counted else 1


def _kinds(
    names: Sequence[str | None], points: Sequence[int | None], are_counted: bool
) -> list[tuple[str | None, int | None]]:
    """What tells objects apart: their class and, where all are counted, their number of points."""
    if not are_counted:
        points = [None] * len(names)
    return list(zip(names, points, strict=True))
