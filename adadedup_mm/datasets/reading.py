"""Reading the samples of a training config: builds its datasets without pipelines and takes what they have loaded."""

import contextlib
import copy
import difflib
import inspect
import itertools
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, DefaultScope

from ..annotations.coco import CocoIndex, index_coco, scene_name
from ..annotations.infos import info_records
from ..annotations.pickles import collector_paused, plain_pickles
from ..errors import UserError
from ..features import choose_views
from ..images import Reader
from ..images.training import reader_of
from ..pool import Pool
from ..progress import progress
from .databases import find_databases
from .frames import ViewObjects, check_cameras, check_kind, is_frames, read_frames, show_cameras
from .samples import name_samples, sample_id, stored_infos
from .sources import ConfigPath, Source, dotted, inner_datasets, type_name, value_at

_RECORD = 'adadedup_record'
# More classes without names are a mistake.
_MOST_LABELS = 100_000
_IMAGE_PREFIXES = ('img', 'img_path', 'sub_data_root')


@dataclass(frozen=True)
class _Part:
    """One inner dataset's share of the pool; see ``Pool`` for what the fields mean."""

    source: Source
    sample_ids: list[str]
    image_paths: list[tuple[str, ...]]
    views: tuple[str, ...]
    image_sizes: np.ndarray
    classes: list[str]
    counts: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    scenes: list[str]
    is_temporal: bool = False


def read_pool(config: Config, check_images: bool = True) -> tuple[Pool, list[Source]]:
    """Reads the samples that a config's training set offers, after each dataset's own ``filter_cfg``.

    Wrappers around datasets are seen through: repeating or mixing samples does not change which ones there are. Objects
    that training ignores (``ignore_flag``: crowds, difficult or tiny objects) are left out. In image classification a
    label is an object without box; images that are arrays, such as CIFAR's, have no paths.

    Args:
        config: an mmdet config; its ``default_scope`` holds while this runs.
        check_images: whether every image folder must hold some of its images; of frames, those of the cameras that
            the ``views`` of the ``adadedup`` dict choose.

    Returns:
        The pool, and where its samples come from: one source for each inner dataset.

    Raises:
        UserError: there is no training set; an annotation file or image folder is missing; an annotation file is
            broken, has the same image id twice, or none of the classes; no sample is left; a dataset cannot be built.
    """
    options = config.get('adadedup') or {}
    trust, temporal = bool(options.get('trust_pickles', False)), options.get('temporal', 'relink')
    with DefaultScope.overwrite_default_scope(config.get('default_scope')), collector_paused():
        views = options.get('views', 'front') if check_images else ()
        parts = [_read_dataset(value_at(config, path), path, trust, views) for path in inner_datasets(config)]
    _check_views(parts)
    _check_generations(parts)
    _check_texts(parts)
    parts = [replace(part, source=replace(part.source, temporal=temporal, trust=trust)) for part in parts]
    several = len(parts) > 1
    classes = tuple(dict.fromkeys(name for part in parts for name in part.classes))
    position = {name: index for index, name in enumerate(classes)}
    maps = [np.array([position[name] for name in part.classes], np.int32) for part in parts]
    labels = [mapping[part.labels] for mapping, part in zip(maps, parts, strict=True)]
    sources = [_relabelled(part.source, mapping) for mapping, part in zip(maps, parts, strict=True)]
    names = [f'{i}:{name}' if several else name for i, part in enumerate(parts) for name in part.sample_ids]
    scenes = [f'{i}:{scene}' if several and scene else scene for i, part in enumerate(parts) for scene in part.scenes]
    pool = Pool(
        sample_ids=tuple(names),
        image_paths=tuple(itertools.chain.from_iterable(part.image_paths for part in parts)),
        views=parts[0].views,
        image_sizes=np.concatenate([part.image_sizes for part in parts]),
        classes=classes,
        offsets=np.concatenate([[0], np.cumsum(np.concatenate([part.counts for part in parts]))]).astype(np.int64),
        labels=np.concatenate(labels),
        boxes=np.concatenate([part.boxes for part in parts]),
        dataset_index=np.repeat(np.arange(len(parts), dtype=np.int32), [len(part.sample_ids) for part in parts]),
        scenes=tuple(scenes) if any(scenes) else None)
    return pool, sources


