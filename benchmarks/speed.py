"""All figures of speed and memory beside their references, as one table.

    python benchmarks/speed.py [--quick] [--only density kmeans ...] [--write docs/SPEED.md]

Every part is a script that also runs alone, here in a process of its own, one after the other; what
they print goes to standard error. With ``--write`` the table replaces the section ``speed`` of a
page (see ``sections.py``). The figures then stay in ``results/speed.json`` beside it, so that parts
can be measured anew with ``--only``.
"""

import argparse
import dataclasses
import datetime
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from figures import Figure, load, table
from sections import fill_section

from adadedup_mm.base.files import write_json

PARTS = (
    'density',
    'kmeans',
    'features',
    'proxy_losses',
    'probe',
    'rewrite',
    'scale',
    'ranks',
    'break_even',
)


def run_part(part: str, quick: bool, plot: Path | None = None) -> list[Figure] | None:
    """The figures of a part; None if it fails, after what it said about that."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, 'figures')
        options = ['--quick'] * quick + (['--plot', str(plot)] if plot else [])
        command = [
            sys.executable,
            str(Path(__file__).with_name(f'{part}.py')),
            '--figures',
            str(file),
            *options,
        ]
        print(f'== {part}', file=sys.stderr, flush=True)
        failed = subprocess.run(command, stdout=sys.stderr, check=False).returncode
        return None if failed else load(file)


def write(page: Path, measured: dict[str, list[Figure]]) -> None:
    """Fills the page's section with these parts and those of earlier runs.

    The page's ``results/speed.json`` has the earlier ones.
    """
    store = page.parent / 'results/speed.json'
    parts = json.loads(store.read_text(encoding='utf-8')) if store.exists() else {}
    today = datetime.date.today().isoformat()
    parts |= {
        part: dict(date=today, figures=[dataclasses.asdict(figure) for figure in figures])
        for part, figures in measured.items()
    }
    parts = {part: parts[part] for part in PARTS if part in parts}
    store.parent.mkdir(exist_ok=True)
    write_json(store, parts)
    figures = [Figure(**figure) for part in parts.values() for figure in part['figures']]
    dates = ', '.join(sorted({part['date'] for part in parts.values()}))
    fill_section(page, 'speed', f'{table(figures)}\n\n{summary(figures)} Measured {dates}.')


def summary(figures: list[Figure]) -> str:
    """How many targets are met."""
    asked = [figure for figure in figures if figure.met is not None]
    return f'{sum(figure.met for figure in asked)} of {len(asked)} targets are met.'


def main() -> None:
    """Command line; ends with 1 if a part fails, and with 0 whether targets are met or not."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--quick', action='store_true', help='small cases, few repeats: to see that all works'
    )
    parser.add_argument('--only', nargs='+', choices=PARTS, metavar='PART', help=', '.join(PARTS))
    parser.add_argument(
        '--write',
        type=Path,
        metavar='PAGE',
        help='fill the section of this page, and draw the plot',
    )
    arguments = parser.parse_args()
    if arguments.quick and arguments.write:
        parser.error('--write is for figures of full size: leave out --quick')
    measured, failed = {}, []
    for part in arguments.only or PARTS:
        plot = (
            arguments.write.parent / 'images/scale.png'
            if arguments.write and part == 'scale'
            else None
        )
        figures = run_part(part, arguments.quick, plot)
        if figures is None:
            failed.append(part)
            continue
        measured[part] = figures
        if arguments.write:  # part by part: the next one may be stopped
            write(arguments.write, measured)
    figures = [figure for part in measured.values() for figure in part]
    print(f'{table(figures)}\n\n{summary(figures)}')
    if failed:
        sys.exit(f'These parts failed: {", ".join(failed)}')


if __name__ == '__main__':
    main()
