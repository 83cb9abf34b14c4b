"""Reading the samples of a training config: builds its datasets without pipelines and takes what they have loaded."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DefaultScope

from ..annotations.coco import CocoIndex, index_coco, scene_name
from ..annotations.pickles import collector_paused
from ..annotations.uncounted import NO_ANNOTATIONS
from ..errors import UserError
from ..features import choose_views
from ..pool import Pool
from .building import RECORD, annotation_file, build_dataset, load_dataset, naming
from .classes import contradictions, given_classes, label_meanings
from .databases import find_databases
from .frames import ViewObjects, check_cameras, is_frames, read_frames
from .images import camera_paths, check_folders, check_images
from .labelled import have_labels, loads_labels
from .lines import group_lines, line_key, merge_objects
from .objects import image_sizes, take_objects
from .samples import name_samples, sample_id, stored_infos
from .sources import ConfigPath, Source, dotted, inner_datasets, type_name, value_at
from .uncounted import why_empty, why_uncounted
from .words import some


@dataclass(frozen=True)
class _Part:
    """One inner dataset's share of the pool, line by line; see ``Pool`` for what the fields mean.

    A line is what the dataset has an entry for: of an image there may be several, of a frame there is one.

    Attributes:
        source: all but its ``samples``, ``item_samples`` and ``relabel``.
        item_lines: the line of each item of the dataset.
        is_labelled: whether the training knows the objects.
        by_text: whether the training tells classes by their names, not by their labels.
        uncounted: why none of the annotations counts; '' where some do, where there are none, or where nothing is
            trained on them.
        is_trained: whether the training learns from these objects.
        note: for the user.
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
    by_text: bool = False
    uncounted: str = ''
    is_trained: bool = True
    note: str = ''

    @property
    def where(self) -> str:
        return dotted(self.source.path)


@dataclass(frozen=True)
class _Opened:
    """A loaded dataset, and what is known about it."""

    dataset: Any
    path: ConfigPath
    where: str
    ann_file: Path | None
    index: CocoIndex | None
    loads_labels: bool


def read_pool(config: Config, check_images: bool = True) -> tuple[Pool, list[Source]]:
    """Reads the samples that a config's training set offers, after each dataset's own ``filter_cfg``.

    Wrappers around datasets are seen through: repeating or mixing samples does not change which ones there are. An
    image with all its lines (captions, entries of several files, repeated ``indices``) is one sample. Objects that
    training ignores (``ignore_flag``: crowds, difficult or tiny objects) are left out, and those of datasets whose
    pipeline does not load them. In image classification a label is an object without box; images that are arrays, such
    as CIFAR's, have no paths.

    Args:
        config: an mmdet config; its ``default_scope`` holds while this runs.
        check_images: whether every image folder must hold some of its images; of frames, those of the cameras that
            the ``views`` of the ``adadedup`` dict choose.

    Returns:
        The pool, and where its samples come from: one source for each inner dataset.

    Raises:
        UserError: there is no training set; an annotation file or image folder is missing; an annotation file is
            broken, has the same image id twice, or none of the classes; no sample is left; no object counts; a dataset
            cannot be built.
    """
    options = config.get('adadedup') or {}
    trust, temporal = bool(options.get('trust_pickles', False)), options.get('temporal', 'relink')
    with DefaultScope.overwrite_default_scope(config.get('default_scope')), collector_paused():
        views = options.get('views', 'front') if check_images else ()
        parts = [_read_dataset(config, path, trust, views) for path in inner_datasets(config)]
    _check_views(parts)
    _check_generations(parts)
    _check_texts(parts)
    _check_counted(parts)
    parts = [replace(part, source=replace(part.source, temporal=temporal, trust=trust)) for part in parts]
    return _pool_of(parts)