def _relabelled(source: Source, mapping: np.ndarray) -> Source:
    """The source with its objects' labels as indices into the pool's classes."""
    if source.objects is None:
        return source
    return replace(source, objects=replace(source.objects, labels=mapping[source.objects.labels]))


def _check_views(parts: Sequence[_Part]) -> None:
    for part in parts[1:]:
        if part.views != parts[0].views:
            raise UserError(f'{dotted(part.source.path)} has the cameras {", ".join(part.views)}, but '
                            f'{dotted(parts[0].source.path)} has {", ".join(parts[0].views)}: datasets that are pruned '
                            'together need the same cameras')


def _check_texts(parts: Sequence[_Part]) -> None:
    """Tables cannot hold what is no Unicode text, such as half a surrogate pair."""
    for part in parts:
        for text in itertools.chain(part.sample_ids, part.classes, part.scenes, *part.image_paths):
            try:
                text.encode()
            except UnicodeEncodeError:
                raise UserError(f'{dotted(part.source.path)}: {text!a} is no Unicode text: rename it in '
                                f'{part.source.ann_file}') from None


def _check_generations(parts: Sequence[_Part]) -> None:
    older = [part for part in parts if part.is_temporal]
    newer = [part for part in parts if part.source.kind == 'infos' and not part.is_temporal]
    if older and newer:
        raise UserError(f'{dotted(older[0].source.path)} reads temporal infos ({older[0].source.ann_file}), but '
                        f'{dotted(newer[0].source.path)} those of mmdet3d 1.x ({newer[0].source.ann_file}): a training '
                        'set needs infos of one generation')


def _read_dataset(settings: Mapping[str, Any], path: ConfigPath, trust: bool, views: str | Sequence[str]) -> _Part:
    """``views``: cameras of frames whose images must be there; empty if no image has to be."""
    where = f'{dotted(path)} ({type_name(settings)})'
    dataset = _build(settings, where)
    ann_file = _annotation_file(dataset, where)
    if views:
        _check_folders(dataset, where)
    # CocoDataset and everything made from it.
    index = index_coco(ann_file) if ann_file and hasattr(dataset, 'COCOAPI') else None
    filters = getattr(dataset, 'filter_cfg', None) or {}
    if index and index.frames:
        # A frame goes or stays with all its cameras, so that none of them may be missing here.
        dataset.filter_cfg = None
    _load(dataset, where, ann_file, trust)
    _check_classes(dataset, where)
    if index and index.categories and not dataset.cat_ids:
        own = dataset.metainfo.get('classes') or ()
        raise UserError(f'{where}: none of its classes ({_some(own)}) is a category of {ann_file} '
                        f'({_some(index.categories)}): set metainfo=dict(classes=...) to names of the file')
    with _naming(where, ann_file):
        if index and index.frames and ann_file:
            part = _take_views(dataset, path, where, ann_file, index, bool(filters.get('filter_empty_gt')))
        else:
            part = _take_samples(dataset, path, where, ann_file, index, reader_of(settings))
    if views:
        several = len(part.views) > 1
        _check_images(list(camera_paths(part.image_paths, choose_views(part.views, views) if several else [0])), where)
    return replace(part, source=replace(part.source, databases=find_databases(settings, path)))


def _check_classes(dataset: Any, where: str) -> None:
    classes = dataset.metainfo.get('classes')
    is_list = isinstance(classes, (list, tuple)) and all(isinstance(name, str) for name in classes)
    if classes is not None and not is_list:
        raise UserError(f'{where}: classes of the metainfo is {classes!r}, but must be a list of names')


