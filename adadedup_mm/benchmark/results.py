"""One row per training: read from what it left, kept in its work dir, gathered in ``results.parquet``."""

import datetime
import json
import math
import re
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..base.errors import UserError
from ..base.files import read_object, write_json, write_table
from ..workdir.manifest import installed_versions, manifest_path, read_manifest
from .config import names_files
from .hook import REPORT
from .jobs import Job

Row = dict[str, Any]
RESULTS = 'results.parquet'
SCHEMA = pa.schema(
    [
        ('benchmark', pa.string()),
        ('model', pa.string()),
        ('variant', pa.string()),
        ('keep_ratio', pa.float64()),
        ('seed', pa.int64()),
        ('status', pa.string()),
        ('error', pa.string()),
        ('metric', pa.string()),
        ('value', pa.float64()),
        ('metrics', pa.string()),
        ('samples', pa.int64()),
        ('share', pa.float64()),
        ('pruning_stages', pa.string()),
        ('pruning_seconds', pa.float64()),
        ('training_seconds', pa.float64()),
        ('total_seconds', pa.float64()),
        ('job_seconds', pa.float64()),
        ('device', pa.string()),
        ('launch', pa.string()),
        ('versions', pa.string()),
        ('compare_with', pa.string()),
        ('settings', pa.string()),
        ('key', pa.string()),
        ('finished', pa.string()),
    ]
)

_ERROR = re.compile(
    r'^(?:\[rank\d+\]:? *)?(error: .+|(?:\w+\.)*\w*(?:Error|Exception|Interrupt)\b.*)$'
)


def stored_row(job: Job) -> Row | None:
    """The row of a job that has ended under this config, or None."""
    row = read_object(job.folder / 'result.json')
    return row if row.get('key') == job.key and row.keys() == set(SCHEMA.names) else None


def make_row(job: Job, about: Row, seconds: float | None = None, code: int = 0) -> Row:
    """Reads a job's results and keeps them in its work dir.

    Args:
        job: its process has ended.
        about: ``benchmark``, ``metric``, ``compare_with`` and ``launch``.
        seconds: from start to end of its process; None where that was not observed.
        code: the exit code.
    """
    row: Row = (
        dict.fromkeys(SCHEMA.names)
        | about
        | dict(
            model=job.model,
            variant=job.variant,
            keep_ratio=job.keep_ratio,
            seed=job.seed,
            versions=json.dumps(installed_versions()),
            settings=json.dumps(job.settings, default=str),
            key=job.key,
            finished=datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
        )
    )
    report = read_object(job.folder / REPORT)
    if code or not report:
        row |= dict(status='failed', error=last_error(job.folder / 'log.txt', code))
    else:
        row = judged(row | _measured(job, report), about['metric'])
    row['job_seconds'] = round(row['total_seconds'] or 0.0 if seconds is None else seconds, 1)
    write_json(job.folder / 'result.json', row)
    return row


def judged(row: Row, metric: str) -> Row:
    """A finished training's row with one of its results as the one that is compared; failed if that is no number."""
    metrics = json.loads(row['metrics'])
    value = metrics.get(metric)
    good = value is not None and math.isfinite(value)
    error = f'the evaluation gave {metric}={value}; its results: {", ".join(metrics) or "none"}'
    return dict(
        row,
        metric=metric,
        value=value if good else None,
        status='done' if good else 'failed',
        error=None if good else error,
    )


def check_metric(row: Row, metric: str) -> None:
    """Raises UserError if an evaluation never gives this result, which all further trainings would share.

    One without any result, as of a detector that finds nothing, says nothing about that.
    """
    metrics = json.loads(row['metrics'] or '{}')
    if metrics and metric not in metrics:
        raise UserError(
            f'the evaluation gives no {metric!r}, but {", ".join(metrics)}: choose one of these as '
            'the '
            'metric, then run the same command again; finished trainings are kept'
        )


def _measured(job: Job, report: dict[str, Any]) -> Row:
    pruned = job.folder / 'adadedup'
    manifest = read_manifest(pruned) if manifest_path(pruned).exists() else None
    stages = {name: cost.seconds for name, cost in manifest.stages.items()} if manifest else {}
    pruning = sum(stages.values())
    share = manifest.kept / manifest.samples if manifest else 1.0
    return dict(
        metrics=json.dumps(report['metrics']),
        samples=report['samples'],
        share=share * (_used_share(job.folder / 'dynamic_samples.parquet', job.config) or 1.0),
        pruning_stages=json.dumps(stages),
        pruning_seconds=round(pruning, 3),
        training_seconds=report['seconds'],
        total_seconds=round(pruning + report['seconds'], 3),
        device=report['device'],
    )


