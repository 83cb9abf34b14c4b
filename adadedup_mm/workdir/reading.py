"""Reads and checks what a pruning run left in its work dir."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..base.errors import UserError
from ..base.words import one_line
from .manifest import AGAIN, Manifest, read_manifest

SAMPLES = dict(
    sample_id=pa.string(),
    image_paths=pa.list_(pa.string()),
    cluster=pa.int32(),
    partner_id=pa.string(),
    loss=pa.float64(),
    kept=pa.bool_(),
    reason=pa.string(),
)
# What older runs and other strategies may lack; an absent column reads as unknown everywhere.
SAMPLES_MORE = dict(
    partner_similarity=pa.float64(),
    label_suspect=pa.bool_(),
    scene=pa.string(),
    map_x=pa.float64(),
    map_y=pa.float64(),
)
CLUSTERS = dict(
    cluster=pa.int32(),
    size=pa.int64(),
    kept_initial=pa.int64(),
    kept=pa.int64(),
    threshold=pa.float64(),
    loss_kept=pa.float64(),
    loss_pruned=pa.float64(),
    gap=pa.float64(),
    gap_se=pa.float64(),
    shift=pa.float64(),
)
CLASSES = {
    'class': pa.string(),
    'instances': pa.int64(),
    'instances_kept': pa.int64(),
    'images': pa.int64(),
    'images_kept': pa.int64(),
}

Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class Run:
    """The tables of one pruning run of N samples, K clusters and C classes.

    Attributes:
        manifest: what the run was, and what it cost.
        sample_ids: N strings; ``scenes`` and ``reasons`` likewise, null where unknown.
        image_paths: N lists of strings.
        partner: (N,) int64, row of the kept sample that makes a pruned one redundant, -1 without
            one.
        samples: the columns cluster, loss, kept, partner_similarity, label_suspect, map_x, map_y as
            (N,) arrays.
        clusters: all columns of clusters.parquet as (K,) arrays.
        classes: all columns of classes.parquet as (C,) arrays.
    """

    manifest: Manifest
    sample_ids: pa.ChunkedArray
    scenes: pa.ChunkedArray
    reasons: pa.ChunkedArray
    image_paths: pa.ChunkedArray
    partner: np.ndarray
    samples: Columns
    clusters: Columns
    classes: Columns


def read_run(work_dir: Path) -> Run:
    """Reads the tables of a pruning run.

    Args:
        work_dir: the folder with samples.parquet, clusters.parquet, classes.parquet and
            manifest.json.

    Raises:
        UserError: a file is missing, unreadable, lacks a column or key, or belongs to another run
            than the rest.
    """
    if not work_dir.is_dir():
        raise UserError(
            f'{work_dir} is not a folder: name the work dir of a finished tools/prune.py run'
        )
    manifest = read_manifest(work_dir / 'manifest.json')
    samples = read_table(work_dir / 'samples.parquet', SAMPLES, SAMPLES_MORE)
    clusters = read_table(work_dir / 'clusters.parquet', CLUSTERS)
    classes = read_table(work_dir / 'classes.parquet', CLASSES)
    kept = pc.sum(samples['kept']).as_py() or 0
    if (len(samples), kept, len(samples) - kept) != (
        manifest.samples,
        manifest.kept,
        manifest.pruned,
    ):
        raise UserError(
            f'{work_dir}: samples.parquet holds {len(samples)} samples with {kept} kept, '
            'manifest.json '
            f'says {manifest.samples} with {manifest.kept} kept: they are of different runs; '
            f'{AGAIN}'
        )
    partner = pc.index_in(samples['partner_id'], samples['sample_id'], skip_nulls=True)
    numeric = ('cluster', 'loss', 'kept', 'partner_similarity', 'label_suspect', 'map_x', 'map_y')
    return Run(
        manifest,
        samples['sample_id'],
        samples['scene'],
        samples['reason'],
        samples['image_paths'],
        partner.fill_null(-1).to_numpy().astype(np.int64),
        _columns(samples.select(numeric)),
        _columns(clusters),
        _columns(classes),
    )


def read_table(
    path: Path, required: dict[str, pa.DataType], more: dict[str, pa.DataType] | None = None
) -> pa.Table:
    """The named columns of a parquet file in the given types; absent ones of ``more`` are all null.

    Raises:
        UserError: the file is missing, unreadable, or lacks a required column.
    """
    try:
        table = pq.read_table(path, partitioning=None)
        names = table.column_names
    except FileNotFoundError:
        raise UserError(
            f'{path} is missing: name the work dir of a finished tools/prune.py run'
        ) from None
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise UserError(f'{path} cannot be read ({one_line(error, 200)}): {AGAIN}') from None
    missing = [name for name in required if name not in names]
    if missing:
        raise UserError(
            f'{path} lacks the column{"s" * (len(missing) > 1)} {", ".join(missing)}: {AGAIN}'
        )
    columns = {}
    for name, kind in (required | (more or {})).items():
        try:
            columns[name] = table[name].cast(kind) if name in names else _nulls(len(table), kind)
            # Also that texts are texts.
            columns[name].validate(full=True)
        except pa.ArrowException:
            raise UserError(
                f'{path}: the column {name} is not one of type {kind}: {AGAIN}'
            ) from None
        if pa.types.is_list(kind) and pc.list_flatten(columns[name]).null_count:
            raise UserError(f'{path}: the column {name} has lists with empty places: {AGAIN}')
    return pa.table(columns)


def _nulls(length: int, kind: pa.DataType) -> pa.ChunkedArray:
    return pa.chunked_array([pa.nulls(length, kind)])


def _columns(table: pa.Table) -> Columns:
    """Columns as arrays: null is NaN in floats, -1 in integers, False in booleans, empty in strings."""
    fill = {pa.int32(): -1, pa.int64(): -1, pa.bool_(): False, pa.string(): ''}
    return {
        name: (column.fill_null(fill[column.type]) if column.type in fill else column).to_numpy()
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