def _build(settings: Mapping[str, Any], where: str) -> Any:
    """The dataset without pipeline, and with its annotations still to be loaded if it is a ``BaseDataset``."""
    settings = copy.deepcopy(settings)
    kind = _dataset_class(settings, where)
    parameters = inspect.signature(kind).parameters
    takes_more = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    changes = dict(pipeline=[], lazy_init=True) if inspect.isclass(kind) and issubclass(kind, BaseDataset) else {}
    changes = {name: value for name, value in changes.items() if takes_more or name in parameters}
    try:
        dataset = DATASETS.build({**settings, **changes})
    except Exception as error:
        known = (getattr(kind, 'METAINFO', None) or {}).get('classes') or ()
        metainfo = settings.get('metainfo')
        given = metainfo.get('classes') if isinstance(metainfo, Mapping) else None
        unknown = [name for name in given if name not in known] if isinstance(given, (list, tuple)) else []
        if unknown and known:
            raise UserError(f'{where} does not know the classes {_some(unknown)} of its metainfo, but '
                            f'{_some(known)}: use these names, or the dataset type that the annotations are for'
                            ) from error
        raise UserError(f'{where} cannot be built: {_words(error)}') from error
    show_cameras(dataset, settings.get('data_prefix') or {})
    return dataset


def _dataset_class(settings: Mapping[str, Any], where: str) -> Callable[..., Any]:
    kind = settings.get('type')
    if callable(kind):
        return kind
    with DATASETS.switch_scope_and_registry(settings.get('_scope_')) as registry:
        found = None
        # A name with dots is imported, which may raise anything.
        with contextlib.suppress(Exception):
            found = registry.get(kind) if isinstance(kind, str) else None
        if found is None:
            guess = difflib.get_close_matches(str(kind), registry.module_dict, n=1)
            hint = f'did you mean {guess[0]!r}?' if guess else 'check default_scope and custom_imports'
            raise UserError(f'{where}: the dataset type {kind!r} is not registered; {hint}')
    return found


def _annotation_file(dataset: Any, where: str) -> Path | None:
    ann_file = getattr(dataset, 'ann_file', None)
    if not ann_file:
        return None
    if not os.path.isfile(ann_file):
        raise UserError(f'annotation file {ann_file} does not exist here (ann_file and data_root of {where})')
    return Path(ann_file).absolute()


def _check_folders(dataset: Any, where: str) -> None:
    for name, folder in (getattr(dataset, 'data_prefix', None) or {}).items():
        if name in _IMAGE_PREFIXES and folder and not os.path.isdir(folder):
            raise UserError(f'image folder {folder} does not exist (data_prefix.{name} and data_root of {where})')


def _load(dataset: Any, where: str, ann_file: Path | None, trust: bool) -> None:
    if not isinstance(dataset, BaseDataset):
        return
    # Serialising saves memory for data loading workers, of which there are none.
    dataset.serialize_data = False
    _watch_records(dataset)

    def check(content: Any) -> None:
        if hasattr(dataset, 'box_type_3d'):
            info_records(content, ann_file or '')
            if 'infos' in content:
                raise UserError(f'{where} cannot read {ann_file}, which holds older infos: use BEVFormerDataset for '
                                "it, or make infos with mmdet3d's tools/create_data.py")
            check_kind(dataset, content, where, ann_file)

    try:
        with _naming(where, ann_file), plain_pickles(ann_file or '', trust, check):
            dataset.full_init()
    finally:
        # It refers to the dataset, whose gigabytes would wait for the garbage collector.
        del dataset.parse_data_info


@contextlib.contextmanager
def _naming(where: str, ann_file: Path | None) -> Iterator[None]:
    """Turns what goes wrong with the content of an annotation file into one line."""
    try:
        yield
    except UserError:
        raise
    except _BadRecord as error:
        raise UserError(f'{where} cannot read the record with {error.name} of {ann_file}: {_words(error.__cause__)}'
                        ) from error
    except FileNotFoundError as error:
        raise UserError(f'{where} needs a file that does not exist: {error.filename!r}') from error
    except json.JSONDecodeError as error:
        raise UserError(f'{ann_file} is not valid JSON: {error}; restore the file') from error
    except Exception as error:
        # What odd values raise depends on the class that meets them.
        raise UserError(f'{where} cannot read {ann_file}: {_words(error)}') from error


