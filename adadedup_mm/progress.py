"""Progress with an ETA for whatever takes longer than two seconds."""

import sys

from tqdm import tqdm


def progress(total: int, label: str, unit: str = 'it', disable: bool = False) -> tqdm:
    """A tqdm bar on standard error that appears after two seconds; in a log file it prints every ten.

    Args:
        total: how many ``unit`` there are.
        label: what is being done, in one or two words.
        unit: what ``update(n)`` counts.
        disable: shows nothing, for ranks other than the first.
    """
    return tqdm(total=total, desc=label, unit=unit, delay=2, disable=disable, dynamic_ncols=True,
                mininterval=.2 if sys.stderr.isatty() else 10)
