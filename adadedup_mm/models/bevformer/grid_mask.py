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
    band = int(period / 2 + 0.5)
    band = max(band, 1)
    band = min(band, period - 1)
    row = rng.randint(period)
    column = rng.randint(period)
    rows = _bands(height, period, band, row)
    columns = _bands(width, period, band, column)
    return rows[:, None] | columns


def _bands(length: int, period: int, band: int, first: int) -> np.ndarray:
    """Which of ``length`` pixels a band covers, (length,) bool.

    The grid lies on a canvas of one and a half times the size, whose middle is taken. The canvas
    has room for whole periods only; a band that would begin behind them is missing.
    """
    size = int(1.5 * length)
    canvas = np.zeros(size, dtype=bool)
    for i in range(size // period):
        start = period * i + first
        end = start + band
        canvas[start:end] = True
    margin = (size - length) // 2
    end = margin + length
    return canvas[margin:end]


def apply_grid_mask(images: Tensor, rng: Any) -> Tensor:
    """Puts one mask over all images, at a probability of .7.

    Args:
        images: (..., H, W).
        rng: see :func:`grid_mask`.
    """
    if rng.rand() > SHARE_OF_BATCHES:
        return images
    height, width = images.shape[-2:]
    mask = grid_mask(height, width, rng)
    return images * images.new_tensor(mask)