def _pool_of(parts: Sequence[_Part]) -> tuple[Pool, list[Source]]:
    """Puts the lines of all parts together to samples."""
    several = len(parts) > 1
    classes = tuple(dict.fromkeys(name for part in parts for name in part.classes))
    position = {name: index for index, name in enumerate(classes)}
    maps = [np.array([position[name] for name in part.classes], np.int32) for part in parts]
    lines = [len(part.names) for part in parts]
    dataset_index = np.repeat(np.arange(len(parts), dtype=np.int32), lines)
    names = [f'{i}:{name}' if several else name for i, part in enumerate(parts) for name in part.names]
    scenes = [f'{i}:{scene}' if several and scene else scene for i, part in enumerate(parts) for scene in part.scenes]
    paths = list(itertools.chain.from_iterable(part.image_paths for part in parts))
    keys = [line_key(paths[line], name, int(dataset_index[line])) for line, name in enumerate(names)]
    sample, first = group_lines(keys)
    counts = np.concatenate([part.counts for part in parts])
    labels = np.concatenate([mapping[part.labels] for mapping, part in zip(maps, parts, strict=True)])
    boxes = np.concatenate([part.boxes for part in parts])
    if len(first) < len(sample):
        counts, labels, boxes = merge_objects(sample, counts, labels, boxes)
    labelled = np.zeros(len(first), bool)
    np.logical_or.at(labelled, sample, np.repeat([part.is_labelled for part in parts], lines))
    pool = Pool(
        sample_ids=tuple(names[line] for line in first),
        image_paths=tuple(paths[line] for line in first),
        views=parts[0].views,
        image_sizes=np.concatenate([part.image_sizes for part in parts])[first],
        classes=classes,
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        labels=labels,
        boxes=boxes,
        dataset_index=dataset_index[first],
        scenes=tuple(scenes[line] for line in first) if any(scenes) else None,
        labelled=labelled,
        notes=tuple(_notes(parts, labelled)))
    starts = np.cumsum([0, *lines])
    sources = [_finished(part, mapping, sample[start:start + len(part.names)])
               for part, mapping, start in zip(parts, maps, starts[:-1], strict=True)]
    return pool, sources


def _finished(part: _Part, mapping: np.ndarray, samples: np.ndarray) -> Source:
    """The source of a part, with what is only known of the whole pool.

    Args:
        part: the part.
        mapping: for each of its labels, the pool's.
        samples: (lines,) int64, the pool's sample of each of its lines.
    """
    source = replace(part.source, samples=samples, item_samples=samples[part.item_lines])
    if source.objects is not None:
        return replace(source, objects=replace(source.objects, labels=mapping[source.objects.labels]))
    used = np.unique(part.labels)
    return source if (mapping[used] == used).all() else replace(source, relabel=tuple(mapping.tolist()))


def _notes(parts: Sequence[_Part], labelled: np.ndarray) -> list[str]:
    """What users should know about their training set, a line each."""
    trained = [part for part in parts if part.is_trained and not part.by_text]
    contradiction = contradictions([(part.where, part.classes, part.labels) for part in trained])
    # Other classes in the config would not help where files contradict each other.
    notes = [contradiction] if contradiction else [part.note for part in parts]
    if any(part.is_labelled for part in parts):
        notes += [f'{part.where}: {part.uncounted}' for part in parts if part.uncounted]
    if not labelled.all():
        names = [part.where for part in parts if not part.is_labelled]
        notes.append(f'{int((~labelled).sum())} of {len(labelled)} samples have no labels ({some(names)}): they are '
                     'judged by their pixels alone, and no proxy learns from them')
    return [note for note in notes if note]


def _check_views(parts: Sequence[_Part]) -> None:
    for part in parts[1:]:
        if part.views != parts[0].views:
            raise UserError(f'{part.where} has the cameras {", ".join(part.views)}, but '
                            f'{parts[0].where} has {", ".join(parts[0].views)}: datasets that are pruned '
                            'together need the same cameras')


def _check_texts(parts: Sequence[_Part]) -> None:
    """Tables cannot hold what is no Unicode text, such as half a surrogate pair."""
    for part in parts:
        for text in itertools.chain(part.names, part.classes, part.scenes, *part.image_paths):
            try:
                text.encode()
            except UnicodeEncodeError:
                raise UserError(f'{part.where}: {text!a} is no Unicode text: rename it in '
                                f'{part.source.ann_file}') from None


def _check_generations(parts: Sequence[_Part]) -> None:
    older = [part for part in parts if part.is_temporal]
    newer = [part for part in parts if part.source.kind == 'infos' and not part.is_temporal]
    if older and newer:
        raise UserError(f'{older[0].where} reads temporal infos ({older[0].source.ann_file}), but '
                        f'{newer[0].where} those of mmdet3d 1.x ({newer[0].source.ann_file}): a training '
                        'set needs infos of one generation')


def _check_counted(parts: Sequence[_Part]) -> None:
    """Refuses a training on labels of which not one counts."""
    taught = [part for part in parts if part.is_labelled and part.is_trained]
    if taught and not any(len(part.labels) for part in taught):
        part = next((part for part in taught if part.uncounted), taught[0])
        reason = part.uncounted or NO_ANNOTATIONS
        raise UserError(f'{part.where}: there is nothing to train on in {part.source.ann_file}: {reason}')


