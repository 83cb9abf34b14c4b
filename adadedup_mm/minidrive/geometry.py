"""Poses, boxes and rotations.

The global frame has x east, y north and z up. Lengths are metres, angles radians,
counter-clockwise.
"""

import numpy as np

# The corners of a box of sides 1 around its centre: the bottom counter-clockwise, then the top.
_UNIT_CORNERS = (
    np.array(
        [
            [1, 1, -1],
            [-1, 1, -1],
            [-1, -1, -1],
            [1, -1, -1],
            [1, 1, 1],
            [-1, 1, 1],
            [-1, -1, 1],
            [1, -1, 1],
        ]
    )
    / 2
)


def pose_matrix(x: float, y: float, yaw: float, z: float = 0.0) -> np.ndarray:
    """The pose of a frame at (x, y, z), turned by ``yaw``.

    Returns:
        (4, 4) float64 that takes points of that frame to the outer one.
    """
    cos = np.cos(yaw)
    sin = np.sin(yaw)
    rows = [
        [cos, -sin, 0, x],
        [sin, cos, 0, y],
        [0, 0, 1, z],
        [0, 0, 0, 1],
    ]
    return np.array(rows, dtype=np.float64)


def inverse(pose: np.ndarray) -> np.ndarray:
    """The inverse of a (4, 4) rigid transform."""
    rotation = pose[:3, :3]
    shift = pose[:3, 3]
    result = np.eye(4)
    result[:3, :3] = rotation.T
    result[:3, 3] = -rotation.T @ shift
    return result


def transform(pose: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Applies a (4, 4) rigid transform to points (..., 3)."""
    rotation = pose[:3, :3]
    shift = pose[:3, 3]
    return points @ rotation.T + shift


def transform_boxes(pose: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Applies a rigid transform that turns about z only to boxes.

    Args:
        pose: (4, 4).
        boxes: (n, 7) x y z l w h yaw.

    Returns:
        (n, 7), yaw wrapped to [-pi, pi).
    """
    turn = np.arctan2(pose[1, 0], pose[0, 0])
    centres = boxes[:, :3]
    yaw = boxes[:, 6]
    result = boxes.copy()
    result[:, :3] = transform(pose, centres)
    result[:, 6] = wrap_angle(yaw + turn)
    return result


def wrap_angle(angle: np.ndarray) -> np.ndarray:
    """Angles brought to [-pi, pi)."""
    full_turn = 2 * np.pi
    return (angle + np.pi) % full_turn - np.pi


def rotate(x: np.ndarray, y: np.ndarray, angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (x, y) turned by angles, all broadcast together."""
    cos = np.cos(angle)
    sin = np.sin(angle)
    return x * cos - y * sin, x * sin + y * cos


def box_corners(boxes: np.ndarray) -> np.ndarray:
    """The corners of boxes.

    Args:
        boxes: (n, 7) x y z of the box's centre, length (along its heading), width, height, yaw.

    Returns:
        (n, 8, 3); the first four lie at the bottom, counter-clockwise seen from above, the last
        four above them.
    """
    centres = boxes[:, None, :3]
    sizes = boxes[:, None, 3:6]
    yaw = boxes[:, 6, None]
    unturned = sizes * _UNIT_CORNERS
    x, y, z = np.moveaxis(unturned, -1, 0)
    x, y = rotate(x, y, yaw)
    from_centre = np.stack([x, y, z], axis=-1)

    return centres + from_centre


def quaternion(rotation: np.ndarray) -> list[float]:
    """The unit quaternion w x y z, w >= 0, of a (3, 3) rotation matrix.

    Bar-Itzhack's method: the quaternion is the eigenvector of a symmetric 4 x 4 matrix's largest
    eigenvalue.
    """
    (a, b, c), (d, e, f), (g, h, i) = rotation
    lower_triangle = [
        [a - e - i, 0, 0, 0],
        [d + b, e - a - i, 0, 0],
        [g + c, h + f, i - a - e, 0],
        [h - f, c - g, d - b, a + e + i],
    ]
    symmetric = np.array(lower_triangle) / 3
    values, vectors = np.linalg.eigh(symmetric)
    largest = np.argmax(values)
    x, y, z, w = vectors[:, largest]
    sign = -1.0 if w < 0 else 1.0
    signed = [
        sign * w,
        sign * x,
        sign * y,
        sign * z,
    ]

    return [float(value) for value in signed]
