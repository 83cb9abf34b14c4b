"""A run's decisions for other programs: a CSV file, or a dataset for FiftyOne."""

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc

from ..base.errors import UserError
from ..base.files import atomic_open, write_json
from .finished import check_finished
from .tables import SAMPLES

# Of samples in memory as dicts.
_BATCH = 4096
_COLUMNS = (
    'sample_id',
    'image_path',
    'kept',
    'reason',
    'partner_id',
    'partner_similarity',
    'similarity',
    'cluster',
    'loss',
    'tags',
    'dataset',
    'scene',
    'image_paths',
)


def export_csv(work_dir: Path, target: Path) -> int:
    """Writes a line for every sample, atomically; unknown values are empty.

    The columns are those of samples.parquet, and ``image_path``, the first image; ``image_paths``,
    all of them as a JSON list; ``tags``: ``kept`` or ``pruned``, and ``label_suspect``, joined by
    semicolons.

    Args:
        work_dir: of a finished pruning run.
        target: the file to write.

    Returns:
        How many samples there are.

    Raises:
        UserError: there is no finished run, or the file cannot be written.
    """
    table = _read_samples(work_dir)
    try:
        with atomic_open(target, 'w') as file:
            writer = csv.DictWriter(file, _COLUMNS, lineterminator='\n', extrasaction='ignore')
            writer.writeheader()
            for row in _rows(table):
                writer.writerow(row | _in_csv(row))
    except OSError as error:
        raise _unwritable(target, error) from error

    return len(table)


def _in_csv(row: dict[str, Any]) -> dict[str, Any]:
    """What a CSV file says otherwise than the table, or besides."""
    paths = row['image_paths'] or []
    return dict(
        image_path=paths[0] if paths else None,
        image_paths=json.dumps(paths, ensure_ascii=False),
        kept=str(row['kept']).lower(),
        tags=';'.join(_tags(row)),
    )


def export_fiftyone(work_dir: Path, target: Path) -> int:
    """Writes a folder that FiftyOne reads as ``fiftyone.types.FiftyOneDataset``.

    Images stay where they are. A frame becomes a sample for each of its cameras. Fields:
    ``pruning_id`` and ``partner`` (sample ids), ``partner_similarity``, ``density_score``,
    ``cluster``, ``loss``, ``reason``, ``scene``, ``view`` (the number of the camera); tags as of
    ``export_csv``. Unknown values are left out. The format is the one of plain JSON that FiftyOne
    had before 0.8 and still reads, since the newer one describes its database.

    Args:
        work_dir: of a finished pruning run.
        target: the folder to write; the two files of an earlier export are replaced.

    Returns:
        How many samples FiftyOne will have.

    Raises:
        UserError: there is no finished run, or the folder cannot be written.
    """
    table = _read_samples(work_dir)
    run = dict(pruning_run=str(work_dir.absolute()))
    try:
        with atomic_open(target / 'samples.json', 'w') as file:
            count = _write_fiftyone_samples(file, table)
        write_json(target / 'metadata.json', dict(media_type='image', info=run))
    except OSError as error:
        raise _unwritable(target, error) from error
    return count


def _write_fiftyone_samples(file: IO[str], table: pa.Table) -> int:
    """Writes a sample for each image; returns how many."""
    count = 0
    file.write('{"samples": [')
    for row in _rows(table):
        for view, path in enumerate(row['image_paths'] or []):
            file.write(',\n' if count else '\n')
            json.dump(_fiftyone_sample(row, path, view), file, ensure_ascii=False)
            count += 1
    file.write('\n]}\n')
    return count


def _fiftyone_sample(row: dict[str, Any], path: str, view: int) -> dict[str, Any]:
    sample = dict(
        filepath=os.path.abspath(path),
        tags=_tags(row),
        view=view,
    )
    fields = dict(
        pruning_id=row['sample_id'],
        partner=row['partner_id'],
        partner_similarity=row['partner_similarity'],
        density_score=row['similarity'],
        cluster=row['cluster'],
        loss=row['loss'],
        reason=row['reason'],
        scene=row['scene'],
    )
    known = {name: value for name, value in fields.items() if value is not None}
    return sample | known


def _read_samples(work_dir: Path) -> pa.Table:
    """The samples of a finished run, those of strategies without clusters with an unknown one."""
    check_finished(work_dir)
    table = SAMPLES.read(work_dir)
    clusters = table['cluster']
    has_cluster = pc.greater_equal(clusters, 0)
    known = pc.if_else(has_cluster, clusters, None)
    place = table.column_names.index('cluster')
    return table.set_column(place, 'cluster', known)


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=_BATCH):
        yield from batch.to_pylist()


def _tags(row: dict[str, Any]) -> list[str]:
    tags = ['kept' if row['kept'] else 'pruned']
    if row['label_suspect']:
        tags.append('label_suspect')
    return tags


def _unwritable(target: Path, error: OSError) -> UserError:
    why = error.strerror
    return UserError(f'{target} cannot be written ({why}): choose another --out')
