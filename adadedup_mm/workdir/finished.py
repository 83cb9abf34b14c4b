"""What a finished run left in its work dir: whether it is all there, and all of it at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..base.errors import UserError
from ..base.files import sha256_value
from .damage import AGAIN, missing_file
from .manifest import Manifest, known_manifest, manifest_path, read_manifest
from .tables import CLASSES, CLUSTERS, SAMPLES

OUTPUTS = (
    'annotations',
    'config.py',
    SAMPLES.name,
    CLUSTERS.name,
    CLASSES.name,
    'manifest.json',
    'report.html',
    'stages',
)

Columns = dict[str, np.ndarray]
# What stands in arrays where a column is empty; NaN in those of floats.
_EMPTY: dict[pa.DataType, Any] = {
    pa.int32(): -1,
    pa.int64(): -1,
    pa.bool_(): False,
    pa.string(): '',
}


def finished_manifest(work_dir: Path, identity: dict[str, Any]) -> Manifest | None:
    """The manifest of a finished run of this identity; None where anything is missing."""
    manifest = known_manifest(work_dir)
    is_complete = all((work_dir / name).exists() for name in OUTPUTS)
    if manifest is None or not is_complete:
        return None
    # Work dirs of version 0.1 do not name the records.
    older = {name: value for name, value in identity.items() if name != 'records'}
    keys = [sha256_value(identity), sha256_value(older)]
    return manifest if manifest.key in keys else None


def written_files(work_dir: Path) -> list[Path]:
    """The annotation files that a finished run has written; none where there is no such run."""
    manifest = known_manifest(work_dir)
    if manifest is None:
        return []
    return [Path(file.output) for file in manifest.files]


def check_finished(work_dir: Path) -> None:
    """Raises UserError where no run has finished; what the manifest says does not matter."""
    path = manifest_path(work_dir)
    if not path.is_file():
        raise missing_file(path)


@dataclass(frozen=True)
class FinishedRun:
    """The manifest and the tables of a run of N samples, K clusters and C classes.

    Attributes:
        manifest: what the run was, and what it cost.
        sample_ids: N strings; ``scenes`` and ``reasons`` likewise, null where unknown.
        image_paths: N lists of strings.
        suspect_objects: N lists of labelled boxes, null for all but label suspects.
        partner: (N,) int64, row of the kept sample that makes a pruned one redundant, -1 without
            one.
        samples: the columns cluster, loss, kept, partner_similarity, image_similarity,
            label_suspect, map_x, map_y as (N,) arrays.
        clusters: all columns of clusters.parquet as (K,) arrays.
        classes: all columns of classes.parquet as (C,) arrays.
    """

    manifest: Manifest
    sample_ids: pa.ChunkedArray
    scenes: pa.ChunkedArray
    reasons: pa.ChunkedArray
    image_paths: pa.ChunkedArray
    suspect_objects: pa.ChunkedArray
    partner: np.ndarray
    samples: Columns
    clusters: Columns
    classes: Columns


def read_finished_run(work_dir: Path) -> FinishedRun:
    """Reads what a run left.

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

    manifest = read_manifest(work_dir)
    samples = SAMPLES.read(work_dir)
    clusters = CLUSTERS.read(work_dir)
    classes = CLASSES.read(work_dir)
    _check_same_run(work_dir, manifest, samples)
    partner = pc.index_in(samples['partner_id'], samples['sample_id'], skip_nulls=True)
    numeric = (
        'cluster',
        'loss',
        'kept',
        'partner_similarity',
        'image_similarity',
        'label_suspect',
        'map_x',
        'map_y',
    )

    return FinishedRun(
        manifest=manifest,
        sample_ids=samples['sample_id'],
        scenes=samples['scene'],
        reasons=samples['reason'],
        image_paths=samples['image_paths'],
        suspect_objects=samples['suspect_objects'],
        partner=partner.fill_null(-1).to_numpy().astype(np.int64),
        samples=_as_arrays(samples.select(numeric)),
        clusters=_as_arrays(clusters),
        classes=_as_arrays(classes),
    )


def _check_same_run(work_dir: Path, manifest: Manifest, samples: pa.Table) -> None:
    """Raises UserError where the manifest counts other samples than the table has."""
    count = len(samples)
    kept = pc.sum(samples['kept']).as_py() or 0
    told = (manifest.samples, manifest.kept, manifest.pruned)
    if (count, kept, count - kept) != told:
        raise UserError(
            f'{work_dir}: samples.parquet holds {count} samples with {kept} kept, manifest.json '
            f'says {manifest.samples} with {manifest.kept} kept: they are of different runs; '
            f'{AGAIN}'
        )


def _as_arrays(table: pa.Table) -> Columns:
    """Columns as arrays, with something of their type in empty places."""
    arrays = {}
    for name in table.column_names:
        column = table[name]
        if column.type in _EMPTY:
            column = column.fill_null(_EMPTY[column.type])
        arrays[name] = column.to_numpy()
    return arrays
