"""What the info files of all 3D layouts share."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from ..base.files import atomic_open
from .cameras import Camera
from .geometry import inverse, transform


def write_pickle(path: Path, value: Any) -> None:
    """Writes a pickle, atomically, in a protocol that every Python 3 of today reads."""
    with atomic_open(path) as file:
        pickle.dump(value, file, protocol=4)


def matrix_list(matrix: np.ndarray) -> list[list[float]]:
    """A matrix as nested lists of float32 values, as mmdet3d's converters leave them."""
    float32 = matrix.astype(np.float32)
    rows: list[list[float]] = float32.tolist()
    return rows


def camera_boxes(camera: Camera, ego_boxes: np.ndarray) -> np.ndarray:
    """Boxes in the ego frame to mmdet3d's camera boxes.

    Args:
        camera: whose frame they come to.
        ego_boxes: (n, 7) in the ego frame.

    Returns:
        (n, 7) x y z (centre), length, height, width, rotation. The rotation is about the camera's
        y axis, which points down; a box with rotation 0 heads along x.
    """
    ego2cam = inverse(camera.cam2ego)
    centres = transform(ego2cam, ego_boxes[:, :3])
    length_height_width = ego_boxes[:, [3, 5, 4]]
    yaw = ego_boxes[:, 6]

    level = np.zeros(len(yaw))
    ego_heading = np.column_stack([np.cos(yaw), np.sin(yaw), level])
    heading = ego_heading @ ego2cam[:3, :3].T
    x, _, z = heading.T
    rotation = np.arctan2(-z, x)

    return np.column_stack([centres, length_height_width, rotation])


def bottom_centred(boxes: np.ndarray) -> np.ndarray:
    """Camera boxes (n, 7) given by the middles of their bottoms, as KITTI has them."""
    height = boxes[:, 4]
    result = boxes.copy()
    result[:, 1] += height / 2
    return result
