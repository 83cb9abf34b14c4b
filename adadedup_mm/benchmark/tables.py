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
from .config import FULL, RANDOM
from .results import Row
from .statistics import Estimate, mean_and_sd, paired, paired_difference, recovered_share

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
        self.metric, self.compare_with = self.rows[0]['metric'], self.rows[0]['compare_with']
        self.variants = list(dict.fromkeys(row['variant'] for row in self.rows))
        self.ratios = sorted(
            {row['keep_ratio'] for row in self.rows if row['keep_ratio'] is not None}
        )
        self.with_own = any(row['keep_ratio'] is None for row in self.rows)
        self.seeds = len({row['seed'] for row in self.rows})
        values = [row['value'] for row in self.rows if row['value'] is not None]
        self.scale = 100.0 if all(abs(value) <= 1 for value in values) else 1.0

    @property
    def columns(self) -> list[float | None]:
        """The keep ratios; None for variants that were not told one."""
        return [*self.ratios, *([None] if self.with_own else [])]

    def cell(self, variant: str, ratio: float | None) -> list[Row]:
        """The rows of all seeds."""
        return [row for row in self.rows if (row['variant'], row['keep_ratio']) == (variant, ratio)]

    def done(self, variant: str, ratio: float | None) -> list[Row]:
        """The rows of the seeds that did not fail."""
        return [
            row
            for row in self.cell(variant, ratio)
            if row['status'] == 'done' and row['value'] is not None
        ]

    def values(self, variant: str, ratio: float | None) -> dict[int, float]:
        """Seed -> metric, in per cent where it is a share."""
        return {row['seed']: row['value'] * self.scale for row in self.done(variant, ratio)}

    def reference(self, variant: str, ratio: float | None) -> dict[int, float]:
        """Seed -> metric of a variant to compare with, at the same ratio unless it has none."""
        return self.values(variant, ratio) or self.values(variant, None)

    def recovered(self, variant: str, ratio: float | None) -> Estimate:
        """Share of random pruning's loss that the variant gets back."""
        values, random, full = paired(
            self.values(variant, ratio), self.reference(RANDOM, ratio), self.reference(FULL, ratio)
        )
        return recovered_share(values, random, full)

    def difference(self, variant: str, ratio: float | None) -> Estimate:
        """To the variant that all are compared with."""
        return paired_difference(
            *paired(self.values(variant, ratio), self.reference(self.compare_with, ratio))
        )

    def mean(self, column: str, variant: str, ratio: float | None) -> float:
        """Mean of a numeric column over the seeds."""
        return mean_and_sd(
            np.array([row[column] for row in self.done(variant, ratio)], np.float64)
        )[0]


def all_results(rows: Sequence[Row]) -> list[Results]:
    """One for each model."""
    return [Results(rows, model) for model in dict.fromkeys(row['model'] for row in rows)]


