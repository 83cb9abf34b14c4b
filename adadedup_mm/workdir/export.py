"""A run's decisions for other programs: a CSV file, or a dataset for FiftyOne."""

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..base.errors import UserError
from ..base.files import atomic_open, write_json
from .reading import SAMPLES, SAMPLES_MORE, read_table

_MORE = SAMPLES_MORE | dict(similarity=pa.float64(), dataset=pa.int32())
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
    count, rows = 0, _rows(work_dir)
    try:
        with atomic_open(target, 'w') as file:
            writer = csv.DictWriter(file, _COLUMNS, lineterminator='\n', extrasaction='ignore')
            writer.writeheader()
            for row in rows:
                paths = row['image_paths'] or []
                row.update(
                    image_path=paths[0] if paths else None,
                    image_paths=json.dumps(paths, ensure_ascii=False),
                    kept=str(row['kept']).lower(),
                    tags=';'.join(_tags(row)),
                )
                writer.writerow(row)
                count += 1
    except OSError as error:
        raise _unwritable(target, error) from error
    return count


def export_fiftyone(work_dir: Path, target: Path) -> int:
    """Writes a folder that FiftyOne reads as ``fiftyone.types.FiftyOneDataset``; images stay where they are.

    A frame becomes a sample for each of its cameras. Fields: ``pruning_id`` and ``partner`` (sample
    ids), ``partner_similarity``, ``density_score``, ``cluster``, ``loss``, ``reason``, ``scene``,
    ``view`` (the number of the camera); tags as of ``export_csv``. Unknown values are left out. The
    format is the one of plain JSON that FiftyOne had before 0.8 and still reads, since the newer
    one describes its database.

    Args:
        work_dir: of a finished pruning run.
        target: the folder to write; the two files of an earlier export are replaced.

    Returns:
        How many samples FiftyOne will have.

    Raises:
        UserError: there is no finished run, or the folder cannot be written.
    """
    count, rows = 0, _rows(work_dir)
    try:
        with atomic_open(target / 'samples.json', 'w') as file:
            file.write('{"samples": [')
            for row in rows:
                for view, path in enumerate(row['image_paths'] or []):
                    file.write(',\n' if count else '\n')
                    json.dump(_fiftyone_sample(row, path, view), file, ensure_ascii=False)
                    count += 1
            file.write('\n]}\n')
        write_json(
            target / 'metadata.json',
            dict(media_type='image', info=dict(pruning_run=str(work_dir.absolute()))),
        )
    except OSError as error:
        raise _unwritable(target, error) from error
    return count


def _rows(work_dir: Path) -> Iterator[dict[str, Any]]:
    """The samples; the table is read at once, so that nothing is written where there is none."""
    if not (work_dir / 'manifest.json').is_file():
        raise UserError(
            f'{work_dir / "manifest.json"} is missing: name the work dir of a finished '
            'tools/prune.py run'
        )
    table = read_table(work_dir / 'samples.parquet', SAMPLES, _MORE)
    clusters = table['cluster']
    # -1 is a sample of a strategy without clusters.
    known = pc.if_else(pc.greater_equal(clusters, 0), clusters, None)
    table = table.set_column(table.column_names.index('cluster'), 'cluster', known)
    return (row for batch in table.to_batches(max_chunksize=4096) for row in batch.to_pylist())


def _tags(row: dict[str, Any]) -> list[str]:
    return ['kept' if row['kept'] else 'pruned'] + ['label_suspect'] * bool(row['label_suspect'])


def _fiftyone_sample(row: dict[str, Any], path: str, view: int) -> dict[str, Any]:
    values = dict(
        pruning_id=row['sample_id'],
        partner=row['partner_id'],
        partner_similarity=row['partner_similarity'],
        density_score=row['similarity'],
        cluster=row['cluster'],
        loss=row['loss'],
        reason=row['reason'],
        scene=row['scene'],
    )
    return dict(
        filepath=os.path.abspath(path),
        tags=_tags(row),
        view=view,
        **{name: value for name, value in values.items() if value is not None},
    )


def _unwritable(target: Path, error: OSError) -> UserError:
    return UserError(f'{target} cannot be written ({error.strerror}): choose another --out')
