"""3D boxes in the pictures of a camera."""

import itertools

import numpy as np

# Nothing nearer than this, in metres, is projected.
NEAR = 0.1
# Boxes with a shorter side, in pixels, are too small for a detector.
MIN_SIZE = 4.0
_PAIRS = np.array(list(itertools.combinations(range(8), 2)))


def project_boxes(
    corners: np.ndarray, projection: np.ndarray, height: int, width: int
) -> np.ndarray:
    """The part of the picture that each 3D box covers.

    A box that reaches behind the camera is cut at its near plane. Boxes behind it, outside the
    picture, or with a side below ``MIN_SIZE`` once cut at its border have no 2D box.

    Args:
        corners: (n, 8, 3) in metres, in any order.
        projection: (4, 4) or (3, 4), from the corners' frame to pixels times depth.
        height: of the picture, in pixels.
        width: likewise.

    Returns:
        (n, 4) float32 x1 y1 x2 y2 in pixels; NaN where there is none.
    """
    homogeneous = np.concatenate([corners, np.ones((len(corners), 8, 1))], axis=2)
    points = homogeneous @ np.asarray(projection)[:3].T
    candidates, valid = _in_front(points)
    depth = np.maximum(candidates[..., 2:], NEAR)
    with np.errstate(invalid='ignore'):
        pixels = candidates[..., :2] / depth
    low = np.where(valid[..., None], pixels, np.inf).min(axis=1)
    high = np.where(valid[..., None], pixels, -np.inf).max(axis=1)
    boxes = np.concatenate([low, high], axis=1)
    boxes = boxes.clip(0, [width, height, width, height])
    sides = boxes[:, 2:] - boxes[:, :2]
    is_seen = (sides >= MIN_SIZE).all(axis=1)
    boxes[~is_seen] = np.nan

    return boxes.astype(np.float32)


def _in_front(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners of boxes in front of the camera, and where their edges cross its near plane.

    Args:
        points: (n, 8, 3), pixels times depth, and depth.

    Returns:
        (n, 8 + 28, 3) candidates, and (n, 8 + 28) bool, which of them count.
    """
    # All pairs of corners, not just edges: the segments inside a box cannot make it larger.
    start = points[:, _PAIRS[:, 0]]
    end = points[:, _PAIRS[:, 1]]
    crosses = (start[..., 2] < NEAR) != (end[..., 2] < NEAR)
    with np.errstate(divide='ignore', invalid='ignore'):
        share = (NEAR - start[..., 2:]) / (end[..., 2:] - start[..., 2:])
        crossings = start + share * (end - start)

    is_front = points[..., 2] >= NEAR
    candidates = np.concatenate([points, crossings], axis=1)
    valid = np.concatenate([is_front, crosses], axis=1)

    return candidates, valid