def make_tables(results: Results) -> list[Table]:
    """The metric, the share of random's loss that is recovered, the paired comparison, and the cost."""
    unit = ' in %' if results.scale == 100 else ''
    seeds = f'{results.seeds} seed{"s" if results.seeds > 1 else ""}'
    build = functools.partial(_table, results)
    tables = [
        build(
            'metric', f'{results.metric}{unit}: mean ± standard deviation of {seeds}', _metric_text
        )
    ]
    others = [variant for variant in results.variants if variant not in (FULL, RANDOM)]
    if {FULL, RANDOM} <= set(results.variants):
        tables.append(
            build(
                'recovered',
                "Share of random's loss that is recovered, (variant - random) / "
                '(full - random), with its 95 % bootstrap interval over seeds',
                _recovered_text,
                others,
            )
        )
    if results.compare_with in results.variants:
        others = [variant for variant in results.variants if variant != results.compare_with]
        tables.append(
            build(
                'difference',
                f'{results.metric}{unit} minus that of {results.compare_with}, paired by '
                'seed, with its 95 % t interval',
                _difference_text,
                others,
            )
        )
    tables.append(build('seconds', 'Seconds in total = pruning + training', _seconds_text))
    tables.append(
        build(
            'break_even',
            f'Trainings after which pruning has saved what it took: pruning seconds / '
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
    cells = {
        variant: {ratio: text(results, variant, ratio) for ratio in results.columns}
        for variant in (results.variants if variants is None else variants)
    }
    columns = [
        ratio for ratio in results.columns if any(row[ratio] != NONE for row in cells.values())
    ]
    header = ['kept', *('not set' if ratio is None else f'{ratio * 100:g} %' for ratio in columns)]
    rows = [[variant, *(row[ratio] for ratio in columns)] for variant, row in cells.items()]
    return Table(name, title, header, [row for row in rows if set(row[1:]) - {NONE}])


def _metric_text(results: Results, variant: str, ratio: float | None) -> str:
    cell, values = (
        results.cell(variant, ratio),
        np.array([*results.values(variant, ratio).values()]),
    )
    if not cell:
        return NONE
    failed = sum(row['status'] == 'failed' for row in cell)
    if not len(values):
        return 'failed'
    mean, sd = mean_and_sd(values)
    notes = [f'n={len(values)}'] if len(values) < results.seeds else []
    notes += [f'{failed} failed'] if failed else []
    share = results.mean('share', variant, ratio)
    notes += [f'{share * 100:.0f} % used'] if ratio is None and share < 0.995 else []
    places = 1 if abs(mean) >= 1 else 2
    text = f'{mean:.{places}f} ± {sd:.{places}f}' if math.isfinite(sd) else f'{mean:.{places}f}'
    return f'{text} ({", ".join(notes)})' if notes else text


def _recovered_text(results: Results, variant: str, ratio: float | None) -> str:
    share = results.recovered(variant, ratio)
    if share.seeds and not math.isfinite(share.value):
        return 'random loses nothing'
    return _interval(share, lambda value: f'{value * 100:.0f} %')


def _difference_text(results: Results, variant: str, ratio: float | None) -> str:
    return _interval(results.difference(variant, ratio), lambda value: f'{value:+.2f}')


def _interval(estimate: Estimate, text: Callable[[float], str]) -> str:
    if not estimate.seeds:
        return NONE
    if not math.isfinite(estimate.low):
        return text(estimate.value)
    return f'{text(estimate.value)} [{text(estimate.low)}, {text(estimate.high)}]'


def _seconds_text(results: Results, variant: str, ratio: float | None) -> str:
    if not results.done(variant, ratio):
        return NONE
    pruning, training, total = (
        results.mean(name, variant, ratio)
        for name in ('pruning_seconds', 'training_seconds', 'total_seconds')
    )
    places = 0 if total >= 100 else 1
    return f'{total:.{places}f} = {pruning:.{places}f} + {training:.{places}f}'


def _break_even_text(results: Results, variant: str, ratio: float | None) -> str:
    pruning, training = (
        results.mean(name, variant, ratio) for name in ('pruning_seconds', 'training_seconds')
    )
    saved = results.mean('training_seconds', FULL, None) - training
    if not pruning > 0 or not math.isfinite(saved):
        return NONE
    return f'{pruning / saved:.2g}' if saved > 0 else 'never'


def _stages(results: Results) -> Table:
    """Seconds of each stage of the pruning, over all ratios and seeds."""
    costs = {
        variant: [
            json.loads(row['pruning_stages'])
            for ratio in results.columns
            for row in results.done(variant, ratio)
        ]
        for variant in results.variants
    }
    names = list(dict.fromkeys(name for cost in costs.values() for row in cost for name in row))
    rows = [
        [
            variant,
            *(
                f'{np.mean([row[name] for row in cost]):.1f}'
                if all(name in row for row in cost)
                else NONE
                for name in names
            ),
        ]
        for variant, cost in costs.items()
        if cost and any(cost)
    ]
    return Table(
        'stages', 'Seconds of the stages of pruning: mean over ratios and seeds', ['', *names], rows
    )


def markdown(tables: Iterable[Table]) -> str:
    """The tables one below the other."""
    parts = []
    for table in tables:
        lines = [table.header, ['---', *['---:'] * (len(table.header) - 1)], *table.rows]
        body = '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)
        parts.append(f'{table.title}\n\n{body}\n')
    return '\n'.join(parts)


def latex(table: Table) -> str:
    """A ``tabular`` with booktabs rules."""
    rows = [
        ' & '.join(_latex_text(cell) for cell in row) + r' \\'
        for row in [table.header, *table.rows]
    ]
    lines = [
        f'% {table.title}',
        rf'\begin{{tabular}}{{l{"r" * (len(table.header) - 1)}}}',
        r'\toprule',
        rows[0],
        r'\midrule',
        *rows[1:],
        r'\bottomrule',
        r'\end{tabular}',
    ]
    return '\n'.join(lines) + '\n'


def _latex_text(text: str) -> str:
    for plain, escaped in (('_', r'\_'), ('%', r'\%'), ('&', r'\&'), ('±', r'$\pm$')):
        text = text.replace(plain, escaped)
    return text


def summary_csv(all_of: Iterable[Results]) -> str:
    """A line for each model, variant and keep ratio, with plain numbers."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(
        [
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
    )
    for results in all_of:
        for variant in results.variants:
            for ratio in results.columns:
                if results.cell(variant, ratio):
                    writer.writerow(
                        [_csv_text(value) for value in _summary(results, variant, ratio)]
                    )
    return file.getvalue()


def _summary(results: Results, variant: str, ratio: float | None) -> list[object]:
    values = np.array([*results.values(variant, ratio).values()]) / results.scale
    failed = sum(row['status'] == 'failed' for row in results.cell(variant, ratio))
    recovered, difference = results.recovered(variant, ratio), results.difference(variant, ratio)
    means = (
        results.mean(name, variant, ratio)
        for name in ('share', 'pruning_seconds', 'training_seconds', 'total_seconds')
    )
    share, *seconds = means
    return [
        results.model,
        variant,
        ratio,
        results.metric,
        *mean_and_sd(values),
        len(values),
        failed,
        share,
        recovered.value,
        recovered.low,
        recovered.high,
        *(value / results.scale for value in (difference.value, difference.low, difference.high)),
        *seconds,
    ]


def _csv_text(value: object) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ''
    return f'{value:.6g}' if isinstance(value, float) else str(value)


def tables_markdown(rows: Sequence[Row]) -> str:
    """All tables of all models, and a list of what failed."""
    parts = [
        f'### {results.model}\n\n{markdown(make_tables(results))}' for results in all_results(rows)
    ]
    failed = [row for row in rows if row['status'] == 'failed']
    if failed:
        parts.append('### Failed\n\n' + '\n'.join(_failure(row) for row in failed) + '\n')
    return '\n'.join(parts)


def write_tables(folder: Path, rows: Sequence[Row]) -> str:
    """Writes ``tables.md``, ``summary.csv`` and ``<model>_<table>.tex`` into a folder; returns the markdown."""
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
    ratio = '' if row['keep_ratio'] is None else f' {row["keep_ratio"]:g}'
    return f'- {row["model"]} {row["variant"]}{ratio} seed {row["seed"]}: {row["error"]}'


def _write(path: Path, text: str) -> None:
    with atomic_open(path, 'w') as file:
        file.write(text)
