"""Lists with one image id per line, such as PASCAL VOC's ImageSets."""

from collections.abc import Collection
from pathlib import Path

from ..errors import UserError
from ..files import atomic_open
from .json_records import Counts


def rewrite_image_set(source: str | Path, target: str | Path, keep_ids: Collection[str]) -> Counts:
    """Writes a list with only some of its lines, which are copied byte for byte, with further columns if they have any.

    Args:
        source: the list; a line's id is the whole line, or its first column.
        target: the file to write, atomically.
        keep_ids: the ids that stay.

    Returns:
        How many lines with an id there are, and how many were kept.

    Raises:
        UserError: the list has no line for one of the ids, or several.
    """
    keep = frozenset(keep_ids)
    lines = [line for line in Path(source).read_bytes().splitlines(keepends=True) if line.strip()]
    kept = [line for line in lines if not keep.isdisjoint(_names(line))]
    if len(kept) != len(keep):
        raise UserError(f'{source} has {len(kept)} lines for {len(keep)} ids to keep: it changed since it was read, or '
                        'ids appear more than once')
    with atomic_open(target) as file:
        file.writelines(kept)
    return Counts(len(lines), len(kept))


def _names(line: bytes) -> tuple[str, str]:
    text = line.decode('utf-8', 'replace').rstrip('\r\n')
    return text, text.split(maxsplit=1)[0]
