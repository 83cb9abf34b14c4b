"""A curve as text for the terminal, and as rows for other tools."""

import csv
import io
import math
import textwrap
from collections.abc import Sequence

from ..base import words
from .curve import RANDOM, Point
from .statistics import Cell, CurveSummary, Interval

WIDTH = 100
_GAP = '   '
_NONE = '-'
_MARKS = {1: ' +', -1: ' -', 0: '  '}
COLUMNS = (
    'strategy',
    'keep_ratio',
    'seed',
    'samples',
    'quality',
    'mean',
    'mean_low',
    'mean_high',
    'spread',
    'minus_random',
    'minus_random_low',
    'minus_random_high',
    'minus_whole',
    'minus_whole_low',
    'minus_whole_high',
    'loss',
    'loss_low',
    'loss_high',
)


def curve_text(summary: CurveSummary) -> str:
    """The curve as a table of ``WIDTH`` columns: a row a strategy, a column a keep ratio."""
    curve = summary.curve
    title = (
        f'Predicted {curve.measure} in %: {words.count(curve.samples)} samples, '
        f'{curve.validation}; took {words.duration(curve.seconds)}'
    )
    names = _in_order(curve.strategies)
    digits = _digits(summary)
    rows = [_row(summary, name, digits) for name in names]
    titles = [f'{100 * ratio:g} %  ' for ratio in curve.keep_ratios]
    lines = [
        textwrap.fill(title, WIDTH),
        '',
        *_aligned(['kept', *titles], rows),
        '',
        _whole_line(summary, digits),
    ]
    if RANDOM in names and len(names) > 1:
        lines.append(
            '+ better than random, - worse, each by itself at 95 %: of twenty such marks one is '
            'chance'
        )
    return '\n'.join(lines)


def _in_order(strategies: Sequence[str]) -> list[str]:
    """Random first, which the others are compared with."""
    return sorted(strategies, key=lambda name: name != RANDOM)


def _digits(summary: CurveSummary) -> int:
    """Decimals of a per cent: two where the qualities are small."""
    return 2 if summary.whole.quality.value < 0.1 else 1


def _row(summary: CurveSummary, strategy: str, digits: int) -> list[str]:
    row = [strategy]
    for ratio in summary.curve.keep_ratios:
        cell = summary.cell(strategy, ratio)
        row.append(_cell_text(cell, digits) if cell else f'{_NONE}  ')
    return row


def _cell_text(cell: Cell, digits: int) -> str:
    """The mean in per cent with its spread over seeds, and a mark."""
    text = f'{100 * cell.quality.value:.{digits}f}'
    if math.isfinite(cell.spread):
        text += f' ± {100 * cell.spread:.{digits}f}'
    return text + _MARKS[cell.minus_random.sign]


def _whole_line(summary: CurveSummary, digits: int) -> str:
    quality = summary.whole.quality
    text = f'all samples: {100 * quality.value:.{digits}f}'
    if quality.is_known:
        low = f'{100 * max(quality.low, 0):.{digits}f}'
        high = f'{100 * min(quality.high, 1):.{digits}f}'
        text += f' (95 % interval over validation scenes {low} to {high})'
    return text


def _aligned(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, its first column on the left, the others on the right.

    Where it is wider than ``WIDTH``, the rest of the columns follows below.
    """
    columns = list(zip(titles, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    first = _justified(columns[0], widths[0], to_left=True)
    blocks: list[list[str]] = []
    lines = first
    for column, width in zip(columns[1:], widths[1:], strict=True):
        cells = _justified(column, width)
        is_full = len(lines[0]) + len(_GAP) + width > WIDTH
        if is_full and lines is not first:
            blocks.append(lines)
            lines = first
        lines = [line + _GAP + cell for line, cell in zip(lines, cells, strict=True)]

    blocks.append(lines)
    return [line.rstrip() for block in blocks for line in [*block, '']][:-1]


def _justified(cells: Sequence[str], width: int, to_left: bool = False) -> list[str]:
    return [cell.ljust(width) if to_left else cell.rjust(width) for cell in cells]


def curve_csv(summary: CurveSummary) -> str:
    """A line for each point with the statistics of its strategy and ratio; empty where unknown."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(COLUMNS)
    for point in summary.curve.points:
        cell = summary.cell(point.strategy, point.keep_ratio) or summary.whole
        writer.writerow(_values(point, cell))
    return file.getvalue()


def _values(point: Point, cell: Cell) -> list[object]:
    """A line, in the order of ``COLUMNS``."""
    numbers = [
        point.quality,
        *_ends(cell.quality),
        cell.spread,
        *_ends(cell.minus_random),
        *_ends(cell.minus_whole),
        *_ends(cell.loss),
    ]
    texts = [f'{number:.6g}' if math.isfinite(number) else '' for number in numbers]
    return [point.strategy, f'{point.keep_ratio:g}', point.seed, point.samples, *texts]


def _ends(interval: Interval) -> list[float]:
    return [interval.value, interval.low, interval.high]
