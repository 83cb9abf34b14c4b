"""Numbers as people read them: 12,345; 12.3 %; 1 min 20 s."""

import math
from collections.abc import Sequence

MINUS = '\u2212'
SPACE = '\u00a0'  # keeps a number and its unit on one line
UNKNOWN = '\u2013'


def count(value: float) -> str:
    """A whole number with commas between the thousands."""
    return f'{value:,.0f}'.replace('-', MINUS)


def share(value: float | None, digits: int = 1) -> str:
    """A share in [0, 1] in per cent; a dash where it is unknown."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f'{100 * value:.{digits}f}{SPACE}%'


def number(value: float | None, digits: int = 3, sign: bool = False) -> str:
    """A measured number with a fixed count of decimals; a dash where it is unknown."""
    if value is None or math.isnan(value):
        return UNKNOWN
    if math.isinf(value):
        return f'{MINUS if value < 0 else ""}\u221e'
    return f'{value:{"+" if sign else ""}z.{digits}f}'.replace('-', MINUS)


def duration(seconds: float) -> str:
    """Seconds in the two largest units that matter: 0.35 s, 4.2 s, 38 s, 1 min 20 s, 2 h 5 min, 3 d 4 h."""
    if seconds < 59.5:
        digits = 2 if seconds < 0.995 else 1 if seconds < 9.95 else 0
        return f'{seconds:.{digits}f}{SPACE}s'
    unit, base, large, small = (
        (1, 60, 'min', 's')
        if seconds < 3599.5
        else (60, 60, 'h', 'min')
        if seconds < 86370
        else (3600, 24, 'd', 'h')
    )
    whole, rest = divmod(round(seconds / unit), base)
    return f'{whole:,}{SPACE}{large}' + (f' {rest}{SPACE}{small}' if rest else '')


def size(value: float) -> str:
    """Bytes in decimal units: 812 B, 1.4 MB."""
    units = ('B', 'kB', 'MB', 'GB', 'TB')
    power = 0
    while value >= 999.5 and power < len(units) - 1:
        value /= 1000
        power += 1
    return f'{value:.{1 if power and value < 99.95 else 0}f}{SPACE}{units[power]}'


def short_name(path: str, length: int = 17) -> str:
    """A file's name without its ending; of a long one the end, which is what differs between the frames of a drive."""
    name = path.replace('\\', '/').rsplit('/', 1)[-1]
    stem = name.rsplit('.', 1)[0] or name
    return stem if len(stem) <= length else f'\u2026{stem[1 - length :]}'


def listed(names: Sequence[str]) -> str:
    """The first five of some names, and how many more there are."""
    return ', '.join(names[:5]) + (f' and {len(names) - 5} more' if len(names) > 5 else '')
