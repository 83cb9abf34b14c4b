"""Puts the tables and plots of a benchmark into a section of a page, and its results beside the page.

    python benchmarks/results_page.py work_dirs/minidrive docs/RESULTS.md

The section is what stands between ``<!-- minidrive -->`` and ``<!-- end of minidrive -->``, after the name of the work
dir. Plots go to ``images/`` and results to ``results/minidrive.parquet``, both beside the page.
"""

import tempfile
from pathlib import Path

from sections import fill

from adadedup_mm.benchmark.plots import write_plots
from adadedup_mm.benchmark.results import Row, write_results
from adadedup_mm.benchmark.tables import all_results, tables_markdown
from adadedup_mm.files import atomic_open


def section(name: str, page: Path, rows: list[Row]) -> str:
    """Markdown of the tables, the plots, and what they were measured on; writes plots and results beside the page."""
    plots = []
    with tempfile.TemporaryDirectory() as folder:
        for results in all_results(rows):
            write_plots(Path(folder), results)
        for plot in sorted(Path(folder).iterdir()):
            plots.append(f'images/{name}_{plot.name}')
            with atomic_open(page.parent / plots[-1]) as file:
                file.write(plot.read_bytes())
    write_results(page.parent / 'results' / f'{name}.parquet', rows)
    first, last = rows[0], max(row['finished'] for row in rows)
    done, samples = sum(row['status'] == 'done' for row in rows), round(first['samples'] / first['share'])
    about = (f'{done} trainings, {samples} samples to choose from, finished {last[:10]}, on {first["device"]}, '
             f'{first["launch"].split(", ")[-1]}.')
    return '\n'.join([tables_markdown(rows), *(f'![{Path(plot).stem}]({plot})\n' for plot in plots), about])


if __name__ == '__main__':
    fill(__doc__, section)
