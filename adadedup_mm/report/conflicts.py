"""The section on label conflicts: both pictures of a pair, with the boxes in question."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..base import words
from ..images import BadImage, Reader, image_size
from ..workdir.finished import FinishedRun
from .thumbnails import make_thumbnails

# Pairs that are shown.
PAIRS = 24

Box = dict[str, Any]


@dataclass(frozen=True)
class ConflictSide:
    """One of the two samples of a pair, with its thumbnail.

    Attributes:
        sample_id: of the sample.
        path: of its image.
        kept: whether it stays.
        is_better: whether its labels are rather right.
        source: the thumbnail as a data URI; None where the image is not there.
        aspect: width / height of the picture.
        boxes: of each contradicting box its ``name``, '' where it is missing here, and ``left``,
            ``top``, ``width`` and ``height`` in per cent of the picture.
    """

    sample_id: str
    path: str
    kept: bool
    is_better: bool
    source: str | None
    aspect: float
    boxes: list[Box]

    @property
    def name(self) -> str:
        """What to call it in a caption."""
        return words.short_name(self.path or self.sample_id)

    @property
    def says(self) -> str:
        """The classes of its boxes in words."""
        names = [box['name'] or 'no box' for box in self.boxes]
        return ', '.join(dict.fromkeys(names))


def conflict_section(run: FinishedRun, conflicts: pa.Table | None) -> dict[str, Any] | None:
    """The pairs with their pictures; None where there are none.

    Args:
        run: a finished run.
        conflicts: its ``conflicts.parquet``; None for runs of older versions.
    """
    if conflicts is None or not len(conflicts):
        return None
    pairs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in conflicts.to_pylist():
        pairs.setdefault((row['sample_a'], row['sample_b']), []).append(row)
    shown = [(pair, pairs[pair]) for pair in _varied(list(pairs))[:PAIRS]]
    paths = _paths(run, [sample for pair, _ in shown for sample in pair])
    reader = run.manifest.image_reader
    thumbnails = dict(zip(paths, make_thumbnails(list(paths.values()), reader), strict=True))

    def side(letter: str, rows: list[dict[str, Any]]) -> ConflictSide:
        sample = rows[0][f'sample_{letter}']
        thumbnail = thumbnails[sample]
        # Of the sample that the boxes are measured in.
        sizes = [_size(paths[_owner(row)], reader) for row in rows]
        boxes = [_box(row, letter, size) for row, size in zip(rows, sizes, strict=True) if size]
        return ConflictSide(
            sample_id=sample,
            path=paths[sample],
            kept=bool(rows[0][f'kept_{letter}']),
            is_better=rows[0]['better'] == sample,
            source=thumbnail.source if thumbnail else None,
            aspect=thumbnail.aspect if thumbnail else 1.0,
            boxes=boxes,
        )

    return dict(
        pairs=[(side('a', rows), side('b', rows), rows[0]['similarity']) for _, rows in shown],
        total=len(pairs),
        copies=len({pair for pair, rows in pairs.items() if rows[0]['copies']}),
    )


def _varied(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The pairs in an order in which those come first that show none of the samples before."""
    seen: set[str] = set()
    new: list[tuple[str, str]] = []
    others: list[tuple[str, str]] = []
    for pair in pairs:
        place = others if seen.intersection(pair) else new
        place.append(pair)
        seen.update(pair)
    return new + others


def _paths(run: FinishedRun, samples: list[str]) -> dict[str, str]:
    """The first image of each sample; '' for what the table does not know."""
    wanted = pa.array(list(dict.fromkeys(samples)), pa.string())
    table = pa.table(dict(sample=run.sample_ids, paths=run.image_paths))
    found = {}
    for row in table.filter(pc.is_in(table['sample'], wanted)).to_pylist():
        found[row['sample']] = row['paths'][0] if row['paths'] else ''
    return {sample: found.get(sample, '') for sample in wanted.to_pylist()}


def _owner(row: dict[str, Any]) -> str:
    """The sample in whose pixels a box is given."""
    return row['sample_b'] if row['class_a'] is None else row['sample_a']


def _size(path: str, reader: Reader) -> tuple[int, int] | None:
    """Height and width of an image; None where it cannot be read."""
    try:
        return image_size(path, reader)
    except BadImage:
        return None


def _box(row: dict[str, Any], letter: str, size: tuple[int, int]) -> Box:
    """A box in per cent of the picture, and what this side says that it is."""
    height, width = size
    left, right = (_percent(row[name], width) for name in ('x1', 'x2'))
    top, bottom = (_percent(row[name], height) for name in ('y1', 'y2'))
    return dict(
        name=row[f'class_{letter}'] or '',
        left=left,
        top=top,
        width=max(right - left, 0),
        height=max(bottom - top, 0),
    )


def _percent(value: float | None, size: int) -> float:
    """A coordinate in per cent of a side, inside the picture."""
    share = 100 * (value or 0) / size
    return round(min(max(share, 0), 100), 2)
