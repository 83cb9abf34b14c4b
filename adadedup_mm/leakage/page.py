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
        return words.short_name(self.path or self.sample_id)


def leakage_page(summary: LeakageSummary, pairs: pa.Table, reader: Reader) -> str:
    """The page as HTML: one file that asks for nothing else.

    Args:
        summary: for the figures.
        pairs: ``pairs.parquet``; the most similar pair of each sample is shown, of the ``PAIRS``
            most similar ones.
        reader: how the training reads the images.
    """
    firsts = pairs.filter(pc.equal(pairs['rank'], 0))
    firsts = firsts.sort_by([('similarity', 'descending')])
    rows = firsts.slice(0, PAIRS).to_pylist()
    left = _thumbnails([row['image_path'] for row in rows], reader)
    right = _thumbnails([row['train_image_path'] for row in rows], reader)
    shown = [_pair(*columns) for columns in zip(rows, left, right, strict=True)]
    return page_template(TEMPLATE).render(
        summary=summary, pairs=shown, total=len(firsts), style=page_style()
    )


def _thumbnails(paths: list[str], reader: Reader) -> list[str | None]:
    """Data URIs, None for what cannot be read."""
    return [thumbnail and thumbnail[0] for thumbnail in make_thumbnails(paths, reader)]


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
