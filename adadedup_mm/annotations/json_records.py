"""Filtering the records of a JSON file's arrays as raw bytes.

What stays is copied, not decoded and written anew. No complete JSON object is the beginning of a
longer one. So the bytes from a record's opening brace to some closing brace are the whole record as
soon as they decode. Tried first is the closing brace that ended the record before, by number: the
first one for COCO's annotations with polygons. Where that fails, an exact scan finds the record's
end.
"""

import itertools
import json
import mmap
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeVar

import msgspec

from ..base.errors import UserError
from ..base.files import atomic_open
from ..base.progress import progress
from .foreign import guess_text
from .formats import Counts

Record = TypeVar('Record', bound=msgspec.Struct)
Selector = tuple[type[msgspec.Struct], Callable[[int, Any], bool]]

_BLOCK = 1 << 22
_RELEASE = 1 << 25
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_TOKEN = re.compile(_STRING.pattern + rb'|[{}\[\]]', re.DOTALL)
_SCALAR = re.compile(rb'[^\s,\]}]+')
_SPACE = re.compile(rb'[ \t\n\r]*')
_BETWEEN = re.compile(rb'[ \t\n\r]*,[ \t\n\r]*\{')
_QUOTE, _OPENING = ord('"'), b'{['


class UnrecognisedJson(Exception):
    """The scanner cannot read the file; the json module may, or can say what is wrong with it."""


