"""Training the proxy detector."""

import copy
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import all_reduce, get_rank, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from ..base.errors import UserError
from ..base.files import atomic_open
from ..base.progress import progress
from ..detectors.checkpoint import load_tensors
from ..detectors.config import training_dataset
from ..detectors.isolation import WRAPPER_WITHOUT_GPU, isolated
from ..images.steps import failing_pictures_named, name_failing_pictures

# What the training of a proxy has from its config.
_TAKEN_OVER = (
    'model',
    'train_cfg',
    'optim_wrapper',
    'param_scheduler',
    'auto_scale_lr',
    'custom_hooks',
    'env_cfg',
    'load_from',
)


def train_proxy(
    config: Config,
    dataset: Mapping[str, Any],
    folder: str | Path,
    seed: int = 0,
    every_epoch: bool = False,
    distributed: bool = False,
) -> Path:
    """Trains a detector in this process, which is afterwards as it was before (see ``isolated``).

    The last epoch's state is kept in ``folder``: called again after an interruption, training goes
    on from there, on a CPU to bit-identical weights. For that every epoch starts from a random
    state of its own, and worker processes do not outlive an epoch. Configs that count iterations
    instead of epochs start over.

    Args:
        config: from ``proxy_config``.
        dataset: config of the dataset to train on; the pipeline is that of ``config``.
        folder: where weights and logs go.
        seed: of initial weights, order, augmentation and RoI sampling.
        every_epoch: whether ``folder/epoch_<n>.pth`` keeps the weights after each epoch, counted
            from 1.
        distributed: whether all processes of the open process group train it together, each on an
            equal part of every batch; all of them call this, with the same folder, and the first
            one writes.

    Returns:
        ``folder/proxy.pth``, the weights alone.

    Raises:
        UserError: the loss is no finite number, the pipeline fails on a picture, or there is no
            process group for ``distributed``.
    """
    folder = Path(folder).absolute()
    result, state = folder / 'proxy.pth', folder / 'last_epoch.pth'
    if not result.exists():
        runner_config = make_runner_config(config, dataset, folder, seed)
        if distributed:
            _split(runner_config, config)
        with (
            isolated(folder / 'training.log', hide_group=not distributed),
            failing_pictures_named(),
        ):
            runner = Runner.from_cfg(runner_config)
            runner.register_hook(_ProxyHook(state, seed, every_epoch), priority='LOWEST')
            runner.train()

        if distributed and not is_main_process():
            return result
        with atomic_open(result) as file:
            torch.save(dict(state_dict=load_tensors(state)['state_dict']), file)

    state.unlink(missing_ok=True)

    return result


def make_runner_config(
    config: Config, dataset: Mapping[str, Any], folder: Path, seed: int
) -> Config:
    """The config of an mmengine Runner that trains a proxy; arguments as of ``train_proxy``."""
    loader = dict(config.train_dataloader)
    loader['dataset'] = name_failing_pictures(training_dataset(config, dataset))
    loader['persistent_workers'] = False
    loader['drop_last'] = False
    taken_over = {name: config[name] for name in _TAKEN_OVER if config.get(name) is not None}
    settings = dict(
        taken_over,
        train_dataloader=loader,
        work_dir=str(folder / 'log'),
        experiment_name='proxy',
        default_hooks=dict(checkpoint=None),
        default_scope=config.get('default_scope', 'mmdet'),
        randomness=dict(seed=seed),
    )

    # A copy, because models and runners take their configs apart. Formatting fails for what is no
    # plain value.
    return Config(copy.deepcopy(settings), format_python_code=False)


