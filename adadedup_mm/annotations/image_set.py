"""Lists with one image id per line, such as PASCAL VOC's ImageSets."""

from collections.abc import Collection
from pathlib import Path

from ..base.errors import UserError
from ..base.files import atomic_open
from .json_records import Counts


def rewrite_image_set(source: str | Path, target: str | Path, keep_ids: Collection[str]) -> Counts:
    """Writes a list with only some of its lines, which are copied byte for byte, with further columns if they have any.

    Args:
        source: the list. An id stands for the lines that are nothing but this id; where there is
            none, for those whose first column it is.
        target: the file to write, atomically.
        keep_ids: the ids that stay, with all of their lines.

    Returns:
        How many lines with an id there are, and how many were kept.

    Raises:
        UserError: the list has no line for one of the ids.
    """
    keep = frozenset(keep_ids)
    # As MMEngine reads it: only '\n' ends a line.
    pieces = Path(source).read_bytes().split(b'\n')
    lines = [piece + b'\n' for piece in pieces[:-1]] + pieces[-1:]
    lines = [line for line in lines if line.strip()]
    texts = [line.decode('utf-8', 'replace').rstrip('\r\n') for line in lines]
    whole = frozenset(texts)
    ids = [_line_id(text, keep, whole) for text in texts]
    missing = keep.difference(ids)
    if missing:
        raise UserError(
            f'{source} has no lines for {len(missing)} of {len(keep)} ids to keep, first '
            f'{min(missing)!r}: it changed since it was read'
        )
    wanted = [name in keep for name in ids]
    with atomic_open(target) as file:
        file.writelines(line for line, stays in zip(lines, wanted, strict=True) if stays)
    return Counts(len(lines), sum(wanted))


def _line_id(text: str, keep: frozenset[str], whole: frozenset[str]) -> str:
    """The id that a line stands for: its first column only if no line is that id alone."""
    first = (text.split(maxsplit=1) or [text])[0]
    return first if text not in keep and first not in whole else text
