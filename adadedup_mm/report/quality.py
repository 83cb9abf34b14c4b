"""Predicted quality against keep ratio: the plot of a probe, and the report's section about it."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from ..base import words
from ..workdir.probe import JudgedCurve
from . import plots
from .plots import tag

if TYPE_CHECKING:
    from ..probe.statistics import Cell, CurveSummary

# Below the axis title: a row of the legend, and how many names it holds.
_ROW, _NAMES = 20, 3
_LEGEND_TOP = plots.HEIGHT + 14
# Colours that differ for the colour-blind too (Okabe & Ito 2008), brighter ones for the dark.
_COLOURS = ('#0072b2', '#d55e00', '#009e73', '#aa4499', '#8a6d00', '#56616b')
_DARK_COLOURS = ('#62b0f2', '#ff9850', '#3ecf9f', '#e58ad0', '#e0c040', '#b6c0c9')
# Shapes of the points, with a radius of about 4 pixels.
_SHAPES = (
    'M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z',
    'M-4-4h8v8h-8z',
    'M0-5l5 9h-10z',
    'M0-5l5 5-5 5-5-5z',
)
# What the page's style sheet says there; a file has to bring it along.
_FILE_STYLE = """
text { fill: #59646f; font: 12px system-ui, "Liberation Sans", Arial, sans-serif; }
text.axis, text.strong { fill: #1f252b; }
.grid { stroke: #e2dfd8; }
.paper { fill: #fff; }
"""


def quality_section(judged: JudgedCurve | None) -> dict[str, Any] | None:
    """What the page says of a probe; None where there was none."""
    if judged is None:
        return None
    summary, verdict = judged
    curve = summary.curve
    digits = 2 if summary.whole.quality.value < 0.1 else 1
    texts = {}
    for strategy in curve.strategies:
        for ratio in curve.keep_ratios:
            cell = summary.cell(strategy, ratio)
            texts[strategy, ratio] = _cell_text(cell, digits) if cell else words.UNKNOWN

    return dict(
        plot=quality_plot(summary),
        verdict=verdict,
        curve=curve,
        texts=texts,
        whole=words.number(100 * summary.whole.quality.value, digits),
    )


def _cell_text(cell: 'Cell', digits: int) -> str:
    """A mean in per cent with its spread, and a mark where it differs from random's."""
    text = words.number(100 * cell.quality.value, digits)
    if math.isfinite(cell.spread):
        text += f' \u00b1 {words.number(100 * cell.spread, digits)}'
    marks = {1: ' +', -1: f' {words.MINUS}', 0: ''}
    return text + marks[cell.minus_random.sign]


def quality_plot(summary: 'CurveSummary') -> Markup:
    """A line for each strategy, a band for random's draws, a level for all samples.

    Points that differ from random by more than noise are filled. The drawing brings its own colours
    and stands in a page or, with ``plot_file``, alone.
    """
    x = plots.x_axis(0, 1.03)
    y = plots.y_axis(*_range(summary))
    parts = [
        tag('style', Markup(_line_style())),
        plots.grid(
            x,
            y,
            'keep ratio',
            f'predicted {summary.curve.measure}',
            plots.per_cent,
            plots.tick_text(y),
        ),
        *_whole(summary, x, y),
        *_random(summary, x, y),
    ]
    for number, strategy in enumerate(summary.curve.compared):
        parts += _strategy(summary.of(strategy), number, x, y)

    parts += _legend(summary)
    return tag(
        'svg',
        *parts,
        xmlns='http://www.w3.org/2000/svg',
        viewBox=f'0 0 {plots.WIDTH} {_height(summary)}',
        role='img',
        aria_label=f'Predicted {summary.curve.measure} against keep ratio',
        class_='plot quality',
    )


def plot_file(summary: 'CurveSummary') -> str:
    """The plot as an SVG file of its own, on white."""
    height = _height(summary)
    paper = tag(
        'rect',
        class_='paper',
        width=plots.WIDTH,
        height=height,
    )
    return tag(
        'svg',
        tag('style', Markup(_FILE_STYLE)),
        paper,
        quality_plot(summary),
        xmlns='http://www.w3.org/2000/svg',
        width=2 * plots.WIDTH,
        height=2 * height,
        viewBox=f'0 0 {plots.WIDTH} {height}',
    )


def _line_style() -> str:
    """The rules of lines, bands and points; series repeat their colours from the seventh on."""
    rules = [
        '.quality .series { fill: none; stroke-width: 2; stroke-linejoin: round; }',
        '.quality .point { fill: #fff; stroke-width: 1.6; }',
        'body .quality .point { fill: var(--paper); }',
        '.quality .band { fill: #8a949e; fill-opacity: .25; }',
        '.quality .random { fill: none; stroke: #7a858f; stroke-width: 2; stroke-dasharray: 5 4; }',
        '.quality .whole { stroke: #7a858f; stroke-width: 1.5; stroke-dasharray: 1.5 3; }',
    ]
    rules += [_colour_rule(number, colour) for number, colour in enumerate(_COLOURS)]
    dark = [_colour_rule(number, colour) for number, colour in enumerate(_DARK_COLOURS)]
    # A file is white in the dark, too.
    in_page = [rule.replace('.quality', 'body .quality') for rule in dark]
    rules.append(f'@media (prefers-color-scheme: dark) {{ {" ".join(in_page)} }}')
    return '\n'.join(rules)


def _colour_rule(number: int, colour: str) -> str:
    return (
        f'.quality .s{number} {{ stroke: {colour}; }} '
        f'.quality .s{number}.filled {{ fill: {colour}; }}'
    )


def _range(summary: 'CurveSummary') -> tuple[float, float]:
    """The ends of the quality axis: all means, random's band, and no negative quality."""
    values = [summary.whole.quality.value]
    for cell in summary.cells:
        mean = cell.quality.value
        spread = _spread(cell)
        values += [mean - spread, mean + spread]
    low, high = plots.padded(np.array(values))
    return max(low, 0.0), high


def _spread(cell: 'Cell') -> float:
    return cell.spread if math.isfinite(cell.spread) else 0.0


def _whole(summary: 'CurveSummary', x: plots.Axis, y: plots.Axis) -> list[Markup]:
    """The level of all samples."""
    up = y.at(summary.whole.quality.value)
    line = tag(
        'line',
        class_='whole',
        x1=x.at(0),
        x2=x.at(1),
        y1=up,
        y2=up,
    )
    name = f'all samples: {words.number(summary.whole.quality.value)}'
    return [tag('g', tag('title', name), line)]


def _random(summary: 'CurveSummary', x: plots.Axis, y: plots.Axis) -> list[Markup]:
    """The mean of random's draws, and a standard deviation to each side."""
    cells = summary.random
    if not cells:
        return []
    ratios = np.array([cell.keep_ratio for cell in cells])
    means = np.array([cell.quality.value for cell in cells])
    spreads = np.array([_spread(cell) for cell in cells])
    across = np.concatenate([x(ratios), x(ratios)[::-1]])
    lower = np.maximum(means - spreads, y.low)
    up = np.concatenate([y(means + spreads), y(lower)[::-1]])
    return [
        tag('polygon', class_='band', points=plots.polyline(across, up)),
        tag('polyline', class_='random', points=plots.polyline(x(ratios), y(means))),
    ]


def _strategy(cells: 'list[Cell]', number: int, x: plots.Axis, y: plots.Axis) -> list[Markup]:
    """A strategy's line and its points, each of which tells its figures."""
    ratios = np.array([cell.keep_ratio for cell in cells])
    means = np.array([cell.quality.value for cell in cells])
    colour = f's{number % len(_COLOURS)}'
    line = tag('polyline', class_=f'series {colour}', points=plots.polyline(x(ratios), y(means)))
    points = []
    for cell in cells:
        is_different = cell.minus_random.sign != 0
        point = _point(number, is_different, x.at(cell.keep_ratio), y.at(cell.quality.value))
        points.append(tag('g', tag('title', _facts(cell)), point))
    return [line, *points]


def _point(number: int, is_filled: bool, across: object, up: object) -> Markup:
    colour = f's{number % len(_COLOURS)}'
    return tag(
        'path',
        class_=f'point {colour} filled' if is_filled else f'point {colour}',
        d=_SHAPES[number % len(_SHAPES)],
        transform=f'translate({across} {up})',
    )


def _facts(cell: 'Cell') -> str:
    """What a point says when it is pointed at."""
    quality = words.number(cell.quality.value)
    text = f'{cell.strategy} at {100 * cell.keep_ratio:g} %: {quality}'
    gain = cell.minus_random
    if not math.isfinite(gain.value):
        return text
    text += f', {words.number(gain.value, sign=True)} to random'
    if gain.is_known:
        text += f' ({words.number(gain.low, sign=True)} to {words.number(gain.high, sign=True)})'
    return text


def _legend(summary: 'CurveSummary') -> list[Markup]:
    """Names below the plot, and what filled points mean."""
    samples: list[tuple[Markup, str]] = []
    for number, strategy in enumerate(summary.curve.compared):
        samples.append((_line_sample(number), strategy))
    if summary.random:
        band = tag('rect', class_='band', x=-10, y=-5, width=20, height=10)
        line = tag('line', class_='random', x1=-10, x2=10)
        samples.append((Markup('').join([band, line]), 'random \u00b1 sd'))
    samples.append((tag('line', class_='whole', x1=-10, x2=10), 'all samples'))

    width = (plots.WIDTH - 20) / _NAMES
    parts = []
    for place, (sample, name) in enumerate(samples):
        row, column = divmod(place, _NAMES)
        across = 24 + column * width
        down = _LEGEND_TOP + row * _ROW
        label = tag('text', name, x=18, dy='.35em', class_='axis')
        parts.append(tag('g', sample, label, transform=f'translate({across:.0f} {down})'))

    note = 'filled: better or worse than random by more than noise (95 %)'
    parts.append(tag('text', note, x=14, y=_height(summary) - 10))
    return parts


def _line_sample(number: int) -> Markup:
    colour = f's{number % len(_COLOURS)}'
    line = tag('line', class_=f'series {colour}', x1=-10, x2=10)
    return Markup('').join([line, _point(number, True, 0, 0)])


def _height(summary: 'CurveSummary') -> int:
    names = len(summary.curve.compared) + 1 + bool(summary.random)
    rows = math.ceil(names / _NAMES)
    return _LEGEND_TOP + rows * _ROW + 16
