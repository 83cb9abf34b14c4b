"""What one inner dataset of a training set offers, line by line."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..annotations import Lines, format_of, recognise
from ..annotations.coco import CocoIndex, scene_name
from ..base.errors import UserError
from ..base.words import some
from ..images import Reader
from .building import ITEMS, RECORD
from .classes import label_meanings
from .frames import ViewObjects, check_cameras, is_frames, read_frames
from .labelled import have_labels
from .objects import image_sizes, take_objects
from .samples import name_samples, sample_id, stored_infos
from .sources import ConfigPath, Source, dotted
from .uncounted import why_empty, why_uncounted

Info = Mapping[str, Any]


@dataclass(frozen=True)
class Opened:
    """A loaded dataset.

    Attributes:
        dataset: without pipeline.
        path: of its dict in the config.
        where: what to call it in messages.
        ann_file: absolute; None if it has none.
        index: of a COCO json.
        loads_labels: whether its pipeline loads its annotations.
        reader: how its pipeline reads images.
    """

    dataset: Any
    path: ConfigPath
    where: str
    ann_file: Path | None
    index: CocoIndex | None
    loads_labels: bool
    reader: Reader

    @property
    def is_trained(self) -> bool:
        """Whether a training learns from it: validation sets are only compared with those."""
        return not getattr(self.dataset, 'test_mode', False)


@dataclass(frozen=True)
class Part:
    """One inner dataset's share of the pool, line by line; see ``Pool`` for what the fields mean.

    A line is an entry of the dataset: of an image there may be several, of a frame there is one.

    Attributes:
        source: all but its ``samples``, ``item_samples`` and ``relabel``.
        item_lines: the line of each item of the dataset.
        is_labelled: whether the training knows the objects.
        is_trained: whether the training learns from the dataset at all.
        by_text: whether it tells classes by their names, not by their labels.
        uncounted: why none of the annotations counts; '' where some do, or where there are none.
        note: on names, for the user.
    """

    source: Source
    names: list[str]
    image_paths: list[tuple[str, ...]]
    views: tuple[str, ...]
    image_sizes: np.ndarray
    classes: list[str]
    counts: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    scenes: list[str]
    item_lines: np.ndarray
    is_temporal: bool = False
    is_labelled: bool = True
    is_trained: bool = True
    by_text: bool = False
    uncounted: str = ''
    note: str = ''

    @property
    def where(self) -> str:
        """The dataset's place in the config."""
        return dotted(self.source.path)

    @property
    def is_frames(self) -> bool:
        """Whether its samples are frames and no plain images."""
        return self.source.objects is not None


def take_part(opened: Opened, skip_empty: bool) -> Part:
    """Takes what a dataset has loaded.

    Args:
        opened: the dataset.
        skip_empty: whether frames of a COCO json go that show nothing.

    Raises:
        UserError: there is no sample, or one of them or a label is not what it should be.
    """
    if opened.index and opened.index.frames:
        return _take_views(opened, opened.index, skip_empty)

    infos = list(stored_infos(opened.dataset))
    if not infos:
        raise UserError(
            f'{opened.where} is empty: {why_empty(opened.dataset, opened.ann_file, opened.index)}'
        )
    if is_frames(opened.dataset, infos):
        return _take_frames(opened, infos)

    return _take_images(opened, infos)


def _take_images(opened: Opened, infos: Sequence[Info]) -> Part:
    dataset, where, ann_file, index = opened.dataset, opened.where, opened.ann_file, opened.index
    names = name_samples(infos, getattr(dataset, 'data_root', None), where)
    arrays = [name for name, info in zip(names, infos, strict=True) if 'img' in info]
    _check_names(arrays, where, ann_file)
    is_labelled = opened.loads_labels and have_labels(infos)
    counts, labels, boxes = take_objects(infos if is_labelled else [{}] * len(infos))
    meanings = label_meanings(dataset, labels, where, ann_file, index)
    records = [info.get(RECORD) for info in infos]
    # What ``indices`` repeat would be in the file once.
    repeats = None not in records and len(set(records)) < len(records)
    # mmdet demands as many proposals as the annotation file has images.
    is_fixed = repeats or bool(getattr(dataset, 'proposal_file', None))
    kind, native_ids = _address(opened, infos, names, is_fixed, False)
    uncounted = ''
    if is_labelled and opened.is_trained and not len(labels):
        uncounted = why_uncounted(dataset, infos, ann_file, index)

    return Part(
        source=Source(kind, opened.path, ann_file, tuple(native_ids), names=tuple(names)),
        names=names,
        image_paths=[() if 'img' in info else (_image_path(info, where),) for info in infos],
        views=('image',),
        image_sizes=image_sizes(infos),
        classes=meanings.names,
        counts=counts,
        labels=labels,
        boxes=boxes,
        scenes=[
            index.scenes.get(info['img_id'], '') if index else scene_name(info) for info in infos
        ],
        item_lines=np.arange(len(infos)),
        is_labelled=is_labelled,
        is_trained=opened.is_trained,
        by_text=bool(getattr(dataset, 'return_classes', False)),
        uncounted=uncounted,
        note=meanings.note if opened.is_trained else '',
    )


