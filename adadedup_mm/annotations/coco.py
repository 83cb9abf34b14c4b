"""COCO json and its relatives (LVIS, Objects365, CityScapes, panoptic): ids, and rewriting."""

import functools
import itertools
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import msgspec

from ..base.errors import UserError
from .foreign import guess_format
from .formats import FORMATS, Counts, Lines
from .json_records import (
    JsonScanner,
    Selector,
    UnrecognisedJson,
    convert_records,
    load_json,
    rewrite_records,
)

Id = int | float | str
SCENE_KEYS = ('scene', 'scene_token', 'video_id', 'video')


class _Image(msgspec.Struct):
    id: Id
    scene: Any = None
    scene_token: Any = None
    video_id: Any = None
    video: Any = None
    token: Any = None
    file_name: Any = None


class _ImageId(msgspec.Struct):
    id: Id


class _Annotation(msgspec.Struct):
    image_id: Id


class _Category(msgspec.Struct):
    name: Any
    id: Id | None = None


class _Content(NamedTuple):
    """What is read of a file; ``keys`` are those of its top level."""

    keys: Collection[str]
    images: list[_Image]
    annotated: set[Id]
    categories: list[_Category]


class CocoIndex(NamedTuple):
    """What a COCO json says about its images.

    Attributes:
        scenes: scene name by image id; '' where the image's record has none.
        categories: names of the categories, in the file's order.
        names: name of the category by its id.
        frames: ``token`` by image id where images share theirs and are pictures of several cameras,
            each in a folder of its own, as in mmdet3d's mono3d files; empty otherwise.
    """

    scenes: dict[Id, str]
    categories: list[str]
    names: dict[Id | None, str]
    frames: dict[Id, str]


def scene_name(record: Mapping[str, Any]) -> str:
    """The first of ``SCENE_KEYS`` that a sample's record has as a text or whole number, as text.

    It is '' where there is none.
    """
    for key in SCENE_KEYS:
        name = record.get(key)
        if isinstance(name, (str, int)):
            return str(name)
    return ''


def index_coco(path: str | Path) -> CocoIndex:
    """Reads the image ids and scenes and the categories of a COCO json.

    Raises:
        UserError: the file is no COCO json, it has annotations and no images, two images or two
            categories have the same id, a category's name is no text, or the annotations belong to
            none of the images.
    """
    content = _read(path)
    _check_content(path, content)
    scenes = {}
    for image in content.images:
        scenes[image.id] = scene_name(msgspec.structs.asdict(image))

    names = _category_names(path, content.categories)
    return CocoIndex(scenes, list(names.values()), names, _frames(content.images))


def _check_content(path: str | Path, content: _Content) -> None:
    counts = Counter(image.id for image in content.images)
    repeated = [image_id for image_id, count in counts.items() if count > 1]
    if repeated:
        raise UserError(
            f'{path}: {len(repeated)} image ids appear more than once, first {_some(repeated)}; '
            'give every image an id of its own'
        )
    if 'images' not in content.keys:
        raise UserError(
            f"{path} has no 'images' list: it is no COCO json{guess_format(load_json(path))}"
        )
    if content.annotated and not content.images:
        raise UserError(f'{path} has annotations but no images: restore its images list')
    if content.annotated and counts.keys().isdisjoint(content.annotated):
        raise UserError(
            f'{path}: no annotation belongs to an image: image_id is for example '
            f'{_some(content.annotated, 1)}, id of an image {_some(counts, 1)}; make them the '
            'same numbers or the same texts'
        )
    if 'categories' not in content.keys:
        raise UserError(
            f"{path} has no 'categories' list, which mmdet reads the classes from: restore it"
        )


def _category_names(path: str | Path, categories: Sequence[_Category]) -> dict[Id | None, str]:
    names: dict[Id | None, str] = {}
    for category in categories:
        name = category_text(category.name)
        if name is None:
            raise UserError(
                f'{path}: the name of category {category.id!r} is {category.name!r}, which is no '
                'text: give it a name'
            )
        if category.id is not None and category.id in names:
            raise UserError(
                f'{path}: the categories {names[category.id]!r} and {name!r} have the same id '
                f'{category.id!r}: give every category an id of its own'
            )

        names[category.id] = name

    return names


def category_text(name: Any) -> str | None:
    """A category's name as text, also if it is a number; None for anything else."""
    is_number = isinstance(name, (int, float)) and not isinstance(name, bool)
    if is_number:
        return str(name)
    return name if isinstance(name, str) else None


def _frames(images: Sequence[_Image]) -> dict[Id, str]:
    """``token`` by image id; nothing unless every image has one.

    Nor is there anything where two pictures of a token share a folder.
    """
    folders: dict[str, list[str]] = defaultdict(list)
    for image in images:
        if not image.token or not isinstance(image.file_name, str):
            return {}
        camera = PurePath(image.file_name).parent.name
        folders[str(image.token)].append(camera)

    if len(folders) == len(images):
        return {}

    for cameras in folders.values():
        if len(set(cameras)) < len(cameras):
            return {}

    return {image.id: str(image.token) for image in images}


