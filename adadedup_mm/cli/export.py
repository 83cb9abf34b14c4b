"""``tools/export.py``: a pruning run's decisions for other programs."""

import argparse
import shlex
from pathlib import Path

from ..workdir.export import export_csv, export_fiftyone
from .common import run


def _main(arguments: list[str] | None) -> None:
    parser = argparse.ArgumentParser(
        prog='export.py',
        description='Write what a pruning run decided about every sample: '
        'kept or pruned, partner, similarity, loss, tags.',
    )
    parser.add_argument(
        'work_dir', metavar='WORK_DIR', type=Path, help='of a finished tools/prune.py run'
    )
    parser.add_argument(
        '--to',
        choices=['csv', 'fiftyone'],
        default='csv',
        help='a CSV file, or a folder that FiftyOne reads (default %(default)s)',
    )
    parser.add_argument(
        '--out', type=Path, help='default: WORK_DIR/export/samples.csv or WORK_DIR/export/fiftyone'
    )
    args = parser.parse_args(arguments)

    if args.to == 'csv':
        out = args.out or args.work_dir / 'export' / 'samples.csv'
        print(f'{out}: {export_csv(args.work_dir, out)} samples')
        return

    out = args.out or args.work_dir / 'export' / 'fiftyone'
    count = export_fiftyone(args.work_dir, out)
    folder = shlex.quote(str(out))
    print(
        f'{out}: {count} images; open it with: '
        f'fiftyone datasets create --name pruning --dataset-dir {folder} '
        '--type fiftyone.types.FiftyOneDataset && fiftyone app launch pruning'
    )


def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    run(_main, arguments, go_on='run the same command again')
