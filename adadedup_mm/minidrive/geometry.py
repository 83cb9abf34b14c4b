"""Poses, boxes and rotations; global frame: x east, y north, z up, metres, radians counter-clockwise."""

import numpy as np


def pose_matrix(x: float, y: float, yaw: float, z: float = 0.0) -> np.ndarray:
    """The (4, 4) matrix that takes points of a frame at (x, y, z), turned by ``yaw``, to the outer frame."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.array(
        [[cos, -sin, 0, x], [sin, cos, 0, y], [0, 0, 1, z], [0, 0, 0, 1]], dtype=np.float64
    )


def inverse(pose: np.ndarray) -> np.ndarray:
    """The inverse of a (4, 4) rigid transform."""
    result = np.eye(4)
    result[:3, :3] = pose[:3, :3].T
    result[:3, 3] = -pose[:3, :3].T @ pose[:3, 3]
    return result


def transform(pose: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Applies a (4, 4) rigid transform to points (..., 3)."""
    return points @ pose[:3, :3].T + pose[:3, 3]


def transform_boxes(pose: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Applies a rigid transform that turns about z only to boxes (n, 7): x y z l w h yaw, yaw wrapped to [-pi, pi)."""
    result = boxes.copy()
    result[:, :3] = transform(pose, boxes[:, :3])
    result[:, 6] = wrap_angle(boxes[:, 6] + np.arctan2(pose[1, 0], pose[0, 0]))
    return result


def wrap_angle(angle: np.ndarray) -> np.ndarray:
    """Angles brought to [-pi, pi)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def box_corners(boxes: np.ndarray) -> np.ndarray:
    """The corners of boxes.

    Args:
        boxes: (n, 7) x y z of the box's centre, length (along its heading), width, height, yaw.

    Returns:
        (n, 8, 3); the first four lie at the bottom, counter-clockwise seen from above, the last
        four above them.
    """
    signs = (
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
    local = boxes[:, None, 3:6] * signs
    cos, sin = np.cos(boxes[:, 6])[:, None], np.sin(boxes[:, 6])[:, None]
    x, y = local[..., 0], local[..., 1]
    return boxes[:, None, :3] + np.stack(
        [x * cos - y * sin, x * sin + y * cos, local[..., 2]], axis=-1
    )


def quaternion(rotation: np.ndarray) -> list[float]:
    """The unit quaternion w x y z, w >= 0, of a (3, 3) rotation matrix.

    Bar-Itzhack's method: the quaternion is the eigenvector of a symmetric 4 x 4 matrix's largest
    eigenvalue.
    """
    (a, b, c), (d, e, f), (g, h, i) = rotation
    matrix = (
        np.array(
            [
                [a - e - i, 0, 0, 0],
                [d + b, e - a - i, 0, 0],
                [g + c, h + f, i - a - e, 0],
                [h - f, c - g, d - b, a + e + i],
            ]
        )
        / 3
    )
    values, vectors = np.linalg.eigh(matrix)
    x, y, z, w = vectors[:, np.argmax(values)]
    sign = -1.0 if w < 0 else 1.0
    return [float(sign * value) for value in (w, x, y, z)]
