"""Reading the samples of a training config from its datasets, built without pipelines."""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from mmengine.config import Config
from mmengine.registry import DefaultScope

from ..annotations.coco import index_coco
from ..annotations.pickles import collector_paused
from ..annotations.uncounted import NO_ANNOTATIONS
from ..base.errors import UserError
from ..base.words import some
from ..images.training import reader_of
from ..pool import Pool, choose_views
from .building import NOTED, annotation_file, build_dataset, load_dataset, naming
from .classes import contradictions, given_classes
from .databases import find_databases
from .images import camera_paths, check_folders, check_images
from .labelled import loads_labels
from .lines import group_lines, line_key, merge_objects
from .parts import Opened, Part, take_part
from .records import records_digest
from .samples import stored_infos
from .sources import ConfigPath, Source, dotted, inner_datasets, type_name, value_at


def read_pool(config: Config) -> tuple[Pool, list[Source]]:
    """Reads the samples that a config's training set offers, after each dataset's ``filter_cfg``.

    Wrappers around datasets are seen through: repeating or mixing samples does not change which
    ones there are. An image with all its lines (captions, entries of several files, repeated
    ``indices``) is one sample. Objects that training ignores (``ignore_flag``: crowds, difficult
    or tiny objects) are left out, and those of datasets whose pipeline does not load them. In
    image classification a label is an object without box; images that are arrays, such as
    CIFAR's, have no paths. Every image folder must hold some of its images; of frames, those of
    the cameras that the ``views`` of the ``adadedup`` dict choose.

    Args:
        config: an mmdet config; its ``default_scope`` holds while this runs.

    Returns:
        The pool, and where its samples come from: one source for each inner dataset.

    Raises:
        UserError: there is no training set; an annotation file or image folder is missing; an
            annotation file is broken, has the same image id twice, or none of the classes; no
            sample is left; no object counts; a dataset cannot be built.
    """
    options = config.get('adadedup') or {}
    trust = bool(options.get('trust_pickles', False))
    temporal = options.get('temporal', 'relink')
    views = options.get('views', 'front')
    with DefaultScope.overwrite_default_scope(config.get('default_scope')), collector_paused():
        paths = inner_datasets(config)
        parts = [_read_dataset(config, path, trust, views) for path in paths]

    _check_views(parts)
    _check_generations(parts)
    _check_texts(parts)
    _check_counted(parts)
    complete = []
    for part, databases in zip(parts, find_databases(config, paths), strict=True):
        source = replace(
            part.source,
            temporal=temporal,
            trust=trust,
            databases=databases,
        )
        complete.append(replace(part, source=source))

    return _pool_of(complete)


def _read_dataset(
    config: Config, path: ConfigPath, trust: bool, views: str | Sequence[str]
) -> Part:
    """One inner dataset; of frames, the images of the cameras ``views`` must be there."""
    settings = value_at(config, path)
    where = f'{dotted(path)} ({type_name(settings)})'
    dataset = build_dataset(settings, where)
    ann_file = annotation_file(dataset, where)
    check_folders(dataset, where)

    # CocoDataset and everything made from it.
    index = None
    if ann_file and hasattr(dataset, 'COCOAPI'):
        index = index_coco(ann_file)
    filters = getattr(dataset, 'filter_cfg', None) or {}
    if index and index.frames:
        # A frame goes or stays with all its cameras, so that none of them may be missing here.
        dataset.filter_cfg = None

    load_dataset(dataset, where, ann_file, trust)
    given = given_classes(dataset, where) or ()
    is_known = loads_labels(config, path)
    if index and index.categories and not dataset.cat_ids and is_known:
        raise UserError(
            f'{where}: none of its classes ({some(given)}) is a category of {ann_file} '
            f'({some(index.categories)}): set metainfo=dict(classes=...) to names of the file'
        )

    opened = Opened(dataset, path, where, ann_file, index, is_known, reader_of(settings))
    with naming(where, ann_file):
        part = take_part(opened, bool(filters.get('filter_empty_gt')))

    columns = choose_views(part.views, views) if len(part.views) > 1 else [0]
    looked_at = list(camera_paths(part.image_paths, columns))
    check_images(looked_at, where)
    records = records_digest(stored_infos(dataset), without=NOTED)

    return replace(part, source=replace(part.source, records=records))


def _pool_of(parts: Sequence[Part]) -> tuple[Pool, list[Source]]:
    """Puts the lines of all parts together to samples."""
    classes = tuple(dict.fromkeys(name for part in parts for name in part.classes))
    maps = [_label_map(part.classes, classes) for part in parts]
    line_counts = [len(part.names) for part in parts]
    names, scenes = _names_and_scenes(parts)
    paths = [path for part in parts for path in part.image_paths]
    are_frames = np.repeat([part.is_frames for part in parts], line_counts)
    keys = list(map(line_key, paths, names, are_frames.tolist()))
    sample, first = group_lines(keys)

    counts = np.concatenate([part.counts for part in parts])
    boxes = np.concatenate([part.boxes for part in parts])
    labels_of_parts = [of_pool[part.labels] for of_pool, part in zip(maps, parts, strict=True)]
    labels = np.concatenate(labels_of_parts)
    if len(first) < len(sample):
        counts, labels, boxes = merge_objects(sample, counts, labels, boxes)

    image_sizes = np.concatenate([part.image_sizes for part in parts])
    dataset_index = np.repeat(np.arange(len(parts), dtype=np.int32), line_counts)
    is_labelled_line = np.repeat([part.is_labelled for part in parts], line_counts)
    labelled = np.zeros(len(first), bool)
    labelled[sample[is_labelled_line]] = True
    pool = Pool(
        sample_ids=tuple(names[line] for line in first),
        image_paths=tuple(paths[line] for line in first),
        views=parts[0].views,
        image_sizes=image_sizes[first],
        classes=classes,
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        labels=labels,
        boxes=boxes,
        dataset_index=dataset_index[first],
        scenes=tuple(scenes[line] for line in first) if any(scenes) else None,
        labelled=labelled,
        notes=tuple(_notes(parts, labelled)),
    )

    ends = np.cumsum(line_counts)[:-1]
    samples = np.split(sample, ends)
    sources = []
    for part, of_pool, own_samples in zip(parts, maps, samples, strict=True):
        sources.append(_source_of(part, of_pool, own_samples))
    return pool, sources


