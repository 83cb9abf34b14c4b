"""``tools/probe.py``: does pruning help here? Predicted quality against keep ratio."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from ..base.checks import finite, whole
from ..base.errors import UserError
from ..base.files import atomic_open
from ..probe.curve import RANDOM, WHOLE, Curve
from ..probe.statistics import CurveSummary, summarise
from ..probe.verdict import judge
from ..registry import STRATEGIES, find
from ..report import build_report
from ..report.quality import plot_file
from ..settings.load import default_work_dir, load_config
from ..settings.options import DEFAULT_STRATEGY, Options, resolve_options
from ..workdir.claim import held, usable_path
from ..workdir.probe import FOLDER, write_curve
from .common import add_cfg_options, print_curve, run, same_flags

KEEP_RATIOS = (0.1, 0.2, 0.3, 0.5, 0.7)
COMPARED = (RANDOM, 'uniform_stride', 'clip_dedup', DEFAULT_STRATEGY)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='probe.py',
        description='Predict how well a detector would do that is trained on what each strategy '
        'keeps, beside random choices and all samples. Nothing is pruned, no detector is trained.',
    )
    parser.add_argument('config', help='your training config with our line in its _base_ list')
    parser.add_argument('--work-dir', help="where results go; the default is the config's work_dir")
    parser.add_argument(
        '--keep-ratios',
        nargs='+',
        type=float,
        default=KEEP_RATIOS,
        metavar='RATIO',
        help=f'shares of the samples that stay (default: {_listed(KEEP_RATIOS)})',
    )
    parser.add_argument(
        '--strategies',
        nargs='+',
        default=COMPARED,
        metavar='NAME',
        help=f'ways to choose samples (default: {_listed(COMPARED)}); random and the whole set '
        'are always measured',
    )
    parser.add_argument(
        '--seeds',
        type=int,
        default=3,
        metavar='N',
        help='random choices at each keep ratio (default %(default)s)',
    )
    add_cfg_options(parser)
    return parser.parse_args(arguments)


def _listed(values: Sequence[object]) -> str:
    return ' '.join(map(str, values))


def _main(arguments: list[str] | None) -> None:
    args = _parse(arguments)
    keep_ratios = _keep_ratios(args.keep_ratios)
    whole(args.seeds, '--seeds', 1)
    config = load_config(args.config, args.cfg_options)
    options = resolve_options(config)
    strategies = _strategies(args.strategies)
    work_dir = usable_path(args.work_dir or default_work_dir(config, args.config))
    with held(work_dir / FOLDER, 'probe'):
        curve = _measure(config, options, work_dir, strategies, keep_ratios, args.seeds)
        summary = summarise(curve)
        with atomic_open(work_dir / 'probe.svg', 'w') as file:
            file.write(plot_file(summary))
        write_curve(work_dir, summary)

    _show(summary, args, options, work_dir)
    if (work_dir / 'report.html').exists():
        print(f'report: {build_report(work_dir)}')


def _keep_ratios(given: Sequence[float]) -> list[float]:
    """Rising, each once, without 1: all samples are measured anyway."""
    for ratio in given:
        finite(ratio, '--keep-ratios', 0, 1, above=True)
    parts = sorted(set(given) - {1.0})
    if not parts:
        raise UserError('--keep-ratios 1 is the whole set: name a ratio below 1, for example 0.5')
    return parts


def _strategies(given: Sequence[str]) -> list[str]:
    """Random first, each once, without the whole set: all samples are measured anyway."""
    names = dict.fromkeys([RANDOM, *given])
    names.pop(WHOLE, None)
    for name in names:
        find(STRATEGIES, name, '--strategies: the')
    return list(names)


def _measure(
    config: Config,
    options: Options,
    work_dir: Path,
    strategies: list[str],
    keep_ratios: list[float],
    seeds: int,
) -> Curve:
    from ..pruning.measure import measure_curve  # which takes seconds

    return measure_curve(config, options, work_dir, strategies, keep_ratios, seeds)


def _show(
    summary: CurveSummary, args: argparse.Namespace, options: Options, work_dir: Path
) -> None:
    verdict = judge(summary, args.config, same_flags(args), options.strategy_name)
    print_curve(summary, verdict)
    print(f'all figures: {work_dir}/probe.csv (and .json); plot: {work_dir}/probe.svg')


def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    run(_main, arguments, go_on='run the same command to go on')
