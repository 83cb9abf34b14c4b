"""Atomic writing and hashing: a reader sees the old file or the new one, never a part of one."""

import contextlib
import hashlib
import itertools
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .errors import UserError

# Entries of a long list that are hashed at a time.
_ITEMS = 1 << 16


@contextlib.contextmanager
def atomic_open(path: str | Path, mode: str = 'wb') -> Iterator[IO[Any]]:
    """Opens a temporary file beside ``path``, which takes the place of ``path`` on success.

    It is synced to disk first. On any exception the temporary file is removed and ``path`` stays as
    it was. Folders are made as needed.

    Args:
        path: the file to write.
        mode: ``'wb'`` or ``'w'`` (UTF-8).

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # File systems count bytes, of which a character may be four.
    stem = path.name.encode(errors='ignore')[:100].decode(errors='ignore')
    handle, name = tempfile.mkstemp(
        dir=path.parent,
        prefix=f'.{stem}.',
        suffix='.tmp',
    )
    try:
        # mkstemp's files are private; the rest of the run's files follow the user's umask.
        os.fchmod(handle, 0o666 & ~_umask())
        with open(handle, mode, encoding=None if 'b' in mode else 'utf-8') as file:
            yield file
            file.flush()
            os.fsync(file.fileno())

        os.replace(name, path)
        _sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: str | Path, value: Any) -> None:
    """Writes ``value`` as indented JSON, atomically."""
    with atomic_open(path, 'w') as file:
        json.dump(value, file, indent=2, ensure_ascii=False)
        file.write('\n')


def read_object(path: str | Path) -> dict[str, Any]:
    """The object that a JSON file holds; empty where the file is missing, damaged or no object."""
    try:
        content = json.loads(Path(path).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def write_array(path: str | Path, array: np.ndarray) -> None:
    """Writes ``array`` as ``.npy``, atomically."""
    array = np.asarray(array, order='C')
    header = np.lib.format.header_data_from_array_1_0(array)
    with atomic_open(path) as file:
        # np.save does not say that a disk is full.
        np.lib.format.write_array_header_1_0(file, header)
        file.write(_bytes(array))


def write_rows(path: str | Path, shape: tuple[int, ...], blocks: Iterable[np.ndarray]) -> None:
    """Writes a float32 array as ``.npy``, atomically, of which only a block at a time is in memory.

    Args:
        path: the file to write.
        shape: of the array.
        blocks: its rows in their order.
    """
    header = dict(
        descr='<f4',
        fortran_order=False,
        shape=shape,
    )
    with atomic_open(path) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            rows = block.astype('<f4', order='C', copy=False)
            file.write(_bytes(rows))


def _bytes(array: np.ndarray) -> memoryview:
    """The memory of an array in C order, not copied."""
    return array.reshape(-1).view(np.uint8).data


def read_array(path: Path, mmap_mode: Literal['r'] | None = None) -> np.ndarray:
    """Reads an array of a finished stage.

    Raises:
        UserError: the file is damaged.
    """
    try:
        return np.load(path, mmap_mode, allow_pickle=False)
    except Exception as error:  # what a damaged file raises depends on the byte that is damaged
        raise UserError(
            f'{path} is damaged ({type(error).__name__}): remove the folder {path.parent}, then '
            'run with --resume'
        ) from error


def write_table(path: str | Path, table: pa.Table) -> None:
    """Writes a parquet file, atomically."""
    with atomic_open(path) as file:
        pq.write_table(table, file)


def sha256_file(path: str | Path) -> str:
    """The hex SHA-256 of a file's bytes, read in blocks."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_value(value: Any) -> str:
    """The hex SHA-256 of a JSON-like value; the order of dict keys does not matter."""
    return hashlib.sha256(_compact_json(value).encode()).hexdigest()


def _compact_json(value: Any) -> str:
    return json.dumps(
        value,
        sort_keys=True,
        separators=(',', ':'),
        default=str,
    )


def sha256_items(items: Iterable[Any]) -> str:
    """``sha256_value`` of a list of the items, of which only a block at a time is in memory.

    Args:
        items: JSON-like values, or an array, which counts as its ``tolist()``.
    """
    digest = hashlib.sha256(b'[')
    separator = b''
    for block in _blocks(items):
        # Without the brackets of the block's own list.
        inner = _compact_json(block)[1:-1]
        digest.update(separator + inner.encode())
        separator = b','

    digest.update(b']')

    return digest.hexdigest()


def _blocks(items: Iterable[Any]) -> Iterator[list[Any]]:
    if isinstance(items, np.ndarray):
        for start in range(0, len(items), _ITEMS):
            end = start + _ITEMS
            yield items[start:end].tolist()
        return
    iterator = iter(items)
    while block := list(itertools.islice(iterator, _ITEMS)):
        yield block
