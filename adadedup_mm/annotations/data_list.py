"""mmengine's own annotation format: a JSON object with ``metainfo`` and ``data_list``."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import msgspec

from ..base.errors import UserError
from .json_records import Counts, JsonScanner, UnrecognisedJson, load_json, rewrite_records


class _Anything(msgspec.Struct):
    """Decodes from every object."""


def rewrite_data_list(
    source: str | Path, target: str | Path, keep_positions: Collection[int]
) -> Counts:
    """Writes a ``data_list`` file with only some of its records, which are copied byte for byte.

    Args:
        source: the JSON file.
        target: the file to write, atomically.
        keep_positions: positions in ``data_list`` of the records that stay.

    Returns:
        How many records there are, and how many were kept.

    Raises:
        UserError: the file is no JSON, has no ``data_list``, or is shorter than one of the
            positions.
    """
    keep = frozenset(keep_positions)

    def check(counts: dict[str, Counts]) -> None:
        if 'data_list' not in counts:
            raise UserError(f"{source} has no 'data_list'")
        if counts['data_list'].kept != len(keep):
            raise UserError(
                f'{source} has fewer records than when it was read; restore it and start again'
            )

    selectors = dict(data_list=(_Anything, lambda position, _: position in keep))
    return rewrite_records(source, target, selectors, check)['data_list']


def read_metainfo(path: str | Path) -> dict[str, Any]:
    """``metainfo`` of a ``data_list`` file; empty where it has none or is no JSON file.

    Raises:
        UserError: the file is no valid JSON.
    """
    if Path(path).suffix != '.json':
        return {}
    try:
        with JsonScanner(path, 'reading metainfo') as scanner:
            for key in scanner.members():
                start = scanner.position
                scanner.skip()
                if key == 'metainfo':
                    return _as_dict(msgspec.json.decode(scanner.view[start : scanner.position]))
        return {}
    except (UnrecognisedJson, msgspec.DecodeError):
        return _as_dict(_as_dict(load_json(path)).get('metainfo'))


def _as_dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
