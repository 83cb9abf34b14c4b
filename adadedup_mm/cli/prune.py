"""``tools/prune.py``: annotation files of the samples worth keeping."""

import argparse
import shlex
from pathlib import Path

from rich.table import Table

from ..base import words
from ..base.errors import UserError
from ..engine import open_group, rank_and_world, take_gpu
from ..probe.statistics import summarise
from ..probe.verdict import judge
from ..pruning.dry_run import DryRun, dry_run
from ..pruning.prune import prune
from ..settings.load import default_work_dir, load_config
from ..settings.options import Options, resolve_options
from ..workdir.claim import failures_told
from ..workdir.probe import read_curve
from .common import add_common_flags, print_curve, print_table, run, same_flags


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='prune.py',
        description='Find the redundant samples of the training set of a config '
        'and write annotation files without them.',
    )
    add_common_flags(parser)
    parser.add_argument(
        '--keep-ratio', type=float, help='share of the samples that stays, e.g. 0.8'
    )
    parser.add_argument(
        '--strategy', help='how samples are chosen; docs/STRATEGIES.md names the ways'
    )
    parser.add_argument(
        '--resume',
        action='store_true',
        help='go on with an interrupted run, or take the work dir over for changed options; '
        'finished stages that still fit are used again',
    )
    parser.add_argument(
        '--update',
        type=Path,
        metavar='OLD_WORK_DIR',
        help='new data has arrived: keep the decisions of this finished run, '
        'decide about the new images only, and say when a full run is due',
    )
    parser.add_argument(
        '--dry-run',
        action='store_true',
        help='only show what would go at several keep ratios and what a run would cost; '
        'nothing is written',
    )

    return parser.parse_args(arguments)


def _main(arguments: list[str] | None) -> None:
    args = _parse(arguments)
    if args.update and (args.strategy or args.keep_ratio is not None):
        raise UserError(
            '--update goes on with the strategy and the thresholds of the old run: '
            'leave --strategy and --keep-ratio out'
        )

    rank, world = rank_and_world(args.launcher)
    with failures_told(args.work_dir, rank, world):
        config = load_config(args.config, args.cfg_options)
        options = resolve_options(config, args.keep_ratio, args.strategy)
        take_gpu(args.launcher)

    work_dir = args.work_dir or default_work_dir(config, args.config)
    if args.dry_run:
        if world > 1 or args.update or args.resume:
            raise UserError(
                '--dry-run runs in one process, looks at all samples and writes nothing: '
                'leave --launcher, --update and --resume out'
            )

        _show(dry_run(config, options, Path(work_dir)), options, work_dir)
        _show_quality(args, options, Path(work_dir))
        return

    if options.proxy.distributed:
        with failures_told(work_dir, rank, world):
            open_group(args.launcher)

    prune(
        config,
        options,
        work_dir,
        rank=rank,
        world=world,
        resume=args.resume,
        update_of=args.update,
    )


def _show(result: DryRun, options: Options, work_dir: str) -> None:
    table = Table(title=f'{result.samples:,} samples, strategy {options.strategy_name}')
    for title in (
        'keep ratio',
        'kept',
        'pruned',
        'threshold',
        'near-duplicates',
        'time',
        'memory',
        'disk',
    ):
        table.add_column(title, justify='right')

    for row in result.rows:
        cost = row.cost
        cells = (
            f'{row.keep_ratio:g}',
            f'{row.kept:,}',
            f'{result.samples - row.kept:,}',
            words.number(row.threshold),
            words.share(row.near_duplicates, 0),
            words.duration(cost.seconds),
            words.size(cost.memory),
            words.size(cost.disk),
        )
        table.add_row(*cells, style='bold' if row.keep_ratio == options.keep_ratio else None)

    print_table(table)
    if options.group_by or options.min_gap:
        print('group_by and min_gap, which change what is kept, are left aside here')
    print(
        'near-duplicates: their share of what goes; '
        'time, memory, disk: of a whole run, estimated from a short trial here'
    )
    for note in result.notes:
        print(f'note: {note}')
    if result.reused:
        print(f'features of {work_dir} were used, nothing was written')
    else:
        print('nothing was written; what was computed lay in a temporary folder, which is gone')


def _show_quality(args: argparse.Namespace, options: Options, work_dir: Path) -> None:
    """What a probe has said about the work dir's data, or how to ask one."""
    flags = same_flags(args)
    curve = read_curve(work_dir)
    if curve is None:
        command = shlex.join(['python', 'tools/probe.py', args.config, *flags])
        print(f'what that would mean for a detector: {command}')
        return
    summary = summarise(curve)
    print_curve(summary, judge(summary, args.config, flags, options.strategy_name))


def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    run(_main, arguments)
