"""Any folder with images and COCO annotations as the data of a benchmark."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..annotations.coco import scene_name
from ..base.errors import UserError
from ..base.files import write_json

# 'trainval' and 'interval' are other words.
_WORDS = {
    'train': r'(?<![A-Za-z])(?i:train(ing)?)(?![a-z])',
    'val': r'(?<![A-Za-z])(?i:val(id(ation)?)?)(?![a-z])',
    '': '',
}
_FIELDS = (
    ('images', 'id'),
    ('images', 'file_name'),
    ('annotations', 'image_id'),
    ('categories', 'name'),
)


def coco_folder(
    work_dir: Path,
    root: str | None = None,
    train: str | None = None,
    val: str | None = None,
    images: str | None = None,
    val_share: float = 0.2,
) -> dict[str, Any]:
    """Settings that put the data of ``root`` into the training config of a 2D detector.

    Args:
        work_dir: of the benchmark; gets the two parts of a file that has to be split.
        root: the folder.
        train: annotation file below it; by default the only json with the word ``train`` in its
            path, or the only json at all.
        val: likewise with ``val`` or ``valid``; without one the last part of every scene of
            ``train`` is split off, or of the whole file where its image records name no scene.
        images: folder of the images below ``root``; found by itself if they are in a usual place.
        val_share: the share that is split off.

    Raises:
        UserError: a file is missing, is no COCO file, or cannot be chosen.
    """
    if root is None:
        raise UserError(
            'the data is missing: name a folder with images and COCO annotations '
            'by --cfg-options data.root=FOLDER'
        )

    folder = Path(root).absolute()
    if not folder.is_dir():
        raise UserError(f'data.root {folder} is no folder')
    train_file, val_file = _annotation_files(folder, train, val)
    content = _read(train_file)
    val_content = content if val_file is None else _read(val_file)
    if val_file is not None and val_file.resolve() == train_file.resolve():
        raise UserError(
            f'data.train and data.val are both {val_file}: name another file, '
            'or leave data.val out and a part is split off'
        )

    train_images = _image_folder(folder, content, images)
    val_images = _image_folder(folder, val_content, images)
    if val_file is None:
        train_file, val_file = _split(content, work_dir / 'data', val_share)
    classes = [item['name'] for item in content['categories']]
    val_dataset = _dataset(folder, val_file, val_images, classes)
    testing = dict(dataset=dict(val_dataset, test_mode=True))
    evaluator = dict(
        type='CocoMetric',
        metric='bbox',
        ann_file=str(val_file),
    )

    return dict(
        num_classes=len(classes),
        val_dataloader=testing,
        test_dataloader=testing,
        val_evaluator=evaluator,
        test_evaluator=evaluator,
        train_dataloader=dict(dataset=_dataset(folder, train_file, train_images, classes)),
    )


def _annotation_files(folder: Path, train: str | None, val: str | None) -> tuple[Path, Path | None]:
    """The named files, or those whose paths say what they are for; the second may be missing."""
    paths = folder.rglob('*.json')
    names = sorted(path.relative_to(folder).as_posix() for path in paths)
    train_name = train or _only(names, 'train', folder) or _only(names, '', folder)
    if train_name is None:
        raise UserError(f'{folder} holds no COCO annotation file (*.json)')
    train_file = folder / train_name
    others = [name for name in names if folder / name != train_file]
    val_name = val or _only(others, 'val', folder)
    if not val_name:
        return train_file, None
    return train_file, folder / val_name


def _only(files: Sequence[str], part: str, folder: Path) -> str | None:
    """The one file whose path holds the word; of several, that of COCO's naming for boxes."""
    found = [name for name in files if re.search(_WORDS[part], name)]
    if len(found) > 1:
        of_boxes = [name for name in found if Path(name).name.startswith('instances')]
        found = of_boxes or found

    if len(found) > 1:
        key = part or 'train'
        raise UserError(
            f'{folder} holds {", ".join(found[:5])}: say which one by --cfg-options data.{key}=FILE'
        )

    return found[0] if found else None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        if all(_has_records(content, key) for key in ('images', 'annotations', 'categories')):
            _check_fields(content, path)
            return content
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'{path} cannot be read as COCO annotations: {type(error).__name__}: {error}'
        ) from error

    raise UserError(f'{path} has no images, annotations or categories')


def _has_records(content: dict[str, Any], key: str) -> bool:
    records = content[key]
    return isinstance(records, list) and len(records) > 0


def _check_fields(content: dict[str, Any], path: Path) -> None:
    for key, field in _FIELDS:
        if not all(field in record for record in content[key]):
            raise UserError(f'{path}: a record of {key!r} has no {field!r}')


def _split(content: dict[str, Any], folder: Path, share: float) -> tuple[Path, Path]:
    """Writes both parts; neighbours stay together: what is alike must not be on both sides."""
    if not isinstance(share, float) or not 0 < share < 1:
        raise UserError(f'data.val_share is {share!r}, but must be a number above 0 and below 1')
    val_ids = _last_of_scenes(content['images'], share)
    if not val_ids or len(val_ids) == len(content['images']):
        raise UserError(
            f'{len(content["images"])} images are too few to split off a share of {share:g}: '
            'name a validation file by --cfg-options data.val=FILE'
        )

    train_file = folder / 'instances_train.json'
    val_file = folder / 'instances_val.json'
    write_json(train_file, _part(content, val_ids, inside=False))
    write_json(val_file, _part(content, val_ids, inside=True))

    return train_file, val_file


def _last_of_scenes(images: Sequence[dict[str, Any]], share: float) -> set[Any]:
    """Ids of the last images of every scene."""
    scenes: dict[str, list[Any]] = {}
    for image in images:
        scenes.setdefault(scene_name(image), []).append(image['id'])
    last: set[Any] = set()
    seen = 0
    for members in scenes.values():
        # Rounded over all scenes so far, so that a share of small ones comes together, too.
        count = round(share * (seen + len(members))) - round(share * seen)
        last.update(members[len(members) - count :])
        seen += len(members)

    return last


def _part(content: dict[str, Any], ids: set[Any], inside: bool) -> dict[str, Any]:
    """The annotation file of the images that are among these ids, or of those that are not."""
    return dict(
        content,
        images=[image for image in content['images'] if (image['id'] in ids) == inside],
        annotations=[
            item for item in content['annotations'] if (item['image_id'] in ids) == inside
        ],
    )


def _image_folder(folder: Path, content: dict[str, Any], named: str | None) -> str:
    name = content['images'][0]['file_name']
    if named is not None:
        if not (folder / named / name).is_file():
            raise UserError(
                f'data.images: {folder / named} has no {name}, the first image of the annotations'
            )

        return named

    folders = [folder, *sorted(folder.glob('*/')), *sorted(folder.glob('*/*/'))]
    found = [place.relative_to(folder).as_posix() for place in folders if (place / name).is_file()]
    if not found:
        raise UserError(
            f'{name} is not in {folder} or two levels below: '
            'say where the images are by --cfg-options data.images=FOLDER'
        )

    return found[0]


def _dataset(folder: Path, ann_file: Path, images: str, classes: list[str]) -> dict[str, Any]:
    return dict(
        type='CocoDataset',
        data_root=str(folder),
        ann_file=str(ann_file),
        data_prefix=dict(img=f'{images}/'),
        metainfo=dict(classes=classes),
    )
