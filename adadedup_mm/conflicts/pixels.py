"""Whether two pictures are the same one, and whether they show the same at a place."""

from typing import NamedTuple

import numpy as np

# Pixels a side at which pictures are compared, and of the cells in which they are compared as
# wholes.
SIDE = 256
COARSE = 8
# The most that two pictures of the same differ: the median over the cells of the whole pictures,
# and the mean and the largest difference of the cells at a place, in standard deviations of what is
# there. Copies stay below half of it; of an object that has moved by a third of its size, the mean
# is .9 and the largest 2.
WHOLE, MEAN, LARGEST = 0.15, 0.25, 0.7
# A place is compared in about this many cells a side, of so many pixels at most, together with a
# margin of so many pixels, or of this share of the box: what is gone is seen against what was
# around it.
CELLS = 8
LARGEST_CELL = 6
MARGIN = 2
MARGIN_SHARE = 0.15


class Levels(NamedTuple):
    """What brings a picture to the brightness and contrast of another: gain * x + offset.

    Attributes:
        gain: of all channels.
        offset: (3,) float64.
    """

    gain: float
    offset: np.ndarray


def cell_means(pixels: np.ndarray, size: int) -> np.ndarray:
    """Means of square cells; what does not fill a cell at the right and at the bottom is left out.

    Args:
        pixels: (h, w, 3).
        size: pixels a side, at most h and w.

    Returns:
        (h // size, w // size, 3) float64.
    """
    rows, columns = pixels.shape[0] // size, pixels.shape[1] // size
    whole = pixels[: rows * size, : columns * size].astype(np.float64)
    return whole.reshape(rows, size, columns, size, 3).mean(axis=(1, 3))


def match_levels(first: np.ndarray, second: np.ndarray) -> Levels | None:
    """How the second picture becomes the first one; None unless most of them is the same.

    Objects that have moved make no difference, other brightness or contrast neither.

    Args:
        first: (r, c, 3) float64 means of a picture's cells, ``COARSE`` pixels a side.
        second: likewise, of the same size.
    """
    spread_a, spread_b = first.std(), second.std()
    if not spread_a or not spread_b:
        return None
    gain = spread_a / spread_b
    offset = first.mean((0, 1)) - gain * second.mean((0, 1))
    difference = np.abs(first - (gain * second + offset))
    if np.median(difference) > WHOLE * spread_a:
        return None
    return Levels(float(gain), offset)


def same_place(first: np.ndarray, second: np.ndarray, levels: Levels, place: np.ndarray) -> bool:
    """Whether two pictures show the same at a place.

    Compares means of cells there with each other, in units of their standard deviation: the noise
    of JPEG and of resizing is averaged out, an object that has moved or changed is not. Where
    nothing can be seen, the answer is no, unless the pixels are equal.

    Args:
        first: (h, w, 3) uint8.
        second: likewise.
        levels: from ``match_levels``.
        place: (4,) x1 y1 x2 y2 in shares of width and height.
    """
    rows, columns = _window(place, first.shape)
    here, there = first[rows, columns], second[rows, columns]
    size = min(max(min(here.shape[:2]) // CELLS, 1), LARGEST_CELL)
    cells_a = cell_means(here, size)
    cells_b = levels.gain * cell_means(there, size) + levels.offset
    differences = ((cells_a - cells_b) ** 2).mean(axis=-1)
    contrast = max(_contrast(cells_a), _contrast(cells_b))
    mean_difference = differences.mean() ** 0.5
    largest = differences.max() ** 0.5
    return bool(mean_difference <= MEAN * contrast and largest <= LARGEST * contrast)


def _contrast(cells: np.ndarray) -> float:
    """Standard deviation of (r, c, 3) values around the mean of their channel."""
    return float(cells.var(axis=(0, 1)).mean() ** 0.5)


def _window(place: np.ndarray, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """The rows and columns of a place with its margin, at least one pixel of each."""
    height, width = shape[:2]
    columns = _span(float(place[0]) * width, float(place[2]) * width, width)
    rows = _span(float(place[1]) * height, float(place[3]) * height, height)
    return rows, columns


def _span(low: float, high: float, size: int) -> slice:
    """The pixels from one edge of a box to the other with its margin, inside the picture."""
    margin = max(MARGIN, MARGIN_SHARE * (high - low))
    start = min(max(int(low - margin), 0), size - 1)
    stop = min(max(int(high + margin) + 1, start + 1), size)
    return slice(start, stop)