class JsonScanner:
    """A cursor over a memory-mapped JSON file whose top level is an object.

    ``members()`` visits the top-level keys; for each one the caller consumes the value, at once
    with ``skip()`` or record by record with ``records()``. Pages behind the cursor are given back,
    so memory stays small for any file.

    Args:
        path: the file.
        label: what the progress bar calls the work.

    Raises:
        UnrecognisedJson: from any method, when the file is not what the scanner expects.
    """

    def __init__(self, path: str | Path, label: str) -> None:
        self.path = path
        with open(path, 'rb') as file:
            try:
                # Not closed by hand: that fails while a traceback still holds a view of a record.
                self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError as error:
                raise UnrecognisedJson('the file is empty') from error

        self.view = memoryview(self.data)
        self.position = 0
        self._released = 0
        self._bar = progress(len(self.data) >> 20, label, 'MB')

    def __enter__(self) -> 'JsonScanner':
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()

    def members(self) -> Iterator[str]:
        """Yields the top-level keys in file order, with the cursor on the key's value."""
        seen: set[str] = set()
        more = self._take(b'{') and not self._take(b'}')
        while more:
            key = self._key()
            # The json module keeps the last of two equal keys, which a single pass cannot know.
            if key in seen or not self._take(b':'):
                raise UnrecognisedJson(f'at byte {self.position}')
            seen.add(key)
            self._skip_space()
            yield key
            more = self._take(b',')
            if not more and not self._take(b'}'):
                raise UnrecognisedJson(f'at byte {self.position}')

        self._skip_space()
        is_at_end = self.position == len(self.data)
        if not seen or not is_at_end:
            raise UnrecognisedJson(f'at byte {self.position}')

    def skip(self) -> None:
        """Moves the cursor behind the value under it."""
        start = self.position
        end = self._end_of_value(start)
        self.position = end
        self._decode(start, end, msgspec.Raw)
        self._release(end)

    def records(self, kind: type[Record]) -> Iterator[tuple[int, int, Record]]:
        """Yields start, end and the decoded fields of each object in the array under the cursor.

        The cursor then moves behind the array.

        Args:
            kind: a struct with the fields of interest; all others are passed over.

        Raises:
            UserError: a record lacks a field of ``kind``, or the field has another type.
        """
        decode = msgspec.json.Decoder(kind).decode
        if not self._take(b'['):
            raise UnrecognisedJson(f'no array at byte {self.position}')

        self._skip_space()
        start = self.position
        more = not self._take(b']')
        # How many closing braces of other objects a record has.
        nested = 0
        separator = b'{'
        while more:
            end = self._behind_brace(start, nested)
            try:
                record = decode(self.view[start:end])
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                end, record = self._scan_record(start, kind)
                nested = self.data[start:end].count(b'}') - 1

            yield start, end, record

            if end - self._released > _RELEASE:
                self._release(end)
            # Nearly always the same bytes, which is quicker to see than to match.
            behind = end + len(separator)
            if self.data[end:behind] != separator:
                between = _BETWEEN.match(self.data, end)
                if between is None:
                    self._end_array(end)
                    return

                separator = between.group()

            start = end + len(separator) - 1

    def _behind_brace(self, start: int, nested: int) -> int:
        """The position behind the first closing brace after ``nested`` others."""
        end = self.data.find(b'}', start) + 1
        for _ in range(nested):
            end = self.data.find(b'}', end) + 1
        return end

    def _end_array(self, position: int) -> None:
        self.position = position
        if not self._take(b']'):
            raise UnrecognisedJson(f'no array of objects at byte {position}')

    def _scan_record(self, start: int, kind: type[Record]) -> tuple[int, Record]:
        first = self.data[start : start + 1]
        if first != b'{':
            raise UnrecognisedJson(f'no object at byte {start}')
        end = self._end_of_value(start)
        return end, self._decode(start, end, kind)

    def _decode(self, start: int, end: int, kind: Any) -> Any:
        """Decodes one value."""
        try:
            return self._decode_as_either(start, end, kind)
        except msgspec.ValidationError as error:
            raise UserError(f'{self.path}: record at byte {start}: {error}') from error
        except (ValueError, RecursionError) as error:
            raise UnrecognisedJson(f'value at byte {start}') from error

    def _decode_as_either(self, start: int, end: int, kind: Any) -> Any:
        """By msgspec; by the json module what only that accepts (NaN, lone surrogates)."""
        try:
            return msgspec.json.decode(self.view[start:end], type=kind)
        except msgspec.ValidationError:
            raise
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            value = json.loads(self.data[start:end])
        return value if kind is msgspec.Raw else _convert(value, kind)

    def _end_of_value(self, start: int) -> int:
        first = self.data[start : start + 1]
        if first in (b'{', b'['):
            return self._end_of_brackets(start)
        match = _STRING.match(self.data, start) or _SCALAR.match(self.data, start)
        if match is None:
            raise UnrecognisedJson(f'no value at byte {start}')
        return match.end()

    def _end_of_brackets(self, start: int) -> int:
        depth = 0
        for token in _TOKEN.finditer(self.data, start):
            first = self.data[token.start()]
            if first == _QUOTE:
                continue
            depth += 1 if first in _OPENING else -1
            if depth == 0:
                return token.end()
        raise UnrecognisedJson(f'the value at byte {start} has no end')

    def _key(self) -> str:
        self._skip_space()
        match = _STRING.match(self.data, self.position)
        if match is None:
            raise UnrecognisedJson(f'no key at byte {self.position}')
        self.position = match.end()
        try:
            return str(json.loads(match.group()))
        except ValueError as error:
            raise UnrecognisedJson(f'key at byte {match.start()}') from error

    def _skip_space(self) -> None:
        space = _SPACE.match(self.data, self.position)
        self.position = space.end()  # type: ignore[union-attr]  # matches anything

    def _take(self, byte: bytes) -> bool:
        """Moves behind ``byte`` if it comes next, after any white space."""
        self._skip_space()
        end = self.position + 1
        if self.data[self.position : end] != byte:
            return False
        self.position = end
        return True

    def _release(self, end: int) -> None:
        """Gives the pages before ``end`` back."""
        end -= end % mmap.PAGESIZE
        if end <= self._released:
            return
        if hasattr(mmap, 'MADV_DONTNEED'):
            # From the start: copying records touches pages again that were given back before.
            self.data.madvise(mmap.MADV_DONTNEED, 0, end)

        before = self._released >> 20
        self._bar.update((end >> 20) - before)
        self._released = end


def rewrite_records(
    source: str | Path,
    target: str | Path,
    selectors: Mapping[str, Selector],
    check: Callable[[dict[str, Counts]], None],
) -> dict[str, Counts]:
    """Copies a JSON file without the records that the selectors refuse; all other bytes stay.

    Where the file is valid JSON that the scanner does not recognise (UTF-16, a top-level key given
    twice), it is loaded and written anew by the json module: equal in content, not in bytes.

    Args:
        source: the file, an object at its top level.
        target: where the copy goes.
        selectors: for some top-level keys whose values are arrays of objects: the struct that each
            object is decoded as, and a function of the object's position in the array and the
            decoded struct that says whether it stays.
        check: called with the counts before the copy takes its place; nothing is written if it
            raises.

    Returns:
        Counts for each key of ``selectors`` that is in the file.

    Raises:
        UserError: the file is no JSON, or a record lacks a field of its struct.
    """
    try:
        with JsonScanner(source, 'rewriting') as scanner, atomic_open(target) as file:
            copier = _Copier(file, scanner.view)
            counts = {}
            for key in scanner.members():
                if key in selectors:
                    counts[key] = _filter_array(scanner, copier, *selectors[key])
                else:
                    scanner.skip()

            copier.copy(len(scanner.data))
            copier.flush()
            check(counts)

        return counts
    except UnrecognisedJson:
        return _rewrite_plain(source, target, selectors, check)


