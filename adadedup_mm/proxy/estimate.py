"""How fast a proxy trains here: a few batches of its real training."""

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..detectors.isolation import isolated
from ..images.steps import failing_pictures_named
from .train import make_runner_config


@dataclass(frozen=True)
class TrainingSpeed:
    """What a few batches showed.

    Attributes:
        seconds_per_image: of training, loading included.
        parameters: of the detector.
    """

    seconds_per_image: float
    parameters: int


def time_training(
    config: Config, dataset: Mapping[str, Any], folder: Path, batches: int = 4
) -> TrainingSpeed:
    """Trains for some batches.

    The first one does not count: it starts workers and fills caches.

    Args:
        config: from ``proxy_config``.
        dataset: config of the dataset to train on, of at least two batches.
        folder: where logs go.
        batches: how many are trained.
    """
    clock = _Clock(batches)
    with isolated(folder / 'timing.log'), failing_pictures_named():
        runner = Runner.from_cfg(make_runner_config(config, dataset, folder, seed=0))
        runner.register_hook(clock, priority='LOWEST')
        with contextlib.suppress(_EnoughError):
            runner.train()
        parameters = sum(parameter.numel() for parameter in runner.model.parameters())

    times = clock.times if len(clock.times) > 1 else [clock.start, *clock.times]
    images = config.train_dataloader.get('batch_size', 1) * (len(times) - 1)

    return TrainingSpeed((times[-1] - times[0]) / images, parameters)


class _EnoughError(Exception):
    """Ends a training that was only started to see how fast it is."""


class _Clock(Hook):
    """Notes when batches end, and stops the training after some."""

    def __init__(self, batches: int) -> None:
        self.batches = batches
        self.start = 0.0
        self.times: list[float] = []

    def before_train_epoch(self, runner: Runner) -> None:
        self.start = time.perf_counter()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())
        if len(self.times) >= self.batches:
            raise _EnoughError
