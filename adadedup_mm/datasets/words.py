"""What messages about datasets are made of."""

from collections.abc import Sequence
from typing import Any


def some(names: Sequence[Any]) -> str:
    """The first three of them."""
    return ', '.join(map(str, names[:3])) + (', ...' if len(names) > 3 else '')


def error_words(error: BaseException | None) -> str:
    """Type and first line of an exception."""
    lines = str(error).strip().splitlines()
    return f'{type(error).__name__}: {lines[0]}' if lines else type(error).__name__
