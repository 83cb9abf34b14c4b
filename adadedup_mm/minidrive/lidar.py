"""A small LiDAR: points on the sides of boxes that face it and on the ground."""

import numpy as np

from .cameras import LIDAR2EGO
from .geometry import inverse, pose_matrix, transform, transform_boxes
from .world import Scene

GROUND_POINTS = 400
_STREAM = 3


def sweep(scene: Scene, frame: int, visible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One turn of the LiDAR.

    Args:
        scene: being played.
        frame: which moment.
        visible: (n,) share of each of ``scene.objects(frame)`` that can be seen, 0..1; hidden ones
            get fewer points.

    Returns:
        points: (P, 4) float32 x, y, z in the LiDAR frame, intensity 0..1; first those on objects,
            then the ground.
        counts: (n,) int64 how many points lie on each object.
    """
    rng = scene.generator(_STREAM, frame)
    boxes = transform_boxes(
        inverse(pose_matrix(*scene.ego[frame]) @ LIDAR2EGO), scene.objects(frame).boxes
    )
    distance = np.linalg.norm(boxes[:, :3], axis=1)
    area = (boxes[:, 3] + boxes[:, 4]) / 2 * boxes[:, 5]
    counts = rng.poisson(np.minimum(2500 * area / distance**2, 60) * visible)
    on_objects = _on_boxes(np.repeat(boxes, counts, axis=0), rng)
    radius, angle = (
        3 + 45 * rng.random(GROUND_POINTS) ** 2,
        rng.uniform(-np.pi, np.pi, GROUND_POINTS),
    )
    ground = np.stack(
        [radius * np.cos(angle), radius * np.sin(angle), np.full(GROUND_POINTS, -LIDAR2EGO[2, 3])],
        axis=1,
    )
    points = np.concatenate([on_objects, ground])
    intensity = rng.uniform(0.05, 0.9, len(points))
    return np.column_stack([points, intensity]).astype(np.float32), counts


def _on_boxes(boxes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One point on each of the boxes (m, 7), just inside a side wall that faces the origin; (m, 3)."""
    cos, sin = np.cos(boxes[:, 6]), np.sin(boxes[:, 6])
    # The origin, seen from the box.
    x, y = -(boxes[:, 0] * cos + boxes[:, 1] * sin), boxes[:, 0] * sin - boxes[:, 1] * cos
    place = rng.uniform(-0.48, 0.48, (len(boxes), 3))
    end = np.abs(x) * boxes[:, 4] > rng.random(len(boxes)) * (
        np.abs(x) * boxes[:, 4] + np.abs(y) * boxes[:, 3]
    )
    place[:, 0] = np.where(end, 0.49 * np.sign(x), place[:, 0])
    place[:, 1] = np.where(end, place[:, 1], 0.49 * np.sign(y))
    place *= boxes[:, 3:6]
    turned = np.stack(
        [place[:, 0] * cos - place[:, 1] * sin, place[:, 0] * sin + place[:, 1] * cos, place[:, 2]],
        axis=1,
    )
    return boxes[:, :3] + turned


def to_ego(points: np.ndarray) -> np.ndarray:
    """Points (P, 4) in the LiDAR frame to the ego frame, their intensity unchanged."""
    return np.column_stack(
        [transform(LIDAR2EGO, points[:, :3].astype(np.float64)), points[:, 3]]
    ).astype(np.float32)
