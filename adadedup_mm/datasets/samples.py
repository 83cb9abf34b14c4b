"""What a dataset yields before its pipeline, and what a sample is called."""

import os
import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mmengine.dataset import BaseDataset

from ..base.errors import UserError

ID_KEYS = ('img_id', 'token', 'sample_idx')


def sample_id(
    info: Mapping[str, Any], data_root: str | None = None, where: str = 'the dataset'
) -> str:
    """The id of a sample, which stays the same whatever is filtered or pruned from its dataset.

    Args:
        info: the sample's data info as the dataset stores it (see ``stored_infos``).
        data_root: the dataset's; ids that are paths are relative to it.
        where: what to call the dataset in a message.

    Returns:
        ``img_id`` (COCO, VOC), else ``token`` or ``sample_idx`` (3D infos), else the image's path.

    Raises:
        UserError: the info has none of these.
    """
    for key in ID_KEYS:
        if info.get(key) is not None:
            return str(info[key])

    path = info.get('img_path')
    if not isinstance(path, str):
        raise UserError(
            f'{where} yields samples with none of {", ".join(ID_KEYS)} and img_path (they have '
            f'{", ".join(map(str, info))}); such datasets cannot be pruned: list the '
            'images of videos in a COCO json and name that'
        )

    return _below(path, data_root)


def name_samples(
    infos: Iterable[Mapping[str, Any]], data_root: str | None = None, where: str = 'the dataset'
) -> list[str]:
    """The ids of all entries of a dataset.

    Arrays without a name, such as CIFAR's, are called by their positions. Entries of one id are
    about one image. An id that two images have is none: they are called by their paths.

    Args:
        infos: from ``stored_infos``.
        data_root: as for ``sample_id``.
        where: likewise.

    Raises:
        UserError: see ``sample_id``.
    """
    names, paths = [], []
    for position, info in enumerate(infos):
        names.append(str(position) if is_nameless(info) else sample_id(info, data_root, where))
        path = info.get('img_path')
        paths.append(path if isinstance(path, str) and 'images' not in info else None)

    shared = _shared_names(names, paths)
    return [
        _below(path, data_root) if path is not None and name in shared else name
        for name, path in zip(names, paths, strict=True)
    ]


def _shared_names(names: Sequence[str], paths: Sequence[str | None]) -> set[str]:
    """The names that images of several paths have."""
    if len(set(names)) == len(names):
        return set()
    first: dict[str, str | None] = {}
    return {
        name
        for name, path in zip(names, paths, strict=True)
        if first.setdefault(name, path) != path
    }


def _below(path: str, folder: str | None) -> str:
    """A path relative to a folder, if it is below it."""
    return path.removeprefix(os.path.join(folder, '') if folder else '')


def is_nameless(info: Mapping[str, Any]) -> bool:
    """Whether a data info holds the image itself and nothing to call it by."""
    return (
        'img' in info
        and not isinstance(info.get('img_path'), str)
        and all(info.get(key) is None for key in ID_KEYS)
    )


def stored_infos(dataset: Any) -> Iterator[dict[str, Any]]:
    """Yields the data info of every sample as the annotation file gave it.

    ``get_data_info`` would copy each one and replace ``sample_idx``, the id of 3D samples, by its
    position.
    """
    if not isinstance(dataset, BaseDataset):
        yield from (dataset.get_data_info(index) for index in range(len(dataset)))
        return

    dataset.full_init()
    if not dataset.serialize_data:
        yield from dataset.data_list
        return

    start = 0
    for end in dataset.data_address:
        yield pickle.loads(memoryview(dataset.data_bytes[start:end]))
        start = end
