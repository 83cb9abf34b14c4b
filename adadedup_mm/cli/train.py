"""``tools/train.py``: mmdet's training tool for configs that may contain our line."""

import argparse

from mmengine.registry import RUNNERS

from ..config import default_work_dir, load_config
from ..engine import build_runner
from ..errors import UserError
from .common import add_common_flags, run


def _main(arguments: list[str] | None) -> None:
    parser = argparse.ArgumentParser(prog='train.py', description='Train a detector; with our line in the config the '
                                     'training set is pruned first.')
    add_common_flags(parser)
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size')
    parser.add_argument('--resume', nargs='?', const='auto', help='resume from this checkpoint, or from the latest')
    args = parser.parse_args(arguments)

    config = load_config(args.config, args.cfg_options)
    config.launcher = args.launcher
    config.work_dir = args.work_dir or default_work_dir(config, args.config)
    if args.amp:
        config.optim_wrapper.type = 'AmpOptimWrapper'
        config.optim_wrapper.loss_scale = 'dynamic'
    if args.auto_scale_lr:
        if not {'enable', 'base_batch_size'} <= set(config.get('auto_scale_lr', {})):
            raise UserError("--auto-scale-lr needs 'auto_scale_lr' with 'enable' and 'base_batch_size' in the config")
        config.auto_scale_lr.enable = True
    if args.resume:
        config.resume = True
        config.load_from = None if args.resume == 'auto' else args.resume
    runner = RUNNERS.build(config) if 'runner_type' in config else build_runner(config)
    runner.train()


def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    run(_main, arguments)
