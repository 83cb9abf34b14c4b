"""The metric against what was kept, and against what it took."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..base.files import atomic_open
from ..settings.options import DEFAULT_STRATEGY
from .config import DENSITY, FULL, RANDOM
from .statistics import mean_and_sd
from .tables import Results

_MARKERS = 'osD^v<>pPX*'
# These have the same colours in all plots; the first, our own, is drawn bolder.
_FIRST = (DEFAULT_STRATEGY, RANDOM, DENSITY)


def replace_plots(folder: Path, every: Iterable[Results]) -> list[str]:
    """Writes the plots of all models; those of an earlier config in the same work dir go.

    Returns:
        The names of those that would show nothing, and are not written.
    """
    for old in folder.glob('*_by_*.png'):
        old.unlink()
    left_out = []
    for results in every:
        left_out += write_plots(folder, results)
    return left_out


def write_plots(folder: Path, results: Results) -> list[str]:
    """Writes ``<model>_by_share.png``, if the shares differ, and ``<model>_by_seconds.png``.

    Returns:
        The names of those that are not written.
    """
    left_out = []
    by_share = f'{results.model}_by_share.png'
    if len(_shares(results)) > 1:
        figure = _plot(results, 'share', scale=100.0, label='samples used, %')
        _save(figure, folder / by_share)
    else:
        left_out.append(by_share)
    label = f'seconds in total: pruning and {results.work}'
    figure = _plot(results, 'total_seconds', scale=1.0, label=label)
    _save(figure, folder / f'{results.model}_by_seconds.png')
    return left_out


def _shares(results: Results) -> set[float]:
    """The shares of the samples that the variants used, in per cent steps."""
    shares = set()
    for row in results.rows:
        if row['share'] is not None and row['variant'] != FULL:
            shares.add(round(row['share'], 2))
    return shares


def _plot(results: Results, column: str, scale: float, label: str) -> Figure:
    figure = Figure((7.5, 5.0), layout='constrained')
    axes = figure.add_subplot()
    others = [variant for variant in results.variants if variant not in (FULL, *_FIRST)]
    order = [*_FIRST, *others, FULL]
    for variant in results.variants:
        number = order.index(variant)
        _draw(axes, results, variant, number, column, scale)

    metric = results.metric.split('/')[-1]
    unit = ', %' if results.scale == 100 else ''
    axes.set_xlabel(label)
    axes.set_ylabel(f'{metric}{unit}')
    axes.set_title(results.model)
    axes.grid(alpha=0.3)
    if axes.has_data():
        figure.legend(loc='outside right center', fontsize='small')
    return figure


def _save(figure: Figure, path: Path) -> None:
    with atomic_open(path) as file:
        figure.savefig(file, format='png', dpi=150)


def _draw(
    axes: Axes, results: Results, variant: str, number: int, column: str, scale: float
) -> None:
    """A line through the means of a variant's ratios with standard deviations.

    ``full`` is a level, too.
    """
    points = []
    counts = set()
    for ratio in results.columns:
        values = results.values(variant, ratio)
        if values:
            at = results.mean(column, variant, ratio) * scale
            mean, sd = mean_and_sd(np.array(list(values.values())))
            points.append((at, mean, sd))
            counts.add(len(values))

    if not points:
        return
    x, means, sds = np.array(sorted(points)).T
    is_full = variant == FULL
    colour = 'black' if is_full else _colour(number)
    axes.errorbar(
        x,
        means,
        np.nan_to_num(sds),
        label=variant + _seeds_note(counts, results.seeds),
        color=colour,
        marker='h' if is_full else _MARKERS[number % len(_MARKERS)],
        markersize=5,
        capsize=2,
        linewidth=2.4 if variant == _FIRST[0] else 1.2,
        elinewidth=0.8,
    )
    if is_full:
        axes.axhline(
            means[-1],
            color=colour,
            linewidth=0.8,
            linestyle=':',
        )


def _colour(number: int) -> tuple[float, float, float, float]:
    """The colour of a variant; tab20 holds ten pairs of a dark and a light tone: the dark first."""
    index = (2 * number + number // 10) % 20
    return colormaps['tab20'](index)


def _seeds_note(counts: set[int], seeds: int) -> str:
    """How many seeds the points of a line have, where that is not all of them."""
    if counts <= {seeds}:
        return ''
    return f' (n={"-".join(map(str, sorted(counts)))})'
