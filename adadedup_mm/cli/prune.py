"""``tools/prune.py``: annotation files of the samples worth keeping."""

import argparse

from ..config import default_work_dir, load_config
from ..engine import rank_and_world
from ..options import resolve_options
from ..pipeline import prune
from .common import add_common_flags, run


def _main(arguments: list[str] | None) -> None:
    parser = argparse.ArgumentParser(prog='prune.py', description='Find the redundant samples of the training set of '
                                     'a config and write annotation files without them.')
    add_common_flags(parser)
    parser.add_argument('--keep-ratio', type=float, help='share of the samples that stays, e.g. 0.8')
    parser.add_argument('--strategy', help='how samples are chosen, e.g. adadedup, clip_dedup, random, uniform_stride')
    parser.add_argument('--resume', action='store_true', help='go on with an interrupted run, or take the work dir '
                        'over for changed options; finished stages that still fit are used again')
    args = parser.parse_args(arguments)

    config = load_config(args.config, args.cfg_options)
    options = resolve_options(config, args.keep_ratio, args.strategy)
    rank, world = rank_and_world(args.launcher)
    work_dir = args.work_dir or default_work_dir(config, args.config)
    prune(config, options, work_dir, rank=rank, world=world, resume=args.resume)


def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    run(_main, arguments)
