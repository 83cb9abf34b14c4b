"""Puts a benchmark's tables and plots into a section of a page, its results beside the page.

    python benchmarks/results_page.py work_dirs/minidrive docs/RESULTS.md

The section is what stands between ``<!-- minidrive -->`` and ``<!-- end of minidrive -->``, after
the name of the work dir. Plots go to ``images/`` and results to ``results/minidrive.parquet``, both
beside the page.
"""

import tempfile
from collections.abc import Iterable
from pathlib import Path

from sections import fill

from adadedup_mm.base.files import atomic_open
from adadedup_mm.benchmark.config import load_benchmark
from adadedup_mm.benchmark.jobs import make_jobs
from adadedup_mm.benchmark.plots import write_plots
from adadedup_mm.benchmark.results import Row, write_results
from adadedup_mm.benchmark.tables import all_results, tables_markdown


def section(name: str, page: Path, rows: list[Row]) -> str:
    """Markdown of the tables, the plots, and what they were measured on.

    Writes plots and results beside the page.
    """
    plots = []
    with tempfile.TemporaryDirectory() as folder:
        for results in all_results(rows):
            write_plots(Path(folder), results)
        for plot in sorted(Path(folder).iterdir()):
            plots.append(f'images/{name}_{plot.name}')
            with atomic_open(page.parent / plots[-1]) as file:
                file.write(plot.read_bytes())
    write_results(page.parent / 'results' / f'{name}.parquet', rows)
    done = [row for row in rows if row['status'] == 'done']
    largest = max(done, key=lambda row: row['share'])
    samples = round(largest['samples'] / largest['share'])
    devices, launches = ({row[name] for row in done} for name in ('device', 'launch'))
    about = (
        f'{len(done)} of {planned(rows[0]["benchmark"])} trainings, '
        f'{samples} samples to choose from, '
        f'finished {max(row["finished"] for row in rows)[:10]}, on {_listed(devices)}, '
        f'{_listed(launch.split(", ")[-1] for launch in launches)}.'
    )
    return '\n'.join(
        [tables_markdown(rows), *(f'![{Path(plot).stem}]({plot})\n' for plot in plots), about]
    )


def planned(name: str) -> int:
    """How many trainings the benchmark config of this name asks for."""
    config = Path(__file__).parents[1] / f'configs/benchmarks/{name}.py'
    return len(make_jobs(load_benchmark(config), {}, Path()))


def _listed(values: Iterable[object]) -> str:
    return ' or '.join(sorted(map(str, set(values))))


if __name__ == '__main__':
    fill(__doc__, section)
