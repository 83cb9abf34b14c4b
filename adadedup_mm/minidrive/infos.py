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
    values: list[list[float]] = matrix.astype(np.float32).tolist()
    return values


def camera_boxes(camera: Camera, ego_boxes: np.ndarray) -> np.ndarray:
    """Boxes (n, 7) in the ego frame to mmdet3d's camera boxes: x y z (centre), length, height, width, rotation.

    The rotation is about the camera's y axis, which points down; a box with rotation 0 heads along
    x.
    """
    pose, yaw = inverse(camera.cam2ego), ego_boxes[:, 6]
    heading = np.column_stack([np.cos(yaw), np.sin(yaw), np.zeros(len(yaw))]) @ pose[:3, :3].T
    rotation = np.arctan2(-heading[:, 2], heading[:, 0])
    return np.column_stack([transform(pose, ego_boxes[:, :3]), ego_boxes[:, [3, 5, 4]], rotation])
