"""The six cameras and the LiDAR of the ego vehicle, and what the cameras see of a box."""

from dataclasses import dataclass

import cv2
import numpy as np

from .geometry import box_corners, inverse, pose_matrix, transform

WIDTH, HEIGHT = 320, 180
NEAR = 0.3  # metres; nearer parts of a box are cut off
CAMERAS = (
    'CAM_FRONT',
    'CAM_FRONT_RIGHT',
    'CAM_FRONT_LEFT',
    'CAM_BACK',
    'CAM_BACK_LEFT',
    'CAM_BACK_RIGHT',
)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera; its frame is x right, y down, z forward.

    Attributes:
        name: one of ``CAMERAS``.
        intrinsic: (3, 3) camera to pixel.
        cam2ego: (4, 4); the ego frame is x forward, y left, z up.
    """

    name: str
    intrinsic: np.ndarray
    cam2ego: np.ndarray


def _camera(name: str, degrees: float, x: float, y: float, focal: float) -> Camera:
    intrinsic = np.array([[focal, 0, WIDTH / 2], [0, focal, HEIGHT * 0.53], [0, 0, 1]])
    axes = np.array(
        [[0.0, 0.0, 1.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    )
    return Camera(name, intrinsic, pose_matrix(x, y, np.deg2rad(degrees), 1.55) @ axes)


# Places, directions and opening angles follow nuScenes' car.
RIG = (
    _camera('CAM_FRONT', 0, 1.70, 0.0, 253),
    _camera('CAM_FRONT_RIGHT', -55, 1.55, -0.49, 253),
    _camera('CAM_FRONT_LEFT', 55, 1.52, 0.49, 253),
    _camera('CAM_BACK', 180, 0.03, 0.0, 162),
    _camera('CAM_BACK_LEFT', 110, 1.04, 0.48, 253),
    _camera('CAM_BACK_RIGHT', -110, 1.01, -0.48, 253),
)

LIDAR2EGO = pose_matrix(
    0.94, 0.0, -np.pi / 2, 1.84
)  # nuScenes' LiDAR frame: x right, y forward, z up


@dataclass(frozen=True)
class Seen:
    """What one camera sees of n boxes.

    Attributes:
        boxes: (n, 4) float64 x1 y1 x2 y2 in pixels, clipped to the picture; zeros where nothing is
            seen.
        inside: (n,) share of the box's outline that lies inside the picture, 0..1.
        visibility: (n,) share of the part inside the picture that no nearer box hides, 0..1.
        centres: (n, 3) float64 u, v in pixels and depth in metres of the box's centre; behind the
            camera the depth is negative and u, v mean nothing.
    """

    boxes: np.ndarray
    inside: np.ndarray
    visibility: np.ndarray
    centres: np.ndarray

    @property
    def labelled(self) -> np.ndarray:
        """(n,) bool: large, complete and free enough for a fair 2D label."""
        sides = self.boxes[:, 2:] - self.boxes[:, :2]
        complete = (self.inside >= 0.25) | (sides.min(axis=1) >= 24)
        large = (sides.min(axis=1) >= 5) & (sides.max(axis=1) >= 10)
        labelled: np.ndarray = complete & large & (self.visibility >= 0.35)
        return labelled


_EDGES = np.array(
    [[0, 1], [1, 2], [2, 3], [3, 0], [4, 5], [5, 6], [6, 7], [7, 4], [0, 4], [1, 5], [2, 6], [3, 7]]
)
_CANVAS = np.array([[0, 0], [WIDTH, 0], [WIDTH, HEIGHT], [0, HEIGHT]], dtype=np.float32)


def project(intrinsic: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (..., 3) in the camera frame, in front of it, to pixels (..., 2)."""
    return points[..., :2] / points[..., 2:] * intrinsic[[0, 1], [0, 1]] + intrinsic[:2, 2]


def look(camera: Camera, ego: np.ndarray, boxes: np.ndarray) -> Seen:
    """What a camera sees of boxes.

    Args:
        camera: of the rig.
        ego: (3,) x, y, yaw of the ego vehicle in the global frame.
        boxes: (n, 7) in the global frame.
    """
    pose = inverse(pose_matrix(*ego) @ camera.cam2ego)
    corners = transform(pose, box_corners(boxes))
    centres = transform(pose, boxes[:, :3])
    result = Seen(
        np.zeros((len(boxes), 4)),
        np.zeros(len(boxes)),
        np.zeros(len(boxes)),
        np.column_stack([project(camera.intrinsic, centres), centres[:, 2]]),
    )
    ids = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    areas = np.zeros(len(boxes))
    painted: list[int] = []
    for i in _from_far_to_near(camera.intrinsic, corners, centres):
        outline = _outline(camera.intrinsic, corners[i])
        areas[i], part = cv2.intersectConvexConvex(outline, _CANVAS)
        if areas[i] <= 0 or part is None:
            continue
        part = np.clip(part.reshape(-1, 2), 0, (WIDTH, HEIGHT))
        result.boxes[i] = *part.min(axis=0), *part.max(axis=0)
        result.inside[i] = min(1.0, areas[i] / max(cv2.contourArea(outline), 1e-9))
        painted.append(i)
        cv2.fillConvexPoly(ids, np.round(part * 16).astype(np.int32), [len(painted)], shift=4)
    counts = np.bincount(ids.ravel(), minlength=len(painted) + 1)
    for number, i in enumerate(painted, start=1):
        result.visibility[i] = min(1.0, counts[number] / max(areas[i], 1.0))
    return result


def _from_far_to_near(intrinsic: np.ndarray, corners: np.ndarray, centres: np.ndarray) -> list[int]:
    """The boxes, by corners (n, 8, 3) and centres (n, 3), that may be in the picture; at most 255, the nearest ones."""
    slope = intrinsic[0, 2] / intrinsic[0, 0]
    x, z = corners[..., 0], corners[..., 2]
    inside = (z > NEAR).any(axis=1) & (x > -slope * z).any(axis=1) & (x < slope * z).any(axis=1)
    order = np.argsort(-centres[:, 2], kind='stable')
    return [int(i) for i in order[inside[order]][-255:]]


def _outline(intrinsic: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """The convex outline (k, 2) float32 in pixels of the part before the camera of a box given by corners (8, 3)."""
    front = corners[:, 2] > NEAR
    points = corners[front]
    cut = _EDGES[front[_EDGES[:, 0]] != front[_EDGES[:, 1]]]
    if len(cut):
        a, b = corners[cut[:, 0]], corners[cut[:, 1]]
        share = (NEAR - a[:, 2:]) / (b[:, 2:] - a[:, 2:])
        points = np.concatenate([points, a + share * (b - a)])
    outline: np.ndarray = cv2.convexHull(project(intrinsic, points).astype(np.float32)).reshape(
        -1, 2
    )
    return outline
