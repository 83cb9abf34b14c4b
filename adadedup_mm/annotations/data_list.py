"""mmengine's own annotation format: a JSON object with ``metainfo`` and ``data_list``."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import msgspec
from mmengine.dataset import BaseDataset

from ..base.errors import UserError
from .formats import FORMATS, Counts, Lines
from .json_records import JsonScanner, UnrecognisedJson, load_json, rewrite_records


class _Anything(msgspec.Struct):
    """Decodes from every object."""


@FORMATS.register_module('data_list')
class DataListFormat:
    """The json that mmengine's own ``BaseDataset`` reads."""

    def recognises(self, lines: Lines) -> bool:
        """Whether the dataset is left to read its json as mmengine does."""
        if lines.are_frames or lines.file.suffix != '.json' or None in lines.records:
            return False
        loads = getattr(type(lines.dataset), 'load_data_list', None)
        return loads is BaseDataset.load_data_list

    def addresses(self, lines: Lines) -> Sequence[int | None]:
        """Positions in ``data_list``."""
        return lines.records

    def rewrite(
        self, source: Path, target: Path, keep: Sequence[int], temporal: str, trust: bool
    ) -> Counts:
        """See ``Format`` and ``rewrite_data_list``."""
        return rewrite_data_list(source, target, keep)


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

    def stays(position: int, _: _Anything) -> bool:
        return position in keep

    counts = rewrite_records(source, target, dict(data_list=(_Anything, stays)), check)

    return counts['data_list']


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
                    value = scanner.view[start : scanner.position]
                    return _as_dict(msgspec.json.decode(value))

        return {}
    except (UnrecognisedJson, msgspec.DecodeError):
        content = _as_dict(load_json(path))
        return _as_dict(content.get('metainfo'))


def _as_dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