def _read_dataset(config: Config, path: ConfigPath, trust: bool, views: str | Sequence[str]) -> _Part:
    """``views``: cameras of frames whose images must be there; empty if no image has to be."""
    settings = value_at(config, path)
    where = f'{dotted(path)} ({type_name(settings)})'
    dataset = build_dataset(settings, where)
    ann_file = annotation_file(dataset, where)
    if views:
        check_folders(dataset, where)
    # CocoDataset and everything made from it.
    index = index_coco(ann_file) if ann_file and hasattr(dataset, 'COCOAPI') else None
    filters = getattr(dataset, 'filter_cfg', None) or {}
    if index and index.frames:
        # A frame goes or stays with all its cameras, so that none of them may be missing here.
        dataset.filter_cfg = None
    load_dataset(dataset, where, ann_file, trust)
    given = given_classes(dataset, where)
    known = loads_labels(config, path)
    if index and index.categories and not dataset.cat_ids and known:
        raise UserError(f'{where}: none of its classes ({some(given or ())}) is a category of {ann_file} '
                        f'({some(index.categories)}): set metainfo=dict(classes=...) to names of the file')
    opened = _Opened(dataset, path, where, ann_file, index, known)
    with naming(where, ann_file):
        if index and index.frames:
            part = _take_views(opened, bool(filters.get('filter_empty_gt')))
        else:
            part = _take_samples(opened)
    if views:
        several = len(part.views) > 1
        check_images(list(camera_paths(part.image_paths, choose_views(part.views, views) if several else [0])), where)
    return replace(part, source=replace(part.source, databases=find_databases(settings, path)))


def _take_samples(opened: _Opened) -> _Part:
    dataset, where, ann_file, index = opened.dataset, opened.where, opened.ann_file, opened.index
    infos = list(stored_infos(dataset))
    if not infos:
        raise UserError(f'{where} is empty: {why_empty(dataset, ann_file, index)}')
    if is_frames(dataset, infos):
        return _take_frames(opened, infos)
    names = name_samples(infos, getattr(dataset, 'data_root', None))
    _check_names([name for name, info in zip(names, infos, strict=True) if 'img' in info], where, ann_file)
    is_labelled = opened.loads_labels and have_labels(infos)
    counts, labels, boxes = take_objects(infos if is_labelled else [{}] * len(infos))
    meanings = label_meanings(dataset, labels, where, ann_file, index)
    is_trained = not getattr(dataset, 'test_mode', False)
    asked = is_labelled and is_trained and not len(labels)
    kind, native_ids = _address(dataset, ann_file, infos, names)
    return _Part(
        source=Source(kind, opened.path, ann_file, tuple(native_ids), names=tuple(names)), names=names,
        image_paths=[() if 'img' in info else (_image_path(info, where),) for info in infos], views=('image',),
        image_sizes=image_sizes(infos), classes=meanings.names, counts=counts, labels=labels, boxes=boxes,
        scenes=[index.scenes.get(info['img_id'], '') if index else scene_name(info) for info in infos],
        item_lines=np.arange(len(infos)), is_labelled=is_labelled, is_trained=is_trained,
        by_text=bool(getattr(dataset, 'return_classes', False)), note=meanings.note if is_trained else '',
        uncounted=why_uncounted(dataset, infos, ann_file, index) if asked else '')


def _take_frames(opened: _Opened, infos: Sequence[Mapping[str, Any]]) -> _Part:
    """Frames of 3D infos; what a dataset splits into cameras is put together again."""
    dataset, where, ann_file = opened.dataset, opened.where, opened.ann_file
    entries = _entries(infos)
    # ``indices`` may name a frame several times.
    by_record = {items[0][RECORD]: items for items in entries}
    frames, line_of = list(by_record.values()), {record: line for line, record in enumerate(by_record)}
    item_lines = np.array([line_of[items[0][RECORD]] for items in entries for _ in items], np.int64)
    names = [sample_id(items[0]) for items in frames]
    _check_names(names, where, ann_file)
    read = read_frames(dataset, frames, where)
    # Validation frames may come without labels: they are only compared with those of the training.
    if not len(read.labels) and not dataset.test_mode:
        raise UserError(f'{where}: no frame of {ann_file} has an object of its classes '
                        f'({some(dataset.metainfo["classes"])}): there is nothing to train on')
    meanings = label_meanings(dataset, read.labels, where, ann_file, None)
    is_pickle = ann_file is not None and ann_file.suffix in ('.pkl', '.pickle')
    is_rewritten = is_pickle and len(entries) == len(frames)
    return _Part(
        source=Source('infos' if is_rewritten else 'ids', opened.path, ann_file, tuple(names), names=tuple(names),
                      objects=read.objects, items=read.items),
        names=names, image_paths=read.image_paths, views=read.views,
        image_sizes=read.objects.sizes[::len(read.views)], classes=meanings.names,
        counts=read.counts, labels=read.labels, boxes=read.boxes, scenes=read.scenes,
        item_lines=item_lines, is_temporal=getattr(dataset, 'is_temporal', False),
        note='' if dataset.test_mode else meanings.note, is_trained=not dataset.test_mode)


