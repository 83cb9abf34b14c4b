"""Plots as inline SVG: colours and fonts come from the page's style sheet, so that they follow light and dark."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from ..base import words

WIDTH, HEIGHT = 460, 320
LEFT, RIGHT, TOP, BOTTOM = 68, 12, 14, 50


def tag(name: str, *children: str, **attributes: object) -> Markup:
    """An SVG element; everything that is not Markup is escaped. ``class_`` and ``_`` stand for ``class`` and ``-``."""
    listed = ''.join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
    )
    return Markup(f'<{name}{listed}>{"".join(map(escape, children))}</{name}>')


def nice_ticks(low: float, high: float, count: int = 6) -> np.ndarray:
    """About ``count`` round numbers (1, 2 or 5 times a power of ten apart) inside [low, high]; low < high."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return np.arange(math.ceil(low / step - 1e-6), math.floor(high / step + 1e-6) + 1) * step


@dataclass(frozen=True)
class Axis:
    """Maps values in [low, high] to pixels in [start, end]."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return self.start + (np.asarray(values, float) - self.low) / (self.high - self.low) * (
            self.end - self.start
        )

    def at(self, value: float) -> str:
        """The pixel of one value, as written into the SVG."""
        return f'{self(np.array(value)):.1f}'


def x_axis(low: float, high: float) -> Axis:
    """An axis along the bottom of a plot."""
    return Axis(low, high, LEFT, WIDTH - RIGHT)


def y_axis(low: float, high: float) -> Axis:
    """An axis along the left of a plot, upwards."""
    return Axis(low, high, HEIGHT - BOTTOM, TOP)


def padded(values: np.ndarray, least: float = 1e-3, share: float = 0.06) -> tuple[float, float]:
    """The range of the values, a little wider, and never empty."""
    low, high = float(values.min()), float(values.max())
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
        parts.append(
            tag('line', class_='grid', x1=x.at(value), x2=x.at(value), y1=TOP, y2=HEIGHT - BOTTOM)
        )
        parts.append(
            tag('text', x_text(value), x=x.at(value), y=HEIGHT - BOTTOM + 18, text_anchor='middle')
        )
    for value in nice_ticks(y.low, y.high):
        parts.append(
            tag('line', class_='grid', x1=LEFT, x2=WIDTH - RIGHT, y1=y.at(value), y2=y.at(value))
        )
        parts.append(
            tag('text', y_text(value), x=LEFT - 8, y=y.at(value), dy='.35em', text_anchor='end')
        )
    middle = f'translate(12 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)'
    parts.append(
        tag(
            'text',
            x_title,
            class_='axis',
            x=(LEFT + WIDTH - RIGHT) / 2,
            y=HEIGHT - 8,
            text_anchor='middle',
        )
    )
    parts.append(tag('text', y_title, class_='axis', transform=middle, text_anchor='middle'))
    return Markup('').join(parts)


def plain(axis: Axis) -> Callable[[float], str]:
    """Tick labels with as many decimals as the axis needs."""
    ticks = nice_ticks(axis.low, axis.high)
    step = float(ticks[1] - ticks[0]) if len(ticks) > 1 else axis.high - axis.low
    digits = min(max(0, -math.floor(math.log10(step) + 1e-9)), 9)
    return lambda value: words.number(value, digits)


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
    x, y = x_axis(0, 1), y_axis(*padded(thresholds))
    points = ' '.join(f'{a:.1f},{b:.1f}' for a, b in zip(x(ratios), y(thresholds), strict=True))
    parts = [
        grid(x, y, 'keep ratio', 'threshold (similarity)', per_cent, plain(y)),
        tag('polyline', class_='curve', points=points),
    ]
    label = 'Threshold against keep ratio'
    if chosen is not None and threshold is not None:
        text = f'{words.share(chosen)}: {words.number(threshold)}'
        label += f'; the chosen ratio {text}'
        across, up = x.at(chosen), y.at(threshold)
        # Off the rising curve, and inside the plot.
        anchor, right, down = ('end', -8, -8) if chosen > 0.6 else ('start', 10, 18)
        parts += [
            tag(
                'polyline',
                class_='mark',
                points=f'{across},{HEIGHT - BOTTOM} {across},{up} {LEFT},{up}',
            ),
            tag('circle', class_='mark-dot', cx=across, cy=up, r=5),
            tag(
                'text', text, class_='strong', x=across, y=up, dx=right, dy=down, text_anchor=anchor
            ),
        ]
    return figure(label, *parts)


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
    x, y = x_axis(*padded(np.append(gap, 0), share=0.1)), y_axis(-0.04, 1.04)
    radius = np.maximum(8 * min(1, (60 / len(gap)) ** 0.5) * np.sqrt(size / size.max()), 2)
    bars = np.nan_to_num(error)
    dots = []
    for row in zip(
        x(gap),
        y(rate),
        x(gap - bars).clip(x.start, x.end),
        x(gap + bars).clip(x.start, x.end),
        radius,
        names,
        strict=True,
    ):
        cx, cy, left, right = (f'{value:.1f}' for value in row[:4])
        dots.append(
            tag(
                'g',
                tag('title', row[5]),
                tag('line', class_='error', x1=left, x2=right, y1=cy, y2=cy),
                tag('circle', class_='dot', cx=cx, cy=cy, r=f'{row[4]:.1f}'),
            )
        )
    return figure(
        f'Pruning rate against gap of {len(dots)} clusters, with standard errors',
        grid(x, y, 'gap (proxy loss, pruned \u2212 kept)', 'pruned', plain(x), per_cent),
        tag('line', class_='zero', x1=x.at(0), x2=x.at(0), y1=TOP, y2=HEIGHT - BOTTOM),
        *dots,
    )


def map_plot(x: np.ndarray, y: np.ndarray, kept: np.ndarray) -> Markup:
    """The 2-D map of the features: a dot for each kept sample, a cross for each pruned one.

    Args:
        x: (n,) finite.
        y: (n,) finite.
        kept: (n,) bool.
    """
    side = 560
    centre = [(values.min() + values.max()) / 2 for values in (x, y)]
    scale = (side - 24) / max(np.ptp(x), np.ptp(y), 1e-9)
    across, down = side / 2 + (x - centre[0]) * scale, side / 2 - (y - centre[1]) * scale
    height = max(np.ptp(down) + 24, side / 3)
    down = down - side / 2 + height / 2
    points = np.stack([across, down], 1)
    # One path per kind keeps thousands of points small: a zero-length line with a round cap is a
    # dot.
    shapes = ((True, 'kept', 'h0'), (False, 'pruned', 'm-2-2l4 4m0-4l-4 4'))
    paths = [
        tag(
            'path',
            class_=f'map-{name}',
            d=''.join(f'M{a:.1f} {b:.1f}{stroke}' for a, b in points[kept == which]),
        )
        for which, name, stroke in sorted(shapes, key=lambda shape: -int((kept == shape[0]).sum()))
    ]
    return tag(
        'svg',
        *paths,
        viewBox=f'0 0 {side} {height:.0f}',
        role='img',
        class_='plot map dense' if len(x) > 1500 else 'plot map',
        aria_label=f'2-D map of the features of {len(x)} samples: {int(kept.sum())} kept, '
        f'{int((~kept).sum())} pruned',
    )