def _take_frames(opened: Opened, infos: Sequence[Info]) -> Part:
    """Frames of 3D infos; what a dataset splits into cameras is put together again."""
    dataset, where, ann_file = opened.dataset, opened.where, opened.ann_file
    by_record = _whole_frames(infos, where)
    line_of = {record: line for line, record in enumerate(by_record)}
    item_lines = [line_of[info[RECORD]] for info in infos]
    frames = list(by_record.values())
    # ``indices`` may name a frame several times, which a file would have once.
    repeats = len(infos) > sum(map(len, frames))
    names = [sample_id(items[0]) for items in frames]
    _check_names(names, where, ann_file)
    read = read_frames(dataset, frames, where, opened.reader)
    # Validation frames may come without labels.
    if not len(read.labels) and opened.is_trained:
        raise UserError(
            f'{where}: no frame of {ann_file} has an object of its classes '
            f'({some(dataset.metainfo["classes"])}): there is nothing to train on'
        )

    meanings = label_meanings(dataset, read.labels, where, ann_file, None)
    kind, native_ids = _address(opened, [items[0] for items in frames], names, repeats, True)

    return Part(
        source=Source(
            kind,
            opened.path,
            ann_file,
            tuple(native_ids),
            names=tuple(names),
            objects=read.objects,
            items=read.items,
        ),
        names=names,
        image_paths=read.image_paths,
        views=read.views,
        image_sizes=read.objects.sizes[:: len(read.views)],
        classes=meanings.names,
        counts=read.counts,
        labels=read.labels,
        boxes=read.boxes,
        scenes=read.scenes,
        item_lines=np.array(item_lines, np.int64),
        is_temporal=getattr(dataset, 'is_temporal', False),
        is_trained=opened.is_trained,
        note=meanings.note if opened.is_trained else '',
    )


def _whole_frames(infos: Sequence[Info], where: str) -> dict[int, list[Info]]:
    """The items that make up each frame of a dataset, once, by the position of its record.

    Raises:
        UserError: ``indices`` takes only some cameras of a frame.
    """
    frames: dict[int, dict[tuple[str, ...], Info]] = defaultdict(dict)
    for info in infos:
        frames[info[RECORD]].setdefault(tuple(info['images']), info)

    for items in frames.values():
        first = next(iter(items.values()))
        if len(items) != first[ITEMS]:
            raise UserError(
                f'{where}: indices takes {len(items)} of the {first[ITEMS]} cameras of '
                f'frame {sample_id(first)}, but a frame stays or goes whole: take all '
                'items of a frame, or none'
            )

    return {record: list(items.values()) for record, items in frames.items()}


def _take_views(opened: Opened, index: CocoIndex, skip_empty: bool) -> Part:
    """Frames whose cameras are images of a COCO json; see ``CocoIndex.frames``."""
    dataset, where, ann_file = opened.dataset, opened.where, opened.ann_file
    frames: dict[str, dict[str, Info]] = defaultdict(dict)
    for info in stored_infos(dataset):
        camera = Path(_image_path(info, where)).parent.name
        frames[index.frames[info['img_id']]][camera] = info

    if skip_empty:
        frames = {
            name: cameras
            for name, cameras in frames.items()
            if any(info.get('instances') for info in cameras.values())
        }

    if not frames:
        raise UserError(f'{where} is empty: {why_empty(dataset, ann_file, index)}')

    views = tuple(next(iter(frames.values())))
    for name, cameras in frames.items():
        check_cameras(cameras, views, f'{where}: frame {name}')

    infos = [cameras[view] for cameras in frames.values() for view in views]
    counts, labels, boxes = take_objects(infos)
    meanings = label_meanings(dataset, labels, where, ann_file, index)
    sizes = image_sizes(infos)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    in_first = np.repeat(np.arange(len(infos)) % len(views) == 0, counts)
    native = [tuple(cameras[view]['img_id'] for view in views) for cameras in frames.values()]

    return Part(
        source=Source(
            'coco',
            opened.path,
            ann_file,
            tuple(native),
            names=tuple(frames),
            objects=ViewObjects(sizes, offsets, labels, boxes),
            items=len(views),
        ),
        names=list(frames),
        image_paths=[
            tuple(cameras[view]['img_path'] for view in views) for cameras in frames.values()
        ],
        views=views,
        image_sizes=sizes[:: len(views)],
        classes=meanings.names,
        counts=counts.reshape(-1, len(views)).sum(axis=1),
        labels=labels,
        boxes=np.where(in_first[:, None], boxes, np.float32(np.nan)),
        scenes=[index.scenes[ids[0]] for ids in native],
        item_lines=np.repeat(np.arange(len(frames)), len(views)),
        is_trained=opened.is_trained,
        note=meanings.note if opened.is_trained else '',
    )


def _check_names(names: Sequence[str], where: str, ann_file: Path | None) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise UserError(
            f'{where}: {len(repeated)} sample ids appear more than once in {ann_file}, '
            f'first {some(repeated)}; give every sample an id of its own'
        )


def _address(
    opened: Opened, infos: Sequence[Info], names: Sequence[str], is_fixed: bool, are_frames: bool
) -> tuple[str, Sequence[Any]]:
    """How a dataset is written with fewer samples, and what addresses its lines there.

    Args:
        opened: the dataset.
        infos: of its lines.
        names: likewise.
        is_fixed: whether its annotation file cannot have fewer lines.
        are_frames: whether the lines are frames.

    Returns:
        ``kind`` and ``native_ids`` of a ``Source``.
    """
    if opened.ann_file is None or is_fixed:
        return 'ids', names

    records = [info.get(RECORD) for info in infos]
    lines = Lines(opened.dataset, opened.ann_file, infos, names, records, are_frames)
    kind = recognise(lines)
    if kind is None:
        return 'ids', names

    return kind, format_of(kind).addresses(lines)


def _image_path(info: Info, where: str) -> str:
    path = info.get('img_path')
    if not isinstance(path, str):
        raise UserError(f'{where} yields samples without img_path; such datasets cannot be pruned')
    return path
