"""Why no annotation of a COCO json counts in a training."""

from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import msgspec

from .json_records import JsonScanner, UnrecognisedJson, convert_records, load_json

NO_ANNOTATIONS = (
    'it has no annotations; where pictures without labels are meant, load them with '
    'LoadEmptyAnnotations in the pipeline'
)
_REMEDIES = {
    'crowd': 'are crowds (iscrowd=1), which mmdet ignores: set iscrowd to 0 where single objects '
    'are meant',
    'ignored': 'are marked with ignore, which mmdet leaves out: remove the mark from those that '
    'count',
    'no area': 'have an area of 0, or a box of less than a pixel or outside of the image: bbox '
    'must be x, y, width, height in pixels, and area above 0',
}


class _Annotation(msgspec.Struct):
    category_id: Any = None
    iscrowd: Any = None
    ignore: Any = None
    bbox: Any = None
    area: Any = None
    image_id: Any = None


class _Image(msgspec.Struct):
    id: Any
    width: Any = None
    height: Any = None


class _Category(msgspec.Struct):
    id: Any = None
    name: Any = None


_KINDS: dict[str, type[Any]] = dict(
    images=_Image,
    annotations=_Annotation,
    categories=_Category,
)


def explain_uncounted(path: str | Path, class_ids: Collection[Any]) -> str:
    """Says in words why no annotation of a COCO json is an object for mmdet; '' where one may be.

    Args:
        path: a file that ``index_coco`` takes.
        class_ids: ids of the categories that are classes of the dataset.
    """
    images, annotations, categories = _read(path)
    if not images:
        return 'its images list is empty'
    if not annotations:
        return NO_ANNOTATIONS
    if not categories:
        return (
            f'it has no categories, so that none of its {len(annotations)} annotations has a class'
        )

    sizes = {_hashable(image.id): image for image in images}
    names = {_hashable(category.id): category.name for category in categories}
    classes = {_hashable(class_id) for class_id in class_ids}
    tally = Counter(_reason(annotation, sizes, names, classes) for annotation in annotations)
    if 'counts' in tally:
        return ''

    reasons = [_words(reason, count, len(annotations)) for reason, count in tally.most_common()]
    strangers = [one for one in annotations if _hashable(one.category_id) not in names]
    if strangers:
        reasons.append(
            f'category_id is for example {strangers[0].category_id!r}, id of a category '
            f'{categories[0].id!r}; make them the same numbers or the same texts'
        )

    return '; '.join(reasons)


def _reason(
    annotation: _Annotation,
    sizes: Mapping[Any, _Image],
    names: Mapping[Any, Any],
    classes: Collection[Any],
) -> str:
    category = _hashable(annotation.category_id)
    if category not in names:
        return 'category'
    if _hashable(annotation.image_id) not in sizes:
        return 'image'
    if category not in classes:
        return 'class'
    if annotation.ignore:
        return 'ignored'
    if annotation.iscrowd:
        return 'crowd'

    return 'counts' if _has_area(annotation, sizes[_hashable(annotation.image_id)]) else 'no area'


def _has_area(annotation: _Annotation, image: _Image) -> bool:
    try:
        x, y, width, height = annotation.bbox
        left, right = max(x, 0), min(x + width, image.width)
        top, bottom = max(y, 0), min(y + height, image.height)
        is_inside = right - left > 0 and bottom - top > 0
        is_box = width >= 1 and height >= 1
        return bool(is_inside and annotation.area > 0 and is_box)
    except (TypeError, ValueError):
        return False


def _words(reason: str, count: int, total: int) -> str:
    who = f'all {total}' if count == total else f'{count} of {total}'
    if reason == 'category':
        what = 'have a category_id that no category has'
    elif reason == 'image':
        what = 'have an image_id that no image has'
    elif reason == 'class':
        what = 'belong to categories that are no classes of the dataset'
    else:
        what = _REMEDIES[reason]

    return f'{who} annotations {what}'


def _read(path: str | Path) -> tuple[list[_Image], list[_Annotation], list[_Category]]:
    try:
        found = _scan(path)
    except UnrecognisedJson:
        content = load_json(path)
        found = {key: convert_records(path, content, key, kind) for key, kind in _KINDS.items()}
    return found['images'], found['annotations'], found['categories']


def _scan(path: str | Path) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {key: [] for key in _KINDS}
    with JsonScanner(path, 'looking for objects') as scanner:
        for key in scanner.members():
            if key in _KINDS:
                found[key] = [record for _, _, record in scanner.records(_KINDS[key])]
            else:
                scanner.skip()
    return found


def _hashable(value: Any) -> Any:
    """Ids may be anything in a file that is wrong; 1 and '1' stay different."""
    is_id = value is None or isinstance(value, (int, float, str))
    return value if is_id else repr(value)