class _BadRecord(Exception):
    def __init__(self, name: Any) -> None:
        super().__init__(name)
        self.name = name


def _watch_records(dataset: BaseDataset) -> None:
    """Makes the dataset note in each data info the position of its record, and name the record that it fails on."""
    parse, positions = dataset.parse_data_info, itertools.count()

    def parse_and_note(raw: Any, *args: Any, **kwargs: Any) -> Any:
        position = next(positions)
        try:
            parsed = parse(raw, *args, **kwargs)
        except Exception as error:
            raise _BadRecord(_record_name(raw, position)) from error
        for info in parsed if isinstance(parsed, list) else [parsed]:
            if isinstance(info, dict):
                info[_RECORD] = position
        return parsed

    dataset.parse_data_info = parse_and_note


def _record_name(raw: Any, position: int) -> str:
    if isinstance(raw, Mapping):
        raw = raw.get('raw_img_info', raw)
        for key in ('token', 'sample_idx', 'xml_path', 'file_name', 'img_path', 'img_id'):
            if isinstance(raw.get(key), (str, int)):
                return f'{key} {raw[key]}'
    return f'number {position}'


def _take_samples(dataset: Any, path: ConfigPath, where: str, ann_file: Path | None,
                  index: CocoIndex | None, reader: Reader) -> _Part:
    infos = list(stored_infos(dataset))
    if not infos:
        raise UserError(f'{where} is empty: no sample of {ann_file} passes its filter_cfg')
    if is_frames(dataset, infos):
        return _take_frames(dataset, path, where, ann_file, infos, reader)
    names = name_samples(infos, getattr(dataset, 'data_root', None))
    _check_names(names, where, ann_file)
    counts, labels, boxes = _take_objects(infos)
    kind, native_ids = _address(dataset, ann_file, infos, names)
    scenes = [index.scenes.get(info['img_id'], '') if index else scene_name(info) for info in infos]
    return _Part(
        source=Source(kind, path, ann_file, tuple(native_ids)), sample_ids=names,
        image_paths=[() if 'img' in info else (_image_path(info, where),) for info in infos], views=('image',),
        image_sizes=_sizes(infos), classes=_classes(dataset, labels, where), counts=counts, labels=labels, boxes=boxes,
        scenes=scenes)


def _take_frames(dataset: Any, path: ConfigPath, where: str, ann_file: Path | None,
                 infos: Sequence[Mapping[str, Any]], reader: Reader) -> _Part:
    """Frames of 3D infos; what a dataset splits into cameras is put together again."""
    frames = [list(items) for _, items in itertools.groupby(infos, key=lambda info: info[_RECORD])]
    names = [sample_id(items[0]) for items in frames]
    _check_names(names, where, ann_file)
    read = read_frames(dataset, frames, where, reader)
    # Validation frames may come without labels: they are only compared with those of the training.
    if not len(read.labels) and not dataset.test_mode:
        raise UserError(f'{where}: no frame of {ann_file} has an object of its classes '
                        f'({_some(dataset.metainfo["classes"])}): there is nothing to train on')
    is_pickle = ann_file is not None and ann_file.suffix in ('.pkl', '.pickle')
    return _Part(
        source=Source('infos' if is_pickle else 'ids', path, ann_file, tuple(names), objects=read.objects,
                      items=read.items),
        sample_ids=names, image_paths=read.image_paths, views=read.views,
        image_sizes=read.objects.sizes[::len(read.views)], classes=_classes(dataset, read.labels, where),
        counts=read.counts, labels=read.labels, boxes=read.boxes, scenes=read.scenes,
        is_temporal=getattr(dataset, 'is_temporal', False))