def _used_share(path: Path, config: Any) -> float | None:
    """Mean share of the samples that dynamic pruning used in an epoch; None where none took place."""
    epochs = config.train_cfg.get('max_epochs')
    if not path.exists() or not epochs:
        return None
    used = pq.read_table(path, columns=['epochs_used'])['epochs_used'].to_numpy()
    return float(used.mean() / epochs)


def last_error(log: Path, code: int) -> str:
    """The line of a training's output that says best why it failed, in words for an exit by signal."""
    lines = (
        log.read_text(encoding='utf-8', errors='replace').replace('\r', '\n').splitlines()
        if log.exists()
        else []
    )
    lines = [line.strip() for line in lines if line.strip()]
    # The launcher's own error comes after the one that caused it.
    errors = [line for line in lines if _ERROR.match(line) and 'ChildFailedError' not in line]
    text = errors[-1] if errors else lines[-1] if lines else 'it wrote nothing'
    if code < 0:
        return f'ended by {signal.Signals(-code).name}; its last line: {lines[-1] if lines else "none"}'
    return text if code else f'it ended without a result; its last line: {text}'


def write_results(path: Path, rows: Iterable[Row]) -> None:
    """Writes the rows as parquet."""
    write_table(path, pa.Table.from_pylist(list(rows), SCHEMA))


def read_results(path: Path) -> list[Row]:
    """The rows of a results file.

    Raises:
        UserError: it is missing, none of ours, or holds impossible values.
    """
    try:
        table = pq.read_table(path, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f'{path} cannot be read: {error}; name the work dir of a benchmark'
        ) from error
    try:
        rows = table.select(SCHEMA.names).cast(SCHEMA).to_pylist()
    except (KeyError, ValueError, pa.ArrowException) as error:
        raise UserError(f'{path} is no results file of a benchmark') from error
    for number, row in enumerate(rows):
        if not _is_complete(row):
            raise UserError(
                f'{path}: row {number} holds values that no benchmark writes; run the benchmark '
                'again'
            )
    if not rows:
        raise UserError(f'{path} has no rows; run the benchmark again')
    return rows


def _is_complete(row: Row) -> bool:
    """Whether a row names its training, and holds all results if that is done."""
    named = all(names_files(row[name] or '') for name in ('model', 'variant'))
    if not named or None in (row['seed'], row['metric'], row['compare_with']):
        return False
    if (
        row['status'] not in ('done', 'failed')
        or not 0 < (1 if row['keep_ratio'] is None else row['keep_ratio']) <= 1
    ):
        return False
    if row['metrics'] is None:
        return row['status'] == 'failed'
    numbers = [
        row[name] for name in ('share', 'pruning_seconds', 'training_seconds', 'total_seconds')
    ]
    numbers += [row['value']] if row['status'] == 'done' else []
    return (
        all(number is not None and math.isfinite(number) for number in numbers)
        and _is_numbers(row['metrics'], or_null=True)
        and _is_numbers(row['pruning_stages'])
    )


def _is_numbers(text: str | None, or_null: bool = False) -> bool:
    """Whether a text is a JSON object of numbers; with ``or_null`` some may be missing."""
    try:
        values = json.loads(text or '')
    except (ValueError, RecursionError):
        return False
    return isinstance(values, dict) and all(
        isinstance(value, float)
        or (type(value) is int and abs(value) < 2**63)
        or (or_null and value is None)
        for value in values.values()
    )


def with_metric(rows: Sequence[Row], metric: str) -> list[Row]:
    """The rows with another of their evaluation's results as the one that is compared.

    Raises:
        UserError: it is in none of them.
    """
    names = {name for row in rows if row['metrics'] for name in json.loads(row['metrics'])}
    if metric not in names:
        raise UserError(f'--metric {metric}: the results have {", ".join(sorted(names))}')
    return [judged(row, metric) if row['metrics'] else dict(row, metric=metric) for row in rows]
