"""What the annotations say about redundancy: whether samples show the same objects in one place.

An image embedding hardly sees small objects: the frames of a fixed camera look alike to it even
when all objects in them are others. The labels tell them apart, at no cost.
"""

import functools
from collections.abc import Iterable, Iterator

import numpy as np

from ..vectors.rows import slices

# A box that moves by a tenth of the picture, or grows by two thirds, is another example: the
# similarity of the two is exp(-1/2 * 2^2) = .14.
POSITION_SCALE = 0.05
SIZE_SCALE = 0.25
DIMENSIONS = 256
# Objects whose waves are summed up at a time.
CHUNK = 16384
# Samples whose rows are made at a time.
ROWS = 8192


def layout_features(
    owner: np.ndarray,
    kind: np.ndarray,
    boxes: np.ndarray,
    sizes: np.ndarray,
    samples: int,
    seed: int = 0,
) -> np.ndarray:
    """Describes each sample's labelled boxes by a vector; the cosine of two compares their objects.

    Two objects of one kind have the similarity exp(-|p - q|^2 / 2) of their positions and log
    sizes, in units of ``POSITION_SCALE`` and ``SIZE_SCALE``; objects of two kinds have 0. The
    similarity of two samples is the sum over all pairs of their objects, normalised; a constant
    stands for one object that all samples share, so that samples without objects equal each other.
    Approximated by random Fourier features (Rahimi and Recht, 2007).

    Args:
        owner: (M,) int64, the sample of each object, ascending.
        kind: (M,) int64, what must be equal for two objects to be similar: class, camera.
        boxes: (M, 4) float, x1 y1 x2 y2 in pixels; objects with NaN are passed over.
        sizes: (M, 2) int, height and width of each object's picture in pixels.
        samples: N.
        seed: of the random features.

    Returns:
        (N, ``DIMENSIONS`` + 1) float32, unit rows.
    """
    layout = np.empty((samples, DIMENSIONS + 1), np.float32)
    start = 0
    for block in layout_blocks(owner, kind, boxes, sizes, samples, seed):
        stop = start + len(block)
        layout[start:stop] = block
        start = stop
    return layout


def layout_blocks(
    owner: np.ndarray,
    kind: np.ndarray,
    boxes: np.ndarray,
    sizes: np.ndarray,
    samples: int,
    seed: int = 0,
) -> Iterator[np.ndarray]:
    """``layout_features``, some rows at a time.

    Args: as of ``layout_features``.

    Yields:
        (n, ``DIMENSIONS`` + 1) float32 blocks in the order of the samples.
    """
    kinds = int(kind.max(initial=-1)) + 1
    waves = _Waves(kinds, seed)
    has_box = np.isfinite(boxes).all(axis=1)
    has_size = (sizes > 0).all(axis=1)
    seen = np.flatnonzero(has_box & has_size)
    owner = owner[seen]

    # Neighbouring blocks may share a chunk. Chunks begin at the same objects whatever is asked for:
    # the rounding of sums and products depends on it.
    @functools.lru_cache(maxsize=1)
    def sums_of_chunk(chunk: int) -> tuple[np.ndarray, np.ndarray]:
        """The samples that a chunk's objects belong to, and the sums of their waves."""
        part = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
        objects = seen[part]
        places = _places(boxes[objects], sizes[objects])
        present, first = np.unique(owner[part], return_index=True)
        sums = np.add.reduceat(waves(places, kind[objects]), first)
        return present, sums * np.float32((2 / DIMENSIONS) ** 0.5)

    def block_of(rows: slice) -> np.ndarray:
        """The rows of some samples, before they are normalised."""
        block = np.zeros((rows.stop - rows.start, DIMENSIONS + 1), np.float32)
        block[:, -1] = 1
        first, end = np.searchsorted(owner, (rows.start, rows.stop))
        first_chunk, end_chunk = first // CHUNK, -(-end // CHUNK)
        for chunk in range(first_chunk, end_chunk):
            present, sums = sums_of_chunk(chunk)
            inside = (present >= rows.start) & (present < rows.stop)
            places = present[inside] - rows.start
            block[places, :-1] += sums[inside]

        return block

    for rows in slices(samples, ROWS):
        block = block_of(rows)
        lengths = np.linalg.norm(block, axis=1, keepdims=True)
        yield block / lengths


class _Waves:
    """Random Fourier features of places, with signs that keep objects of several kinds apart.

    Args:
        kinds: how many there are.
        seed: of frequencies, phases and signs.
    """

    def __init__(self, kinds: int, seed: int) -> None:
        generator = np.random.default_rng(seed)
        frequencies = generator.normal(size=(4, DIMENSIONS))
        phases = generator.uniform(0, 2 * np.pi, DIMENSIONS)
        signs = generator.choice([-1, 1], (kinds, DIMENSIONS))
        self.frequencies = frequencies.astype(np.float32)
        self.phases = phases.astype(np.float32)
        self.signs = signs.astype(np.float32)

    def __call__(self, places: np.ndarray, kind: np.ndarray) -> np.ndarray:
        """(m, ``DIMENSIONS``) float32 of (m, 4) float32 places and (m,) int64 kinds."""
        angles = places @ self.frequencies + self.phases
        return np.cos(angles) * self.signs[kind]


def joint_features(features: np.ndarray, layout: np.ndarray, weight: float) -> np.ndarray:
    """Features whose cosine is (1 - weight) * that of the images + weight * that of the layouts.

    Args:
        features: (N, d) float32, unit rows; zero rows stay zero.
        layout: (N, e) float32, unit rows.
        weight: in [0, 1].

    Returns:
        (N, d + e) float32.
    """
    image_part = features * np.float32((1 - weight) ** 0.5)
    layout_part = layout * np.float32(weight**0.5)
    joint = np.hstack([image_part, layout_part])
    blank = ~features.any(axis=1)
    joint[blank] = 0
    return joint


def joint_blocks(
    features: np.ndarray, layouts: Iterable[np.ndarray], weight: float
) -> Iterator[np.ndarray]:
    """``joint_features``, some rows at a time.

    Args:
        features: (N, d) float32, in memory or memory-mapped.
        layouts: (n, e) float32 blocks of all rows in their order, as from ``layout_blocks``.
        weight: in [0, 1].
    """
    start = 0
    for layout in layouts:
        stop = start + len(layout)
        yield joint_features(features[start:stop], layout, weight)
        start = stop


def _places(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(M, 4) float32, centre and log width and height in units of the scales."""
    boxes = boxes.astype(np.float64)
    width_and_height = sizes[:, ::-1].astype(np.float64)
    top_left, bottom_right = boxes[:, :2], boxes[:, 2:]
    centre = (top_left + bottom_right) / 2 / width_and_height
    side = (bottom_right - top_left).clip(1) / width_and_height
    places = np.hstack([centre / POSITION_SCALE, np.log(side) / SIZE_SCALE])
    return places.astype(np.float32)
