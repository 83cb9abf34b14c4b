"""``tools/report.py``: the report page of a pruning run, made again from its tables."""

import argparse
from pathlib import Path

from ..report import build_report
from .common import run


def _main(arguments: list[str] | None) -> None:
    parser = argparse.ArgumentParser(
        prog='report.py', description='Make DIR/report.html again from the tables in DIR.'
    )
    parser.add_argument(
        'dir', metavar='DIR', type=Path, help='work dir of a finished tools/prune.py run'
    )
    args = parser.parse_args(arguments)
    print(build_report(args.dir))


def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    run(_main, arguments, go_on='run the same command again')
