"""The stages ``neighbours`` and ``conflicts``: contradicting labels of near-identical images."""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..base.cpu import default_workers
from ..base.files import read_array, write_array
from ..datasets.boxes import objects_key
from ..datasets.sources import Source
from ..features.stage import ImageStages
from ..images import BadImage, Reader
from ..pool import Pool
from ..stages import Done, Ledger, Shards
from .choice import better_copies, linked
from .found import Conflicts
from .labels import Boxes, Contradiction, compare_labels
from .neighbours import Neighbours, find_neighbours
from .pictures import read_small
from .pixels import COARSE, cell_means, match_levels, same_place

# How many of the most similar samples of each one are looked at.
COUNT = 8
# Pairs of samples per piece of the stage ``conflicts``.
PIECE = 128
RESULT = 'conflicts.npy'
# In place of an index into ``KINDS``: that two samples agree.
AGREE = -1
_ROW = np.dtype(
    [
        ('first', np.int64),
        ('second', np.int64),
        ('kind', np.int8),
        ('box_a', np.int64),
        ('box_b', np.int64),
        ('copies', bool),
    ]
)


class ConflictStages:
    """Where labels contradict each other. Stages run when they are first asked for.

    Args:
        ledger: the run's.
        images: what is known of its images.
        pool: its N samples.
        sources: the datasets that they come from.
    """

    def __init__(
        self, ledger: Ledger, images: ImageStages, pool: Pool, sources: Sequence[Source]
    ) -> None:
        self.ledger = ledger
        self.images = images
        self.pool = pool
        self.sources = sources

    @functools.cached_property
    def found(self) -> Conflicts:
        """The contradictions; none of frames, and none where a run has looked at no features."""
        pool = self.pool
        are_pictures = len(pool.views) == 1 and self.sources[0].objects is None
        if not are_pictures or not self.images.looked_at_features:
            return Conflicts.none(len(pool))
        boxes, rows = pool_boxes(pool)
        if not len(rows):
            return Conflicts.none(len(pool))

        neighbours = self._neighbours()
        folder = self._conflicts(boxes, neighbours)
        found = read_array(folder / RESULT)
        agreeing = read_array(folder / 'agreeing.npy')
        return self._chosen(found, agreeing, boxes, rows, neighbours)

    def _neighbours(self) -> Neighbours:
        """The most similar samples of each one, by the stage ``neighbours``."""
        features = self.images.features

        def compute(folder: Path) -> None:
            generator = self.ledger.generator('neighbours')
            found = find_neighbours(features, generator, COUNT)
            write_array(folder / 'nearest.npy', found.nearest)
            write_array(folder / 'similarity.npy', found.similarity)

        inputs = dict(features=self.images.features_key, count=COUNT)
        folder = self.ledger.stage('neighbours', inputs, compute)
        nearest = read_array(folder / 'nearest.npy')
        return Neighbours(nearest, read_array(folder / 'similarity.npy'))

    def _conflicts(self, boxes: Boxes, neighbours: Neighbours) -> Path:
        """The folder of the stage ``conflicts``."""
        level = self.images.embedder.near_duplicate
        reader = self.images.reader
        inputs = dict(
            neighbours=self.ledger.used['neighbours'],
            near_duplicate=level,
            objects=objects_key(self.pool, self.sources),
            reader=[reader.color_type, reader.backend],
        )
        pairs = near_pairs(neighbours, level)
        judged = self.pool.labelled[pairs].all(axis=1)
        paths = [views[0] for views in self.pool.image_paths]
        work = conflict_shards(pairs[judged], boxes, paths, reader)
        return self.ledger.stage('conflicts', inputs, work)

    def _chosen(
        self,
        found: np.ndarray,
        agreeing: np.ndarray,
        boxes: Boxes,
        rows: np.ndarray,
        neighbours: Neighbours,
    ) -> Conflicts:
        """The conflicts of the stage, and which of the copies are rather right."""
        first, second = found['first'], found['second']
        copies = np.stack([first, second], axis=1)[found['copies']]
        better = better_copies(
            np.unique(copies, axis=0), agreeing, boxes, neighbours, self.pool.sample_ids
        )
        features = self.images.features
        similarity = np.einsum('cd,cd->c', features[first], features[second])
        rows_and_none = np.append(rows, -1)

        def row_of(sample: np.ndarray, box: np.ndarray) -> np.ndarray:
            """The pool's row of each sample's box; -1 for none."""
            place = np.where(box >= 0, boxes.offsets[sample] + box, -1)
            return rows_and_none[place]

        return Conflicts(
            first=first,
            second=second,
            kind=found['kind'],
            box_a=row_of(first, found['box_a']),
            box_b=row_of(second, found['box_b']),
            copies=found['copies'],
            similarity=similarity,
            better=better,
        )


