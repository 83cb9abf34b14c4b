"""``tools/make_minidrive.py``: writes the built-in world."""

import argparse
import time

from ..base.errors import UserError
from ..minidrive.build import FORMATS, WorldOptions, make_world
from .common import run


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    default = WorldOptions()
    parser = argparse.ArgumentParser(
        prog='make_minidrive.py',
        description='Write MiniDrive, a small simulated world of drives with known redundancy: '
        'the same options, the same files.',
    )
    parser.add_argument('out', help='the folder to make')
    parser.add_argument(
        '--scenes',
        type=int,
        default=default.scenes,
        help='drives (default %(default)s)',
    )
    parser.add_argument(
        '--frames',
        type=int,
        default=default.frames,
        help='frames of each drive (default %(default)s)',
    )
    parser.add_argument(
        '--seed',
        type=int,
        default=default.seed,
        help='another seed, another world (default %(default)s)',
    )
    parser.add_argument(
        '--cameras',
        choices=['front', 'all'],
        default=default.cameras,
        help='which pictures the COCO layout holds (default %(default)s)',
    )
    parser.add_argument(
        '--formats',
        nargs='+',
        choices=FORMATS,
        default=list(FORMATS),
        help='what to write (default: all)',
    )
    parser.add_argument('--workers', type=int, help='processes (default: one per CPU core)')

    return parser.parse_args(arguments)


def _main(arguments: list[str] | None) -> None:
    args = _parse(arguments)
    if args.workers is not None and args.workers < 1:
        raise UserError(f'--workers is {args.workers}; it must be at least 1')
    options = WorldOptions(
        scenes=args.scenes,
        frames=args.frames,
        seed=args.seed,
        cameras=args.cameras,
        formats=tuple(name for name in FORMATS if name in args.formats),
    )
    begin = time.monotonic()
    made = make_world(args.out, options, args.workers)
    seconds = time.monotonic() - begin
    how = f'written in {seconds:.0f} s' if made else 'already there'
    samples = args.scenes * args.frames
    formats = ', '.join(options.formats)
    print(f'{args.out}: {args.scenes} scenes, {samples} samples, {formats}; {how}')


def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    run(_main, arguments, go_on='run the same command again')
