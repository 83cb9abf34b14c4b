"""Originals stay as they are, whatever a dataset class would leave beside them while it is read."""

import contextlib
import errno
import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from ..base.errors import UserError

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Audit events of the interpreter, and which of their arguments are paths that would change.
_CHANGES = {
    'os.mkdir': 1,
    'os.remove': 1,
    'os.rmdir': 1,
    'os.truncate': 1,
    'os.rename': 2,
    'os.link': 2,
    'os.symlink': 2,
}
# How many image sizes of a cache are compared with the images.
_SPOT_CHECKS = 16
# The folders that are kept as they are; one entry for each ``untouched`` that is entered.
_kept: list[list['_Folder']] = []
_is_watching = False


class _Folder(NamedTuple):
    """A folder that is kept.

    Attributes:
        path: absolute.
        is_flat: whether only the files directly in it are.
        but: folders in it that may be written to.
    """

    path: str
    is_flat: bool
    but: list[str]


class _Touched(PermissionError):
    """Something would have been written; an OSError, as classes expect where they cannot write."""


@contextlib.contextmanager
def untouched(folders: Iterable[str | Path], but: Iterable[str | Path] = ()) -> Iterator[None]:
    """Inside, Python code of this process and its children changes no file in these folders.

    Args:
        folders: with all that is below them; of the current folder only what lies in it directly.
        but: folders in which writing is allowed, if they are below one of those.

    Raises:
        UserError: something tried, and did not take the OSError for an answer.
    """
    global _is_watching
    if not _is_watching:
        sys.addaudithook(_watch)  # for good: the interpreter knows no way to take one out
        _is_watching = True

    here, allowed = os.getcwd(), [os.path.abspath(folder) for folder in but]
    paths = {os.path.abspath(folder) for folder in folders}
    _kept.append(
        [
            _Folder(path, _is_in(here, path), [other for other in allowed if _is_in(other, path)])
            for path in paths
        ]
    )
    try:
        yield
    except _Touched as error:
        raise UserError(
            f'{error.filename} would be written beside the originals, which are never written to: '
            'make it once with your own tools, then prune'
        ) from error
    finally:
        _kept.pop()


def data_folders(settings: Mapping[str, Any]) -> list[Path]:
    """The folders in which a dataset of a config has its annotations and its data."""
    root = settings.get('data_root')
    root = root if isinstance(root, (str, os.PathLike)) else ''
    prefix = settings.get('data_prefix')
    places = [
        *(prefix.values() if isinstance(prefix, Mapping) else [prefix]),
        settings.get('ann_file'),
    ]
    named = [
        Path(root, place) for place in places if isinstance(place, (str, os.PathLike)) and place
    ]

    # An annotation file or a folder of images: what is beside the one or in the other.
    return [Path(root), *(place.parent if place.is_file() else place for place in named)]


def check_size_cache(dataset: Any, where: str, ann_file: Path | None) -> None:
    """Refuses image sizes that CrowdHumanDataset takes from a file beside the data and do not fit.

    Args:
        dataset: not loaded yet.
        where: for the message.
        ann_file: its annotation file.

    Raises:
        UserError: the file lacks images of the annotation file, or has other sizes than they have.
    """
    sizes = getattr(dataset, 'extra_anns', None)
    if (
        ann_file is None
        or not getattr(dataset, 'extra_ann_exist', False)
        or not isinstance(sizes, Mapping)
    ):
        return

    file = getattr(dataset, 'extra_ann_file', 'extra_ann_file')
    remedy = f'and not those of {ann_file}: remove it, or name another extra_ann_file'
    names = [
        json.loads(line)['ID']
        for line in ann_file.read_text(encoding='utf-8').splitlines()
        if line.strip()
    ]
    missing = [name for name in names if name not in sizes]
    if missing:
        raise UserError(
            f'{where}: {file} has the image sizes of other annotations (it lacks {len(missing)} of '
            f'{len(names)}, first {missing[0]}), {remedy}'
        )

    for name in names[:: max(1, len(names) // _SPOT_CHECKS)]:
        found = _size(Path(dataset.data_prefix['img'], f'{name}.jpg'))
        if found and sorted(found) != sorted(sizes[name]):
            raise UserError(
                f'{where}: {file} has the image sizes of other images ({name} has {found[1]} x '
                f'{found[0]} pixels), {remedy}'
            )


def _size(path: Path) -> tuple[int, int] | None:
    """Height and width without the turn that EXIF may ask for; None where that cannot be read."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except Exception:  # of any damaged file
        return None


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    """The audit hook."""
    if not _kept:
        return
    if event == 'open':
        changed = arguments[:1] if arguments[2] & _WRITING else ()
    else:
        changed = arguments[: _CHANGES.get(event, 0)]

    for path in changed:
        if isinstance(path, (str, bytes, os.PathLike)) and _is_kept(
            os.path.abspath(os.fsdecode(path))
        ):
            raise _Touched(errno.EACCES, 'originals are never written to', os.fsdecode(path))


def _is_kept(path: str) -> bool:
    for folder in itertools.chain.from_iterable(_kept):
        is_inside = (
            os.path.dirname(path) == folder.path if folder.is_flat else _is_in(path, folder.path)
        )
        # The folders that lead to one in which writing is allowed may have to be made.
        if is_inside and not any(
            _is_in(path, other) or _is_in(other, path) for other in folder.but
        ):
            return True

    return False


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(os.path.join(folder, ''))
