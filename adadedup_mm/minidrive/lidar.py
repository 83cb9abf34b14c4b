"""A small LiDAR: points on the sides of boxes that face it and on the ground."""

import numpy as np

from .cameras import LIDAR2EGO
from .geometry import inverse, pose_matrix, rotate, transform, transform_boxes
from .world import Scene

GROUND_POINTS = 400
MOST_POINTS = 60  # expected on one object
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
    lidar2global = pose_matrix(*scene.ego[frame]) @ LIDAR2EGO
    global_boxes = scene.objects(frame).boxes
    boxes = transform_boxes(inverse(lidar2global), global_boxes)

    expected = _expected_points(boxes) * visible
    counts = rng.poisson(expected)
    box_of_point = np.repeat(boxes, counts, axis=0)
    on_objects = _on_boxes(box_of_point, rng)
    on_ground = _on_ground(rng)
    points = np.concatenate([on_objects, on_ground])
    intensity = rng.uniform(0.05, 0.9, len(points))
    cloud = np.column_stack([points, intensity])

    return cloud.astype(np.float32), counts


def _expected_points(boxes: np.ndarray) -> np.ndarray:
    """(n,) mean number of points on boxes (n, 7) in the LiDAR frame that nothing hides."""
    distance = np.linalg.norm(boxes[:, :3], axis=1)
    length, width, height = boxes[:, 3:6].T
    breadth = (length + width) / 2
    area = breadth * height
    expected = 2500 * area / distance**2
    return np.minimum(expected, MOST_POINTS)


def _on_ground(rng: np.random.Generator) -> np.ndarray:
    """(GROUND_POINTS, 3) points around the vehicle, denser near it."""
    radius = 3 + 45 * rng.random(GROUND_POINTS) ** 2
    angle = rng.uniform(-np.pi, np.pi, GROUND_POINTS)
    x = radius * np.cos(angle)
    y = radius * np.sin(angle)
    lidar_height = LIDAR2EGO[2, 3]
    z = np.full(GROUND_POINTS, -lidar_height)
    return np.stack([x, y, z], axis=1)


def _on_boxes(boxes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(m, 3) one point on each box of (m, 7), just inside a side wall that faces the origin."""
    count = len(boxes)
    centres = boxes[:, :3]
    length, width, height = boxes[:, 3:6].T
    yaw = boxes[:, 6]

    # The origin, seen from the box.
    centre_x, centre_y, _ = centres.T
    origin_x, origin_y = rotate(-centre_x, -centre_y, -yaw)

    # Shares of the box's sides, from its centre.
    place = rng.uniform(-0.48, 0.48, (count, 3))
    along, across, up = place.T

    # Each wall in proportion to how broad it looks from the origin.
    end_breadth = np.abs(origin_x) * width
    side_breadth = np.abs(origin_y) * length
    whole_breadth = end_breadth + side_breadth
    at_end = end_breadth > rng.random(count) * whole_breadth
    end = 0.49 * np.sign(origin_x)
    side = 0.49 * np.sign(origin_y)
    along = np.where(at_end, end, along)
    across = np.where(at_end, across, side)

    x, y = rotate(along * length, across * width, yaw)
    z = up * height
    from_centre = np.stack([x, y, z], axis=1)

    return centres + from_centre


def to_ego(points: np.ndarray) -> np.ndarray:
    """Points (P, 4) in the LiDAR frame to the ego frame, their intensity unchanged, as float32."""
    places = points[:, :3].astype(np.float64)
    intensity = points[:, 3]
    moved = np.column_stack([transform(LIDAR2EGO, places), intensity])
    return moved.astype(np.float32)
