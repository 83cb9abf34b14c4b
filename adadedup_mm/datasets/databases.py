"""Ground-truth databases, from which training pipelines paste objects into other frames."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..annotations.infos import filter_database, load_database
from ..annotations.json_records import Counts
from ..errors import UserError
from ..pool import Pool


class Database(NamedTuple):
    """A ``*_dbinfos_train.pkl``.

    Attributes:
        path: of the sampler's dict in the config.
        file: absolute.
        stride: the dataset takes every n-th frame of its infos (Waymo's ``load_interval``); the database all.
    """

    path: tuple[str | int, ...]
    file: Path
    stride: int


def find_databases(settings: Mapping[str, Any], path: tuple[str | int, ...]) -> tuple[Database, ...]:
    """The databases that a dataset's pipeline draws from (``ObjectSample``'s ``db_sampler``).

    Raises:
        UserError: a file is missing.
    """
    found = []
    for sampler_path, sampler in _samplers(settings.get('pipeline') or [], (*path, 'pipeline')):
        file = Path(sampler['info_path']).absolute()
        if not file.is_file():
            raise UserError(f'ground-truth database {file} does not exist here ({".".join(map(str, sampler_path))}.'
                            "info_path): make it with mmdet3d's tools/create_data.py, or take ObjectSample out of the "
                            'pipeline')
        found.append(Database(sampler_path, file, settings.get('load_interval', 1)))
    return tuple(found)


def _samplers(node: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Mapping[str, Any]]]:
    if isinstance(node, Mapping):
        if isinstance(node.get('info_path'), str):
            yield path, node
        for key, value in node.items():
            yield from _samplers(value, (*path, key))
    elif isinstance(node, Sequence) and not isinstance(node, str):
        for index, value in enumerate(node):
            yield from _samplers(value, (*path, index))


def write_database(database: Database, target: Path, pool: Pool, members: np.ndarray, kept: np.ndarray, prefix: str,
                   trust: bool) -> Counts:
    """Writes a database without the objects of the pruned samples, and of frames that the dataset passes over.

    Objects name their frame in ``image_idx``: by token, by ``sample_idx``, or (mmdet3d 1.x) by its position in the
    dataset. Which of these it is shows in the classes of the objects.

    Args:
        database: where it is.
        target: the file to write, atomically.
        pool: N samples.
        members: (N,) bool, the samples of the dataset that the database was made from.
        kept: (N,) bool.
        prefix: what the ids of the dataset's samples start with in the pool.
        trust: as for ``load_pickle``.

    Raises:
        UserError: it is no database, or one of another dataset.
    """
    indices = np.flatnonzero(members)
    by_id = {pool.sample_ids[i].removeprefix(prefix): int(i) for i in indices}
    by_position = {str(position * database.stride): int(i) for position, i in enumerate(indices)}
    objects: dict[Any, Counter[str]] = defaultdict(Counter)
    for name, items in load_database(database.file, trust).items():
        for item in items:
            objects[item['image_idx']][name] += 1
    addresses = max((by_position, by_id), key=lambda frames: _agreement(pool, frames, objects))
    strangers = [image for image in objects if str(image) not in addresses]
    if len(strangers) == len(objects) and objects:
        raise UserError(f'{database.file} belongs to another dataset: none of its image_idx (such as {strangers[0]}) '
                        'is a frame of the training set')
    keep = [image for image in objects if str(image) in addresses and kept[addresses[str(image)]]]
    return filter_database(database.file, target, keep, trust)


def _agreement(pool: Pool, frames: Mapping[str, int], objects: Mapping[Any, Counter[str]]) -> int:
    """How many frames of the database have no more objects of any class than the samples they would be."""
    agreeing = 0
    for image, names in objects.items():
        sample = frames.get(str(image))
        if sample is not None:
            labels = pool.labels[pool.offsets[sample]:pool.offsets[sample + 1]]
            have = Counter(pool.classes[label] for label in labels)
            agreeing += all(count <= have[name] for name, count in names.items() if name in pool.classes)
    return agreeing
