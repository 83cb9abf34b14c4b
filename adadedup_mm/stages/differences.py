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
    if isinstance(value, (list, tuple)) and len(value) <= _LONGEST:
        return [shortened(item) for item in value]
    if isinstance(value, (list, tuple)) or (isinstance(value, str) and len(value) > _LONGEST):
        return sha256_value(value)
    return json.loads(json.dumps(value, default=_kind))


def _kind(value: Any) -> str:
    """A value that JSON does not know, without its address."""
    return str(getattr(value, '__qualname__', type(value).__qualname__))


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
        return _difference_of_entries(dict(enumerate(here)), dict(enumerate(first)), name)
    if _is_hash(here) and _is_hash(first):
        return f'{name} differs between this process and the first one'
    return f'{name} is {_said(here)} here and {_said(first)} in the first process'


def _difference_of_entries(here: dict[Any, Any], first: dict[Any, Any], name: str) -> str:
    for entry in [*here, *(entry for entry in first if entry not in here)]:
        ours, theirs = here.get(entry, _MISSING), first.get(entry, _MISSING)
        # As text, in which NaN equals itself.
        if repr(ours) != repr(theirs):
            return first_difference(ours, theirs, f'{name}.{entry}' if name else str(entry))
    return f'{name or "what its key is made of"} differs between this process and the first one'


def _said(value: Any) -> str:
    text = 'missing' if value is _MISSING else repr(value)
    return text if len(text) <= 100 else f'{text[:97]}...'


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set('0123456789abcdef')
