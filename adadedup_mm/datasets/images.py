"""Whether the image files of a dataset are there."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..base.errors import UserError
from ..base.words import some

_IMAGE_PREFIXES = ('img', 'img_path', 'sub_data_root')


def check_folders(dataset: Any, where: str) -> None:
    """Raises UserError if a folder that ``data_prefix`` names for images does not exist."""
    for name, folder in (getattr(dataset, 'data_prefix', None) or {}).items():
        if name in _IMAGE_PREFIXES and folder and not os.path.isdir(folder):
            raise UserError(
                f'image folder {folder} does not exist (data_prefix.{name} and data_root of '
                f'{where})'
            )


def check_images(paths: Sequence[str], where: str) -> None:
    """Refuses folders of which not one image exists.

    A missing image among others counts as unreadable later on. Lists every folder once, which is
    far quicker than asking for each file, above all on network drives.
    """
    for folder, members in _by_folder(paths).items():
        if not any(_present(folder, members)):
            raise UserError(
                f'none of the {len(members)} images in {folder or "."} exists, first '
                f'{some(members)} (data_root and data_prefix of {where})'
            )


def missing_images(paths: Iterable[str]) -> list[str]:
    """Those of the paths that do not exist."""
    return [
        path
        for folder, members in _by_folder(paths).items()
        for path, present in zip(members, _present(folder, members), strict=True)
        if not present
    ]


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
