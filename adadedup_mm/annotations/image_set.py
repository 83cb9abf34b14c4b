"""Lists with one image id per line, such as PASCAL VOC's ImageSets."""

import itertools
from collections.abc import Collection, Sequence
from pathlib import Path

from ..base.errors import UserError
from ..base.files import atomic_open
from .formats import FORMATS, Counts, Lines


@FORMATS.register_module('image_set')
class ImageSetFormat:
    """A list of image ids, beside an XML file for each image."""

    def recognises(self, lines: Lines) -> bool:
        """Whether every image has its XML file, as with ``XMLDataset``."""
        return not lines.are_frames and all('xml_path' in info for info in lines.infos)

    def addresses(self, lines: Lines) -> list[str]:
        """The ids of the images."""
        return [info['img_id'] for info in lines.infos]

    def rewrite(
        self, source: Path, target: Path, keep: Sequence[str], temporal: str, trust: bool
    ) -> Counts:
        """See ``Format`` and ``rewrite_image_set``."""
        return rewrite_image_set(source, target, keep)


def rewrite_image_set(source: str | Path, target: str | Path, keep_ids: Collection[str]) -> Counts:
    """Writes a list with only some of its lines.

    They are copied byte for byte, with further columns if they have any.

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
    lines = _read_lines(source)
    ids = _line_ids(lines, keep)
    missing = keep.difference(ids)
    if missing:
        raise UserError(
            f'{source} has no lines for {len(missing)} of {len(keep)} ids to keep, first '
            f'{min(missing)!r}: it changed since it was read'
        )

    wanted = [name in keep for name in ids]
    with atomic_open(target) as file:
        file.writelines(itertools.compress(lines, wanted))

    return Counts(len(lines), sum(wanted))


def _read_lines(source: str | Path) -> list[bytes]:
    """The lines that are not blank, with their ends."""
    # As MMEngine reads it: only '\n' ends a line.
    pieces = Path(source).read_bytes().split(b'\n')
    lines = [piece + b'\n' for piece in pieces[:-1]]
    lines.append(pieces[-1])
    return [line for line in lines if line.strip()]


def _line_ids(lines: Sequence[bytes], keep: frozenset[str]) -> list[str]:
    texts = [line.decode('utf-8', 'replace').rstrip('\r\n') for line in lines]
    whole = frozenset(texts)
    return [_line_id(text, keep, whole) for text in texts]


def _line_id(text: str, keep: frozenset[str], whole: frozenset[str]) -> str:
    """The id that a line stands for: its first column only if no line is that id alone."""
    columns = text.split(maxsplit=1)
    first = columns[0] if columns else text
    is_whole_line = text in keep or first in whole
    return text if is_whole_line else first
