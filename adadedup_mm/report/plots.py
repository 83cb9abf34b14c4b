"""Plots as inline SVG.

Colours and fonts come from the page's style sheet, so that they follow light and dark.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from ..base import words

# Of a plot, and the margins inside it.
WIDTH, HEIGHT = 460, 320
LEFT, RIGHT, TOP, BOTTOM = 68, 12, 14, 50
# The ends of the axes in pixels, as they are written.
_X_END, _Y_START = WIDTH - RIGHT, HEIGHT - BOTTOM
MAP_SIDE = 560
# Points from which on the map draws smaller ones.
DENSE = 1500
# Around the points of the map, both sides together.
_MAP_MARGIN = 24


def tag(name: str, *children: str, **attributes: object) -> Markup:
    """An SVG element; everything that is not Markup is escaped.

    ``class_`` and ``_`` stand for ``class`` and ``-``.
    """
    opening = name
    for key, value in attributes.items():
        attribute = key.rstrip('_').replace('_', '-')
        opening += f' {attribute}="{escape(value)}"'
    content = ''.join(map(escape, children))
    return Markup(f'<{opening}>{content}</{name}>')


def nice_ticks(low: float, high: float, count: int = 6) -> np.ndarray:
    """About ``count`` round numbers inside [low, high]; low < high.

    They are 1, 2 or 5 times a power of ten apart.
    """
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    for factor in (1, 2, 5, 10):
        step = power * factor
        if step >= rough * 0.999:
            break
    first = math.ceil(low / step - 1e-6)
    last = math.floor(high / step + 1e-6)
    return np.arange(first, last + 1) * step


@dataclass(frozen=True)
class Axis:
    """Maps values in [low, high] to pixels in [start, end]."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, values: np.ndarray) -> np.ndarray:
        values = np.asarray(values, float)
        share = (values - self.low) / (self.high - self.low)
        length = self.end - self.start
        return self.start + share * length

    def inside(self, values: np.ndarray) -> np.ndarray:
        """The pixels of values, those beyond the axis at its ends."""
        return self(values).clip(self.start, self.end)

    def at(self, value: float) -> str:
        """The pixel of one value, as written into the SVG."""
        pixel = self(np.array(value))
        return f'{pixel:.1f}'


def x_axis(low: float, high: float) -> Axis:
    """An axis along the bottom of a plot."""
    return Axis(low, high, LEFT, _X_END)


def y_axis(low: float, high: float) -> Axis:
    """An axis along the left of a plot, upwards."""
    return Axis(low, high, _Y_START, TOP)


def padded(values: np.ndarray, least: float = 1e-3, share: float = 0.06) -> tuple[float, float]:
    """The range of the values, a little wider, and never empty."""
    low = float(values.min())
    high = float(values.max())
    pad = max((high - low) * share, least)
    return low - pad, high + pad


def figure(label: str, *children: str) -> Markup:
    """The SVG around a plot; ``label`` is its text alternative."""
    return tag(
        'svg',
        *children,
        viewBox=f'0 0 {WIDTH} {HEIGHT}',
        role='img',
        aria_label=label,
        class_='plot',
    )


def grid(
    x: Axis,
    y: Axis,
    x_title: str,
    y_title: str,
    x_text: Callable[[float], str],
    y_text: Callable[[float], str],
) -> Markup:
    """Grid lines, tick labels and axis titles."""
    parts = []
    for value in nice_ticks(x.low, x.high):
        parts += _x_tick(x.at(value), x_text(value))
    for value in nice_ticks(y.low, y.high):
        parts += _y_tick(y.at(value), y_text(value))
    parts.append(_x_title(x_title))
    parts.append(_y_title(y_title))
    return Markup('').join(parts)


def _x_tick(across: str, text: str) -> list[Markup]:
    """A line upwards, and its label below."""
    return [
        _line('grid', (across, TOP), (across, _Y_START)),
        tag(
            'text',
            text,
            x=across,
            y=_Y_START + 18,
            text_anchor='middle',
        ),
    ]


