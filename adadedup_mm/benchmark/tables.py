"""Results as tables in the papers' layout: a row for each variant, a column for each keep ratio."""

import csv
import functools
import io
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..base.files import atomic_open
from .config import FULL, PROBE, RANDOM
from .results import Row, is_done, percent
from .statistics import IntervalEstimate, mean_and_sd, paired, paired_difference, recovered_share

NONE = '-'


@dataclass(frozen=True)
class Table:
    """Text in rows and columns.

    Attributes:
        name: for file names.
        title: a sentence.
        header: of the columns.
        rows: cells, the first of which names the row.
    """

    name: str
    title: str
    header: list[str]
    rows: list[list[str]]


class Results:
    """The rows of one model, by variant and keep ratio.

    Args:
        rows: as ``read_results`` returns them.
        model: the model's name.
    """

    def __init__(self, rows: Sequence[Row], model: str) -> None:
        self.model = model
        self.rows = [row for row in rows if row['model'] == model]
        self.metric = self.rows[0]['metric']
        self.compare_with = self.rows[0]['compare_with']
        self.variants = list(dict.fromkeys(row['variant'] for row in self.rows))

        ratios = {row['keep_ratio'] for row in self.rows}
        seeds = {row['seed'] for row in self.rows}
        self.with_own = None in ratios
        self.ratios = sorted(ratios - {None})
        self.seeds = len(seeds)

        all_values = [row['value'] for row in self.rows]
        self.scale = percent(value for value in all_values if value is not None)
        self.is_probe = all(row['launch'] == PROBE for row in self.rows)

    @property
    def work(self) -> str:
        """What follows the pruning."""
        return 'measuring' if self.is_probe else 'training'

    @property
    def columns(self) -> list[float | None]:
        """The keep ratios; None for variants that were not told one."""
        columns: list[float | None] = list(self.ratios)
        if self.with_own:
            columns.append(None)
        return columns

    def cell(self, variant: str, ratio: float | None) -> list[Row]:
        """The rows of all seeds."""
        of_variant = [row for row in self.rows if row['variant'] == variant]
        return [row for row in of_variant if row['keep_ratio'] == ratio]

    def done(self, variant: str, ratio: float | None) -> list[Row]:
        """The rows of the seeds that did not fail."""
        cell = self.cell(variant, ratio)
        return [row for row in cell if is_done(row) and row['value'] is not None]

    def values(self, variant: str, ratio: float | None) -> dict[int, float]:
        """Seed -> metric, in per cent where it is a share."""
        done = self.done(variant, ratio)
        return {row['seed']: row['value'] * self.scale for row in done}

    def reference(self, variant: str, ratio: float | None) -> dict[int, float]:
        """Seed -> metric of a variant to compare with, at the same ratio unless it has none."""
        at_ratio = self.values(variant, ratio)
        return at_ratio or self.values(variant, None)

    def recovered(self, variant: str, ratio: float | None) -> IntervalEstimate:
        """Share of random pruning's loss that the variant gets back."""
        values, random, full = paired(
            self.values(variant, ratio),
            self.reference(RANDOM, ratio),
            self.reference(FULL, ratio),
        )
        return recovered_share(values, random, full)

    def difference(self, variant: str, ratio: float | None) -> IntervalEstimate:
        """To the variant that all are compared with."""
        values, other = paired(
            self.values(variant, ratio),
            self.reference(self.compare_with, ratio),
        )
        return paired_difference(values, other)

    def mean(self, column: str, variant: str, ratio: float | None) -> float:
        """Mean of a numeric column over the seeds."""
        values = [row[column] for row in self.done(variant, ratio)]
        mean, _ = mean_and_sd(np.array(values, np.float64))
        return mean


def all_results(rows: Sequence[Row]) -> list[Results]:
    """One for each model."""
    models = dict.fromkeys(row['model'] for row in rows)
    return [Results(rows, model) for model in models]


def make_tables(results: Results) -> list[Table]:
    """Metric, share of random's loss that is recovered, paired comparison, and cost."""
    compare_with = results.compare_with
    unit = ' in %' if results.scale == 100 else ''
    seeds = '1 seed' if results.seeds == 1 else f'{results.seeds} seeds'
    build = functools.partial(_table, results)
    tables = [
        build(
            'metric',
            f'{results.metric}{unit}: mean ± standard deviation of {seeds}',
            _metric_text,
        )
    ]
    if {FULL, RANDOM} <= set(results.variants):
        tables.append(
            build(
                'recovered',
                "Share of random's loss that is recovered, (variant - random) / "
                '(full - random), with its 95 % bootstrap interval over seeds',
                _recovered_text,
                [variant for variant in results.variants if variant not in (FULL, RANDOM)],
            )
        )

    if compare_with in results.variants:
        tables.append(
            build(
                'difference',
                f'{results.metric}{unit} minus that of {compare_with}, paired by '
                'seed, with its 95 % t interval',
                _difference_text,
                [variant for variant in results.variants if variant != compare_with],
            )
        )

    title = f'Seconds in total = pruning + {results.work}'
    tables.append(build('seconds', title, _seconds_text))
    if not results.is_probe:
        tables.append(
            build(
                'break_even',
                'Trainings after which pruning has saved what it took: pruning seconds / '
                f'(training seconds of {FULL} - its own)',
                _break_even_text,
            )
        )
    tables.append(_stages(results))

    return [table for table in tables if table.rows]


