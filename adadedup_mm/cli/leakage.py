"""``tools/leakage.py``: near-duplicates of training samples in validation and test sets."""

import argparse
from pathlib import Path

from rich.table import Table

from ..leakage.find import find_leakage
from ..settings.load import default_work_dir, load_config
from ..settings.options import resolve_options
from ..workdir.leakage import LeakageSummary
from .common import add_cfg_options, print_table, run


def _main(arguments: list[str] | None) -> None:
    parser = argparse.ArgumentParser(
        prog='leakage.py',
        description='Find validation and test samples of a config that are near-duplicates '
        'of training samples.',
    )
    parser.add_argument(
        'config',
        metavar='TRAIN_CONFIG',
        help='your training config with our line in its _base_ list',
    )
    parser.add_argument(
        '--work-dir', help="results go to its folder leakage/; the default is the config's work_dir"
    )
    parser.add_argument(
        '--threshold',
        type=float,
        help="similarity from which a pair counts; the default is the embedder's near_duplicate",
    )
    add_cfg_options(parser)
    args = parser.parse_args(arguments)

    config = load_config(args.config, args.cfg_options)
    work_dir = Path(args.work_dir or default_work_dir(config, args.config)).absolute()
    summary = find_leakage(config, resolve_options(config), work_dir, args.threshold)
    print_table(_table(summary))
    folder = f'{work_dir}/leakage'
    print(f'pairs: {folder}/pairs.csv (and .parquet); pictures: {folder}/leakage.html')


def _table(summary: LeakageSummary) -> Table:
    table = Table(
        title=f'Near-duplicates of {summary.train_samples:,} training samples (similarity at least '
        f'{summary.threshold:g})'
    )
    for title in (
        'split',
        'samples',
        'near-duplicates',
        'share',
        'identical',
        'same file',
        'most similar',
        'unreadable',
    ):
        table.add_column(title, justify='left' if title == 'split' else 'right')

    for split in summary.splits:
        table.add_row(
            split.split,
            f'{split.samples:,}',
            f'{split.leaked:,}',
            f'{split.leaked / split.samples:.1%}',
            f'{split.identical:,}',
            f'{split.same_file:,}',
            '-' if split.highest is None else f'{split.highest:.4f}',
            f'{split.unreadable:,}',
        )

    return table


def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    run(_main, arguments, go_on='run the same command to go on')
