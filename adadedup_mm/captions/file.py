"""Captions that the user already has."""

import csv
import functools
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..base.errors import UserError
from ..base.files import sha256_file
from ..pool import Pool
from ..registry import CAPTIONERS

_NAMES = ('sample_id', 'file_name', 'image')
_TEXTS = ('caption', 'text')

# Where a caption is in the file, for messages; the sample's name there; the caption.
_Entry = tuple[str, Any, Any]


@CAPTIONERS.register_module()
class CaptionFile:
    """Reads captions from a file.

    A sample is named by its id, or by its image's file name with as many of its folders as it takes
    to be the only one. Captions of images that are not in the training set are ignored.

    Args:
        file: ``.json``: a dict of names and captions, or a list of dicts with ``sample_id`` (or
            ``file_name`` or ``image``) and ``caption`` (or ``text``). ``.jsonl``: such a dict a
            line. ``.csv``: such columns.
    """

    batch_size: int | None = None

    def __init__(self, file: str) -> None:
        self.file = Path(file)
        if self.file.suffix.lower() not in _READERS:
            raise UserError(f'the captions file {file} must end in {", ".join(_READERS)}')
        if not self.file.is_file():
            raise UserError(f'the captions file {file} does not exist')
        self.source = f'read from {self.file.name}'

    @functools.cached_property
    def key(self) -> dict[str, Any]:
        """See ``Captioner``."""
        return dict(
            type='CaptionFile',
            sha256=sha256_file(self.file),
            version=1,
        )

    def __call__(self, pool: Pool, samples: np.ndarray, paths: list[str]) -> list[str]:
        """See ``Captioner``; must be called with all samples at once.

        Raises:
            UserError: the file cannot be read, or samples have no caption, an empty one, or
                several.
        """
        sample_ids = [pool.sample_ids[sample] for sample in samples]
        find = _Finder(sample_ids, paths)
        captions: dict[int, str] = {}
        read = _READERS[self.file.suffix.lower()]
        for where, name, text in read(self.file):
            sample = self._only_sample(find, name, where, sample_ids)
            if sample is None:
                continue
            if not isinstance(text, str) or not text.strip():
                raise UserError(
                    f'{self.file}, {where}: the caption of {name!r} is empty; write one'
                )
            if sample in captions:
                raise UserError(f'{self.file}, {where}: a second caption for {name!r}; keep one')
            captions[sample] = text

        missing = [name for i, name in enumerate(sample_ids) if i not in captions]
        if missing:
            raise UserError(
                f'{self.file} has no caption for {len(missing)} of {len(samples)} samples, for '
                f'example {missing[0]!r}; add them'
            )

        return [captions[i] for i in range(len(samples))]

    def _only_sample(
        self, find: '_Finder', name: Any, where: str, sample_ids: list[str]
    ) -> int | None:
        """Which sample a name means; None where it is not in the training set."""
        if not isinstance(name, (str, int)) or isinstance(name, bool):
            raise UserError(
                f'{self.file}, {where}: {name!r} names no sample; use its id or file name'
            )

        found = find(str(name))
        if len(found) > 1:
            raise UserError(
                f'{self.file}, {where}: {name!r} fits {len(found)} samples; add its folder, '
                f'or use the sample id, such as {sample_ids[found[0]]!r}'
            )

        return found[0] if found else None


class _Finder:
    """Finds the samples that a name may mean."""

    def __init__(self, sample_ids: list[str], paths: list[str]) -> None:
        self.by_id = {name: i for i, name in enumerate(sample_ids)}
        self.paths = [_with_slashes(path) for path in paths]
        self.by_file: dict[str, list[int]] = defaultdict(list)
        for i, path in enumerate(self.paths):
            self.by_file[_file_name(path)].append(i)

    def __call__(self, name: str) -> list[int]:
        if name in self.by_id:
            return [self.by_id[name]]
        path = _with_slashes(name).removeprefix('./')
        end = '/' + path.lstrip('/')
        found = []
        for i in self.by_file.get(_file_name(path), ()):
            if self.paths[i] == path or self.paths[i].endswith(end):
                found.append(i)
        return found


def _with_slashes(path: str) -> str:
    return path.replace('\\', '/')


def _file_name(path: str) -> str:
    return path.rsplit('/', 1)[-1]


def _from_json(path: Path) -> Iterator[_Entry]:
    content = _parse(_read(path), str(path))
    if isinstance(content, _Pairs):
        for number, (name, text) in enumerate(content.pairs, start=1):
            yield f'entry {number}', name, text
    elif isinstance(content, list):
        for number, record in enumerate(content, start=1):
            yield _entry(record, f'record {number}', path)
    else:
        raise UserError(f'{path} must hold a dict of names and captions, or a list of dicts')


def _from_jsonl(path: Path) -> Iterator[_Entry]:
    lines = _read(path).split('\n')
    for number, line in enumerate(lines, start=1):
        if line.strip():
            record = _parse(line, f'{path}, line {number}')
            yield _entry(record, f'line {number}', path)


def _from_csv(path: Path) -> Iterator[_Entry]:
    try:
        lines = _read(path).splitlines(keepends=True)
        reader = csv.DictReader(lines)
        for row in reader:
            yield _entry(row, f'line {reader.line_num}', path)
    except csv.Error as error:
        raise UserError(f'{path} cannot be read as csv: {error}') from error


_READERS = {'.json': _from_json, '.jsonl': _from_jsonl, '.csv': _from_csv}


class _Pairs:
    """A JSON object with all its keys, repeated ones too."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        self.pairs = pairs


def _entry(record: Any, where: str, path: Path) -> _Entry:
    if isinstance(record, _Pairs):
        counts = Counter(name for name, _ in record.pairs)
        repeated = [name for name, count in counts.items() if count > 1]
        if repeated:
            raise UserError(f'{path}, {where}: the key {repeated[0]!r} appears twice; keep one')
        record = dict(record.pairs)

    values = record if isinstance(record, dict) else {}
    names = [key for key in _NAMES if values.get(key) is not None]
    texts = [key for key in _TEXTS if key in values]
    if not names or not texts:
        other_names = ' or '.join(map(repr, _NAMES[1:]))
        raise UserError(
            f"{path}, {where} needs '{_NAMES[0]}' (or {other_names}) and "
            f"'{_TEXTS[0]}' (or {_TEXTS[1]!r})"
        )

    return where, values[names[0]], values[texts[0]]


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise UserError(f'{where} is not valid JSON: {error}') from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding='utf-8-sig')
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'the captions file {path} cannot be read: {error}') from error
