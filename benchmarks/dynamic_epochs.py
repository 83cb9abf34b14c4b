"""Whether epochs shrink in time as much as in samples.

Measures seconds of an epoch with a policy beside those without.

    python benchmarks/dynamic_epochs.py CONFIG [--policy ucb] [--ratios .7 .5 .3] [--epochs 4]

CONFIG trains on everything. Evaluation, checkpoints and the first epoch are left out. Without a GPU
the process's own seconds on the processor are counted, which other processes disturb less than the
clock's.
"""

import argparse
import copy
import statistics
from typing import Any

from dynamic_overhead import clock
from mmengine.config import Config, DictAction
from mmengine.hooks import Hook
from mmengine.runner import Runner

from adadedup_mm.dynamic import DynamicPruningRunner
from adadedup_mm.settings.load import load_config


class EpochClock(Hook):
    """Seconds and samples of each epoch."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.samples: list[int] = []

    def before_train_epoch(self, runner: Any) -> None:
        self.samples.append(len(runner.train_dataloader.batch_sampler.sampler))
        self.start = clock()

    def after_train_epoch(self, runner: Any) -> None:
        self.seconds.append(clock() - self.start)


def measure(
    config: Config, policy: str | None, ratio: float, work_dir: str, epochs: int
) -> tuple[float, float]:
    """Median seconds and samples of an epoch; without a policy those of all samples."""
    config = copy.deepcopy(config)
    config.work_dir, config.log_level, config.launcher = work_dir, 'ERROR', 'none'
    config.experiment_name = f'{policy}_{ratio}'
    for phase in ('val', 'test'):
        for part in ('dataloader', 'evaluator', 'cfg'):
            config[f'{phase}_{part}'] = None
    config.train_cfg = dict(by_epoch=True, max_epochs=epochs)
    config.default_hooks = dict(config.default_hooks, checkpoint=None)
    if policy:
        config.dynamic = dict(policy=policy, keep_ratio=ratio, period=1)
    runner = (DynamicPruningRunner if policy else Runner).from_cfg(config)
    hook = EpochClock()
    runner.register_hook(hook)
    runner.train()
    return statistics.median(hook.seconds[1:]), statistics.median(hook.samples[1:])


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config')
    parser.add_argument('--policy', default='ucb', choices=['random', 'epsilon_greedy', 'ucb'])
    parser.add_argument('--ratios', nargs='+', type=float, default=[0.7, 0.5, 0.3])
    parser.add_argument('--epochs', type=int, default=4)
    parser.add_argument('--work-dir', default='work_dirs/dynamic_epochs')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    args = parser.parse_args()
    config = load_config(args.config, args.cfg_options)
    seconds, samples = measure(config, None, 1.0, args.work_dir, args.epochs)
    print(f'all samples: {samples:.0f}, {seconds:.2f} s an epoch', flush=True)
    for ratio in args.ratios:
        spent, used = measure(config, args.policy, ratio, args.work_dir, args.epochs)
        time_share = spent / seconds
        sample_share = used / samples
        print(
            f'{args.policy} {ratio:.0%}: {used:.0f} samples, {spent:.2f} s an epoch; '
            f'time / samples {time_share / sample_share:.3f}',
            flush=True,
        )


if __name__ == '__main__':
    main()
