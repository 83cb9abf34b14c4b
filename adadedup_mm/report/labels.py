"""The labels of a sample, drawn over its picture."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from ..base import words
from ..images import Reader, image_size
from .plots import tag

# Names of more boxes would hide each other.
NAMED = 40
# Letters in a line across the picture.
LETTERS = 54


def draw_labels(objects: Sequence[dict[str, Any]], path: str, reader: Reader) -> Markup | None:
    """Boxes with the names of their classes, as an SVG of the picture's size.

    Args:
        objects: with ``class`` and ``x1``, ``y1``, ``x2``, ``y2`` in pixels.
        path: of the image, as which the boxes are given.
        reader: how the training reads it.

    Returns:
        The drawing; None where there is no box or the image cannot be read.
    """
    boxes = [item for item in objects if _has_box(item)]
    try:
        height, width = image_size(path, reader)
    except Exception:
        # As with thumbnails: readers raise nearly anything on a damaged file.
        return None
    if not boxes:
        return None
    outline = ''.join(_rectangle(item) for item in boxes)
    parts = [tag('path', d=outline)]
    if len(boxes) <= NAMED:
        parts += [_name(item, width) for item in boxes]

    return tag(
        'svg',
        *parts,
        class_='labels',
        viewBox=f'0 0 {width} {height}',
        font_size=_letter_height(width),
        aria_hidden='true',
    )


def label_words(objects: Sequence[dict[str, Any]] | None) -> str:
    """How many objects of each class, the most frequent first; empty where that is unknown."""
    if objects is None:
        return ''
    if not objects:
        return 'no boxes'
    counts = Counter(item['class'] or '' for item in objects)
    return ', '.join(f'{words.count(count)} {name}' for name, count in counts.most_common())


def _has_box(item: dict[str, Any]) -> bool:
    corners = [item['x1'], item['y1'], item['x2'], item['y2']]
    return all(corner is not None and math.isfinite(corner) for corner in corners)


def _rectangle(item: dict[str, Any]) -> str:
    """A box as a part of an SVG path."""
    across = item['x2'] - item['x1']
    down = item['y2'] - item['y1']
    return f'M{item["x1"]:.0f} {item["y1"]:.0f}h{across:.0f}v{down:.0f}h{-across:.0f}z'


def _name(item: dict[str, Any], width: int) -> Markup:
    """The name of a box's class, above it as far as the picture goes."""
    name = item['class'] or ''
    letter = _letter_height(width)
    rightmost = width - 0.6 * letter * len(name)
    left = max(min(item['x1'], rightmost), 0)
    base = max(item['y1'] - 0.25 * letter, 0.9 * letter)
    return tag('text', name, x=f'{left:.0f}', y=f'{base:.0f}')


def _letter_height(width: int) -> float:
    return round(width / (0.6 * LETTERS), 1)