def _entries(infos: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """The items of each frame: what was made of one record, and not the same thing again."""
    entries: list[list[Mapping[str, Any]]] = []
    for info in infos:
        last = entries[-1] if entries else []
        belongs = bool(last) and last[0][RECORD] == info[RECORD] and all(info is not item for item in last)
        if belongs:
            last.append(info)
        else:
            entries.append([info])
    return entries


def _take_views(opened: _Opened, skip_empty: bool) -> _Part:
    """Frames whose cameras are images of a COCO json, each in a folder of its own; see ``CocoIndex.frames``."""
    dataset, where, ann_file, index = opened.dataset, opened.where, opened.ann_file, opened.index
    if index is None or ann_file is None:
        raise TypeError('only a COCO json has cameras as images')
    frames: dict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for info in stored_infos(dataset):
        frames[index.frames[info['img_id']]][Path(_image_path(info, where)).parent.name] = info
    if skip_empty:
        frames = {name: cameras for name, cameras in frames.items()
                  if any(info.get('instances') for info in cameras.values())}
    if not frames:
        raise UserError(f'{where} is empty: {why_empty(dataset, ann_file, index)}')
    views = tuple(next(iter(frames.values())))
    for name, cameras in frames.items():
        check_cameras(cameras, views, f'{where}: frame {name}')
    infos = [cameras[view] for cameras in frames.values() for view in views]
    counts, labels, boxes = take_objects(infos)
    meanings = label_meanings(dataset, labels, where, ann_file, index)
    sizes = image_sizes(infos)
    in_first = np.repeat(np.arange(len(infos)) % len(views) == 0, counts)
    native = [tuple(cameras[view]['img_id'] for view in views) for cameras in frames.values()]
    source = Source('coco', opened.path, ann_file, tuple(native), names=tuple(frames), items=len(views),
                    objects=ViewObjects(sizes, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), labels,
                                        boxes))
    return _Part(
        source=source, names=list(frames), views=views, image_sizes=sizes[::len(views)],
        image_paths=[tuple(cameras[view]['img_path'] for view in views) for cameras in frames.values()],
        classes=meanings.names, counts=counts.reshape(-1, len(views)).sum(axis=1), labels=labels,
        boxes=np.where(in_first[:, None], boxes, np.float32(np.nan)), scenes=[index.scenes[ids[0]] for ids in native],
        item_lines=np.repeat(np.arange(len(frames)), len(views)), is_trained=not dataset.test_mode,
        note='' if dataset.test_mode else meanings.note)


def _check_names(names: Sequence[str], where: str, ann_file: Path | None) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise UserError(f'{where}: {len(repeated)} sample ids appear more than once in {ann_file}, first '
                        f'{some(repeated)}; give every sample an id of its own')


def _address(dataset: Any, ann_file: Path | None, infos: Sequence[Mapping[str, Any]], names: Sequence[str]
             ) -> tuple[Literal['coco', 'image_set', 'data_list', 'ids'], Sequence[Any]]:
    """How a dataset is written with fewer samples, and what addresses its lines there."""
    records = [info.get(RECORD) for info in infos]
    # What ``indices`` repeat would be in the file once.
    repeats = None not in records and len(set(records)) < len(records)
    # mmdet demands as many proposals as the annotation file has images.
    if ann_file is None or getattr(dataset, 'proposal_file', None) or repeats:
        return 'ids', names
    if hasattr(dataset, 'COCOAPI'):
        return 'coco', [info['img_id'] for info in infos]
    if all('xml_path' in info for info in infos):
        return 'image_set', [info['img_id'] for info in infos]
    own_format = getattr(type(dataset), 'load_data_list', None) is BaseDataset.load_data_list
    if own_format and ann_file.suffix == '.json' and None not in records:
        return 'data_list', records
    return 'ids', names


def _image_path(info: Mapping[str, Any], where: str) -> str:
    path = info.get('img_path')
    if not isinstance(path, str):
        raise UserError(f'{where} yields samples without img_path; such datasets cannot be pruned')
    return path
