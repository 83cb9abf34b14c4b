"""Checks of users' values: a line that says what is wrong and what may stand there."""

import difflib
import math
from collections.abc import Iterable
from typing import Any

from .errors import UserError


def choose(name: Any, valid: Iterable[str], where: str) -> None:
    """Raises UserError unless ``name`` is one of ``valid``.

    The message lists them and guesses what was meant.
    """
    valid = sorted(valid)
    if name in valid:
        return

    guess = difflib.get_close_matches(str(name), valid, n=1)
    hint = f'; did you mean {guess[0]!r}?' if guess else ''
    names = ', '.join(map(repr, valid))
    raise UserError(f'{where} is {name!r}, but must be one of {names}{hint}')


def finite(value: Any, where: str, low: float, high: float = math.inf, above: bool = False) -> None:
    """Raises UserError unless value is a finite number in [low, high]; (low, high] if ``above``."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # Whole numbers may be larger than any float.
    if is_number and abs(value) < 1e300:
        is_high_enough = low < value if above else low <= value
        if is_high_enough and not value > high:
            return

    bounds = f'{"above" if above else "of at least"} {low:g}'
    if high != math.inf:
        bounds += f' and at most {high:g}'

    raise UserError(f'{where} is {value!r}, but must be a number {bounds}')


def whole(value: Any, where: str, low: int) -> None:
    """Raises UserError unless ``value`` is a whole number of at least ``low``."""
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or value < low:
        raise UserError(f'{where} is {value!r}, but must be a whole number of at least {low}')