def _y_tick(up: str, text: str) -> list[Markup]:
    """A line across, and its label on the left."""
    return [
        _line('grid', (LEFT, up), (_X_END, up)),
        tag(
            'text',
            text,
            x=LEFT - 8,
            y=up,
            dy='.35em',
            text_anchor='end',
        ),
    ]


def _line(kind: str, start: tuple[object, object], end: tuple[object, object]) -> Markup:
    """A line between two points, of a class of the style sheet."""
    (x1, y1), (x2, y2) = start, end
    return tag(
        'line',
        class_=kind,
        x1=x1,
        x2=x2,
        y1=y1,
        y2=y2,
    )


def _x_title(text: str) -> Markup:
    middle = (LEFT + _X_END) / 2
    return tag(
        'text',
        text,
        class_='axis',
        x=middle,
        y=HEIGHT - 8,
        text_anchor='middle',
    )


def _y_title(text: str) -> Markup:
    middle = (TOP + _Y_START) / 2
    turned = f'translate(12 {middle}) rotate(-90)'
    return tag(
        'text',
        text,
        class_='axis',
        transform=turned,
        text_anchor='middle',
    )


def tick_text(axis: Axis) -> Callable[[float], str]:
    """Tick labels with as many decimals as the axis needs."""
    step = axis.high - axis.low
    ticks = nice_ticks(axis.low, axis.high)
    if len(ticks) > 1:
        step = float(ticks[1] - ticks[0])
    needed = -math.floor(math.log10(step) + 1e-9)
    digits = min(max(0, needed), 9)

    def text(value: float) -> str:
        return words.number(value, digits)

    return text


def per_cent(value: float) -> str:
    """A tick label of an axis of shares."""
    return words.share(value, 0)


def curve_plot(
    ratios: np.ndarray, thresholds: np.ndarray, chosen: float | None, threshold: float | None
) -> Markup:
    """The keep-ratio curve with the chosen ratio marked.

    Args:
        ratios: (R,) rising keep ratios in (0, 1].
        thresholds: (R,) finite thresholds.
        chosen: the run's keep ratio, None to mark nothing.
        threshold: its threshold on the curve.
    """
    x = x_axis(0, 1)
    y = y_axis(*padded(thresholds))
    parts = [
        grid(x, y, 'keep ratio', 'threshold (density score)', per_cent, tick_text(y)),
        tag('polyline', class_='curve', points=polyline(x(ratios), y(thresholds))),
    ]
    label = 'Threshold against keep ratio'
    if chosen is not None and threshold is not None:
        text = f'{words.share(chosen)}: {words.number(threshold)}'
        label += f'; the chosen ratio {text}'
        is_right = chosen > 0.6
        parts += _mark(x.at(chosen), y.at(threshold), text, is_right)

    return figure(label, *parts)


def polyline(across: np.ndarray, up: np.ndarray) -> str:
    """The points of an SVG line."""
    points = zip(across, up, strict=True)
    return ' '.join(f'{x:.1f},{y:.1f}' for x, y in points)


def _mark(across: str, up: str, text: str, is_right: bool) -> list[Markup]:
    """A point of the curve with lines to both axes and a text beside it."""
    lines = f'{across},{_Y_START} {across},{up} {LEFT},{up}'
    # Off the rising curve, and inside the plot.
    anchor, right, down = ('end', -8, -8) if is_right else ('start', 10, 18)
    label = tag(
        'text',
        text,
        class_='strong',
        x=across,
        y=up,
        dx=right,
        dy=down,
        text_anchor=anchor,
    )
    return [
        tag('polyline', class_='mark', points=lines),
        tag(
            'circle',
            class_='mark-dot',
            cx=across,
            cy=up,
            r=5,
        ),
        label,
    ]


