"""What the annotations say about redundancy: whether two samples show the same objects in the same places.

An image embedding hardly sees small objects: the frames of a fixed camera look alike to it even when all objects in
them are others. The labels tell them apart, at no cost.
"""

import numpy as np

# A box that moves by a tenth of the picture, or grows by two thirds, is another example: the similarity of the two is
# exp(-1/2 * 2^2) = .14.
POSITION_SCALE = .05
SIZE_SCALE = .25
DIMENSIONS = 256
CHUNK = 16384


def layout_features(owner: np.ndarray, kind: np.ndarray, boxes: np.ndarray, sizes: np.ndarray, samples: int,
                    seed: int = 0) -> np.ndarray:
    """Describes each sample's labelled boxes by one vector, so that the cosine of two samples compares their objects.

    Two objects of one kind have the similarity exp(-|p - q|^2 / 2) of their positions and log sizes, in units of
    ``POSITION_SCALE`` and ``SIZE_SCALE``; objects of two kinds have 0. The similarity of two samples is the sum over
    all pairs of their objects, normalised; a constant stands for one object that all samples share, so that samples
    without objects equal each other. Approximated by random Fourier features (Rahimi and Recht, 2007).

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
    generator = np.random.default_rng(seed)
    frequencies = generator.normal(size=(4, DIMENSIONS)).astype(np.float32)
    phases = generator.uniform(0, 2 * np.pi, DIMENSIONS).astype(np.float32)
    signs = generator.choice(np.array([-1, 1], np.float32), (int(kind.max(initial=-1)) + 1, DIMENSIONS))
    seen = np.isfinite(boxes).all(axis=1) & (sizes > 0).all(axis=1)
    owner, kind, places = owner[seen], kind[seen], _places(boxes[seen], sizes[seen])
    layout = np.zeros((samples, DIMENSIONS + 1), np.float32)
    layout[:, -1] = 1
    for start in range(0, len(owner), CHUNK):
        part = slice(start, start + CHUNK)
        waves = np.cos(places[part] @ frequencies + phases) * signs[kind[part]]
        present, first = np.unique(owner[part], return_index=True)
        layout[present, :-1] += np.add.reduceat(waves, first) * np.float32((2 / DIMENSIONS) ** .5)
    return layout / np.linalg.norm(layout, axis=1, keepdims=True)


def joint_features(features: np.ndarray, layout: np.ndarray, weight: float) -> np.ndarray:
    """Features whose cosine is (1 - weight) * that of the images + weight * that of the layouts.

    Args:
        features: (N, d) float32, unit rows; zero rows stay zero.
        layout: (N, e) float32, unit rows.
        weight: in [0, 1].

    Returns:
        (N, d + e) float32.
    """
    joint = np.hstack([features * np.float32((1 - weight) ** .5), layout * np.float32(weight ** .5)])
    joint[~features.any(axis=1)] = 0
    return joint


def _places(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(M, 4) float32, centre and log width and height in units of the scales."""
    boxes = boxes.astype(np.float64)
    extent = sizes[:, ::-1].astype(np.float64)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 / extent / POSITION_SCALE
    side = np.log((boxes[:, 2:] - boxes[:, :2]).clip(1) / extent) / SIZE_SCALE
    return np.hstack([centre, side]).astype(np.float32)
