"""Numbers as people read them (12,345; 12.3 %; 1 min 20 s), names and errors in messages."""

import math
from collections.abc import Sequence
from typing import Any

MINUS = '\u2212'
SPACE = '\u00a0'  # keeps a number and its unit on one line
UNKNOWN = '\u2013'


def count(value: float) -> str:
    """A whole number with commas between the thousands."""
    text = f'{value:,.0f}'
    return text.replace('-', MINUS)


def share(value: float | None, digits: int = 1) -> str:
    """A share in [0, 1] in per cent; a dash where it is unknown."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    percent = 100 * value
    return f'{percent:.{digits}f}{SPACE}%'


def number(value: float | None, digits: int = 3, sign: bool = False) -> str:
    """A measured number with a fixed count of decimals; a dash where it is unknown."""
    if value is None or math.isnan(value):
        return UNKNOWN
    if math.isinf(value):
        return f'{MINUS}\u221e' if value < 0 else '\u221e'
    plus = '+' if sign else ''
    text = f'{value:{plus}z.{digits}f}'
    return text.replace('-', MINUS)


def duration(seconds: float) -> str:
    """Seconds in the two largest units that matter.

    0.35 s, 4.2 s, 38 s, 1 min 20 s, 2 h 5 min, 3 d 4 h.
    """
    if seconds < 59.5:
        return f'{seconds:.{_decimals(seconds)}f}{SPACE}s'
    if seconds < 3599.5:
        unit, base, large, small = 1, 60, 'min', 's'
    elif seconds < 86370:
        unit, base, large, small = 60, 60, 'h', 'min'
    else:
        unit, base, large, small = 3600, 24, 'd', 'h'

    whole, rest = divmod(round(seconds / unit), base)
    text = f'{whole:,}{SPACE}{large}'

    return f'{text} {rest}{SPACE}{small}' if rest else text


def _decimals(seconds: float) -> int:
    if seconds < 0.995:
        return 2
    return 1 if seconds < 9.95 else 0


def size(value: float) -> str:
    """Bytes in decimal units: 812 B, 1.4 MB."""
    units = ('B', 'kB', 'MB', 'GB', 'TB')
    power = 0
    while value >= 999.5 and power < len(units) - 1:
        value /= 1000
        power += 1
    has_decimal = power > 0 and value < 99.95
    digits = 1 if has_decimal else 0
    return f'{value:.{digits}f}{SPACE}{units[power]}'


def short_name(path: str, length: int = 17) -> str:
    """A file's name without its ending, of a long one the end.

    The end is what differs between the frames of a drive.
    """
    name = path.replace('\\', '/').rpartition('/')[2]
    stem = name.rsplit('.', 1)[0] or name
    if len(stem) <= length:
        return stem
    return f'\u2026{stem[1 - length :]}'


def joined(names: Sequence[str]) -> str:
    """Names as in a sentence: a, b and c."""
    if len(names) < 2:
        return ''.join(names)
    return f'{", ".join(names[:-1])} and {names[-1]}'


def listed(names: Sequence[str]) -> str:
    """The first five of some names, and how many more there are."""
    first = ', '.join(names[:5])
    more = len(names) - 5
    return f'{first} and {more} more' if more > 0 else first


def some(names: Sequence[Any]) -> str:
    """The first three of some names."""
    first = ', '.join(map(str, names[:3]))
    return f'{first}, ...' if len(names) > 3 else first


def first_line(error: object, longest: int | None = None) -> str:
    """The first line of an exception or text, cut off where it is longer; '' if there is none."""
    lines = str(error).strip().splitlines()
    return lines[0][:longest] if lines else ''


def one_line(error: BaseException, longest: int) -> str:
    """An exception's text without line breaks, cut off where it is longer."""
    return ' '.join(str(error).split())[:longest]


def error_words(error: BaseException | None, longest: int | None = None) -> str:
    """Type and first line of an exception, which is cut off where it is longer."""
    kind = type(error).__name__
    line = first_line(error, longest)
    return f'{kind}: {line}' if line else kind
