"""GridMask augmentation (arXiv 2001.04086): black squares on a grid over the images."""

from typing import Any

import numpy as np
from torch import Tensor

SHARE_OF_BATCHES = 0.7


def grid_mask(height: int, width: int, rng: Any) -> np.ndarray:
    """One random mask: squares of about half the period are dropped.

    Args:
        height: in pixels.
        width: in pixels.
        rng: a ``numpy.random.RandomState``, or the ``numpy.random`` module.

    Returns:
        (height, width) bool, True where pixels stay.
    """
    period = rng.randint(2, height)
    band = min(max(int(period / 2 + 0.5), 1), period - 1)
    row, column = rng.randint(period), rng.randint(period)
    # The grid lies on a canvas of one and a half times the size, whose middle is taken.
    tall, wide = int(1.5 * height), int(1.5 * width)
    rows = _bands(tall, period, band, row)[(tall - height) // 2 :][:height]
    columns = _bands(wide, period, band, column)[(wide - width) // 2 :][:width]
    return rows[:, None] | columns


def _bands(length: int, period: int, band: int, start: int) -> np.ndarray:
    """The canvas has room for whole periods only; a band that would begin behind them is missing."""
    kept = np.zeros(length, dtype=bool)
    for i in range(length // period):
        kept[period * i + start : period * i + start + band] = True
    return kept


def apply_grid_mask(images: Tensor, rng: Any) -> Tensor:
    """Puts one mask over all images, at a probability of .7.

    Args:
        images: (..., H, W).
        rng: see :func:`grid_mask`.
    """
    if rng.rand() > SHARE_OF_BATCHES:
        return images
    return images * images.new_tensor(grid_mask(images.shape[-2], images.shape[-1], rng))