def gap_plot(
    gap: np.ndarray, error: np.ndarray, rate: np.ndarray, size: np.ndarray, names: Iterable[str]
) -> Markup:
    """Gap against pruning rate, one dot per cluster, its area by the cluster's size.

    Args:
        gap: (K,) finite.
        error: (K,) standard errors, NaN where unknown.
        rate: (K,) share of the cluster that was pruned, in [0, 1].
        size: (K,) samples.
        names: K texts that a dot shows when pointed at.
    """
    x = x_axis(*padded(np.append(gap, 0), share=0.1))
    y = y_axis(-0.04, 1.04)
    bars = np.nan_to_num(error)
    rows = zip(
        x(gap),
        y(rate),
        x.inside(gap - bars),
        x.inside(gap + bars),
        _radius(size),
        names,
        strict=True,
    )
    dots = [_dot(*row) for row in rows]
    zero = x.at(0)

    return figure(
        f'Pruning rate against gap of {len(dots)} clusters, with standard errors',
        grid(x, y, 'gap (proxy loss, pruned \u2212 kept)', 'pruned', tick_text(x), per_cent),
        _line('zero', (zero, TOP), (zero, _Y_START)),
        *dots,
    )


def _radius(size: np.ndarray) -> np.ndarray:
    """(K,) radii of dots in pixels: smaller ones where there are many, but never invisible."""
    shrunk = (60 / len(size)) ** 0.5
    largest = 8 * min(1, shrunk)
    radius = largest * np.sqrt(size / size.max())
    return np.maximum(radius, 2)


def _dot(across: float, up: float, left: float, right: float, radius: float, name: str) -> Markup:
    """A cluster with its bar of errors."""
    x, y = f'{across:.1f}', f'{up:.1f}'
    return tag(
        'g',
        tag('title', name),
        _line('error', (f'{left:.1f}', y), (f'{right:.1f}', y)),
        tag('circle', class_='dot', cx=x, cy=y, r=f'{radius:.1f}'),
    )


def map_plot(x: np.ndarray, y: np.ndarray, kept: np.ndarray) -> Markup:
    """The 2-D map of the features: a dot for each kept sample, a cross for each pruned one.

    Args:
        x: (n,) finite.
        y: (n,) finite.
        kept: (n,) bool.
    """
    points, height = _map_points(x, y)
    kept_count = int(kept.sum())
    pruned_count = len(x) - kept_count
    paths = [
        _map_path('kept', points[kept], 'h0'),
        _map_path('pruned', points[~kept], 'm-2-2l4 4m0-4l-4 4'),
    ]
    if pruned_count > kept_count:
        # What there is more of lies below.
        paths.reverse()

    counts = f'{len(x)} samples: {kept_count} kept, {pruned_count} pruned'

    return tag(
        'svg',
        *paths,
        viewBox=f'0 0 {MAP_SIDE} {height:.0f}',
        role='img',
        class_='plot map dense' if len(x) > DENSE else 'plot map',
        aria_label=f'2-D map of the features of {counts}',
    )


def _map_points(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """(n, 2) pixels of the map's points, and its height: both axes have the same scale."""
    extent = max(np.ptp(x), np.ptp(y), 1e-9)
    scale = (MAP_SIDE - _MAP_MARGIN) / extent
    middle = MAP_SIDE / 2
    to_right = _centred(x) * scale
    upwards = _centred(y) * scale
    across = middle + to_right
    down = middle - upwards

    needed = np.ptp(down) + _MAP_MARGIN
    height = max(needed, MAP_SIDE / 3)
    down = down - middle + height / 2
    points = np.stack([across, down], 1)
    return points, height


def _centred(values: np.ndarray) -> np.ndarray:
    """The distance of each value from the middle of their range."""
    middle = (values.min() + values.max()) / 2
    return values - middle


def _map_path(name: str, points: np.ndarray, stroke: str) -> Markup:
    """All points of a kind as one path, which keeps thousands of them small.

    A zero-length line with a round cap is a dot.
    """
    strokes = ''.join(f'M{across:.1f} {down:.1f}{stroke}' for across, down in points)
    return tag('path', class_=f'map-{name}', d=strokes)
