"""``tools/benchmark.py``: strategies x keep ratios x seeds x models -> tables and plots."""

import argparse
import contextlib
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ..base.errors import UserError
from ..base.files import atomic_open
from ..benchmark.config import Benchmark, load_benchmark
from ..benchmark.data import prepare
from ..benchmark.hook import REPORT
from ..benchmark.jobs import Job, check_weights, make_jobs, trained
from ..benchmark.launch import Launcher, remove_checkpoints
from ..benchmark.overview import Overview
from ..benchmark.plots import replace_plots
from ..benchmark.results import (
    RESULTS,
    Row,
    check_metric,
    is_done,
    judged,
    make_row,
    probe_row,
    read_results,
    stored_row,
    with_metric,
    write_results,
)
from ..benchmark.schedule import run_jobs
from ..benchmark.tables import all_results, write_tables
from ..benchmark.verdict import verdict_text
from ..workdir.claim import held
from .common import add_cfg_options, run


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='benchmark.py',
        description='Compare ways to prune: every variant, keep ratio and seed of CONFIG is one '
        'training, or one selection that the probe measures. Run the same command again after an '
        'interruption; what failed is then tried again.',
    )
    parser.add_argument(
        'config',
        help='a benchmark config; or the work dir of a benchmark, to make its tables again',
    )
    parser.add_argument(
        '--work-dir', type=Path, help='where results go (default: work_dirs/<name of the config>)'
    )
    add_cfg_options(parser, 'override settings of the benchmark config')
    parser.add_argument(
        '--jobs', type=int, default=1, help='trainings side by side (default %(default)s)'
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm'],
        default='none',
        help='how each training is started',
    )
    parser.add_argument(
        '--gpus',
        type=int,
        default=8,
        help='GPUs of each training, with a launcher (default %(default)s)',
    )
    parser.add_argument('--partition', help='Slurm partition')
    parser.add_argument(
        '--keep-checkpoints', action='store_true', help='keep the weights of finished trainings'
    )
    parser.add_argument('--metric', help='make the tables for another result of the evaluations')

    return parser.parse_args(arguments)


def _main(arguments: list[str] | None) -> None:
    args = _parse(arguments)
    folder = Path(args.config)
    if folder.is_dir():
        _report(folder, read_results(folder / RESULTS), args.metric)
        return

    launcher = Launcher(
        kind=args.launcher,
        gpus=args.gpus if args.launcher != 'none' else 1,
        side_by_side=args.jobs,
        partition=args.partition,
    )
    launcher.check()
    benchmark = load_benchmark(args.config, args.cfg_options)
    name = Path(args.config.split('::')[-1]).stem
    work_dir = (args.work_dir or Path('work_dirs') / name).absolute()
    about = dict(
        benchmark=name,
        metric=benchmark.metric,
        compare_with=benchmark.compare_with,
    )
    with _claim(work_dir):
        settings = prepare(benchmark.data, work_dir, benchmark.seeds)
        jobs = make_jobs(benchmark, settings, work_dir)
        check_weights(jobs)
        rows = _earlier_rows(jobs, about, launcher)
        for row in rows.values():
            check_metric(row, args.metric or benchmark.metric)
        waiting = [job for job in jobs if job.folder not in rows]
        print(_announcement(benchmark, jobs, waiting), flush=True)
        _run_probes(jobs, rows, about, work_dir)
        _run(jobs, rows, about, launcher, work_dir, args)
        ordered = [rows[job.folder] for job in jobs]
        _report(work_dir, ordered, args.metric)

    failed = sum(not is_done(row) for row in ordered)
    if failed:
        print(
            f'{failed} of {_counted(jobs)} failed; the same command tries them again',
            file=sys.stderr,
        )
        sys.exit(1)


def _announcement(benchmark: Benchmark, jobs: list[Job], waiting: list[Job]) -> str:
    """How many trainings there are, how many are done, and what the rest costs."""
    hours = 0.0
    for job in trained(waiting):
        of_whole_training = benchmark.gpu_hours.get(job.model, 0.0)
        hours += of_whole_training * (job.keep_ratio or 1.0)

    ratios = ', '.join(f'{ratio:g}' for ratio in benchmark.keep_ratios)
    done = len(jobs) - len(waiting)
    text = (
        f'{_counted(jobs)}: {len(benchmark.models)} models, '
        f'{len(benchmark.variants)} variants, keep ratios {ratios}, {len(benchmark.seeds)} seeds'
    )
    if done:
        text += f', {done} done already'
    if hours:
        text += f', about {hours:.0f} GPU hours of training and the pruning'
    return text


