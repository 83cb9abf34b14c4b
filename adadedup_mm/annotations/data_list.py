"""mmengine's own annotation format: a JSON object with ``metainfo`` and ``data_list``."""

from collections.abc import Collection
from pathlib import Path

import msgspec

from ..errors import UserError
from .json_records import Counts, rewrite_records


class _Anything(msgspec.Struct):
    """Decodes from every object."""


def rewrite_data_list(source: str | Path, target: str | Path, keep_positions: Collection[int]) -> Counts:
    """Writes a ``data_list`` file with only some of its records, which are copied byte for byte.

    Args:
        source: the JSON file.
        target: the file to write, atomically.
        keep_positions: positions in ``data_list`` of the records that stay.

    Returns:
        How many records there are, and how many were kept.

    Raises:
        UserError: the file is no JSON, has no ``data_list``, or is shorter than one of the positions.
    """
    keep = frozenset(keep_positions)

    def check(counts: dict[str, Counts]) -> None:
        if 'data_list' not in counts:
            raise UserError(f"{source} has no 'data_list'")
        if counts['data_list'].kept != len(keep):
            raise UserError(f'{source} has fewer records than when it was read; restore it and start again')

    selectors = dict(data_list=(_Anything, lambda position, _: position in keep))
    return rewrite_records(source, target, selectors, check)['data_list']
