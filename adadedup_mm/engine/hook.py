"""What a training on the pruned set reports back to its pruning run."""

import time
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..report import build_report
from ..workdir.manifest import record_training


@HOOKS.register_module()
class AdaDeDupHook(Hook):
    """Measures the training: manifest and report say after how many trainings pruning pays back.

    ``AdaDeDupRunner`` adds it. Validation is not counted, because pruning does not make it shorter.

    Args:
        pruning_dir: work dir of the pruning run.
    """

    priority = 'LOWEST'

    def __init__(self, pruning_dir: str) -> None:
        self.pruning_dir = Path(pruning_dir)
        self.seconds = 0.0
        self.start: float | None = None

    def before_train(self, runner: Runner) -> None:
        self._begins = runner.epoch == 0 and runner.iter == 0
        self.start = time.perf_counter()

    def before_val(self, runner: Runner) -> None:
        self._pause()

    def after_val(self, runner: Runner) -> None:
        self.start = time.perf_counter()

    def after_train(self, runner: Runner) -> None:
        """Writes the seconds into the manifest, unless the training was a resumed one."""
        self._pause()
        if self._begins and is_main_process():
            record_training(self.pruning_dir, self.seconds)
            build_report(self.pruning_dir)

    def _pause(self) -> None:
        if self.start is None:
            return
        self.seconds += time.perf_counter() - self.start
        self.start = None
