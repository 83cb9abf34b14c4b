"""COCO json and its relatives (LVIS, Objects365, CityScapes, panoptic): what identifies the images, and rewriting."""

import functools
import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ..errors import UserError
from .json_records import Counts, JsonScanner, Selector, UnrecognisedJson, convert_records, load_json, rewrite_records

Id = int | float | str
SCENE_KEYS = ('scene', 'scene_token', 'video_id', 'video')


class _Image(msgspec.Struct):
    id: Id
    scene: Any = None
    scene_token: Any = None
    video_id: Any = None
    video: Any = None
    token: Any = None


class _ImageId(msgspec.Struct):
    id: Id


class _Annotation(msgspec.Struct):
    image_id: Id


class _Category(msgspec.Struct):
    name: str


class CocoIndex(NamedTuple):
    """What a COCO json says about its images.

    Attributes:
        scenes: scene name by image id; '' where the image's record has none.
        categories: names of the categories.
        frames: ``token`` by image id where images share theirs, as the cameras of a frame do in mmdet3d's mono3d files;
            empty otherwise.
    """

    scenes: dict[Id, str]
    categories: list[str]
    frames: dict[Id, str]


def scene_name(record: Mapping[str, Any]) -> str:
    """The first of ``SCENE_KEYS`` that a sample's record has as a text or whole number, as text; '' if none."""
    names = (record.get(key) for key in SCENE_KEYS)
    return next((str(name) for name in names if isinstance(name, (str, int))), '')


def index_coco(path: str | Path) -> CocoIndex:
    """Reads the image ids and scenes and the category names of a COCO json.

    Raises:
        UserError: the file is no COCO json, it has annotations and no images, two images have the same id, or the
            annotations belong to none of them.
    """
    images, annotated, categories = _read(path)
    counts = Counter(image.id for image in images)
    if len(counts) < len(images):
        repeated = [image_id for image_id, count in counts.items() if count > 1]
        raise UserError(f'{path}: {len(repeated)} image ids appear more than once, first {_some(repeated)}; '
                        'give every image an id of its own')
    if annotated and not images:
        raise UserError(f'{path} has annotations but no images: restore its images list')
    if annotated and counts.keys().isdisjoint(annotated):
        raise UserError(f'{path}: no annotation belongs to an image: image_id is for example {_some(annotated, 1)}, id '
                        f'of an image {_some(counts, 1)}; make them the same numbers or the same texts')
    scenes = {image.id: scene_name(msgspec.structs.asdict(image)) for image in images}
    tokens = {image.id: str(image.token) for image in images if image.token}
    frames = tokens if len(tokens) == len(images) and len(set(tokens.values())) < len(images) else {}
    return CocoIndex(scenes, [category.name for category in categories], frames)


def rewrite_coco(source: str | Path, target: str | Path, keep_ids: Collection[Id]) -> dict[str, Counts]:
    """Writes a COCO json with only some of the images, and the annotations that belong to them.

    Kept records are copied byte for byte; all other top-level values, the order of keys and records, and the file's
    layout stay as they are. Annotations without an image in the file go.

    Args:
        source: the COCO json; any key order and spacing.
        target: the file to write, atomically.
        keep_ids: ids of the images that stay, as they are in the file.

    Returns:
        How many ``'images'`` and ``'annotations'`` there are, and how many were kept.

    Raises:
        UserError: the file is no COCO json, has no record for one of the ids or several, or all of its annotations'
            image ids are texts where the images' are numbers, or the other way round.
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

    selectors: dict[str, Selector] = dict(images=(_ImageId, keep_image), annotations=(_Annotation, keep_annotation))
    return rewrite_records(source, target, selectors, check=functools.partial(_check, source, len(keep), texts))


def _check(source: str | Path, expected: int, texts: dict[str, set[bool]], counts: dict[str, Counts]) -> None:
    if 'images' not in counts:
        raise UserError(f"{source} has no 'images' list: it is no COCO json")
    if counts['images'].kept != expected:
        raise UserError(f'{source} has {counts["images"].kept} records for {expected} image ids to keep: it changed '
                        'since it was read, or ids appear more than once')
    kept = counts['annotations'].kept if 'annotations' in counts else 0
    if not kept and texts['images'] and texts['annotations'] and texts['images'].isdisjoint(texts['annotations']):
        raise UserError(f'{source}: image_id of the annotations and id of the images are not the same kind of value '
                        '(number or text); no annotation belongs to an image')


def _read(path: str | Path) -> tuple[list[_Image], set[Id], list[_Category]]:
    images: list[_Image] = []
    annotated: set[Id] = set()
    categories: list[_Category] = []
    try:
        with JsonScanner(path, 'reading annotations') as scanner:
            for key in scanner.members():
                if key == 'images':
                    images = [image for _, _, image in scanner.records(_Image)]
                elif key == 'annotations':
                    annotated = {record.image_id for _, _, record in scanner.records(_Annotation)}
                elif key == 'categories':
                    categories = [category for _, _, category in scanner.records(_Category)]
                else:
                    scanner.skip()
    except UnrecognisedJson:
        content = load_json(path)
        if not isinstance(content, dict):
            raise UserError(f"{path} has no 'images' list: it is no COCO json") from None
        images = convert_records(path, content, 'images', _Image)
        annotated = {record.image_id for record in convert_records(path, content, 'annotations', _Annotation)}
        categories = convert_records(path, content, 'categories', _Category)
    return images, annotated, categories


def _some(values: Iterable[Id], count: int = 3) -> str:
    return ', '.join(repr(value) for value in itertools.islice(values, count))
