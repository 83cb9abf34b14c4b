"""Feeds losses back to the sampler, and keeps loops, schedulers and checkpoints right."""

import math
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_rank, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import IterBasedTrainLoop

from ..base.errors import UserError
from ..detectors.isolation import random_states, set_random_states
from .accumulation import accumulated, expect_iterations, restore_accumulated
from .losses import SampleLosses
from .policies import check_period
from .sampler import DynamicPruningSampler, batch_indices, no_batch
from .usage import write_usage

CHECKPOINT_KEY = 'dynamic_pruning'


@HOOKS.register_module()
class DynamicPruningHook(Hook):
    """Trains on ``DynamicPruningSampler``'s subsets and tells it the losses.

    ``DynamicPruningRunner`` adds it. A pass over the subset is an epoch, in loops that count
    iterations as well. At its start all global random states are seeded from the sampler's seed,
    the epoch and the rank, so that a resumed training is identical to an uninterrupted one. Where
    epochs change their length (InfoBatch, SeTa), schedulers that count iterations make up at the
    end of an epoch for the steps that it was short of, so that every epoch starts where it would
    without pruning; ETA and ``max_iters`` follow the present length.

    Logged once an epoch: ``dynamic/kept_share``, ``dynamic/mean_score``, ``dynamic/churn``,
    ``dynamic/sometimes`` (share of the samples that some but not all epochs so far used) and
    ``dynamic/seconds_saved``. After the training ``dynamic_samples.parquet`` and ``.png`` in the
    work dir tell how often each sample was used.

    Args:
        loss: how losses are taken from a training step (see ``adadedup_mm.dynamic.losses``).
    """

    priority = 'ABOVE_NORMAL'

    def __init__(self, loss: str = 'auto') -> None:
        self.loss = loss
        self.losses: SampleLosses | None = None
        self.resumed: dict[str, Any] | None = None
        self.pending: list[tuple[np.ndarray, torch.Tensor]] = []
        self.told: tuple[str, str] | None = None
        self.position = 0
        self.seconds_saved = 0.0

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Remembers the sampler's state; weights that are only loaded bring none along."""
        if runner._resume:
            self.resumed = checkpoint.get(CHECKPOINT_KEY)
            if self.resumed is None:
                raise UserError(
                    'the checkpoint to resume from has no dynamic pruning in it: use it as '
                    'load_from'
                )

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        self._feed_back(runner)
        state = dict(
            sampler=self.sampler.state_dict(),
            position=self.position,
            random=random_states(),
            seconds_saved=self.seconds_saved,
        )
        if self.losses is not None:
            state['losses'] = self.losses.state_dict()
        if self.sampler.world == 1:
            # Processes have gradients of their own until they step together.
            state['accumulated'] = accumulated(runner)

        checkpoint[CHECKPOINT_KEY] = state

    def before_train(self, runner: Any) -> None:
        loop = runner.train_loop
        self.loader = loop.dataloader
        self.sampler = _find_sampler(self.loader)
        self.full_length = len(self.loader)
        if self.full_length == 0:
            raise no_batch(self.sampler)
        self.by_iter = isinstance(loop, IterBasedTrainLoop)
        epochs = self._epochs(loop)
        policy = self.sampler.policy
        check_period(policy, epochs)
        policy.epochs = epochs
        saved = self.resumed or {}
        if saved:
            self.sampler.load_state_dict(saved['sampler'])
            self.seconds_saved = saved['seconds_saved']

        if policy.needs_losses:
            self.losses = SampleLosses(runner.model, self.loss)
            if 'losses' in saved:
                self.losses.load_state_dict(saved['losses'])

        if 'accumulated' in saved:
            restore_accumulated(runner, saved['accumulated'])

    def _epochs(self, loop: Any) -> int:
        """How many passes over the dataset a training makes, the last one maybe in part."""
        if self.by_iter:
            return math.ceil(loop.max_iters / self.full_length)
        return int(loop.max_epochs)

    def before_train_epoch(self, runner: Any) -> None:
        loop = runner.train_loop
        if self.by_iter:
            loop.dataloader_iterator = _Passes(self, runner)
            return
        self.start_pass(runner, runner.epoch)
        epochs_left = loop.max_epochs - runner.epoch
        iterations_left = epochs_left * len(self.loader)
        loop._max_iters = runner.iter + iterations_left
        expect_iterations(runner.optim_wrapper, loop.max_iters)

    def start_pass(self, runner: Any, epoch: int) -> None:
        """Begins a pass over a subset that is new if a period begins."""
        sampler = self.sampler
        sampler.start_epoch(epoch)
        self.position = 0
        _seed(sampler.seed, epoch)
        # Not through the message hub, which averages the last ten values.
        runner.visualizer.add_scalars(self._scalars(epoch), step=runner.iter)
        self.start = time.perf_counter()

    def _scalars(self, epoch: int) -> dict[str, float]:
        """What is logged at the start of a pass."""
        sampler = self.sampler
        used = sampler.used
        sometimes = (used > 0) & (used <= epoch)
        scalars = {
            'dynamic/kept_share': len(sampler.indices) / len(used),
            'dynamic/churn': sampler.churn,
            'dynamic/sometimes': float(sometimes.mean()),
            'dynamic/seconds_saved': self.seconds_saved,
        }
        known = sampler.state.seen > 0
        if known.any():
            scalars['dynamic/mean_score'] = float(sampler.state.mean[known].mean())
        return scalars

    def end_pass(self, runner: Any) -> None:
        """Feeds the losses of a pass back and adds up what it saved.

        Raises:
            UserError: the pass had no batch.
        """
        sampler = self.sampler
        if self.position == 0:
            raise no_batch(sampler)
        self._feed_back(runner)
        kept = len(sampler.indices) / len(sampler.used)
        seconds = time.perf_counter() - self.start
        self.seconds_saved += seconds * (1 / kept - 1)
        self.position = 0

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if self.losses is None:
            return
        self.batch = batch_indices(data_batch)
        weights = self.sampler.weights[self.batch]
        self.losses.start(torch.from_numpy(weights))

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self.position += 1
        if self.losses is None:
            return
        losses = self.losses.take()
        self.pending.append((self.batch, losses))
        self._tell(runner)
        if self.sampler.world > 1 and _saves_now(runner):
            # Only the main process gets to know that a checkpoint is written.
            self._feed_back(runner)

    def after_train_epoch(self, runner: Any) -> None:
        if self.by_iter:
            self._feed_back(runner)
            return

        self.end_pass(runner)
        missing = self.full_length - len(self.loader)
        for scheduler in _schedulers(runner):
            if scheduler.by_epoch:
                continue
            for _ in range(missing):
                scheduler.step()

    def after_train(self, runner: Any) -> None:
        if self.losses is not None:
            self.losses.detach()
        runner.logger.info(f'dynamic pruning saved about {self.seconds_saved:.1f} s of training')
        if is_main_process():
            epochs = self.sampler.epoch + 1
            write_usage(Path(runner.work_dir), self.sampler, epochs)

    def _tell(self, runner: Any) -> None:
        """Logs how the losses are taken, which the first step or a hook may have changed."""
        assert self.losses is not None
        mode = self.losses.mode
        note = self.losses.note
        if (mode, note) != self.told:
            end = f'; {note}' if note else ''
            runner.logger.info(f'dynamic pruning: per-sample losses by mode {mode!r}{end}')
        self.told = mode, note

    def _feed_back(self, runner: Any) -> None:
        """Lets the sampler of every process know the losses that all processes have seen since."""
        if not self.pending or self.losses is None:
            return
        indices, losses = self._pending_losses()
        problem = self.losses.problem()
        problems = [problem]
        if self.sampler.world > 1:
            parts = all_gather_object((indices, losses, problem))
            indices = np.concatenate([part[0] for part in parts])
            losses = np.concatenate([part[1] for part in parts])
            problems = [part[2] for part in parts]

        good = np.isfinite(losses)
        rate = self.sampler.policy.rate
        self.sampler.state.update(indices[good], losses[good], rate)
        for problem in problems:
            if problem is not None:
                self._reject(runner, problem)
                return

    def _pending_losses(self) -> tuple[np.ndarray, np.ndarray]:
        """Indices and losses, (n,) int64 and float64, that have not been fed back yet."""
        indices = []
        losses = []
        for batch, values in self.pending:
            indices.append(batch)
            losses.append(values)
        self.pending = []
        on_cpu = torch.cat(losses).cpu().numpy()
        return np.concatenate(indices), on_cpu.astype(np.float64)

    def _reject(self, runner: Any, problem: str) -> None:
        """Gives up the present mode, in all processes."""
        assert self.losses is not None
        mode = self.losses.mode
        runner.logger.warning(f'dynamic pruning: mode {mode!r} no longer fits: {problem}')
        self.losses.reject(problem)


