"""Training on the pruned set: the Runner that ``_base_/adadedup.py`` names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..base.compat import allow_checkpoints_of_mmengine
from ..base.errors import UserError
from ..pruning.prune import prune
from ..settings.config_text import check_printable
from ..settings.options import resolve_options
from ..workdir.claim import failures_told
from .launchers import open_group, rank_and_world, take_gpu, use_gloo_without_gpu


@RUNNERS.register_module()
class AdaDeDupRunner(Runner):
    """Prunes before the training is built, then is an ordinary Runner on the pruned set.

    ``runner_type = 'adadedup_mm.engine.AdaDeDupRunner'`` in a config makes mmdet's and mmdet3d's
    ``tools/train.py`` use it. Because the dataset is known before loops and schedulers are built,
    epoch length, learning rate schedule and the logged ETA are those of the pruned set. A finished
    pruning run of the same inputs and options is used again, and an interrupted one is resumed.
    """

    @classmethod
    def from_cfg(cls, cfg: Any) -> 'Runner':
        """Prunes as ``cfg.adadedup`` says and builds a plain mmengine Runner on the pruned set."""
        config = cfg if isinstance(cfg, Config) else Config(dict(cfg))
        if isinstance(config.get('dynamic'), Mapping):
            raise UserError(
                "the config has a 'dynamic' dict too, which AdaDeDupRunner does not look at: set "
                "runner_type='adadedup_mm.dynamic.DynamicPruningRunner', which prunes before the "
                'training and during it'
            )

        pruned, folder = prune_first(config)
        hook = dict(type='adadedup_mm.engine.AdaDeDupHook', pruning_dir=str(folder))
        pruned.custom_hooks = [*pruned.get('custom_hooks', []), hook]

        return build_runner(pruned)


def build_runner(config: Config) -> Runner:
    """A plain mmengine Runner, also for several processes without a GPU and for a current torch."""
    use_gloo_without_gpu(config)
    allow_checkpoints_of_mmengine()
    return Runner.from_cfg(config)


def prune_first(config: Config) -> tuple[Config, Path]:
    """Prunes as ``config.adadedup`` says, or takes a finished run of the same inputs and options.

    Returns:
        The config on the pruned set, and the work dir of the pruning run.

    Raises:
        UserError: the input is wrong, or no Runner could start with the config afterwards.
        ProcessError: another process has failed, is gone or has not appeared.
    """
    launcher = config.get('launcher', 'none')
    rank, world = rank_and_world(launcher)
    usual = Path(config['work_dir']) / 'adadedup'
    with failures_told(usual, rank, world):
        check_printable(config)
        options = resolve_options(config)

    folder = Path(options.work_dir or usual).absolute()
    with failures_told(folder, rank, world):
        take_gpu(launcher)
        if options.proxy.distributed:
            open_group(launcher)

    pruned = prune(
        config,
        options,
        folder,
        rank=rank,
        world=world,
        resume=True,
    )

    return pruned, folder
