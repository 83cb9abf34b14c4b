"""Ground-truth databases, from which training pipelines paste objects into other frames."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..annotations.databases import DatabaseCounts, judge_objects, load_database, write_database
from ..annotations.frame_index import FrameIndex, InfoPart
from ..annotations.infos import info_records
from ..annotations.pickles import collector_paused, load_pickle
from ..base.errors import UserError


class Database(NamedTuple):
    """A ``*_dbinfos_train.pkl``.

    Attributes:
        path: of the sampler's dict in the config.
        file: absolute.
    """

    path: tuple[str | int, ...]
    file: Path


def find_databases(
    config: Mapping[str, Any], inner: Sequence[tuple[str | int, ...]]
) -> list[tuple[Database, ...]]:
    """The databases that the training draws from (``ObjectSample``'s ``db_sampler``).

    Args:
        config: the training config.
        inner: paths of its inner datasets. Samplers in the pipelines of wrappers and of hooks are
            listed with the first of these.

    Returns:
        For each inner dataset its databases.

    Raises:
        UserError: a file is missing.
    """
    found: list[list[Database]] = [[] for _ in inner]
    roots = [
        (config['train_dataloader']['dataset'], ('train_dataloader', 'dataset')),
        (config.get('custom_hooks') or [], ('custom_hooks',)),
    ]
    for path, sampler in (pair for node, root in roots for pair in _samplers(node, root)):
        if not any('pipeline' in str(key) for key in path):
            continue
        file = Path(sampler['info_path']).absolute()
        if not file.is_file():
            raise UserError(
                f'ground-truth database {file} does not exist here ({".".join(map(str, path))}.'
                "info_path): make it with mmdet3d's tools/create_data.py, or take ObjectSample out "
                'of the '
                'pipeline'
            )

        owners = [number for number, prefix in enumerate(inner) if path[: len(prefix)] == prefix]
        found[owners[0] if owners else 0].append(Database(path, file))

    return [tuple(databases) for databases in found]


def _samplers(
    node: Any, path: tuple[str | int, ...]
) -> Iterator[tuple[tuple[str | int, ...], Mapping[str, Any]]]:
    if isinstance(node, Mapping):
        if isinstance(node.get('info_path'), str):
            yield path, node
        for key, value in node.items():
            yield from _samplers(value, (*path, key))
    elif isinstance(node, Sequence) and not isinstance(node, str):
        for index, value in enumerate(node):
            yield from _samplers(value, (*path, index))


@collector_paused()
def write_databases(
    targets: Mapping[Path, Sequence[Path]], parts: Sequence[InfoPart], trust: bool
) -> dict[Path, DatabaseCounts]:
    """Writes databases without the objects of pruned frames.

    An object stays if its frame does, in whichever part of the training set that is, or if the
    training set does not have its frame at all.

    Args:
        targets: for each database the files to write, atomically.
        parts: of the training set, in its order.
        trust: as for ``load_pickle``.

    Raises:
        UserError: a database is none, is one of another dataset, or does not say of which frame an
            object is.
    """
    if not targets:
        return {}

    index = FrameIndex(parts, {part.path: _load_infos(part.path, trust) for part in parts})
    counts = {}
    for file, copies in targets.items():
        content = load_database(file, trust)
        stays, counts[file] = judge_objects(content, index, file)
        for copy in copies:
            write_database(content, stays, copy)

    return counts


def _load_infos(path: Path, trust: bool) -> Mapping[str, Any]:
    try:
        is_json = path.suffix == '.json'
        content = json.loads(path.read_bytes()) if is_json else load_pickle(path, trust)
        info_records(content, path)
    except (UserError, ValueError) as error:
        raise UserError(
            'which objects of a ground-truth database are of pruned frames can only be '
            f'told with 3D infos, but: {error}; take ObjectSample out of the pipeline'
        ) from error

    result: Mapping[str, Any] = content
    return result