def _take_views(dataset: Any, path: ConfigPath, where: str, ann_file: Path, index: CocoIndex, skip_empty: bool
                ) -> _Part:
    """Frames whose cameras are images of a COCO json, each in a folder of its own; see ``CocoIndex.frames``."""
    frames: dict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for info in stored_infos(dataset):
        frames[index.frames[info['img_id']]][Path(_image_path(info, where)).parent.name] = info
    if skip_empty:
        frames = {name: cameras for name, cameras in frames.items()
                  if any(info.get('instances') for info in cameras.values())}
    if not frames:
        raise UserError(f'{where} is empty: no sample of {ann_file} passes its filter_cfg')
    views = tuple(next(iter(frames.values())))
    for name, cameras in frames.items():
        check_cameras(cameras, views, f'{where}: frame {name}')
    infos = [cameras[view] for cameras in frames.values() for view in views]
    counts, labels, boxes = _take_objects(infos)
    sizes = _sizes(infos)
    in_first = np.repeat(np.arange(len(infos)) % len(views) == 0, counts)
    native = [tuple(cameras[view]['img_id'] for view in views) for cameras in frames.values()]
    source = Source('coco', path, ann_file, tuple(native), items=len(views), objects=ViewObjects(
        sizes, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), labels, boxes))
    return _Part(
        source=source, sample_ids=list(frames), views=views, image_sizes=sizes[::len(views)],
        image_paths=[tuple(cameras[view]['img_path'] for view in views) for cameras in frames.values()],
        classes=_classes(dataset, labels, where), counts=counts.reshape(-1, len(views)).sum(axis=1), labels=labels,
        boxes=np.where(in_first[:, None], boxes, np.float32(np.nan)),
        scenes=[index.scenes[ids[0]] for ids in native])


def _check_names(names: Sequence[str], where: str, ann_file: Path | None) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise UserError(f'{where}: {len(repeated)} sample ids appear more than once in {ann_file}, first '
                        f'{_some(repeated)}; give every sample an id of its own')


def _address(dataset: Any, ann_file: Path | None, infos: Sequence[Mapping[str, Any]], names: Sequence[str]
             ) -> tuple[Literal['coco', 'image_set', 'data_list', 'ids'], Sequence[Any]]:
    """How a dataset is written with fewer samples, and what addresses its samples there."""
    # mmdet demands as many proposals as the annotation file has images.
    if ann_file is None or getattr(dataset, 'proposal_file', None):
        return 'ids', names
    if hasattr(dataset, 'COCOAPI'):
        return 'coco', [info['img_id'] for info in infos]
    if all('xml_path' in info for info in infos):
        return 'image_set', names
    records = [info.get(_RECORD) for info in infos]
    own_format = getattr(type(dataset), 'load_data_list', None) is BaseDataset.load_data_list
    if own_format and ann_file.suffix == '.json' and None not in records and len(set(records)) == len(records):
        return 'data_list', records
    return 'ids', names


