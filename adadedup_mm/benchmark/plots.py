"""The metric against what was kept, and against what it took."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..base.files import atomic_open
from .config import FULL
from .statistics import mean_and_sd
from .tables import Results

_MARKERS = 'osD^v<>pPX*'
# These have the same colours in all plots; the first, our own, is drawn bolder.
_FIRST = ('adadedup', 'random', 'clip_dedup')


def replace_plots(folder: Path, every: Iterable[Results]) -> None:
    """Writes the plots of all models; those of an earlier config in the same work dir go."""
    for old in folder.glob('*_by_*.png'):
        old.unlink()
    for results in every:
        write_plots(folder, results)


def write_plots(folder: Path, results: Results) -> None:
    """Writes ``<model>_by_share.png``, if the shares differ, and ``<model>_by_seconds.png``."""
    shares = {
        round(row['share'], 2)
        for row in results.rows
        if row['share'] is not None and row['variant'] != FULL
    }
    for name, label, column, scale in (
        ('by_share', 'samples used, %', 'share', 100.0),
        ('by_seconds', 'seconds in total: pruning and training', 'total_seconds', 1.0),
    ):
        if column == 'share' and len(shares) < 2:
            continue
        figure = Figure((7.5, 5.0), layout='constrained')
        axes = figure.add_subplot()
        order = [
            *_FIRST,
            *(variant for variant in results.variants if variant not in (FULL, *_FIRST)),
            FULL,
        ]
        for variant in results.variants:
            _draw(axes, results, variant, order.index(variant), column, scale)
        axes.set_xlabel(label)
        axes.set_ylabel(f'{results.metric.split("/")[-1]}{", %" if results.scale == 100 else ""}')
        axes.set_title(results.model)
        axes.grid(alpha=0.3)
        if axes.has_data():
            figure.legend(loc='outside right center', fontsize='small')
        with atomic_open(folder / f'{results.model}_{name}.png') as file:
            figure.savefig(file, format='png', dpi=150)


def _draw(
    axes: Axes, results: Results, variant: str, number: int, column: str, scale: float
) -> None:
    """A line through the means of a variant's ratios with standard deviations; ``full`` as a level too."""
    seeds = {len(values) for ratio in results.columns if (values := results.values(variant, ratio))}
    note = f' (n={"-".join(map(str, sorted(seeds)))})' if seeds - {results.seeds} else ''
    points = [
        (results.mean(column, variant, ratio) * scale, *mean_and_sd(np.array([*values.values()])))
        for ratio in results.columns
        if (values := results.values(variant, ratio))
    ]
    if not points:
        return
    x, mean, sd = np.array(sorted(points)).T
    # tab20 holds ten pairs of a dark and a light tone: the dark ones first.
    colour = 'black' if variant == FULL else colormaps['tab20']((2 * number + number // 10) % 20)
    axes.errorbar(
        x,
        mean,
        np.nan_to_num(sd),
        label=variant + note,
        color=colour,
        marker='h' if variant == FULL else _MARKERS[number % len(_MARKERS)],
        markersize=5,
        capsize=2,
        linewidth=2.4 if variant == _FIRST[0] else 1.2,
        elinewidth=0.8,
    )
    if variant == FULL:
        axes.axhline(mean[-1], color=colour, linewidth=0.8, linestyle=':')
