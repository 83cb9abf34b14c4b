"""Puts the tables and plots of a benchmark into a section of a page, and its results beside the page.

    python benchmarks/results_page.py work_dirs/minidrive docs/RESULTS.md

The section is what stands between ``<!-- minidrive -->`` and ``<!-- end of minidrive -->``, after the name of the work
dir. Plots go to ``images/`` and results to ``results/minidrive.parquet``, both beside the page.
"""

import argparse
import tempfile
from pathlib import Path

from adadedup_mm.benchmark.plots import write_plots
from adadedup_mm.benchmark.results import RESULTS, Row, read_results, write_results
from adadedup_mm.benchmark.tables import all_results, tables_markdown
from adadedup_mm.errors import UserError
from adadedup_mm.files import atomic_open


def section(rows: list[Row], plots: list[str]) -> str:
    """Markdown of the tables, the plots, and what they were measured on."""
    first, last = rows[0], max(row['finished'] for row in rows)
    done = sum(row['status'] == 'done' for row in rows)
    about = (f'{done} trainings on {first["samples"]} samples, finished {last[:10]}, on {first["device"]}, '
             f'{first["launch"].split(", ")[-1]}.')
    return '\n'.join([tables_markdown(rows), *(f'![{Path(plot).stem}]({plot})\n' for plot in plots), about])


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('work_dir', type=Path)
    parser.add_argument('page', type=Path)
    args = parser.parse_args()
    name = args.work_dir.resolve().name
    start, end = f'<!-- {name} -->', f'<!-- end of {name} -->'
    text = args.page.read_text(encoding='utf-8')
    if start not in text or end not in text:
        raise UserError(f'{args.page} has no section between {start} and {end}')
    rows = read_results(args.work_dir / RESULTS)
    plots = []
    with tempfile.TemporaryDirectory() as folder:
        for results in all_results(rows):
            write_plots(Path(folder), results)
        for plot in sorted(Path(folder).iterdir()):
            plots.append(f'images/{name}_{plot.name}')
            with atomic_open(args.page.parent / plots[-1]) as file:
                file.write(plot.read_bytes())
    write_results(args.page.parent / 'results' / f'{name}.parquet', rows)
    before, after = text.split(start)[0], text.split(end)[1]
    with atomic_open(args.page, 'w') as file:
        file.write(f'{before}{start}\n{section(rows, plots)}\n{end}{after}')


if __name__ == '__main__':
    main()
