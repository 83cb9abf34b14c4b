"""The pictures of samples that the page shows, with the labels of suspects on them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from markupsafe import Markup

from ..base import words
from ..workdir.finished import FinishedRun
from .examples import shown_similarity
from .labels import draw_labels, label_words
from .thumbnails import Thumbnail, make_thumbnails

# Width / height of pictures where no image tells.
USUAL_ASPECT = 4 / 3
# Large pictures take at most this much more room than small ones of all samples would.
MORE_ROOM = 0.4


@dataclass(frozen=True)
class Picture:
    """A sample with its picture.

    Attributes:
        sample_id: of the sample.
        path: of its first image; empty for images that are no files.
        kept: whether the sample stays.
        similarity: to its partner.
        loss: of the proxy.
        source: the picture as a data URI; None where the image is not there any more.
        aspect: width / height.
        labels: the boxes of a label suspect, to be laid over the picture; None elsewhere.
        label_text: how many objects of which class that are; empty where nothing is known.
    """

    sample_id: str
    path: str
    kept: bool
    similarity: float
    loss: float
    source: str | None
    aspect: float
    labels: Markup | None
    label_text: str

    @property
    def name(self) -> str:
        """What to call it in a caption."""
        name = self.path or self.sample_id
        return words.short_name(name)


def make_pictures(run: FinishedRun, rows: Sequence[int]) -> dict[int, Picture]:
    """Pictures of the first view of samples.

    Args:
        run: of the samples.
        rows: of the samples, the ones that should be large first; they may repeat.

    Returns:
        A picture for each row.
    """
    rows = list(dict.fromkeys(rows))
    taken = pa.array(rows, pa.int64())
    ids = run.sample_ids.take(taken).to_pylist()
    objects = run.suspect_objects.take(taken).to_pylist()
    paths = [_first_path(views) for views in run.image_paths.take(taken).to_pylist()]
    reader = run.manifest.image_reader
    thumbnails = make_thumbnails(paths, reader)
    sources = choose_sources(thumbnails)
    columns = run.samples
    similarity = shown_similarity(run)
    pictures = {}
    for place, row in enumerate(rows):
        thumbnail = thumbnails[place]
        labels = None
        if thumbnail and objects[place] is not None:
            labels = draw_labels(objects[place], paths[place], reader)
        pictures[row] = Picture(
            sample_id=ids[place] or '',
            path=paths[place],
            kept=bool(columns['kept'][row]),
            similarity=float(similarity[row]),
            loss=float(columns['loss'][row]),
            source=sources[place],
            aspect=thumbnail.aspect if thumbnail else USUAL_ASPECT,
            labels=labels,
            label_text=label_words(objects[place]),
        )

    return pictures


def choose_sources(thumbnails: Sequence[Thumbnail | None]) -> list[str | None]:
    """Of each sample the large picture as long as there is room, then the small one.

    Large pictures alone would make the page three times as big.
    """
    small_bytes = sum(len(thumbnail.source) for thumbnail in thumbnails if thumbnail)
    room = MORE_ROOM * small_bytes
    sources: list[str | None] = []
    for thumbnail in thumbnails:
        if thumbnail is None:
            sources.append(None)
            continue
        more = len(thumbnail.large) - len(thumbnail.source)
        if more <= room:
            room -= more
            sources.append(thumbnail.large)
        else:
            sources.append(thumbnail.source)

    return sources


def usual_aspect(pictures: dict[int, Picture]) -> float:
    """Width / height of the frames around pictures: that of most images, within reason."""
    known = [picture.aspect for picture in pictures.values() if picture.source]
    if not known:
        return USUAL_ASPECT
    median = float(np.median(known))
    within_reason = min(max(median, 0.75), 2)
    return round(within_reason, 3)


def _first_path(views: list[str] | None) -> str:
    """Of the first view; empty for images that are no files."""
    return views[0] if views else ''
