"""Clusters that the user already has."""

from collections.abc import Hashable
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from ..base.errors import UserError
from ..base.words import first_line
from ..pool import Pool
from ..pool.groups import label
from ..registry import CLUSTERERS
from .clusterer import Clusterer


@CLUSTERERS.register_module()
class FixedClusterer(Clusterer):
    """Reads the cluster of each sample from a column, instead of computing it from features.

    Args:
        column: without ``file``, one of ``'scene'``, ``'dataset'`` (the inner dataset) and
            ``'folder'`` (of the first image: the camera, where each camera has its own). With
            ``file``, the name of a column there.
        file: a ``.parquet`` or ``.csv`` file with the columns ``sample_id`` and ``column``; samples
            that are not in the training set are ignored.
    """

    looks_at: ClassVar[tuple[str, ...]] = ('samples',)

    def __init__(self, column: str = 'scene', file: str | None = None) -> None:
        if file is None and column not in ('scene', 'dataset', 'folder'):
            raise UserError(
                f'adadedup.clusterer.column is {column!r}, but must be one of scene, dataset, '
                'folder, or come with adadedup.clusterer.file'
            )
        self.column = column
        self.file = file

    def __call__(self, features: np.ndarray | None, pool: Pool, seed: int) -> np.ndarray:
        """Labels in the order in which the clusters first occur.

        Args:
            features: not used.
            pool: N samples.
            seed: not used.

        Returns:
            (N,) int32, 0..K-1.

        Raises:
            UserError: the column or the file is missing, or does not cover all samples.
        """
        if self.file is not None:
            values = _column_of_file(Path(self.file), self.column, pool.sample_ids)
            return label(values)

        if self.column == 'dataset':
            return label(pool.dataset_index.tolist())
        if self.column == 'folder':
            folders = [str(Path(paths[0]).parent) for paths in pool.image_paths]
            return label(folders)

        if pool.scenes is None:
            raise UserError(
                "adadedup.clusterer.column is 'scene', but the annotation files name no scenes; "
                'use another column, or SphericalKMeans'
            )

        return label(pool.scenes)


def _column_of_file(path: Path, column: str, sample_ids: tuple[str, ...]) -> list[Hashable]:
    """The values of ``column`` for the given samples, in their order."""
    table = _read_table(path)
    for name in ('sample_id', column):
        if name not in table.column_names:
            raise UserError(
                f"adadedup.clusterer.file {path} has no column '{name}'; it has: "
                f'{", ".join(table.column_names)}'
            )

    clusters: dict[str, Hashable] = {}
    names = table['sample_id'].cast(pa.string()).to_pylist()
    values = table[column].to_pylist()
    for sample, value in zip(names, values, strict=True):
        if clusters.setdefault(sample, value) != value:
            raise UserError(
                f"adadedup.clusterer.file {path} has two values of '{column}' for sample "
                f'{sample!r}; keep one'
            )

    missing = [sample for sample in sample_ids if clusters.get(sample) is None]
    if missing:
        raise UserError(
            f"adadedup.clusterer.file {path} has no '{column}' for {len(missing)} of "
            f'{len(sample_ids)} samples, for example {missing[0]!r}; add them'
        )

    return [clusters[sample] for sample in sample_ids]


def _read_table(path: Path) -> pa.Table:
    try:
        if path.suffix == '.parquet':
            return pyarrow.parquet.read_table(path)
        # Ids such as 000042 must stay strings.
        options = pyarrow.csv.ConvertOptions(column_types={'sample_id': pa.string()})
        return pyarrow.csv.read_csv(path, convert_options=options)
    except FileNotFoundError:
        raise UserError(f'adadedup.clusterer.file {path} does not exist') from None
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f'adadedup.clusterer.file {path} cannot be read as a table '
            f'(.parquet, otherwise csv): {first_line(error)}'
        ) from error
