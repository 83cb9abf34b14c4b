"""What the annotations say about redundancy: whether two samples show the same objects in the same places.

An image embedding hardly sees small objects: the frames of a fixed camera look alike to it even
when all objects in them are others. The labels tell them apart, at no cost.
"""

import functools
from collections.abc import Iterable, Iterator

import numpy as np

# A box that moves by a tenth of the picture, or grows by two thirds, is another example: the
# similarity of the two is exp(-1/2 * 2^2) = .14.
POSITION_SCALE = 0.05
SIZE_SCALE = 0.25
DIMENSIONS = 256
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
    """Describes each sample's labelled boxes by one vector, so that the cosine of two samples compares their objects.

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
        layout[start : start + len(block)] = block
        start += len(block)
    return layout


def layout_blocks(
    owner: np.ndarray,
    kind: np.ndarray,
    boxes: np.ndarray,
    sizes: np.ndarray,
    samples: int,
    seed: int = 0,
) -> Iterator[np.ndarray]:
    """``layout_features``, some rows at a time: (n, ``DIMENSIONS`` + 1) float32 blocks in the order of the samples."""
    generator = np.random.default_rng(seed)
    frequencies = generator.normal(size=(4, DIMENSIONS)).astype(np.float32)
    phases = generator.uniform(0, 2 * np.pi, DIMENSIONS).astype(np.float32)
    signs = generator.choice(
        np.array([-1, 1], np.float32), (int(kind.max(initial=-1)) + 1, DIMENSIONS)
    )
    seen = np.flatnonzero(np.isfinite(boxes).all(axis=1) & (sizes > 0).all(axis=1))
    owner = owner[seen]

    # Neighbouring blocks may share a chunk. Chunks begin at the same objects whatever is asked for:
    # the rounding of sums and products depends on it.
    @functools.lru_cache(maxsize=1)
    def sums_of_chunk(chunk: int) -> tuple[np.ndarray, np.ndarray]:
        """The samples that a chunk's objects belong to, and the sums of their waves."""
        part = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
        objects = seen[part]
        places = _places(boxes[objects], sizes[objects])
        waves = np.cos(places @ frequencies + phases) * signs[kind[objects]]
        present, first = np.unique(owner[part], return_index=True)
        return present, np.add.reduceat(waves, first) * np.float32((2 / DIMENSIONS) ** 0.5)

    for start in range(0, samples, ROWS):
        stop = min(start + ROWS, samples)
        block = np.zeros((stop - start, DIMENSIONS + 1), np.float32)
        block[:, -1] = 1
        first, last = np.searchsorted(owner, (start, stop))
        for chunk in range(first // CHUNK, -(-last // CHUNK)):
            present, sums = sums_of_chunk(chunk)
            inside = (present >= start) & (present < stop)
            block[present[inside] - start, :-1] += sums[inside]
        yield block / np.linalg.norm(block, axis=1, keepdims=True)


def joint_features(features: np.ndarray, layout: np.ndarray, weight: float) -> np.ndarray:
    """Features whose cosine is (1 - weight) * that of the images + weight * that of the layouts.

    Args:
        features: (N, d) float32, unit rows; zero rows stay zero.
        layout: (N, e) float32, unit rows.
        weight: in [0, 1].

    Returns:
        (N, d + e) float32.
    """
    joint = np.hstack(
        [features * np.float32((1 - weight) ** 0.5), layout * np.float32(weight**0.5)]
    )
    joint[~features.any(axis=1)] = 0
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
        yield joint_features(features[start : start + len(layout)], layout, weight)
        start += len(layout)


def _places(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(M, 4) float32, centre and log width and height in units of the scales."""
    boxes = boxes.astype(np.float64)
    extent = sizes[:, ::-1].astype(np.float64)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 / extent / POSITION_SCALE
    side = np.log((boxes[:, 2:] - boxes[:, :2]).clip(1) / extent) / SIZE_SCALE
    return np.hstack([centre, side]).astype(np.float32)