class _Passes:
    """Stands in for the iterator of a loop that counts iterations: one pass after the other.

    mmengine's own draws all subsets from the losses of a few batches ago, waits two seconds between
    passes, and reads everything again on resuming.
    """

    def __init__(self, hook: DynamicPruningHook, runner: Any) -> None:
        self.hook = hook
        self.runner = runner
        self.epoch = 0
        self.batches: Any = None
        # The loop asks for that many batches of before the checkpoint, which need not be made.
        self.skip = runner.iter

    def __next__(self) -> Any:
        if self.skip:
            self.skip -= 1
            return None

        if self.batches is None:
            self._start()
        batch = next(self.batches, None)
        if batch is None:
            self.hook.end_pass(self.runner)
            self._begin(self.epoch + 1)
            batch = next(self.batches, None)

        if batch is None:
            raise no_batch(self.hook.sampler)
        return batch

    def _start(self) -> None:
        saved = self.hook.resumed
        if saved is None:
            self._begin(0)
            return

        # The pass goes on; it is not another one.
        sampler = self.hook.sampler
        sampler.used[sampler.indices] -= 1
        self._begin(saved['sampler']['epoch'])
        position = saved['position']
        for _ in range(position):
            if next(self.batches, None) is None:
                raise UserError(
                    f'the checkpoint was written after {position} batches of a pass that has '
                    'fewer now: resume with the same train_dataloader'
                )

        self.hook.position = position
        set_random_states(saved['random'])

    def _begin(self, epoch: int) -> None:
        self.epoch = epoch
        self.hook.start_pass(self.runner, epoch)
        self.batches = iter(self.hook.loader)


def _find_sampler(loader: Any) -> DynamicPruningSampler:
    batch_sampler = loader.batch_sampler
    for sampler in (loader.sampler, getattr(batch_sampler, 'sampler', None)):
        if isinstance(sampler, DynamicPruningSampler):
            return sampler
    raise UserError(
        'DynamicPruningHook needs train_dataloader.sampler to be a DynamicPruningSampler'
    )


def _schedulers(runner: Any) -> list[Any]:
    """The schedulers of all optimizers."""
    groups = runner.param_schedulers or []
    if not isinstance(groups, dict):
        return list(groups)
    return [scheduler for group in groups.values() for scheduler in group]


def _saves_now(runner: Any) -> bool:
    """Whether a checkpoint is written after this iteration."""
    for hook in runner.hooks:
        if not isinstance(hook, CheckpointHook) or hook.by_epoch:
            continue
        if hook.every_n_train_iters(runner, hook.interval) or hook.is_last_train_iter(runner):
            return True
    return False


def _seed(seed: int, epoch: int) -> None:
    sequence = np.random.SeedSequence([seed, epoch, get_rank()])
    [number] = sequence.generate_state(1)
    random.seed(int(number))
    np.random.seed(number)
    torch.manual_seed(int(number))
