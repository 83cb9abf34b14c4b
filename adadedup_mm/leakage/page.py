"""The page with pictures of the pairs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..base import words
from ..images import Reader
from ..report.html import page_style, page_template
from ..report.thumbnails import make_thumbnails
from ..workdir.leakage import LeakageSummary

TEMPLATE = Path(__file__).parent / 'page.html.j2'
PAIRS = 60


@dataclass(frozen=True)
class Side:
    """One of the two samples of a pair, with its thumbnail.

    Attributes:
        sample_id: of the sample.
        path: of its first image.
        split: that it belongs to.
        source: the thumbnail as a data URI; None where the image is not there.
    """

    sample_id: str
    path: str
    split: str
    source: str | None

    @property
    def name(self) -> str:
        """What to call it in a caption."""
        name = self.path or self.sample_id
        return words.short_name(name)


def leakage_page(summary: LeakageSummary, pairs: pa.Table, reader: Reader) -> str:
    """The page as HTML: one file that asks for nothing else.

    Args:
        summary: for the figures.
        pairs: ``pairs.parquet``; the most similar pair of each sample is shown, of the ``PAIRS``
            most similar ones.
        reader: how the training reads the images.
    """
    is_first = pc.equal(pairs['rank'], 0)
    firsts = pairs.filter(is_first).sort_by([('similarity', 'descending')])
    shown = firsts.slice(0, PAIRS)
    left = _thumbnails(shown['image_path'], reader)
    right = _thumbnails(shown['train_image_path'], reader)
    rows = zip(shown.to_pylist(), left, right, strict=True)

    return page_template(TEMPLATE).render(
        summary=summary,
        pairs=[_pair(*row) for row in rows],
        total=len(firsts),
        style=page_style(),
    )


def _thumbnails(paths: pa.ChunkedArray, reader: Reader) -> list[str | None]:
    """Data URIs, None for what cannot be read."""
    thumbnails = make_thumbnails(paths.to_pylist(), reader)
    return [thumbnail[0] if thumbnail else None for thumbnail in thumbnails]


def _pair(
    row: dict[str, Any], left: str | None, right: str | None
) -> tuple[Side, Side, float, int]:
    """What the template shows of a row of the pairs."""
    return (
        Side(row['sample_id'], row['image_path'], row['split'], left),
        Side(row['train_sample_id'], row['train_image_path'], 'train', right),
        row['similarity'],
        row['matches'],
    )