def _split(runner_config: Config, config: Config) -> None:
    """Gives each process its part of the batch.

    So the schedule and the learning rate still fit.
    """
    if not torch.distributed.is_initialized():
        raise UserError(
            'adadedup.proxy.distributed needs a process group: call '
            'adadedup_mm.engine.open_group(launcher) before'
        )

    loader = runner_config.train_dataloader
    loader.batch_size = -(-loader.batch_size // get_world_size())
    runner_config.launcher = 'pytorch'  # Of any launcher: the group is open already.
    for key in ('model_wrapper_cfg', 'find_unused_parameters', 'sync_bn'):
        if config.get(key) is not None:
            runner_config[key] = config[key]

    if not torch.cuda.is_available():
        runner_config.setdefault('model_wrapper_cfg', dict(WRAPPER_WITHOUT_GPU))


class _ProxyHook(Hook):
    """Makes every epoch repeatable and resumable, and shows progress.

    It also stops the training when the loss is no number.

    Args:
        state: file with everything that the next epoch depends on. mmengine's own checkpoints are
            not used because they hold pickled objects, are not written atomically and leave out
            where the random states are.
        seed: of the training.
        every_epoch: whether to keep the weights of each epoch beside the state.
    """

    def __init__(self, state: Path, seed: int, every_epoch: bool = False) -> None:
        self.state = state
        self.seed = seed
        self.every_epoch = every_epoch

    def before_train(self, runner: Runner) -> None:
        if self.state.exists():
            _resume(runner, load_tensors(self.state))
        self.bar = progress(runner.max_iters, 'proxy training', 'batch')
        self.bar.initial = self.bar.n = runner.iter

    def before_train_epoch(self, runner: Runner) -> None:
        # A factor above any number of epochs, so that trainings with neighbouring seeds share no
        # epoch. Another such factor between processes, which have samples of their own.
        seed = self.seed * 100_003 + runner.epoch + get_rank() * 10_000_019
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self.bar.update()
        finite = torch.isfinite(outputs['loss']).float()
        all_reduce(finite, 'min')  # All stop together: none waits for the gradients of another.
        if not finite:
            self.bar.close()
            raise UserError(
                f'the proxy detector diverged in epoch {runner.epoch + 1} (its loss is '
                f'{float(outputs["loss"])}): lower the learning rate of its config or clip '
                'gradients'
            )

    def after_train_epoch(self, runner: Runner) -> None:
        if not is_main_process():
            return
        checkpoint = dict(
            epoch=runner.epoch + 1,
            iter=runner.iter,
            state_dict=_bare(runner.model).state_dict(),
            optimizer=runner.optim_wrapper.state_dict(),
            schedulers=[scheduler.state_dict() for scheduler in _schedulers(runner)],
        )
        # Hooks that keep weights of their own, such as EMAHook, put them in here.
        runner.call_hook('before_save_checkpoint', checkpoint=checkpoint)
        if self.every_epoch:
            with atomic_open(self.state.with_name(f'epoch_{runner.epoch + 1}.pth')) as file:
                torch.save(dict(state_dict=checkpoint['state_dict']), file)

        with atomic_open(self.state) as file:
            torch.save(checkpoint, file)

    def after_train(self, runner: Runner) -> None:
        self.bar.close()


def _resume(runner: Runner, checkpoint: dict[str, Any]) -> None:
    runner._resume = True
    runner.call_hook('after_load_checkpoint', checkpoint=checkpoint)
    _bare(runner.model).load_state_dict(checkpoint['state_dict'])
    runner.optim_wrapper.load_state_dict(checkpoint['optimizer'])
    for scheduler, state in zip(_schedulers(runner), checkpoint['schedulers'], strict=True):
        scheduler.load_state_dict(state)
    runner.train_loop._epoch, runner.train_loop._iter = checkpoint['epoch'], checkpoint['iter']


def _schedulers(runner: Runner) -> Sequence[Any]:
    schedulers = runner.param_schedulers or []
    if isinstance(schedulers, dict):
        return [scheduler for group in schedulers.values() for scheduler in group]
    return schedulers


def _bare(model: nn.Module) -> nn.Module:
    return model.module if is_model_wrapper(model) else model
