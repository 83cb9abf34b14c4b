"""What two processes do not have in common, in words."""

import json
from typing import Any

from ..base.files import sha256_value

# Longer lists and texts are compared by their hash.
_LONGEST = 1000
_MISSING = object()


def shortened(value: Any) -> Any:
    """A JSON-like value as JSON gives it back, with hashes in place of long lists and texts."""
    if isinstance(value, dict):
        return {str(name): shortened(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, str)) and len(value) > _LONGEST:
        return sha256_value(value)
    if isinstance(value, (list, tuple)):
        return [shortened(item) for item in value]
    text = json.dumps(value, default=_kind)
    return json.loads(text)


def _kind(value: Any) -> str:
    """A value that JSON does not know, without its address."""
    usual = type(value).__qualname__
    return str(getattr(value, '__qualname__', usual))


def first_difference(here: Any, first: Any, name: str = '') -> str:
    """Names the first entry that differs.

    Args:
        here: a value of this process, as from ``shortened``.
        first: that of the first process.
        name: of the entry that holds the value.

    Returns:
        Such as ``"embedder.precision is 'bf16' here and 'fp32' in the first process"``.
    """
    if isinstance(here, dict) and isinstance(first, dict):
        return _difference_of_entries(here, first, name)
    if isinstance(here, list) and isinstance(first, list):
        here_by_place = dict(enumerate(here))
        first_by_place = dict(enumerate(first))
        return _difference_of_entries(here_by_place, first_by_place, name)
    if _is_hash(here) and _is_hash(first):
        return f'{name} differs between this process and the first one'
    return f'{name} is {_said(here)} here and {_said(first)} in the first process'


def _difference_of_entries(here: dict[Any, Any], first: dict[Any, Any], name: str) -> str:
    only_first = [entry for entry in first if entry not in here]
    for entry in [*here, *only_first]:
        ours = here.get(entry, _MISSING)
        theirs = first.get(entry, _MISSING)
        # As text, in which NaN equals itself.
        if repr(ours) != repr(theirs):
            path = f'{name}.{entry}' if name else str(entry)
            return first_difference(ours, theirs, path)

    what = name or 'what its key is made of'
    return f'{what} differs between this process and the first one'


def _said(value: Any) -> str:
    if value is _MISSING:
        return 'missing'
    text = repr(value)
    if len(text) > 100:
        return f'{text[:97]}...'
    return text


def _is_hash(value: Any) -> bool:
    if not isinstance(value, str) or len(value) != 64:
        return False
    return set(value) <= set('0123456789abcdef')
