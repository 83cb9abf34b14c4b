"""Captions without a captioning model: sentences made from the annotations."""

from collections import Counter
from typing import Any

import numpy as np

from ..pool import Pool
from ..registry import CAPTIONERS

_NUMBERS = (
    'no',
    'one',
    'two',
    'three',
    'four',
    'five',
    'six',
    'seven',
    'eight',
    'nine',
    'ten',
    'eleven',
    'twelve',
)
# From how many objects on numbers are no longer told.
_DOZENS = 24
# Areas as shares of the image: a 64th, a sixteenth and a quarter of its width and height.
_SIZES = ((1 / 64**2, 'tiny'), (1 / 16**2, 'small'), (1 / 4**2, 'medium'), (np.inf, 'large'))
_ROWS = ('upper', 'middle', 'lower')
_COLUMNS = ('left', 'centre', 'right')
# More would not fit the 77 tokens of CLIP's text side.
_GROUPS = 6


@CAPTIONERS.register_module()
class AnnotationCaptioner:
    """Says how many objects of each class there are, and how large they are and where.

    Classes and groups of objects come by falling number of objects, so that a model that reads only
    the beginning reads what matters most. Objects without a 2D box are only counted.
    """

    batch_size: int | None = None
    source = 'sentences made from the annotations'

    def __init__(self) -> None:
        self.key: dict[str, Any] = dict(type='AnnotationCaptioner', version=1)

    def __call__(self, pool: Pool, samples: np.ndarray, paths: list[str]) -> list[str]:
        """See ``Captioner``; ``paths`` are not used."""
        captions = []
        for sample in samples.tolist():
            objects = slice(pool.offsets[sample], pool.offsets[sample + 1])
            names = [pool.classes[label] for label in pool.labels[objects]]
            places = _places(pool.boxes[objects], pool.image_sizes[sample])
            captions.append(_sentence(names, places))
        return captions


def _sentence(names: list[str], places: list[tuple[str, str] | None]) -> str:
    if not names:
        return 'An image without objects.'
    counts = Counter(names)
    groups: Counter[tuple[str, str, str]] = Counter()
    for name, place in zip(names, places, strict=True):
        if place:
            groups[(name, *place)] += 1

    counted = [_number(counts[name], name) for name in _ranked(counts)]
    text = f'An image with {", ".join(counted)}.'
    described = []
    for group in _ranked(groups)[:_GROUPS]:
        name, size, position = group
        described.append(f'{_number(groups[group], f"{size} {name}")} at the {position}')

    if not described:
        return text
    return f'{text} {", ".join(described).capitalize()}.'


def _ranked(counts: Counter[Any]) -> list[Any]:
    """By falling number, then by name."""

    def rank(item: Any) -> tuple[int, Any]:
        return -counts[item], item

    return sorted(counts, key=rank)


def _number(count: int, name: str) -> str:
    """'one car', 'three small cars', 'dozens of cars'."""
    if count < len(_NUMBERS):
        number = _NUMBERS[count]
    elif count < _DOZENS:
        number = 'over a dozen'
    else:
        number = 'dozens of'
    if count == 1 or name.endswith('s'):
        return f'{number} {name}'
    return f'{number} {name}s'


def _places(boxes: np.ndarray, image_size: np.ndarray) -> list[tuple[str, str] | None]:
    """Size and position of each object in words, such as 'small' and 'lower left'.

    Args:
        boxes: (n, 4) float32 x1 y1 x2 y2 in pixels, NaN where there is none.
        image_size: height and width in pixels, 0 where unknown.

    Returns:
        n pairs; None where they are unknown.
    """
    height, width = image_size.astype(float).tolist()
    if not height or not width:
        return [None] * len(boxes)
    return [_place(box, height, width) for box in boxes.astype(float).tolist()]


def _place(box: list[float], height: float, width: float) -> tuple[str, str] | None:
    x1, y1, x2, y2 = box
    pixels = max(x2 - x1, 0) * max(y2 - y1, 0)
    area = pixels / (height * width)
    if not np.isfinite(area):
        return None
    size = next(word for limit, word in _SIZES if area < limit)
    row = _third((y1 + y2) / 2 / height)
    column = _third((x1 + x2) / 2 / width)
    return size, f'{_ROWS[row]} {_COLUMNS[column]}'


def _third(position: float) -> int:
    """In which third a position in [0, 1] is; outside, the nearest one."""
    third = int(3 * position)
    return min(max(third, 0), 2)
