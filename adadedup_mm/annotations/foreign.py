"""Which tool a file comes from that is not what its dataset reads."""

import json
from collections.abc import Collection, Mapping
from typing import Any

# Keys that the top level of a file, or the first record of a list, has together.
_FORMATS: tuple[tuple[frozenset[str], str], ...] = tuple(
    (frozenset(keys), name)
    for keys, name in (
        (('data_list',), "mmengine's own format: use BaseDetDataset"),
        (('_via_img_metadata',), 'a project of the VGG Image Annotator: export it as COCO'),
        (('filename', 'regions'), 'an export of the VGG Image Annotator: export it as COCO'),
        (
            ('shapes', 'imagePath'),
            "labelme's file of one image: convert all of them to one COCO json",
        ),
        (('objects', 'size'), "Supervisely's file of a single image: export the project as COCO"),
        (('classes', 'projectType'), "Supervisely's meta.json: export the project as COCO"),
        (('samples',), 'an export of FiftyOne: export it as COCODetectionDataset'),
        (('classes', 'labels'), 'an export of FiftyOne: export it as COCODetectionDataset'),
        (('items', 'categories'), "Datumaro's format: export it as COCO"),
        (('image', 'annotations'), "CreateML's format: export it as COCO"),
        (('data', 'annotations'), "Label Studio's format: export it as COCO"),
        (('data', 'completions'), "Label Studio's format: export it as COCO"),
        (('data_row', 'projects'), "Labelbox's format: export it as COCO"),
        (('image_id', 'category_id', 'score'), 'a list of detections, as a test writes them'),
        (('image_id', 'bbox'), 'a list of annotations without images and categories'),
        (('filename', 'height', 'width'), 'a file for ODVGDataset'),
        (('image', 'caption'), 'a file for CocoCaptionDataset'),
    )
)


def guess_format(content: Any) -> str:
    """What a loaded JSON file looks like: ``'; it looks like ...'``, or nothing."""
    found = _named(_record(content))
    if not found and isinstance(content, Mapping):
        # Some tools key the records of their images by name.
        found = _named(_record(next(iter(content.values()), None)))
    return f'; it looks like {found}' if found else ''


def _named(record: Collection[Any]) -> str:
    return next((name for keys, name in _FORMATS if keys <= set(record)), '')


def guess_text(data: bytes) -> str:
    """What a file that is no JSON is, as a predicate; '' if it looks like damaged JSON."""
    start = data.lstrip(b'\xef\xbb\xbf \t\r\n')
    if start.startswith(b'<'):
        return 'is XML, as CVAT and VOC write it, and not JSON: export it again as JSON'
    if start.startswith(b'PK\x03\x04') or start.startswith(b'\x1f\x8b'):
        return 'is a compressed archive and not JSON: unpack it'

    first, found, rest = start.partition(b'\n')
    if found and _is_object(first) and _is_object(rest.split(b'\n')[0]):
        return 'has a JSON object on each line, as ODVGDataset reads it, and is not one JSON value'

    return ''


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _record(content: Any) -> Collection[Any]:
    if isinstance(content, list):
        content = content[0] if content else {}
    return content if isinstance(content, Mapping) else {}
