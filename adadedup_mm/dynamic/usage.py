"""How often each sample was used: the table and the picture in a training's work dir."""

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
    table = usage_table(sampler)
    write_table(folder / TABLE_NAME, table)
    figure = usage_plot(sampler.used, sampler.state.mean, sampler.state.seen > 0, epochs)
    with atomic_open(folder / PLOT_NAME) as file:
        figure.savefig(file, format='png', dpi=100)


def usage_table(sampler: DynamicPruningSampler) -> pa.Table:
    """A row a sample: its id, null if the dataset does not tell, epochs used, and losses."""
    last = sampler.state.last
    return pa.table(
        dict(
            index=pa.array(np.arange(len(last)), pa.int64()),
            sample_id=pa.array([_name(sampler.dataset, i) for i in range(len(last))], pa.string()),
            epochs_used=sampler.used,
            losses_seen=sampler.state.seen,
            mean_score=sampler.state.mean,
            last_loss=pa.array(last, mask=np.isnan(last)),
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
    figure = Figure(figsize=(10 if known.any() else 5, 4), layout='constrained')
    left, *right = figure.subplots(1, 2 if known.any() else 1, squeeze=False)[0]
    # At most 50 bars, each of equally many whole numbers.
    width = max(1, -(-(epochs + 1) // 50))
    left.hist(used, np.arange(0, epochs + 1 + width, width) - 0.5, rwidth=0.9)
    left.set(
        xlabel=f'epochs used, of {epochs}',
        ylabel='samples',
        xlim=(-0.5, epochs + 0.5),
        title=f'{len(used)} samples, {used.mean() / epochs:.0%} used in an epoch',
    )
    for panel in right:
        panel.plot(score[known], used[known], '.', alpha=0.3, markersize=3)
        panel.set(
            xlabel='mean score',
            ylabel='epochs used',
            ylim=(-0.5, epochs + 0.5),
            title='mean score and use',
        )
    return figure


def _name(dataset: Any, index: int) -> str | None:
    try:
        return sample_id(dataset.get_data_info(index), getattr(dataset, 'data_root', None))
    except (AttributeError, NotImplementedError, UserError):
        return None