def _table(
    results: Results,
    name: str,
    title: str,
    text: Callable[[Results, str, float | None], str],
    variants: Sequence[str] | None = None,
) -> Table:
    """Rows and columns that hold nothing are left out."""
    cells = {}
    for variant in results.variants if variants is None else variants:
        cells[variant] = {ratio: text(results, variant, ratio) for ratio in results.columns}
    columns = []
    for ratio in results.columns:
        if any(row[ratio] != NONE for row in cells.values()):
            columns.append(ratio)

    header = ['kept']
    for ratio in columns:
        header.append('not set' if ratio is None else f'{ratio * 100:g} %')
    rows = []
    for variant, cell in cells.items():
        texts = [cell[ratio] for ratio in columns]
        if set(texts) - {NONE}:
            rows.append([variant, *texts])

    return Table(
        name=name,
        title=title,
        header=header,
        rows=rows,
    )


def _metric_text(results: Results, variant: str, ratio: float | None) -> str:
    cell = results.cell(variant, ratio)
    values = np.array(list(results.values(variant, ratio).values()))
    if not cell:
        return NONE
    if not len(values):
        return 'failed'
    mean, sd = mean_and_sd(values)
    places = 1 if abs(mean) >= 1 else 2
    text = f'{mean:.{places}f}'
    if math.isfinite(sd):
        text += f' ± {sd:.{places}f}'
    notes = _metric_notes(results, variant, ratio)

    return f'{text} ({", ".join(notes)})' if notes else text


def _metric_notes(results: Results, variant: str, ratio: float | None) -> list[str]:
    """What a reader must know beside the mean: missing and failed seeds, another share."""
    cell = results.cell(variant, ratio)
    count = len(results.done(variant, ratio))
    failed = sum(not is_done(row) for row in cell)
    share = results.mean('share', variant, ratio)
    notes = []
    if count < results.seeds:
        notes.append(f'n={count}')
    if failed:
        notes.append(f'{failed} failed')
    if ratio is None and share < 0.995:
        notes.append(f'{share * 100:.0f} % used')
    return notes


def _recovered_text(results: Results, variant: str, ratio: float | None) -> str:
    share = results.recovered(variant, ratio)
    if share.seeds and not math.isfinite(share.value):
        return 'random loses nothing'
    return _interval(share, lambda value: f'{value * 100:.0f} %')


def _difference_text(results: Results, variant: str, ratio: float | None) -> str:
    difference = results.difference(variant, ratio)
    return _interval(difference, lambda value: f'{value:+.2f}')


def _interval(estimate: IntervalEstimate, text: Callable[[float], str]) -> str:
    if not estimate.seeds:
        return NONE
    value = text(estimate.value)
    if not math.isfinite(estimate.low):
        return value
    return f'{value} [{text(estimate.low)}, {text(estimate.high)}]'


def _seconds_text(results: Results, variant: str, ratio: float | None) -> str:
    if not results.done(variant, ratio):
        return NONE
    pruning = results.mean('pruning_seconds', variant, ratio)
    training = results.mean('training_seconds', variant, ratio)
    total = results.mean('total_seconds', variant, ratio)
    places = 0 if total >= 100 else 1
    return f'{total:.{places}f} = {pruning:.{places}f} + {training:.{places}f}'


def _break_even_text(results: Results, variant: str, ratio: float | None) -> str:
    pruning = results.mean('pruning_seconds', variant, ratio)
    training = results.mean('training_seconds', variant, ratio)
    saved = results.mean('training_seconds', FULL, None) - training
    if not pruning > 0 or not math.isfinite(saved):
        return NONE
    return f'{pruning / saved:.2g}' if saved > 0 else 'never'


def _stages(results: Results) -> Table:
    """Seconds of each stage of the pruning, over all ratios and seeds."""
    costs = {variant: _stage_seconds(results, variant) for variant in results.variants}
    names: dict[str, None] = {}
    for runs in costs.values():
        for run in runs:
            names.update(dict.fromkeys(run))

    rows = []
    for variant, runs in costs.items():
        if any(runs):
            seconds = [_mean_seconds(runs, name) for name in names]
            rows.append([variant, *seconds])

    return Table(
        name='stages',
        title='Seconds of the stages of pruning: mean over ratios and seeds',
        header=['', *names],
        rows=rows,
    )


def _stage_seconds(results: Results, variant: str) -> list[dict[str, float]]:
    """The seconds of each stage by name, of every run of a variant."""
    runs = []
    for ratio in results.columns:
        for row in results.done(variant, ratio):
            runs.append(json.loads(row['pruning_stages']))
    return runs


