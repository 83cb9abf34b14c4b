"""Puts the results of a benchmark of dynamic pruning into a section of a page.

    python benchmarks/dynamic_tables.py work_dirs/digits_dynamic docs/DYNAMIC.md

The section is what stands between ``<!-- digits_dynamic -->`` and
``<!-- end of digits_dynamic -->`` in the page, after the name of the work dir.
"""

from pathlib import Path

import numpy as np
from sections import fill

from adadedup_mm.benchmark.results import Row
from adadedup_mm.benchmark.tables import all_results


def section(name: str, page: Path, rows: list[Row]) -> str:
    """A table for each model; times are compared with the full training of the same seed."""
    parts = []
    for results in all_results(rows):
        full = {row['seed']: row['training_seconds'] for row in results.done('full', None)}
        lines = [
            f'| {results.model} | told to keep | samples used | {results.metric} | seconds '
            '| time / full | time / share |',
            '|---|---:|---:|---:|---:|---:|---:|',
        ]
        for variant in results.variants:
            for ratio in reversed(results.columns):
                done = results.done(variant, ratio)
                if done:
                    told = '-' if ratio is None else f'{ratio:.0%}'
                    lines.append(f'| {variant} | {told} | {_cells(done, full, results.scale)} |')
        parts.append('\n'.join(lines))
    first = rows[0]
    counts = sorted(
        {
            len(results.done(variant, ratio))
            for results in all_results(rows)
            for variant in results.variants
            for ratio in results.columns
        }
        - {0}
    )
    seeds = '-'.join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    parts.append(
        f'Mean ± standard deviation of {seeds} seeds, on {first["device"]}, '
        f'{first["finished"][:10]}.'
    )
    return '\n\n'.join(parts)


def _cells(rows: list[Row], full: dict[int, float], scale: float) -> str:
    values = np.array([row['value'] for row in rows]) * scale
    seconds = np.array([row['training_seconds'] for row in rows])
    shares = np.array([row['share'] for row in rows])
    ratios = np.array([row['training_seconds'] / full.get(row['seed'], np.nan) for row in rows])
    spread = f' ± {values.std(ddof=1):.1f}' if len(values) > 1 else ''
    return (
        f'{shares.mean():.0%} | {values.mean():.1f}{spread} | {seconds.mean():.1f} | '
        f'{np.median(ratios):.2f} | '
        f'{np.median(ratios / shares):.2f}'
    )


if __name__ == '__main__':
    fill(__doc__, section)
