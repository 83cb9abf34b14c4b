"""The data of a benchmark: made, found, or said plainly what is missing."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..base.checks import choose
from ..base.errors import UserError
from ..minidrive.build import WorldOptions, make_world
from .coco_folder import coco_folder


def prepare(data: dict[str, Any], work_dir: Path, seeds: Sequence[int] = ()) -> dict[str, Any]:
    """Makes sure that the data is there.

    Args:
        data: the benchmark's ``data`` dict; ``type`` is one of the kinds below, the rest are its
            arguments. With ``world_per_seed`` each seed has a world of its own.
        work_dir: of the benchmark, for files that are derived from the data.
        seeds: of the benchmark.

    Returns:
        Settings to merge into every training config.

    Raises:
        UserError: the data is missing, or an argument is wrong.
    """
    settings: dict[str, Any] = {}
    for part in _worlds(data, seeds):
        arguments = dict(part)
        kind = arguments.pop('type', None)
        choose(kind, _KINDS, 'data.type')
        try:
            settings = _KINDS[kind](work_dir, **arguments)
        except TypeError as error:
            raise UserError(f'data: {error}') from error
    return settings


def has_worlds(data: dict[str, Any]) -> bool:
    """Whether each seed of the benchmark has a world of its own.

    Raises:
        UserError: the option fits no such data.
    """
    wanted = data.get('world_per_seed', False)
    if not isinstance(wanted, bool):
        raise UserError(f'data.world_per_seed is {wanted!r}, but must be True or False')
    if wanted and data.get('type') != 'minidrive':
        raise UserError("data.world_per_seed is for data of type='minidrive': leave it out")
    if wanted and 'seed' in data:
        raise UserError('data.seed is what world_per_seed sets: leave one of the two out')
    if wanted and not isinstance(data.get('root'), str):
        raise UserError('data.root is missing: name the folder of the worlds')
    return wanted


def in_world(value: Any, data: dict[str, Any], seed: int) -> Any:
    """A config's value with all paths below ``data.root`` leading into the world of a seed.

    ``<root>/coco/`` becomes ``<root>/<seed>/coco/``. Without ``world_per_seed`` nothing changes.
    """
    if not has_worlds(data):
        return value
    root = data['root'].rstrip('/')
    return _moved(value, root, f'{root}/{seed}')


def _moved(value: Any, old: str, new: str) -> Any:
    if isinstance(value, dict):
        return {key: _moved(item, old, new) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_moved(item, old, new) for item in value)
    if isinstance(value, str) and (value == old or value.startswith(f'{old}/')):
        return new + value.removeprefix(old)
    return value


def _worlds(data: dict[str, Any], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """The ``data`` dict, of every world if there are several."""
    if not has_worlds(data):
        return [data]
    rest = {key: value for key, value in data.items() if key != 'world_per_seed'}
    root = data['root'].rstrip('/')
    return [dict(rest, root=f'{root}/{seed}', seed=seed) for seed in seeds]


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
