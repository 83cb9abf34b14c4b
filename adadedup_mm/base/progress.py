"""Progress with an ETA for whatever takes longer than two seconds."""

import contextlib
import contextvars
import sys
from collections.abc import Iterator

from tqdm import tqdm

_hidden = contextvars.ContextVar('hidden', default=False)


@contextlib.contextmanager
def hidden_progress(hide: bool = True) -> Iterator[None]:
    """Inside, no bar is shown: several processes would write over each other."""
    token = _hidden.set(hide)
    try:
        yield
    finally:
        _hidden.reset(token)


def progress(total: int, label: str, unit: str = 'it') -> tqdm:
    """A tqdm bar on standard error, from two seconds on; in log files it prints every ten.

    Args:
        total: how many ``unit`` there are.
        label: what is being done, in one or two words.
        unit: what ``update(n)`` counts.
    """
    return tqdm(
        total=total,
        desc=label,
        unit=unit,
        delay=2,
        disable=_hidden.get(),
        dynamic_ncols=True,
        mininterval=0.2 if sys.stderr.isatty() else 10,
    )