def _label_map(names: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """(labels,) int32, the place of each name among the pool's classes."""
    position = {name: number for number, name in enumerate(classes)}
    return np.array([position[name] for name in names], np.int32)


def _names_and_scenes(parts: Sequence[Part]) -> tuple[list[str], list[str]]:
    """Of all lines; with several datasets they begin with the dataset's index."""
    if len(parts) == 1:
        return list(parts[0].names), list(parts[0].scenes)
    names: list[str] = []
    scenes: list[str] = []
    for index, part in enumerate(parts):
        names += [f'{index}:{name}' for name in part.names]
        scenes += [f'{index}:{scene}' if scene else scene for scene in part.scenes]
    return names, scenes


def _source_of(part: Part, mapping: np.ndarray, samples: np.ndarray) -> Source:
    """The source of a part, with what is only known of the whole pool.

    Args:
        part: the part.
        mapping: for each of its labels, the pool's.
        samples: (lines,) int64, the pool's sample of each of its lines.
    """
    source = replace(
        part.source,
        samples=samples,
        item_samples=samples[part.item_lines],
        labelled=part.is_labelled,
    )
    if source.objects is not None:
        labels = mapping[source.objects.labels]
        return replace(source, objects=replace(source.objects, labels=labels))

    used = np.unique(part.labels)
    if (mapping[used] == used).all():
        return source

    return replace(source, relabel=tuple(mapping.tolist()))


def _notes(parts: Sequence[Part], labelled: np.ndarray) -> list[str]:
    """What users should know about their training set, a line each."""
    trained = [part for part in parts if part.is_trained and not part.by_text]
    contradiction = contradictions([(part.where, part.classes, part.labels) for part in trained])
    # Other classes in the config would not help where files contradict each other.
    notes = [contradiction] if contradiction else [part.note for part in parts]
    notes += [f'{part.where}: {part.uncounted}' for part in parts if part.uncounted]
    frames = Counter(name for part in parts if part.is_frames for name in part.names)
    repeated = [name for name, count in frames.items() if count > 1]
    if repeated:
        notes.append(
            f'{len(repeated)} frames are in several datasets, first {repeated[0]}: each is a '
            'sample of its own in each of them, and redundant beside its copy; name a '
            'file once, in a RepeatDataset if it counts more'
        )

    if not labelled.all():
        unknown = some([part.where for part in parts if not part.is_labelled])
        notes.append(
            f'{int((~labelled).sum())} of {len(labelled)} samples have no labels '
            f'({unknown}): they are judged by their pixels alone, and no proxy learns '
            'from them'
        )

    return [note for note in notes if note]


def _check_views(parts: Sequence[Part]) -> None:
    for part in parts[1:]:
        if part.views != parts[0].views:
            raise UserError(
                f'{part.where} has the cameras {", ".join(part.views)}, but '
                f'{parts[0].where} has {", ".join(parts[0].views)}: datasets that are '
                'pruned together need the same cameras'
            )


def _check_texts(parts: Sequence[Part]) -> None:
    """Tables cannot hold what is no Unicode text, such as half a surrogate pair."""
    for part in parts:
        for text in itertools.chain(part.names, part.classes, part.scenes, *part.image_paths):
            try:
                text.encode()
            except UnicodeEncodeError:
                raise UserError(
                    f'{part.where}: {text!a} is no Unicode text: rename it in '
                    f'{part.source.ann_file}'
                ) from None


def _check_generations(parts: Sequence[Part]) -> None:
    older = [part for part in parts if part.is_temporal]
    newer = [part for part in parts if part.source.kind == 'infos' and not part.is_temporal]
    if older and newer:
        raise UserError(
            f'{older[0].where} reads temporal infos ({older[0].source.ann_file}), but '
            f'{newer[0].where} those of mmdet3d 1.x ({newer[0].source.ann_file}): a '
            'training set needs infos of one generation'
        )


def _check_counted(parts: Sequence[Part]) -> None:
    """Refuses a training on labels of which not one counts."""
    taught = [part for part in parts if part.is_labelled and part.is_trained]
    if taught and not any(len(part.labels) for part in taught):
        part = next((part for part in taught if part.uncounted), taught[0])
        raise UserError(
            f'{part.where}: there is nothing to train on in {part.source.ann_file}: '
            f'{part.uncounted or NO_ANNOTATIONS}'
        )
