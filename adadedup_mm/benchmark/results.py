"""One row per training: read from what it left, kept in its work dir, gathered in one table."""

import dataclasses
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
from .config import PROBE, names_files
from .hook import REPORT, device_name
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


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of one job of the probe.

    Attributes:
        metrics: name -> number in [0, 1], named as those of MMDetection's evaluation of boxes.
        samples: how many are kept.
        share: kept / all samples.
        stages: seconds of each stage of the pruning, by name.
        seconds: its part of the measurement.
        error: why nothing was chosen; the rest is empty then.
    """

    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    samples: int = 0
    share: float = 0.0
    stages: dict[str, float] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    error: str = ''


def is_done(row: Row) -> bool:
    """Whether the training has given a result; it has failed otherwise."""
    done: bool = row['status'] == 'done'
    return done


def stored_row(job: Job) -> Row | None:
    """The row of a job that has ended under this config, or None."""
    row = read_object(job.folder / 'result.json')
    complete = row.keys() == set(SCHEMA.names)
    return row if complete and row['key'] == job.key else None


def make_row(job: Job, about: Row, seconds: float | None = None, code: int = 0) -> Row:
    """Reads a job's results and keeps them in its work dir.

    Args:
        job: its process has ended.
        about: ``benchmark``, ``metric``, ``compare_with`` and ``launch``.
        seconds: from start to end of its process; None where that was not observed.
        code: the exit code.
    """
    row = _described(job, about)
    report = read_object(job.folder / REPORT)
    if code or not report:
        row.update(status='failed', error=last_error(job.folder / 'log.txt', code))
    else:
        row = judged(row | _measured(job, report), about['metric'])

    if seconds is None:
        seconds = row['total_seconds'] or 0.0
    row['job_seconds'] = round(seconds, 1)
    write_json(job.folder / 'result.json', row)

    return row


def probe_row(job: Job, about: Row, outcome: Outcome, seconds: float) -> Row:
    """Makes the row of a selection that the probe has measured, and keeps it in its work dir.

    Args:
        job: a job of the probe.
        about: ``benchmark``, ``metric`` and ``compare_with``.
        outcome: what came of it.
        seconds: its part of what choosing and measuring took.
    """
    row = _described(job, about | dict(launch=PROBE))
    if outcome.error:
        row.update(status='failed', error=outcome.error)
    else:
        pruning = sum(outcome.stages.values())
        row.update(
            metrics=json.dumps(outcome.metrics),
            samples=outcome.samples,
            share=outcome.share,
            pruning_stages=json.dumps(outcome.stages),
            pruning_seconds=round(pruning, 3),
            training_seconds=round(outcome.seconds, 3),
            total_seconds=round(pruning + outcome.seconds, 3),
            device=device_name(),
        )
        row = judged(row, about['metric'])
    row['job_seconds'] = round(seconds, 1)
    write_json(job.folder / 'result.json', row)

    return row


def _described(job: Job, about: Row) -> Row:
    """A row without results."""
    now = datetime.datetime.now(datetime.UTC)
    row: Row = dict.fromkeys(SCHEMA.names)
    row.update(about)
    row.update(
        model=job.model,
        variant=job.variant,
        keep_ratio=job.keep_ratio,
        seed=job.seed,
        versions=json.dumps(installed_versions()),
        settings=json.dumps(job.settings, default=str),
        key=job.key,
        finished=now.isoformat(timespec='seconds'),
    )
    return row


def judged(row: Row, metric: str) -> Row:
    """A finished training's row with one of its results as the one that is compared.

    It is a failed one if that result is no number.
    """
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


def percent(values: Iterable[float]) -> float:
    """What metrics are multiplied by where they are shown: 100 if all are shares, else 1."""
    return 100.0 if all(abs(value) <= 1 for value in values) else 1.0


def check_metric(row: Row, metric: str) -> None:
    """Raises UserError if an evaluation never gives this result.

    All further trainings would share that. An evaluation without any result, as of a detector that
    finds nothing, says nothing about it.
    """
    metrics = json.loads(row['metrics'] or '{}')
    if metrics and metric not in metrics:
        raise UserError(
            f'the evaluation gives no {metric!r}, but {", ".join(metrics)}: choose one of these '
            'as the metric, then run the same command again; finished trainings are kept'
        )


def _measured(job: Job, report: dict[str, Any]) -> Row:
    pruned = job.folder / 'adadedup'
    manifest = read_manifest(pruned) if manifest_path(pruned).exists() else None
    stages = {name: cost.seconds for name, cost in manifest.stages.items()} if manifest else {}
    training = report['seconds']
    pruning = sum(stages.values())
    share = manifest.kept / manifest.samples if manifest else 1.0
    used_share = _used_share(job.folder / 'dynamic_samples.parquet', job.config) or 1.0

    return dict(
        metrics=json.dumps(report['metrics']),
        samples=report['samples'],
        share=share * used_share,
        pruning_stages=json.dumps(stages),
        pruning_seconds=round(pruning, 3),
        training_seconds=training,
        total_seconds=round(pruning + training, 3),
        device=report['device'],
    )


def _used_share(path: Path, config: Any) -> float | None:
    """Mean share of the samples that an epoch used; None where no dynamic pruning took place."""
    epochs = config.train_cfg.get('max_epochs')
    if not path.exists() or not epochs:
        return None
    table = pq.read_table(path, columns=['epochs_used'])
    epochs_used = table['epochs_used'].to_numpy()
    return float(epochs_used.mean() / epochs)


def last_error(log: Path, code: int) -> str:
    """Why a training failed: the line of its output that says so best.

    Args:
        log: its output.
        code: its exit code; negative for an exit by a signal.
    """
    lines = _log_lines(log)
    last = lines[-1] if lines else None
    if code < 0:
        name = signal.Signals(-code).name
        return f'ended by {name}; its last line: {last or "none"}'
    # The launcher's own error comes after the one that caused it.
    errors = [line for line in lines if _ERROR.match(line) and 'ChildFailedError' not in line]
    text = errors[-1] if errors else last or 'it wrote nothing'
    return text if code else f'it ended without a result; its last line: {text}'


def _log_lines(log: Path) -> list[str]:
    """The lines of an output that hold anything, without white space around them."""
    if not log.exists():
        return []
    text = log.read_text(encoding='utf-8', errors='replace')
    stripped = [line.strip() for line in text.replace('\r', '\n').splitlines()]
    return [line for line in stripped if line]


def write_results(path: Path, rows: Iterable[Row]) -> None:
    """Writes the rows as parquet."""
    table = pa.Table.from_pylist(list(rows), SCHEMA)
    write_table(path, table)


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
                f'{path}: row {number} holds values that no benchmark writes; '
                'run the benchmark again'
            )

    if not rows:
        raise UserError(f'{path} has no rows; run the benchmark again')
    return rows


def _is_complete(row: Row) -> bool:
    """Whether a row names its training, and holds all results if that is done."""
    for name in ('model', 'variant'):
        if not names_files(row[name] or ''):
            return False

    if None in (row['seed'], row['metric'], row['compare_with']):
        return False
    if row['status'] not in ('done', 'failed'):
        return False
    ratio = row['keep_ratio']
    if ratio is not None and not 0 < ratio <= 1:
        return False
    if row['metrics'] is None:
        return row['status'] == 'failed'
    columns = ['share', 'pruning_seconds', 'training_seconds', 'total_seconds']
    if is_done(row):
        columns.append('value')
    for column in columns:
        number = row[column]
        if number is None or not math.isfinite(number):
            return False

    return _is_numbers(row['metrics'], or_null=True) and _is_numbers(row['pruning_stages'])


def _is_numbers(text: str | None, or_null: bool = False) -> bool:
    """Whether a text is a JSON object of numbers; with ``or_null`` some may be missing."""
    try:
        values = json.loads(text or '')
    except (ValueError, RecursionError):
        return False
    if not isinstance(values, dict):
        return False
    return all(_is_number(value) or (or_null and value is None) for value in values.values())


def _is_number(value: Any) -> bool:
    """Whether a value of JSON is a number that numpy can hold."""
    if type(value) is int:
        return abs(value) < 2**63
    return isinstance(value, float)


def with_metric(rows: Sequence[Row], metric: str) -> list[Row]:
    """The rows with another of their evaluation's results as the one that is compared.

    Raises:
        UserError: it is in none of them.
    """
    names: set[str] = set()
    for row in rows:
        names.update(json.loads(row['metrics'] or '{}'))
    if metric not in names:
        raise UserError(f'--metric {metric}: the results have {", ".join(sorted(names))}')
    changed = []
    for row in rows:
        if row['metrics']:
            changed.append(judged(row, metric))
        else:
            changed.append(dict(row, metric=metric))

    return changed
