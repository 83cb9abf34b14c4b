"""What a training of a benchmark reports: its seconds and the evaluation of its end."""

import time
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..base.files import write_json

REPORT = 'training.json'


@HOOKS.register_module()
class BenchmarkHook(Hook):
    """Writes ``training.json`` into the work dir after the training.

    It holds ``seconds`` of training without evaluation, over interruptions: work that was lost in
    one is not counted, because the seconds are those of the checkpoint that the training went on
    from; ``metrics`` of the last evaluation, ``samples`` in the training set, and ``device`` in
    words.
    """

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.seconds = 0.0
        self.start: float | None = None
        self.metrics: dict[str, float] | None = None

    def before_train(self, runner: Runner) -> None:
        self.start = time.perf_counter()

    def before_val(self, runner: Runner) -> None:
        self._pause()

    def after_val(self, runner: Runner) -> None:
        self.start = time.perf_counter()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self.metrics = dict(metrics or {})

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        checkpoint['benchmark_seconds'] = self.seconds + self._running()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        self.seconds = checkpoint.get('benchmark_seconds', 0.0)

    def after_train(self, runner: Runner) -> None:
        """Writes the report.

        Evaluates if that has not happened, as when the training was interrupted after its last
        checkpoint.
        """
        self._pause()
        if self.metrics is None and runner.val_loop is not None:
            runner.val_loop.run()
            self._pause()

        if not is_main_process():
            return
        metrics = self.metrics or {}
        report = dict(
            seconds=round(self.seconds, 3),
            metrics={name: float(value) for name, value in metrics.items() if _is_number(value)},
            samples=len(runner.train_dataloader.dataset),
            device=device_name(),
        )
        write_json(Path(runner.work_dir) / REPORT, report)

    def _running(self) -> float:
        """Seconds since the training began or went on; 0 while it pauses."""
        if self.start is None:
            return 0.0
        return time.perf_counter() - self.start

    def _pause(self) -> None:
        self.seconds += self._running()
        self.start = None


def device_name() -> str:
    """What computes, in words."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU'


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