def pool_boxes(pool: Pool) -> tuple[Boxes, np.ndarray]:
    """The boxes that can be compared: those of pictures of known size.

    Args:
        pool: N samples of one picture each.

    Returns:
        The boxes, and (M,) int64, their rows in ``pool.boxes``.
    """
    owner = np.repeat(np.arange(len(pool)), np.diff(pool.offsets))
    sizes = pool.image_sizes[owner]
    has_box = np.isfinite(pool.boxes).all(axis=1)
    rows = np.flatnonzero(has_box & (sizes > 0).all(axis=1))
    width_and_height = sizes[rows][:, [1, 0, 1, 0]]
    places = (pool.boxes[rows] / width_and_height).astype(np.float32)
    offsets = np.searchsorted(owner[rows], np.arange(len(pool) + 1))
    return Boxes(offsets, pool.labels[rows], places), rows


def near_pairs(neighbours: Neighbours, level: float) -> np.ndarray:
    """(P, 2) int64, the pairs at least as similar as a level; what is linked stands together.

    Args:
        neighbours: of all samples.
        level: a cosine.
    """
    sample, place = np.nonzero(neighbours.similarity >= level)
    other = neighbours.nearest[sample, place]
    pairs = np.unique(np.sort(np.stack([sample, other], axis=1), axis=1), axis=0)
    group_of = {number: label for label, group in enumerate(linked(pairs)) for number in group}
    label = np.array([group_of[first] for first in pairs[:, 0].tolist()], np.int64)
    return pairs[np.argsort(label, kind='stable')]


def conflict_shards(
    pairs: np.ndarray, boxes: Boxes, paths: Sequence[str], reader: Reader
) -> Shards:
    """The work of the stage ``conflicts``.

    It writes ``conflicts.npy``, a row a contradiction, with boxes counted inside their sample, and
    ``agreeing.npy``, (A, 2) int64 pairs of samples whose labels agree.

    Args:
        pairs: (P, 2) int64 samples that may be near-identical.
        boxes: of all N samples.
        paths: N image files.
        reader: how the training reads them.
    """
    starts = range(0, max(len(pairs), 1), PIECE)
    parts = [pairs[start : start + PIECE] for start in starts]
    files = [f'pairs_{number:05d}.npy' for number in range(len(parts))]

    def compute(folder: Path, pieces: Sequence[int], done: Done) -> None:
        for piece in pieces:
            rows = _compare(parts[piece], boxes, paths, reader)
            done(len(parts[piece]))
            write_array(folder / files[piece], rows)

    def lead(folder: Path, share: Callable[[], None]) -> None:
        share()
        if (folder / RESULT).exists():
            return
        rows = np.concatenate([np.load(folder / file) for file in files])
        agrees = rows['kind'] == AGREE
        agreeing = np.stack([rows['first'], rows['second']], axis=1)[agrees]
        write_array(folder / 'agreeing.npy', agreeing)
        found = rows[~agrees]
        order = np.lexsort((found['box_b'], found['box_a'], found['second'], found['first']))
        write_array(folder / RESULT, found[order])

    sizes = [len(part) for part in parts]
    return Shards(files, sizes, compute, lead, RESULT, label='label conflicts', unit='pair')


class _Picture(NamedTuple):
    """A small picture: (SIDE, SIDE, 3) uint8 pixels, and the means of its cells."""

    pixels: np.ndarray
    cells: np.ndarray


def _compare(pairs: np.ndarray, boxes: Boxes, paths: Sequence[str], reader: Reader) -> np.ndarray:
    """The rows of a piece; pictures are read where labels disagree."""
    rows: list[tuple[int, int, int, int, int, bool]] = []
    disagreeing = []
    for first, second in pairs.tolist():
        differences = compare_labels(boxes, first, second)
        if differences:
            disagreeing.append((first, second, differences))
        else:
            rows.append((first, second, AGREE, -1, -1, False))

    samples = sorted({sample for first, second, _ in disagreeing for sample in (first, second)})
    with ThreadPoolExecutor(default_workers()) as threads:
        read = threads.map(lambda sample: _read(paths[sample], reader), samples)
        pictures = dict(zip(samples, read, strict=True))

    for first, second, differences in disagreeing:
        picture_a, picture_b = pictures[first], pictures[second]
        if picture_a is None or picture_b is None:
            continue
        places = [_place(boxes, first, second, difference) for difference in differences]
        is_same = _same_places(picture_a, picture_b, places)
        copies = all(is_same)
        for difference, same in zip(differences, is_same, strict=True):
            if same:
                rows.append((first, second, *difference, copies))

    return np.array(rows, _ROW)


def _read(path: str, reader: Reader) -> _Picture | None:
    """A picture; None where it cannot be read, which the features' stage reports."""
    try:
        pixels = read_small(path, reader)
    except BadImage:
        return None
    return _Picture(pixels, cell_means(pixels, COARSE))


def _place(boxes: Boxes, first: int, second: int, difference: Contradiction) -> np.ndarray:
    """(4,), where a contradiction is: the box of the first sample, or else of the second one."""
    if difference.box_a >= 0:
        return boxes.of(first)[1][difference.box_a]
    return boxes.of(second)[1][difference.box_b]


def _same_places(first: _Picture, second: _Picture, places: Sequence[np.ndarray]) -> list[bool]:
    """Whether two pictures show the same at each place; nowhere if they are different pictures."""
    levels = match_levels(first.cells, second.cells)
    if levels is None:
        return [False] * len(places)
    return [same_place(first.pixels, second.pixels, levels, place) for place in places]
