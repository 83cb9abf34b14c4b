"""Parquet files whose columns are declared: written by the declaration, and checked against it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..base.errors import UserError
from ..base.files import write_table
from .damage import AGAIN, missing_file, unreadable_file


@dataclass(frozen=True)
class TableFile:
    """A parquet file with columns of a fixed order and type.

    Attributes:
        name: of the file.
        schema: of what is written.
        optional: columns that older runs and other programs may leave out.
    """

    name: str
    schema: pa.Schema
    optional: frozenset[str] = frozenset()

    def path(self, folder: Path) -> Path:
        """The file in a folder."""
        return folder / self.name

    def table(self, columns: dict[str, Any]) -> pa.Table:
        """A table with these columns, all of the schema's, in its types."""
        return pa.Table.from_pydict(columns, schema=self.schema)

    def write(self, folder: Path, table: pa.Table) -> None:
        """Writes a table of this schema, atomically."""
        write_table(self.path(folder), table)

    def read(self, folder: Path, needed: Sequence[str] = ()) -> pa.Table:
        """All columns of the schema in its types, but floats in double precision.

        Args:
            folder: where the file is.
            needed: optional columns that the file must have here; the others are null where they
                are absent.

        Raises:
            UserError: the file is missing, unreadable, or lacks a column.
        """
        path = self.path(folder)
        table = _read_parquet(path)
        required = [name for name in self.schema.names if name not in self.optional]
        _check_present(path, table.column_names, [*required, *needed])
        columns = {}
        for field in self.schema:
            kind = _type_read(field.type)
            if field.name in table.column_names:
                columns[field.name] = _checked_column(path, table, field.name, kind)
            else:
                columns[field.name] = pa.nulls(len(table), kind)

        return pa.table(columns)


def _read_parquet(path: Path) -> pa.Table:
    try:
        table = pq.read_table(path, partitioning=None)
        # Names that are no text are noticed only here.
        _ = table.column_names
        return table
    except FileNotFoundError:
        raise missing_file(path) from None
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise unreadable_file(path, error) from None


def _check_present(path: Path, present: Sequence[str], required: Sequence[str]) -> None:
    """Raises UserError where columns are missing."""
    missing = [name for name in required if name not in present]
    if missing:
        plural = 's' if len(missing) > 1 else ''
        names = ', '.join(missing)
        raise UserError(f'{path} lacks the column{plural} {names}: {AGAIN}')


def _type_read(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_floating(kind):
        return pa.float64()
    return kind


def _checked_column(path: Path, table: pa.Table, name: str, kind: pa.DataType) -> pa.ChunkedArray:
    """A column in this type; raises UserError where its values are not of it."""
    try:
        column = table[name].cast(kind)
        # Also that texts are texts.
        column.validate(full=True)
    except pa.ArrowException:
        raise UserError(f'{path}: the column {name} is not one of type {kind}: {AGAIN}') from None
    if pa.types.is_list(kind) and pc.list_flatten(column).null_count:
        raise UserError(f'{path}: the column {name} has lists with empty places: {AGAIN}')
    return column