def _mean_seconds(runs: list[dict[str, float]], stage: str) -> str:
    """The mean over runs that all have the stage."""
    if not all(stage in run for run in runs):
        return NONE
    mean = np.mean([run[stage] for run in runs])
    return f'{mean:.1f}'


def markdown(tables: Iterable[Table]) -> str:
    """The tables one below the other."""
    parts = []
    for table in tables:
        numbers = len(table.header) - 1
        rule = ['---', *['---:'] * numbers]
        all_rows = [table.header, rule, *table.rows]
        lines = [_markdown_row(cells) for cells in all_rows]
        body = '\n'.join(lines)
        parts.append(f'{table.title}\n\n{body}\n')
    return '\n'.join(parts)


def _markdown_row(cells: Sequence[str]) -> str:
    return f'| {" | ".join(cells)} |'


def latex(table: Table) -> str:
    """A ``tabular`` with booktabs rules."""
    alignment = 'l' + 'r' * (len(table.header) - 1)
    lines = [
        f'% {table.title}',
        rf'\begin{{tabular}}{{{alignment}}}',
        r'\toprule',
        _latex_row(table.header),
        r'\midrule',
        *(_latex_row(row) for row in table.rows),
        r'\bottomrule',
        r'\end{tabular}',
    ]
    return '\n'.join(lines) + '\n'


def _latex_row(cells: Sequence[str]) -> str:
    texts = [_latex_text(cell) for cell in cells]
    return ' & '.join(texts) + r' \\'


def _latex_text(text: str) -> str:
    for plain, escaped in (('_', r'\_'), ('%', r'\%'), ('&', r'\&'), ('±', r'$\pm$')):
        text = text.replace(plain, escaped)
    return text


_CSV_HEADER = [
    'model',
    'variant',
    'keep_ratio',
    'metric',
    'mean',
    'sd',
    'seeds',
    'failed',
    'share',
    'recovered',
    'recovered_low',
    'recovered_high',
    'difference',
    'difference_low',
    'difference_high',
    'pruning_seconds',
    'training_seconds',
    'total_seconds',
]


def summary_csv(all_of: Iterable[Results]) -> str:
    """A line for each model, variant and keep ratio, with plain numbers."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(_CSV_HEADER)
    for results in all_of:
        for variant in results.variants:
            for ratio in results.columns:
                if results.cell(variant, ratio):
                    summary = _summary(results, variant, ratio)
                    writer.writerow([_csv_text(value) for value in summary])

    return file.getvalue()


def _summary(results: Results, variant: str, ratio: float | None) -> list[object]:
    """The values of ``_CSV_HEADER``."""
    values = np.array(list(results.values(variant, ratio).values())) / results.scale
    mean, sd = mean_and_sd(values)
    failed = sum(not is_done(row) for row in results.cell(variant, ratio))
    recovered = results.recovered(variant, ratio)
    difference = results.difference(variant, ratio)

    return [
        results.model,
        variant,
        ratio,
        results.metric,
        mean,
        sd,
        len(values),
        failed,
        results.mean('share', variant, ratio),
        recovered.value,
        recovered.low,
        recovered.high,
        difference.value / results.scale,
        difference.low / results.scale,
        difference.high / results.scale,
        results.mean('pruning_seconds', variant, ratio),
        results.mean('training_seconds', variant, ratio),
        results.mean('total_seconds', variant, ratio),
    ]


def _csv_text(value: object) -> str:
    if value is None:
        return ''
    if not isinstance(value, float):
        return str(value)
    return f'{value:.6g}' if math.isfinite(value) else ''


def tables_markdown(rows: Sequence[Row]) -> str:
    """All tables of all models, and a list of what failed."""
    parts = []
    for results in all_results(rows):
        tables = markdown(make_tables(results))
        parts.append(f'### {results.model}\n\n{tables}')
    failures = [_failure(row) for row in rows if not is_done(row)]
    if failures:
        lines = '\n'.join(failures)
        parts.append(f'### Failed\n\n{lines}\n')
    return '\n'.join(parts)


def write_tables(folder: Path, rows: Sequence[Row]) -> str:
    """Writes ``tables.md``, ``summary.csv`` and ``<model>_<table>.tex`` into a folder.

    Returns:
        The text of ``tables.md``.
    """
    every = all_results(rows)
    for old in folder.glob('*.tex'):  # of an earlier config in the same work dir
        old.unlink()
    for results in every:
        for table in make_tables(results):
            _write(folder / f'{results.model}_{table.name}.tex', latex(table))

    text = tables_markdown(rows)
    _write(folder / 'tables.md', text)
    _write(folder / 'summary.csv', summary_csv(every))

    return text


def _failure(row: Row) -> str:
    parts = [row['model'], row['variant']]
    if row['keep_ratio'] is not None:
        parts.append(f'{row["keep_ratio"]:g}')
    parts.append(f'seed {row["seed"]}: {row["error"]}')
    return '- ' + ' '.join(parts)


def _write(path: Path, text: str) -> None:
    with atomic_open(path, 'w') as file:
        file.write(text)
