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


def read_pool(config: Config, check_images: bool = True) -> tuple[Pool, list[Source]]:
    """Reads the samples that a config's training set offers, after each dataset's ``filter_cfg``.

    Wrappers around datasets are seen through: repeating or mixing samples does not change which
    ones there are. An image with all its lines (captions, entries of several files, repeated
    ``indices``) is one sample. Objects that training ignores (``ignore_flag``: crowds, difficult
    or tiny objects) are left out, and those of datasets whose pipeline does not load them. In
    image classification a label is an object without box; images that are arrays, such as
    CIFAR's, have no paths.

    Args:
        config: an mmdet config; its ``default_scope`` holds while this runs.
        check_images: whether every image folder must hold some of its images; of frames, those of
            the cameras that the ``views`` of the ``adadedup`` dict choose.

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
    views = options.get('views', 'front') if check_images else ()
    with DefaultScope.overwrite_default_scope(config.get('default_scope')), collector_paused():
        paths = inner_datasets(config)
        parts = [_read_dataset(config, path, trust, views) for path in paths]

    _check_views(parts)
    _check_generations(parts)
    _check_texts(parts)
    _check_counted(parts)
    databases = find_databases(config, paths)
    parts = [
        replace(
            part,
            source=replace(
                part.source,
                temporal=temporal,
                trust=trust,
                databases=found,
            ),
        )
        for part, found in zip(parts, databases, strict=True)
    ]

    return _pool_of(parts)


def _read_dataset(
    config: Config, path: ConfigPath, trust: bool, views: str | Sequence[str]
) -> Part:
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

    if views:
        columns = choose_views(part.views, views) if len(part.views) > 1 else [0]
        check_images(list(camera_paths(part.image_paths, columns)), where)

    records = records_digest(stored_infos(dataset), without=NOTED)

    return replace(part, source=replace(part.source, records=records))


def _pool_of(parts: Sequence[Part]) -> tuple[Pool, list[Source]]:
    """Puts the lines of all parts together to samples."""
    several = len(parts) > 1
    classes = tuple(dict.fromkeys(name for part in parts for name in part.classes))
    position = {name: number for number, name in enumerate(classes)}
    maps = [np.array([position[name] for name in part.classes], np.int32) for part in parts]
    lines = [len(part.names) for part in parts]
    dataset_index = np.repeat(np.arange(len(parts), dtype=np.int32), lines)
    names = [
        f'{i}:{name}' if several else name for i, part in enumerate(parts) for name in part.names
    ]
    scenes = [
        f'{i}:{scene}' if several and scene else scene
        for i, part in enumerate(parts)
        for scene in part.scenes
    ]
    paths = list(itertools.chain.from_iterable(part.image_paths for part in parts))
    are_frames = np.repeat([part.is_frames for part in parts], lines).tolist()
    sample, first = group_lines(list(map(line_key, paths, names, are_frames)))
    counts = np.concatenate([part.counts for part in parts])
    labels = np.concatenate(
        [mapping[part.labels] for mapping, part in zip(maps, parts, strict=True)]
    )
    boxes = np.concatenate([part.boxes for part in parts])
    if len(first) < len(sample):
        counts, labels, boxes = merge_objects(sample, counts, labels, boxes)

    labelled = np.zeros(len(first), bool)
    labelled[sample[np.repeat([part.is_labelled for part in parts], lines)]] = True
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
        notes=tuple(_notes(parts, labelled)),
    )
    samples = np.split(sample, np.cumsum(lines)[:-1])

    return pool, [_source_of(*of_part) for of_part in zip(parts, maps, samples, strict=True)]


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
