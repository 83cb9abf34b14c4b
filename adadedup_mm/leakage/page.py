"""The page with pictures of the pairs."""

from dataclasses import dataclass
from pathlib import Path

import jinja2
import pyarrow as pa
from markupsafe import Markup

from ..base import words
from ..images import Reader
from ..report.thumbnails import make_thumbnails
from ..workdir.leakage import Summary

HERE = Path(__file__).parent
STYLE = HERE.parent / 'report' / 'style.css'
PAIRS = 60


@dataclass(frozen=True)
class Side:
    """One of the two samples of a pair, with its thumbnail; ``source`` is None where the image is not there."""

    sample_id: str
    path: str
    split: str
    source: str | None

    @property
    def name(self) -> str:
        """What to call it in a caption."""
        return words.short_name(self.path or self.sample_id)


def leakage_page(summary: Summary, pairs: pa.Table, reader: Reader) -> str:
    """The page as HTML: one file that asks for nothing else.

    Args:
        summary: for the figures.
        pairs: ``pairs.parquet``; the most similar pair of each sample is shown, of the ``PAIRS``
            most similar ones.
        reader: how the training reads the images.
    """
    firsts = pairs.filter(pa.compute.equal(pairs['rank'], 0)).sort_by(
        [('similarity', 'descending')]
    )
    rows = firsts.slice(0, PAIRS).to_pylist()
    paths = [row[column] for row in rows for column in ('image_path', 'train_image_path')]
    pictures = [thumbnail and thumbnail[0] for thumbnail in make_thumbnails(paths, reader)]
    shown = [
        (
            Side(row['sample_id'], row['image_path'], row['split'], left),
            Side(row['train_sample_id'], row['train_image_path'], 'train', right),
            row['similarity'],
            row['matches'],
        )
        for row, left, right in zip(rows, pictures[::2], pictures[1::2], strict=True)
    ]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(count=words.count, share=words.share, number=words.number)
    return environment.get_template('page.html.j2').render(
        summary=summary,
        pairs=shown,
        total=len(firsts),
        style=Markup(STYLE.read_text(encoding='utf-8')),
    )
