"""How much longer a training step is with dynamic pruning's losses than without: ratios measured in one run.

    python benchmarks/dynamic_overhead.py CONFIG [--steps 30] [--cfg-options data_root=...]

Steps alternate between the ways in one process and on the same batches, so that a busy machine slows all of them down.
"""

import argparse
import statistics
import time
from typing import Any

import torch
from mmengine.config import DictAction
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from adadedup_mm.config import load_config
from adadedup_mm.dynamic import SampleLosses
from adadedup_mm.dynamic.losses import MODES


def step_seconds(runner: Any, batch: Any, mode: str | None) -> float:
    """Seconds of one training step, with what the hook does around it; None is plain training."""
    torch.manual_seed(0)
    # The hook installs its patches once per training, not in every step.
    losses = None if mode is None else SampleLosses(runner.model, mode)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    if losses is not None:
        losses.start(torch.ones(len(batch['data_samples'])))
    runner.model.train_step(batch, runner.optim_wrapper)
    values = None if losses is None else losses.take()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    if losses is not None and values is not None:
        assert len(values) == len(batch['data_samples'])
        losses.detach()
    return seconds


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    parser.add_argument('--steps', type=int, default=30)
    parser.add_argument('--modes', nargs='+', default=['batch', 'image'], choices=MODES)
    parser.add_argument('--work-dir', default='work_dirs/dynamic_overhead')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    args = parser.parse_args()
    config = load_config(args.config, args.cfg_options)
    config.work_dir, config.log_level = args.work_dir, 'ERROR'
    init_default_scope(config.get('default_scope', 'mmengine'))
    runner = Runner.from_cfg(config)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.model.train()
    batches = [batch for _, batch in zip(range(4), runner.build_dataloader(config.train_dataloader, seed=0),
                                         strict=False)]
    ways = [None, *args.modes]
    seconds: dict[str | None, list[float]] = {way: [] for way in ways}
    for step in range(args.steps + 2):
        # Every way is the first one as often as the others.
        for way in ways[step % len(ways):] + ways[:step % len(ways)]:
            elapsed = step_seconds(runner, batches[step % len(batches)], way)
            if step >= 2:
                seconds[way].append(elapsed)
    plain = statistics.median(seconds[None])
    print(f'plain: {1000 * plain:.1f} ms a step')
    for way in args.modes:
        ratios = [a / b for a, b in zip(seconds[way], seconds[None], strict=True)]
        print(f'{way}: {1000 * statistics.median(seconds[way]):.1f} ms, ratio of medians '
              f'{statistics.median(seconds[way]) / plain:.3f}, median of ratios {statistics.median(ratios):.3f}')


if __name__ == '__main__':
    main()
