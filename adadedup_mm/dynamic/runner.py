"""Turning a training config into one that prunes while it trains."""

from typing import Any

from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..base.checks import choose
from ..base.errors import UserError
from ..engine import build_runner, prune_first
from ..settings.options import plain
from .losses import MODES
from .policies import build_policy, check_period

# Samplers that draw every sample once per epoch, so that a subset may take their place.
_REPLACED = ('DefaultSampler', 'InfiniteSampler')


def apply_dynamic(config: Any) -> None:
    """Changes a training config as its ``dynamic`` dict says: sampler, indexed dataset and hook.

    Args:
        config: a whole training config, changed in place. ``dynamic`` holds ``policy``, its
            arguments, and ``loss``, how per-sample losses are computed (see
            ``adadedup_mm.dynamic.losses``).

    Raises:
        UserError: ``dynamic`` is missing or wrong, or the dataloader cannot be pruned.
    """
    options = plain(config.get('dynamic'))
    if not isinstance(options, dict):
        raise UserError(
            "the config has no 'dynamic' dict: add 'adadedup_mm::_base_/dynamic_random.py', or "
            'that of another policy, to its _base_ list'
        )

    loss = options.pop('loss', 'auto')
    choose(loss, MODES, 'dynamic.loss')
    train_cfg = config.get('train_cfg') or {}
    _check_policy(options, train_cfg.get('max_epochs'))
    loader = config.get('train_dataloader')
    _check_loader(loader)
    sampler = loader.get('sampler') or {}
    loader['dataset'] = dict(type='adadedup_mm.dynamic.IndexedDataset', dataset=loader['dataset'])
    loader['sampler'] = dict(
        type='adadedup_mm.dynamic.DynamicPruningSampler',
        policy=options,
        shuffle=sampler.get('shuffle', True),
        least=_least(loader),
    )
    hook = dict(type='adadedup_mm.dynamic.DynamicPruningHook', loss=loss)
    hooks = config.get('custom_hooks') or []
    config['custom_hooks'] = [*hooks, hook]


def _check_loader(loader: Any) -> None:
    """Raises UserError if a dataloader cannot be pruned."""
    if not isinstance(loader, dict):
        raise UserError(
            f'train_dataloader must be a dict to be pruned, but is {type(loader).__name__}'
        )
    if loader.get('num_batch_per_epoch') is not None:
        raise UserError(
            'train_dataloader.num_batch_per_epoch and dynamic pruning both cut epochs short: '
            'remove one'
        )

    sampler = loader.get('sampler') or {}
    kind = sampler.get('type', 'DefaultSampler')
    name = kind if isinstance(kind, str) else kind.__name__
    if name.rsplit('.', 1)[-1] not in _REPLACED:
        raise UserError(
            f'train_dataloader.sampler is {name}, but dynamic pruning replaces only '
            f'{" and ".join(_REPLACED)}: choose one of them'
        )


def _least(loader: dict[str, Any]) -> int:
    """How many samples a process must draw so that no pass is without a batch."""
    batches = loader.get('batch_sampler')
    size = loader.get('batch_size')
    if not isinstance(size, int):
        return 1
    if isinstance(batches, dict):
        # Those that group samples may drop a last batch that is just full.
        return size + 1 if batches.get('drop_last') else 1
    return size if loader.get('drop_last') else 1


def _check_policy(options: dict[str, Any], epochs: int | None) -> None:
    """Before anything is built, so that a wrong value costs no time."""
    arguments = dict(options)
    name = arguments.pop('policy', None)
    policy = build_policy(name, arguments)
    if epochs is not None:
        check_period(policy, epochs)


@RUNNERS.register_module()
class DynamicPruningRunner(Runner):
    """An ordinary Runner whose training set is pruned again every period.

    ``runner_type = 'adadedup_mm.dynamic.DynamicPruningRunner'`` in a config makes the
    ``tools/train.py`` of mmdet, mmdet3d and mmpretrain use it. With an ``adadedup`` dict in the
    config the training set is pruned once before, and the policy chooses from what was kept.
    """

    @classmethod
    def from_cfg(cls, cfg: Any) -> 'Runner':
        """Builds a plain mmengine Runner from the changed config."""
        config = cfg if isinstance(cfg, Config) else Config(dict(cfg))
        if 'adadedup' in config:
            config, _ = prune_first(config)
        apply_dynamic(config)
        return build_runner(config)