@FORMATS.register_module('coco')
class CocoFormat:
    """COCO json; a line is an image, or a frame whose cameras are images."""

    def recognises(self, lines: Lines) -> bool:
        """Whether the dataset is ``CocoDataset`` or made from it."""
        return hasattr(lines.dataset, 'COCOAPI') and not lines.are_frames

    def addresses(self, lines: Lines) -> list[Id]:
        """The ids of the images."""
        return [info['img_id'] for info in lines.infos]

    def rewrite(
        self,
        source: Path,
        target: Path,
        keep: Sequence[Id | tuple[Id, ...]],
        temporal: str,
        trust: bool,
    ) -> Counts:
        """See ``Format`` and ``rewrite_coco``; of a frame the ids of its images are in ``keep``."""
        images: list[Id] = []
        for line in keep:
            images += line if isinstance(line, tuple) else [line]
        return rewrite_coco(source, target, images)['images']


def rewrite_coco(
    source: str | Path, target: str | Path, keep_ids: Collection[Id]
) -> dict[str, Counts]:
    """Writes a COCO json with only some of the images, and the annotations that belong to them.

    Kept records are copied byte for byte; all other top-level values, the order of keys and
    records, and the file's layout stay as they are. Annotations without an image in the file go.

    Args:
        source: the COCO json; any key order and spacing.
        target: the file to write, atomically.
        keep_ids: ids of the images that stay, as they are in the file.

    Returns:
        How many ``'images'`` and ``'annotations'`` there are, and how many were kept.

    Raises:
        UserError: the file is no COCO json, has no record for one of the ids or several, or all of
            its annotations' image ids are texts where the images' are numbers, or the other way
            round.
    """
    keep = frozenset(keep_ids)
    # Whether ids are texts: of images, and of annotations that go.
    texts: dict[str, set[bool]] = {'images': set(), 'annotations': set()}

    def keep_image(_: int, image: _ImageId) -> bool:
        texts['images'].add(isinstance(image.id, str))
        return image.id in keep

    def keep_annotation(_: int, annotation: _Annotation) -> bool:
        if annotation.image_id in keep:
            return True
        texts['annotations'].add(isinstance(annotation.image_id, str))
        return False

    selectors: dict[str, Selector] = dict(
        images=(_ImageId, keep_image),
        annotations=(_Annotation, keep_annotation),
    )
    check = functools.partial(_check_counts, source, len(keep), texts)

    return rewrite_records(source, target, selectors, check)


def _check_counts(
    source: str | Path, expected: int, texts: dict[str, set[bool]], counts: dict[str, Counts]
) -> None:
    if 'images' not in counts:
        raise UserError(f"{source} has no 'images' list: it is no COCO json")
    if counts['images'].kept != expected:
        raise UserError(
            f'{source} has {counts["images"].kept} records for {expected} image ids to keep: it '
            'changed since it was read, or ids appear more than once'
        )
    if 'annotations' in counts and counts['annotations'].kept:
        return

    have_both = texts['images'] and texts['annotations']
    if have_both and texts['images'].isdisjoint(texts['annotations']):
        raise UserError(
            f'{source}: image_id of the annotations and id of the images are not the same kind of '
            'value (number or text); no annotation belongs to an image'
        )


def _read(path: str | Path) -> _Content:
    try:
        return _scan(path)
    except UnrecognisedJson:
        content = load_json(path)

    if not isinstance(content, dict) or 'images' not in content:
        raise UserError(f"{path} has no 'images' list: it is no COCO json{guess_format(content)}")

    annotations = convert_records(path, content, 'annotations', _Annotation)
    annotated = {record.image_id for record in annotations}
    images = convert_records(path, content, 'images', _Image)
    categories = convert_records(path, content, 'categories', _Category)

    return _Content(content.keys(), images, annotated, categories)


def _scan(path: str | Path) -> _Content:
    keys: list[str] = []
    images: list[_Image] = []
    annotated: set[Id] = set()
    categories: list[_Category] = []
    with JsonScanner(path, 'reading annotations') as scanner:
        for key in scanner.members():
            keys.append(key)
            if key == 'images':
                images = [image for _, _, image in scanner.records(_Image)]
            elif key == 'annotations':
                annotated = {record.image_id for _, _, record in scanner.records(_Annotation)}
            elif key == 'categories':
                categories = [category for _, _, category in scanner.records(_Category)]
            else:
                scanner.skip()

    return _Content(keys, images, annotated, categories)


def _some(values: Iterable[Id], count: int = 3) -> str:
    first = itertools.islice(values, count)
    return ', '.join(map(repr, first))