class _Copier:
    """Copies parts of the source in order; ``position`` is how far it got."""

    def __init__(self, file: IO[bytes], view: memoryview) -> None:
        self.position = 0
        self._file = file
        self._view = view
        self._parts: list[memoryview] = []
        self._size = 0

    def copy(self, end: int) -> None:
        part = self._view[self.position : end]
        self._parts.append(part)
        self._size += end - self.position
        self.position = end
        if self._size > _BLOCK:
            self.flush()

    def flush(self) -> None:
        block = b''.join(self._parts)
        self._file.write(block)
        self._parts.clear()
        self._size = 0


def _filter_array(
    scanner: JsonScanner,
    copier: _Copier,
    kind: type[msgspec.Struct],
    keep: Callable[[int, Any], bool],
) -> Counts:
    """Copies an array without the records that go.

    Every kept record but the first keeps the separator in front of it, so that the file's layout
    survives.
    """
    count = kept = previous = 0
    for start, end, record in scanner.records(kind):
        is_first = count == 0
        if keep(count, record):
            if not kept and not is_first:
                copier.position = start
            kept += 1
            if end - copier.position > _BLOCK:
                copier.copy(end)
        else:
            if kept:
                copier.copy(previous)
            elif is_first:
                copier.copy(start)

            copier.position = end

        count += 1
        previous = end

    return Counts(count, kept)


def load_json(path: str | Path) -> Any:
    """Loads a JSON file with the json module.

    Raises:
        UserError: the file is no JSON; the message says where.
    """
    data = Path(path).read_bytes()
    try:
        return json.loads(data)
    except UnicodeDecodeError as error:
        raise UserError(
            f'{path} is not valid JSON: byte {error.start} is not UTF-8 text; restore the file'
        ) from error
    except ValueError as error:
        fault = guess_text(data) or f'is not valid JSON: {error}; restore the file'
        raise UserError(f'{path} {fault}') from error
    except RecursionError as error:
        raise UserError(f'{path} is not usable JSON: it is nested too deeply') from error


def convert_records(
    path: str | Path, content: dict[str, Any], key: str, kind: type[Record]
) -> list[Record]:
    """The array ``content[key]`` of a loaded JSON file as structs; none if there is no such key.

    Raises:
        UserError: it is no array of objects with the fields of ``kind``.
    """
    records = content.get(key, [])
    if not isinstance(records, list):
        raise UserError(f'{path}: {key!r} is a {type(records).__name__} instead of a list')

    try:
        return [_convert(record, kind) for record in records]
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        raise UserError(f'{path}: {key!r}: {error}') from error


def _convert(value: Any, kind: type[Record]) -> Record:
    """Converts the fields of ``kind`` only: msgspec stumbles over lone surrogates in other keys."""
    if isinstance(value, dict):
        fields = kind.__struct_encode_fields__
        value = {name: value[name] for name in fields if name in value}
    return msgspec.convert(value, kind)


def _rewrite_plain(
    source: str | Path,
    target: str | Path,
    selectors: Mapping[str, Selector],
    check: Callable[[dict[str, Counts]], None],
) -> dict[str, Counts]:
    content = load_json(source)
    if not isinstance(content, dict):
        raise UserError(
            f'{source} holds a {type(content).__name__} at its top level instead of an object'
        )

    counts = {}
    for key in selectors.keys() & content.keys():
        kind, keep = selectors[key]
        records = convert_records(source, content, key, kind)
        flags = [keep(position, record) for position, record in enumerate(records)]
        content[key] = list(itertools.compress(content[key], flags))
        counts[key] = Counts(len(flags), sum(flags))

    check(counts)
    with atomic_open(target, 'w') as file:
        json.dump(content, file)

    return counts
