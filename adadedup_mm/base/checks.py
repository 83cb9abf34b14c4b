"""Checks of users' values: a line that says what is wrong and what may stand there."""

import difflib
import math
from collections.abc import Iterable
from typing import Any

from .errors import UserError


def choose(name: Any, valid: Iterable[str], where: str) -> None:
    """Raises UserError unless ``name`` is one of ``valid``; the message lists them and guesses what was meant."""
    valid = sorted(valid)
    if name not in valid:
        guess = difflib.get_close_matches(str(name), valid, n=1)
        hint = f'; did you mean {guess[0]!r}?' if guess else ''
        raise UserError(
            f'{where} is {name!r}, but must be one of {", ".join(map(repr, valid))}{hint}'
        )


def finite(value: Any, where: str, low: float, high: float = math.inf, above: bool = False) -> None:
    """Raises UserError unless value is a finite number in [low, high], or in (low, high] with ``above``."""
    # Whole numbers may be larger than any float.
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300
    if not good or not (low < value if above else low <= value) or value > high:
        bounds = f'{"above" if above else "of at least"} {low:g}'
        bounds += '' if high == math.inf else f' and at most {high:g}'
        raise UserError(f'{where} is {value!r}, but must be a number {bounds}')


def whole(value: Any, where: str, low: int) -> None:
    """Raises UserError unless ``value`` is a whole number of at least ``low``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise UserError(f'{where} is {value!r}, but must be a whole number of at least {low}')
