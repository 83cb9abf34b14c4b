"""The data of a benchmark: made, found, or said plainly what is missing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..base.checks import choose
from ..base.errors import UserError
from ..minidrive.build import WorldOptions, make_world
from .coco_folder import coco_folder


def prepare(data: dict[str, Any], work_dir: Path) -> dict[str, Any]:
    """Makes sure that the data is there.

    Args:
        data: the benchmark's ``data`` dict; ``type`` is one of the kinds below, the rest are its
            arguments.
        work_dir: of the benchmark, for files that are derived from the data.

    Returns:
        Settings to merge into every training config.

    Raises:
        UserError: the data is missing, or an argument is wrong.
    """
    arguments = dict(data)
    kind = arguments.pop('type', None)
    choose(kind, _KINDS, 'data.type')
    try:
        return _KINDS[kind](work_dir, **arguments)
    except TypeError as error:
        raise UserError(f'data: {error}') from error


def _none(work_dir: Path) -> dict[str, Any]:
    """The training configs know where their data is."""
    return {}


def _files(work_dir: Path, paths: list[str], text: str) -> dict[str, Any]:
    """Files and folders that must exist; ``text`` says how to get them."""
    missing = [path for path in paths if not Path(path).exists()]
    if missing:
        raise UserError(f'{missing[0]} is missing: {text}')
    return {}


def _minidrive(work_dir: Path, root: str, **options: Any) -> dict[str, Any]:
    """The built-in world at ``root``, made if it is not there.

    ``adadedup_mm.minidrive.build.WorldOptions`` describes the options.
    """
    formats = options.pop('formats', ('coco',))
    make_world(root, WorldOptions(formats=tuple(formats), **options))
    return {}


_KINDS: dict[str, Callable[..., dict[str, Any]]] = dict(
    none=_none,
    files=_files,
    minidrive=_minidrive,
    coco_folder=coco_folder,
)
