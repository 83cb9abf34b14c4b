"""A wrapper that yields chosen samples only, for datasets whose file cannot be rewritten."""

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset, Compose, force_full_init
from mmengine.registry import DATASETS

from ..base.errors import UserError
from ..base.files import atomic_open
from .samples import name_samples, stored_infos


@DATASETS.register_module()
class PrunedDataset:
    """Keeps the samples of a dataset whose ids are listed, in the dataset's own order.

    Where a training pipeline returns None, mmengine draws another sample at random; here that is a
    kept one too. This needs the wrapped dataset to be a ``BaseDataset``: wrap the inner dataset,
    not a ``ConcatDataset`` around it.

    Args:
        dataset: config of any dataset, or the dataset.
        sample_ids: ids of the samples to keep (see ``name_samples``).
        ids_file: a text file with one id per line, instead of ``sample_ids``.
        lazy_init: whether to leave loading the annotations to ``full_init``.
        labels: for each label of the dataset the one that takes its place; None leaves them as they
            are.

    Raises:
        UserError: an id is not in the dataset, there are no ids, or both or none of ``sample_ids``
            and ``ids_file`` are given.

    Examples:
        >>> inner = dict(type='CocoDataset', ...)
        >>> dataset = dict(type='PrunedDataset', dataset=inner, sample_ids=['139', '285'])
    """

    def __init__(
        self,
        dataset: Any,
        sample_ids: Iterable[str] | None = None,
        ids_file: str | None = None,
        lazy_init: bool = False,
        labels: Sequence[int] | None = None,
    ) -> None:
        if (sample_ids is None) == (ids_file is None):
            raise UserError('PrunedDataset needs either sample_ids or ids_file')

        self.dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        self.sample_ids = (
            read_ids(ids_file) if ids_file is not None else [str(name) for name in sample_ids or ()]
        )
        self.labels = labels
        self._fully_initialized = False
        if not lazy_init:
            self.full_init()

    def full_init(self) -> None:
        """Loads the wrapped dataset's annotations and finds the samples to keep."""
        if self._fully_initialized:
            return

        self.dataset.full_init()
        root = getattr(self.dataset, 'data_root', None)
        wanted = set(self.sample_ids)
        names = name_samples(stored_infos(self.dataset), root)
        unknown = wanted.difference(names)
        if unknown:
            raise UserError(
                f'{len(unknown)} of {len(wanted)} sample ids are not in '
                f'{type(self.dataset).__name__} {getattr(self.dataset, "ann_file", "")}, first '
                f'{", ".join(sorted(unknown)[:3])}'
            )
        if not wanted:
            raise UserError('PrunedDataset has an empty list of sample ids')

        # (kept,) int64: position in the wrapped dataset.
        self.indices = np.array([index for index, name in enumerate(names) if name in wanted])
        if self.labels is not None:
            relabel(self.dataset, self.labels)

        self._fully_initialized = True

    @property
    def metainfo(self) -> dict[str, Any]:
        """The wrapped dataset's meta information."""
        return copy.deepcopy(self.dataset.metainfo)

    @property
    def pipeline(self) -> Compose:
        """The wrapped dataset's pipeline; hooks that switch pipelines set it."""
        return self.dataset.pipeline

    @pipeline.setter
    def pipeline(self, pipeline: Compose) -> None:
        self.dataset.pipeline = pipeline

    @force_full_init
    def get_data_info(self, index: int) -> dict[str, Any]:
        """The data info of the ``index``-th kept sample."""
        return self.dataset.get_data_info(int(self.indices[index]))

    @force_full_init
    def get_cat_ids(self, index: int) -> Any:
        """The categories in the ``index``-th kept sample."""
        return self.dataset.get_cat_ids(int(self.indices[index]))

    @force_full_init
    def __len__(self) -> int:
        return len(self.indices)

    @force_full_init
    def __getitem__(self, index: int) -> Any:
        inner = self.dataset
        if (
            not isinstance(inner, BaseDataset)
            or inner.test_mode
            or type(inner).__getitem__ != BaseDataset.__getitem__
        ):
            return inner[int(self.indices[index])]

        for _ in range(inner.max_refetch + 1):
            data = inner.prepare_data(int(self.indices[index]))
            if data is not None:
                return data
            # As BaseDataset does it: from the random state that mmengine seeds in every worker.
            index = np.random.randint(len(self))

        raise RuntimeError(
            f'no valid sample in {inner.max_refetch + 1} attempts: check the image paths and the '
            'pipeline'
        )


def relabel(dataset: Any, labels: Sequence[int]) -> None:
    """Gives the objects of a loaded dataset other labels, in place.

    Args:
        dataset: a ``BaseDataset``.
        labels: for each of its labels the new one; others stay.
    """
    infos = list(stored_infos(dataset))
    for info in infos:
        for instance in info.get('instances') or ():
            _replace(instance, 'bbox_label', labels)
        for segment in info.get('segments_info') or ():
            _replace(segment, 'category', labels)
        _replace(info, 'gt_label', labels)

    dataset.data_list = infos
    if dataset.serialize_data:
        dataset.data_bytes, dataset.data_address = dataset._serialize_data()


def _replace(record: dict[str, Any], key: str, labels: Sequence[int]) -> None:
    if key not in record:
        return
    old = np.atleast_1d(record[key])
    new = [labels[label] if 0 <= label < len(labels) else label for label in old.tolist()]
    record[key] = new if np.ndim(record[key]) else new[0]


def read_ids(path: str | Path) -> list[str]:
    """Reads a list of sample ids, one per line.

    Raises:
        UserError: the file is missing.
    """
    try:
        return [line for line in Path(path).read_bytes().decode().split('\n') if line]
    except OSError as error:
        raise UserError(
            f'the list of sample ids {path} cannot be read: {error.strerror}'
        ) from error


def write_ids(path: str | Path, sample_ids: Iterable[str]) -> None:
    """Writes a list of sample ids, one per line, atomically.

    Raises:
        UserError: an id is empty or has a line break.
    """
    sample_ids = list(sample_ids)
    for name in sample_ids:
        if not name or '\n' in name:
            raise UserError(f'sample id {name!r} does not fit on one line of {path}')

    with atomic_open(path, 'wb') as file:
        file.writelines(f'{name}\n'.encode() for name in sample_ids)