def _counted(jobs: list[Job]) -> str:
    """How many jobs there are of each kind, in words."""
    trainings = len(trained(jobs))
    selections = len(jobs) - trainings
    parts = []
    if selections:
        parts.append(f'{selections} selections for the probe')
    if trainings:
        parts.append(f'{trainings} trainings')
    return ' and '.join(parts)


def _run_probes(jobs: list[Job], rows: dict[Path, Row], about: Row, work_dir: Path) -> None:
    """Measures the selections that have no row yet, those of the same data together."""
    probes = [job for job in jobs if job.is_probe]
    waiting = [job for job in probes if job.folder not in rows]
    if not waiting:
        return
    from ..benchmark.probes import measure_jobs, measured_together  # which takes seconds

    overview = Overview(probes, [rows[job.folder] for job in probes if job.folder in rows], 1)
    for group in measured_together(waiting):
        started = time.monotonic()
        outcomes = measure_jobs(group)
        seconds = time.monotonic() - started
        for job, outcome in zip(group, outcomes, strict=True):
            rows[job.folder] = probe_row(job, about, outcome, seconds / len(group))
        _write(jobs, rows, work_dir)
        overview.measured(group, [rows[job.folder] for job in group])
        for job in group:
            check_metric(rows[job.folder], about['metric'])


def _run(
    jobs: list[Job],
    rows: dict[Path, Row],
    about: Row,
    launcher: Launcher,
    work_dir: Path,
    args: argparse.Namespace,
) -> None:
    """Runs the trainings that have no row yet, and adds their rows."""
    if rows:  # of an earlier call, maybe with another config
        _write(jobs, rows, work_dir)
    trainings = trained(jobs)
    waiting = [job for job in trainings if job.folder not in rows]
    ended = [rows[job.folder] for job in trainings if job.folder in rows]
    with Overview(trainings, ended, launcher.side_by_side) as overview:

        def finish(job: Job, code: int, seconds: float) -> None:
            row = make_row(job, about | _launch(launcher), seconds, code)
            rows[job.folder] = row
            if is_done(row) and not args.keep_checkpoints:
                remove_checkpoints(job.folder)
            _write(jobs, rows, work_dir)
            overview.finished(job, row)
            check_metric(row, args.metric or row['metric'])

        run_jobs(waiting, launcher.start, finish, launcher.side_by_side, overview)


def _write(jobs: list[Job], rows: dict[Path, Row], work_dir: Path) -> None:
    ended = [job for job in jobs if job.folder in rows]
    write_results(work_dir / RESULTS, [rows[job.folder] for job in ended])


def _launch(launcher: Launcher) -> Row:
    """How the trainings were started, in words."""
    parts = [launcher.kind]
    if launcher.kind != 'none':
        parts.append(f'{launcher.gpus} processes')
    parts.append(f'{launcher.side_by_side} side by side')
    return dict(launch=', '.join(parts))


def _earlier_rows(jobs: list[Job], about: Row, launcher: Launcher) -> dict[Path, Row]:
    """The results of earlier calls by the jobs' folders."""
    rows = {}
    for job in jobs:
        row = _earlier_row(job, about, launcher)
        if row:
            rows[job.folder] = row
    return rows


def _earlier_row(job: Job, about: Row, launcher: Launcher) -> Row | None:
    """The result of an earlier call, also where that was killed before it could note it."""
    row = stored_row(job)
    if row is None and (job.folder / REPORT).exists():
        row = make_row(job, about | _launch(launcher))
    if row is None or not row['metrics']:
        return None
    row = judged(row | about, about['metric'])
    check_metric(row, about['metric'])
    return row if is_done(row) else None


def _report(folder: Path, rows: list[Row], metric: str | None) -> None:
    """Writes tables and plots, and prints the tables."""
    if metric:
        rows = with_metric(rows, metric)
    every = all_results(rows)
    print(write_tables(folder / 'tables', rows))
    verdict = verdict_text(every)
    print(verdict)
    with atomic_open(folder / 'tables' / 'verdict.md', 'w') as file:
        file.write(verdict)
    left_out = replace_plots(folder / 'plots', every)
    print(f'tables: {folder / "tables"}; plots: {folder / "plots"}')
    for name in left_out:
        print(f'no {name}: all variants used the same share of the samples')


@contextlib.contextmanager
def _claim(work_dir: Path) -> Iterator[None]:
    """One benchmark at a time in a work dir; a new one goes again if nothing came of it."""
    is_new = not work_dir.exists()
    with held(work_dir, 'benchmark'):
        try:
            yield
        except UserError:
            if is_new and [*work_dir.iterdir()] == [work_dir / 'lock']:
                shutil.rmtree(work_dir)
            raise


def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    run(_main, arguments, go_on='run the same command again to go on')
