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
        policy = self.sampler.policy
        self.full_length = len(self.loader)
        if self.full_length == 0:
            raise no_batch(self.sampler)
        self.by_iter = isinstance(loop, IterBasedTrainLoop)
        epochs = math.ceil(loop.max_iters / self.full_length) if self.by_iter else loop.max_epochs
        check_period(policy, epochs)
        policy.epochs = epochs
        if self.resumed is not None:
            self.sampler.load_state_dict(self.resumed['sampler'])
            self.seconds_saved = self.resumed['seconds_saved']
        if policy.needs_losses:
            self.losses = SampleLosses(runner.model, self.loss)
            if self.resumed is not None and 'losses' in self.resumed:
                self.losses.load_state_dict(self.resumed['losses'])
        if self.resumed is not None and 'accumulated' in self.resumed:
            restore_accumulated(runner, self.resumed['accumulated'])

    def before_train_epoch(self, runner: Any) -> None:
        if self.by_iter:
            runner.train_loop.dataloader_iterator = _Passes(self, runner)
        else:
            self.start_pass(runner, runner.epoch)
            loop = runner.train_loop
            loop._max_iters = runner.iter + (loop.max_epochs - runner.epoch) * len(self.loader)
            expect_iterations(runner.optim_wrapper, loop.max_iters)

    def start_pass(self, runner: Any, epoch: int) -> None:
        """Begins a pass over a subset that is new if a period begins."""
        self.sampler.start_epoch(epoch)
        self.position = 0
        _seed(self.sampler.seed, epoch)
        used, known = self.sampler.used, self.sampler.state.seen > 0
        scores = dict(
            kept_share=len(self.sampler.indices) / len(used),
            churn=self.sampler.churn,
            sometimes=float(((used > 0) & (used <= epoch)).mean()),
            seconds_saved=self.seconds_saved,
        )
        if known.any():
            scores['mean_score'] = float(self.sampler.state.mean[known].mean())
        # Not through the message hub, which averages the last ten values.
        runner.visualizer.add_scalars(
            {f'dynamic/{name}': value for name, value in scores.items()}, step=runner.iter
        )
        self.start = time.perf_counter()

    def end_pass(self, runner: Any) -> None:
        """Feeds the losses of a pass back and adds up what it saved.

        Raises:
            UserError: the pass had no batch.
        """
        if self.position == 0:
            raise no_batch(self.sampler)
        self._feed_back(runner)
        kept = len(self.sampler.indices) / len(self.sampler.used)
        self.seconds_saved += (time.perf_counter() - self.start) * (1 / kept - 1)
        self.position = 0

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if self.losses is not None:
            self.batch = batch_indices(data_batch)
            self.losses.start(torch.from_numpy(self.sampler.weights[self.batch]))

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self.position += 1
        if self.losses is not None:
            self.pending.append((self.batch, self.losses.take()))
            self._tell(runner)
            if self.sampler.world > 1 and _saves_now(runner):
                # Only the main process gets to know that a checkpoint is written.
                self._feed_back(runner)

    def after_train_epoch(self, runner: Any) -> None:
        if self.by_iter:
            self._feed_back(runner)
            return
        self.end_pass(runner)
        groups = runner.param_schedulers or []
        for schedulers in groups.values() if isinstance(groups, dict) else [groups]:
            for scheduler in schedulers:
                for _ in range(0 if scheduler.by_epoch else self.full_length - len(self.loader)):
                    scheduler.step()

    def after_train(self, runner: Any) -> None:
        if self.losses is not None:
            self.losses.detach()
        runner.logger.info(f'dynamic pruning saved about {self.seconds_saved:.1f} s of training')
        if is_main_process():
            write_usage(Path(runner.work_dir), self.sampler, self.sampler.epoch + 1)

    def _tell(self, runner: Any) -> None:
        """Logs how the losses are taken, which the first step or a hook may have changed."""
        assert self.losses is not None
        present = (self.losses.mode, self.losses.note)
        if present != self.told:
            note = f'; {self.losses.note}' if self.losses.note else ''
            runner.logger.info(
                f'dynamic pruning: per-sample losses by mode {self.losses.mode!r}{note}'
            )
        self.told = present

    def _feed_back(self, runner: Any) -> None:
        """Lets the sampler of every process know the losses that all processes have seen since."""
        if not self.pending or self.losses is None:
            return
        indices = np.concatenate([batch for batch, _ in self.pending])
        losses = torch.cat([loss for _, loss in self.pending]).cpu().numpy().astype(np.float64)
        self.pending = []
        problems = [self.losses.problem()]
        if self.sampler.world > 1:
            parts = all_gather_object((indices, losses, problems[0]))
            indices = np.concatenate([part[0] for part in parts])
            losses = np.concatenate([part[1] for part in parts])
            problems = [part[2] for part in parts]
        good = np.isfinite(losses)
        self.sampler.state.update(indices[good], losses[good], self.sampler.policy.rate)
        problem = next((problem for problem in problems if problem is not None), None)
        if problem is not None:
            runner.logger.warning(
                f'dynamic pruning: mode {self.losses.mode!r} no longer fits: {problem}'
            )
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
            self.epoch += 1
            self.hook.start_pass(self.runner, self.epoch)
            self.batches = iter(self.hook.loader)
            batch = next(self.batches, None)
        if batch is None:
            raise no_batch(self.hook.sampler)
        return batch

    def _start(self) -> None:
        hook, saved = self.hook, self.hook.resumed
        if saved is None:
            hook.start_pass(self.runner, 0)
            self.batches = iter(hook.loader)
            return
        self.epoch = saved['sampler']['epoch']
        # The pass goes on; it is not another one.
        hook.sampler.used[hook.sampler.indices] -= 1
        hook.start_pass(self.runner, self.epoch)
        self.batches = iter(hook.loader)
        for _ in range(saved['position']):
            if next(self.batches, None) is None:
                raise UserError(
                    f'the checkpoint was written after {saved["position"]} batches of a pass that '
                    'has '
                    'fewer now: resume with the same train_dataloader'
                )
        hook.position = saved['position']
        set_random_states(saved['random'])


def _find_sampler(loader: Any) -> DynamicPruningSampler:
    for sampler in (loader.sampler, getattr(loader.batch_sampler, 'sampler', None)):
        if isinstance(sampler, DynamicPruningSampler):
            return sampler
    raise UserError(
        'DynamicPruningHook needs train_dataloader.sampler to be a DynamicPruningSampler'
    )


def _saves_now(runner: Any) -> bool:
    """Whether a checkpoint is written after this iteration."""
    return any(
        isinstance(hook, CheckpointHook)
        and not hook.by_epoch
        and (hook.every_n_train_iters(runner, hook.interval) or hook.is_last_train_iter(runner))
        for hook in runner.hooks
    )


def _seed(seed: int, epoch: int) -> None:
    state = np.random.SeedSequence([seed, epoch, get_rank()]).generate_state(1)
    random.seed(int(state[0]))
    np.random.seed(state[0])
    torch.manual_seed(int(state[0]))
