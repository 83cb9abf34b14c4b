"""``tools/train.py``: mmdet's training tool for configs that may contain our line."""

import argparse
import inspect
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import RUNNERS

from ..base.errors import UserError
from ..datasets.sources import class_name
from ..dynamic import DynamicPruningRunner
from ..engine import AdaDeDupRunner, build_runner
from ..settings.load import default_work_dir, load_config
from .common import add_common_flags, run

# The dicts of ours that ask for a Runner, and which one.
_ASKS_FOR = dict(
    dynamic='adadedup_mm.dynamic.DynamicPruningRunner', adadedup='adadedup_mm.engine.AdaDeDupRunner'
)
# Those that do what a dict says.
_ABLE = dict(dynamic=(DynamicPruningRunner,), adadedup=(AdaDeDupRunner, DynamicPruningRunner))


def _main(arguments: list[str] | None) -> None:
    parser = argparse.ArgumentParser(
        prog='train.py',
        description='Train a detector; with our line in the config the training set is pruned '
        'first.',
    )
    add_common_flags(parser)
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size'
    )
    parser.add_argument(
        '--resume', nargs='?', const='auto', help='resume from this checkpoint, or from the latest'
    )
    args = parser.parse_args(arguments)

    config = load_config(args.config, args.cfg_options)
    config.launcher = args.launcher
    config.work_dir = args.work_dir or default_work_dir(config, args.config)
    if args.amp:
        config.optim_wrapper.type = 'AmpOptimWrapper'
        config.optim_wrapper.loss_scale = 'dynamic'

    if args.auto_scale_lr:
        if not {'enable', 'base_batch_size'} <= set(config.get('auto_scale_lr', {})):
            raise UserError(
                "--auto-scale-lr needs 'auto_scale_lr' with 'enable' and 'base_batch_size' "
                'in the config'
            )

        config.auto_scale_lr.enable = True

    if args.resume:
        config.resume = True
        config.load_from = None if args.resume == 'auto' else args.resume

    kind = _runner_type(config)
    if kind is None:
        runner = build_runner(config)
    else:
        config.runner_type = kind
        runner = RUNNERS.build(config)

    runner.train()


def _runner_type(config: Config) -> Any:
    """The Runner that a config names, or else that its dicts ask for; None for mmengine's own.

    Raises:
        UserError: the Runner that it names would not look at one of the dicts.
    """
    given = config.get('runner_type')
    dicts = [name for name in _ASKS_FOR if isinstance(config.get(name), Mapping)]
    if config.get('adadedup') and 'adadedup' not in dicts:
        raise UserError(
            f"the config's adadedup is {config['adadedup']!r}, but must be a dict, or "
            'None for no pruning'
        )
    if given is None:
        return _ASKS_FOR[dicts[0]] if dicts else None
    kind = RUNNERS.get(given) if isinstance(given, str) else given
    for name in dicts:
        if not inspect.isclass(kind) or not issubclass(kind, _ABLE[name]):
            raise UserError(
                f'the config has a {name!r} dict, but its runner_type {class_name(given)} '
                f'does not look at it: set runner_type={_ASKS_FOR[name]!r}, or take the dict out'
            )

    return given


def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    run(_main, arguments)
