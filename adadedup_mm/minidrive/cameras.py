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


# x, y, z of a camera's frame, as columns in a frame with x forward, y left, z up.
_LOOKING_FORWARD = np.array(
    [[0.0, 0.0, 1.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
)


def _camera(name: str, degrees: float, x: float, y: float, focal: float) -> Camera:
    centre_u = WIDTH / 2
    centre_v = HEIGHT * 0.53
    intrinsic = [
        [focal, 0, centre_u],
        [0, focal, centre_v],
        [0, 0, 1],
    ]
    place = pose_matrix(x, y, np.deg2rad(degrees), z=1.55)
    return Camera(name, np.array(intrinsic), place @ _LOOKING_FORWARD)


# Places, directions and opening angles follow nuScenes' car.
RIG = (
    _camera('CAM_FRONT', 0, 1.70, 0.0, 253),
    _camera('CAM_FRONT_RIGHT', -55, 1.55, -0.49, 253),
    _camera('CAM_FRONT_LEFT', 55, 1.52, 0.49, 253),
    _camera('CAM_BACK', 180, 0.03, 0.0, 162),
    _camera('CAM_BACK_LEFT', 110, 1.04, 0.48, 253),
    _camera('CAM_BACK_RIGHT', -110, 1.01, -0.48, 253),
)

# nuScenes' LiDAR frame: x right, y forward, z up.
LIDAR2EGO = pose_matrix(0.94, 0.0, -np.pi / 2, 1.84)


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
        width_height = self.boxes[:, 2:] - self.boxes[:, :2]
        shorter = width_height.min(axis=1)
        longer = width_height.max(axis=1)
        complete = (self.inside >= 0.25) | (shorter >= 24)
        large = (shorter >= 5) & (longer >= 10)
        free = self.visibility >= 0.35
        labelled: np.ndarray = complete & large & free
        return labelled


# Pairs of a box's corners, in the order of ``box_corners``.
_EDGES = np.array(
    [[0, 1], [1, 2], [2, 3], [3, 0], [4, 5], [5, 6], [6, 7], [7, 4], [0, 4], [1, 5], [2, 6], [3, 7]]
)
_CANVAS = np.array([[0, 0], [WIDTH, 0], [WIDTH, HEIGHT], [0, HEIGHT]], dtype=np.float32)
_MOST_PAINTED = 255  # numbers that a picture of bytes has beside 0


def to_pixels(intrinsic: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (..., 3) in the camera frame, in front of it, to pixels (..., 2)."""
    focal = intrinsic[[0, 1], [0, 1]]
    centre = intrinsic[:2, 2]
    depth = points[..., 2:]
    return points[..., :2] / depth * focal + centre


def look(camera: Camera, ego: np.ndarray, boxes: np.ndarray) -> Seen:
    """What a camera sees of boxes.

    Args:
        camera: of the rig.
        ego: (3,) x, y, yaw of the ego vehicle in the global frame.
        boxes: (n, 7) in the global frame.
    """
    global2cam = inverse(pose_matrix(*ego) @ camera.cam2ego)
    corners = transform(global2cam, box_corners(boxes))
    centres = transform(global2cam, boxes[:, :3])
    count = len(boxes)
    pixels = to_pixels(camera.intrinsic, centres)
    seen = Seen(
        boxes=np.zeros((count, 4)),
        inside=np.zeros(count),
        visibility=np.zeros(count),
        centres=np.column_stack([pixels, centres[:, 2]]),
    )
    # Every box paints its number over those behind it; what is left of the number is visible.
    numbers = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    areas = np.zeros(count)
    painted: list[int] = []
    for i in _from_far_to_near(camera.intrinsic, corners, centres):
        outline = _outline(camera.intrinsic, corners[i])
        areas[i], overlap = cv2.intersectConvexConvex(outline, _CANVAS)
        if areas[i] <= 0 or overlap is None:
            continue

        polygon = overlap.reshape(-1, 2)
        part = np.clip(polygon, 0, (WIDTH, HEIGHT))
        left_top = part.min(axis=0)
        right_bottom = part.max(axis=0)
        whole_area = max(cv2.contourArea(outline), 1e-9)
        seen.boxes[i] = *left_top, *right_bottom
        seen.inside[i] = min(1.0, areas[i] / whole_area)

        painted.append(i)
        _fill(numbers, part, len(painted))

    pixels_left = np.bincount(numbers.ravel(), minlength=len(painted) + 1)
    for number, i in enumerate(painted, start=1):
        painted_area = max(areas[i], 1.0)
        seen.visibility[i] = min(1.0, pixels_left[number] / painted_area)

    return seen


def _fill(canvas: np.ndarray, polygon: np.ndarray, value: int) -> None:
    """Fills a convex polygon (k, 2) of pixels, to a sixteenth of a pixel."""
    sixteenths = np.round(polygon * 16).astype(np.int32)
    cv2.fillConvexPoly(canvas, sixteenths, [value], shift=4)


def _from_far_to_near(intrinsic: np.ndarray, corners: np.ndarray, centres: np.ndarray) -> list[int]:
    """The boxes that may be in the picture; where there are too many, the nearest ones.

    Args:
        intrinsic: (3, 3).
        corners: (n, 8, 3) of the boxes in the camera frame.
        centres: (n, 3) of them.
    """
    slope = intrinsic[0, 2] / intrinsic[0, 0]
    x = corners[..., 0]
    z = corners[..., 2]
    ahead = (z > NEAR).any(axis=1)
    reaches_left = (x > -slope * z).any(axis=1)
    reaches_right = (x < slope * z).any(axis=1)
    candidate = ahead & reaches_left & reaches_right

    depth = centres[:, 2]
    order = np.argsort(-depth, kind='stable')
    candidates = order[candidate[order]]
    nearest = candidates[-_MOST_PAINTED:]

    return [int(i) for i in nearest]


def _outline(intrinsic: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """The convex outline in pixels of the part of a box that lies before the camera.

    Args:
        intrinsic: (3, 3).
        corners: (8, 3) of the box in the camera frame.

    Returns:
        (k, 2) float32.
    """
    in_front = corners[:, 2] > NEAR
    points = corners[in_front]
    first, second = _EDGES.T
    crosses = in_front[first] != in_front[second]
    if crosses.any():
        begin = corners[first[crosses]]
        end = corners[second[crosses]]
        begin_z = begin[:, 2:]
        end_z = end[:, 2:]
        share = (NEAR - begin_z) / (end_z - begin_z)
        cuts = begin + share * (end - begin)
        points = np.concatenate([points, cuts])

    pixels = to_pixels(intrinsic, points).astype(np.float32)
    outline: np.ndarray = cv2.convexHull(pixels).reshape(-1, 2)

    return outline