def _take_objects(infos: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Objects per sample (n,) int64, their labels (m,) int32, and their boxes (m, 4) float32."""
    labels, boxes, ends = [], [], []
    with progress(len(infos), 'reading samples') as bar:
        for position, info in enumerate(infos):
            try:
                for instance in counted_instances(info):
                    box = instance.get('bbox', ())
                    labels.append(instance['bbox_label'])
                    boxes.append(box if len(box) == 4 else (np.nan,) * 4)
            except (AttributeError, TypeError, ValueError) as error:
                raise _BadRecord(_record_name(info, position)) from error
            ends.append(len(labels))
            bar.update()
    with np.errstate(over='ignore'):
        coordinates = np.array(boxes, np.float32).reshape(-1, 4)
    coordinates[~np.isfinite(coordinates).all(axis=1)] = np.nan
    return np.diff(ends, prepend=0), _whole(labels, 'bbox_label'), coordinates


def _sizes(infos: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """(n, 2) int32 height and width, 0 where unknown."""
    sizes = [(info.get('height') or 0, info.get('width') or 0) for info in infos]
    return _whole(sizes, 'height or width').reshape(-1, 2)


def _whole(values: Sequence[Any], name: str) -> np.ndarray:
    """The values as int32; raises ValueError for what is no whole number of at least 0 or does not fit."""
    array = np.asarray(values, np.float64)
    good = (array == np.floor(array)) & (array >= 0) & (array < 2**31)
    if not good.all():
        raise ValueError(f'{name} is {array[~good][0]:g}')
    return array.astype(np.int32)


def counted_instances(info: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The objects of a sample that training does not ignore; each label of a classified image is one without box."""
    if 'gt_label' in info:
        yield from (dict(bbox_label=int(label)) for label in np.atleast_1d(info['gt_label']))
    for instance in info.get('instances') or ():
        if instance.get('bbox_label', -1) >= 0 and not instance.get('ignore_flag'):
            yield instance


def read_again(config: Config, source: Source) -> Any:
    """The inner dataset of a source of ``read_pool``, loaded once more and without pipeline."""
    settings, where = value_at(config, source.path), dotted(source.path)
    with DefaultScope.overwrite_default_scope(config.get('default_scope')), collector_paused():
        dataset = _build(settings, where)
        _load(dataset, where, source.ann_file, source.trust)
    return dataset


def _classes(dataset: Any, labels: np.ndarray, where: str) -> list[str]:
    classes = dataset.metainfo.get('classes')
    needed = int(labels.max(initial=-1)) + 1
    if classes is None:
        if needed > _MOST_LABELS:
            raise UserError(f'{where}: an object has label {needed - 1}, and no names of classes are given: set '
                            'metainfo=dict(classes=...)')
        return [str(label) for label in range(needed)]
    if needed > len(classes):
        raise UserError(f'{where}: an object has label {needed - 1}, but there are only {len(classes)} classes: set '
                        'metainfo=dict(classes=...)')
    return list(classes)


def _image_path(info: Mapping[str, Any], where: str) -> str:
    path = info.get('img_path')
    if not isinstance(path, str):
        raise UserError(f'{where} yields samples without img_path; such datasets cannot be pruned')
    return path


def _check_images(paths: Sequence[str], where: str) -> None:
    """Refuses folders of which not one image exists; a missing image among others counts as unreadable later on.

    Lists every folder once, which is far quicker than asking for each file, above all on network drives.
    """
    for folder, members in _by_folder(paths).items():
        if not any(_present(folder, members)):
            raise UserError(f'none of the {len(members)} images in {folder or "."} exists, first {_some(members)} '
                            f'(data_root and data_prefix of {where})')


def missing_images(paths: Iterable[str]) -> list[str]:
    """Those of the paths that do not exist."""
    return [path for folder, members in _by_folder(paths).items()
            for path, present in zip(members, _present(folder, members), strict=True) if not present]


def camera_paths(image_paths: Iterable[Sequence[str]], columns: Iterable[int]) -> dict[str, None]:
    """The distinct images of some cameras, in order; samples that are arrays have none."""
    columns = list(columns)
    return dict.fromkeys(paths[column] for paths in image_paths if paths for column in columns)


def _by_folder(paths: Iterable[str]) -> dict[str, list[str]]:
    folders: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        folders[os.path.dirname(path)].append(path)
    return folders


def _present(folder: str, members: Sequence[str]) -> Iterator[bool]:
    """Whether each of the files is in the folder, which is listed once."""
    try:
        with os.scandir(folder or '.') as entries:
            names = {entry.name for entry in entries}
    except OSError:
        names = set()
    return (os.path.basename(path) in names or os.path.exists(path) for path in members)


def _some(names: Sequence[Any]) -> str:
    return ', '.join(map(str, names[:3])) + (', ...' if len(names) > 3 else '')


def _words(error: BaseException | None) -> str:
    """Type and first line of an exception."""
    lines = str(error).strip().splitlines()
    return f'{type(error).__name__}: {lines[0]}' if lines else type(error).__name__
