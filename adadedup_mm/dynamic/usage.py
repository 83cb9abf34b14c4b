"""How often each sample was used: the table and the picture in a training's work dir."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from ..base.errors import UserError
from ..base.files import atomic_open, write_table
from ..datasets.samples import sample_id
from .sampler import DynamicPruningSampler

TABLE_NAME = 'dynamic_samples.parquet'
PLOT_NAME = 'dynamic_samples.png'


def write_usage(folder: Path, sampler: DynamicPruningSampler, epochs: int) -> None:
    """Writes table and plot.

    Args:
        folder: the training's work dir.
        sampler: what it drew from.
        epochs: how many passes over a subset it made.
    """
    state = sampler.state
    known = state.seen > 0
    table = usage_table(sampler)
    write_table(folder / TABLE_NAME, table)
    figure = usage_plot(sampler.used, state.mean, known, epochs)
    with atomic_open(folder / PLOT_NAME) as file:
        figure.savefig(file, format='png', dpi=100)


def usage_table(sampler: DynamicPruningSampler) -> pa.Table:
    """A row a sample: its id, null if the dataset does not tell, epochs used, and losses."""
    state = sampler.state
    size = len(state.last)
    names = [_name(sampler.dataset, i) for i in range(size)]
    return pa.table(
        dict(
            index=pa.array(np.arange(size), pa.int64()),
            sample_id=pa.array(names, pa.string()),
            epochs_used=sampler.used,
            losses_seen=state.seen,
            mean_score=state.mean,
            last_loss=pa.array(state.last, mask=np.isnan(state.last)),
        )
    )


def usage_plot(used: np.ndarray, score: np.ndarray, known: np.ndarray, epochs: int) -> Figure:
    """Samples by the number of epochs that used them; with scores also that number by score.

    Args:
        used: (N,) int64, epochs in which each sample was used.
        score: (N,) float64, mean score.
        known: (N,) bool, whether the score is that of any loss.
        epochs: of the training, at least 1.
    """
    has_scores = bool(known.any())
    panels = 2 if has_scores else 1
    figure = Figure(figsize=(5 * panels, 4), layout='constrained')
    axes = figure.subplots(1, panels, squeeze=False)[0]
    share = used.mean() / epochs
    # At most 50 bars, each of equally many whole numbers.
    width = max(1, math.ceil((epochs + 1) / 50))
    borders = np.arange(0, epochs + 1 + width, width) - 0.5
    axes[0].hist(used, borders, rwidth=0.9)
    axes[0].set(
        xlabel=f'epochs used, of {epochs}',
        ylabel='samples',
        xlim=(-0.5, epochs + 0.5),
        title=f'{len(used)} samples, {share:.0%} used in an epoch',
    )
    if has_scores:
        axes[1].plot(score[known], used[known], '.', alpha=0.3, markersize=3)
        axes[1].set(
            xlabel='mean score',
            ylabel='epochs used',
            ylim=(-0.5, epochs + 0.5),
            title='mean score and use',
        )

    return figure


def _name(dataset: Any, index: int) -> str | None:
    root = getattr(dataset, 'data_root', None)
    try:
        return sample_id(dataset.get_data_info(index), root)
    except (AttributeError, NotImplementedError, UserError):
        return None
