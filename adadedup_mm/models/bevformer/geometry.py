"""Where BEV cells lie, where cameras see them, and how the ego vehicle moved, in float32.

A BEV of H x W cells is flattened row-major. Rows run along +y of the LiDAR frame, columns along +x.
``pc_range`` is (x_min, y_min, z_min, x_max, y_max, z_max) in metres.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.functional import rotate

MIN_DEPTH = 1e-5


def bev_centres(bev_h: int, bev_w: int, device: torch.device | None = None) -> Tensor:
    """The cells' centres, (H * W, 2) as (x, y) in [0, 1]."""
    y = _cell_centres(bev_h, device)
    x = _cell_centres(bev_w, device)
    rows, columns = torch.meshgrid(y, x, indexing='ij')
    x = columns.flatten()
    y = rows.flatten()
    return torch.stack([x, y], -1)


def _cell_centres(count: int, device: torch.device | None) -> Tensor:
    """Centres of ``count`` equal cells in [0, 1]."""
    numbers = torch.arange(count, dtype=torch.float32, device=device)
    return (numbers + 0.5) / count


def pillar_points(
    bev_h: int,
    bev_w: int,
    heights: int,
    pc_range: Sequence[float],
    device: torch.device | None = None,
) -> Tensor:
    """Points of the pillars over the cells, half a metre off the lower and upper bound.

    Returns:
        (H * W, Z, 3) in metres.
    """
    xy = bev_centres(bev_h, bev_w, device)
    cells = len(xy)
    extent = pc_range[5] - pc_range[2]
    highest = extent - 0.5
    z = torch.linspace(0.5, highest, heights, device=device)
    z = z / extent
    xy = xy.unsqueeze(1).expand(-1, heights, -1)
    z = z.view(1, -1, 1).expand(cells, -1, -1)
    points = torch.cat([xy, z], -1)
    lower, upper = _corners(pc_range, device)

    return points * (upper - lower) + lower


def _corners(pc_range: Sequence[float], device: torch.device | None) -> tuple[Tensor, Tensor]:
    """The lower and the upper corner of the BEV's range, (3,) each."""
    lower = torch.tensor(pc_range[:3], dtype=torch.float32, device=device)
    upper = torch.tensor(pc_range[3:], dtype=torch.float32, device=device)
    return lower, upper


def project(
    points: Tensor, lidar2img: Tensor, image_size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Projects points into the cameras.

    Args:
        points: (Q, Z, 3), metres in the LiDAR frame.
        lidar2img: (B, cameras, 4, 4).
        image_size: height and width in pixels of the images the features come from, padding
            included.

    Returns:
        (B, cameras, Q, Z, 2) as (x, y) in [0, 1] over the image, unbounded for points that are not
        seen, and (B, cameras, Q, Z) bool: in front of the camera and strictly inside the image.
    """
    with torch.autocast(points.device.type, enabled=False):
        matrix = lidar2img.float()
        matrix = matrix[:, :, None, None, :3]

        rotation = matrix[..., :3]
        translation = matrix[..., 3]
        columns = points.float().unsqueeze(-1)
        turned = rotation @ columns
        scaled = turned.squeeze(-1) + translation

    xy = scaled[..., :2]
    depth = scaled[..., 2:]
    divisor = depth.clamp(min=MIN_DEPTH)
    pixels = xy / divisor

    height, width = image_size
    size = pixels.new_tensor([width, height])
    found = pixels / size

    inside = (found > 0) & (found < 1)
    inside = inside.all(-1)
    in_front = depth.squeeze(-1) > MIN_DEPTH

    return found, in_front & inside


def ego_shift(can_bus: np.ndarray, pc_range: Sequence[float]) -> np.ndarray:
    """How far the ego vehicle moved since the previous BEV, as fractions of the BEV's extent.

    Args:
        can_bus: (B, 18) float64; [0:2] the movement in metres in the global frame, [-2] the ego's
            heading in radians.
        pc_range: the BEV's range.

    Returns:
        (B, 2) float32 as (x, y) of the LiDAR frame.
    """
    x_min, y_min, _, x_max, y_max, _ = pc_range
    columns = can_bus.T
    dx, dy = columns[:2]
    heading = columns[-2]
    length = np.hypot(dx, dy)
    direction = np.arctan2(dy, dx)
    angle = heading - direction
    along_x = length * np.sin(angle)
    along_y = length * np.cos(angle)
    along_x = along_x / (x_max - x_min)
    along_y = along_y / (y_max - y_min)
    shift = np.stack([along_x, along_y], -1)

    return shift.astype(np.float32)


def rotate_bev(
    bev: Tensor, degrees: Sequence[float], shape: tuple[int, int], centre: Sequence[float]
) -> Tensor:
    """Turns each sample's BEV by its angle: nearest neighbour, zeros from outside.

    Args:
        bev: (B, H * W, C).
        degrees: B angles, positive for a left turn of the ego vehicle.
        shape: (H, W).
        centre: (x, y) = (column, row) of the pivot in cells; (W / 2, H / 2) is the middle.
    """
    maps = bev.float().transpose(1, 2)
    maps = maps.unflatten(2, shape)
    pivot = list(centre)
    turned = []
    for one, angle in zip(maps, degrees, strict=True):
        result = rotate(one, float(angle), center=pivot)
        turned.append(result)
    cells = torch.stack(turned).flatten(2)
    return cells.transpose(1, 2)


def relative_can_bus(signals: np.ndarray, before: np.ndarray | None) -> np.ndarray:
    """CAN bus signals with position [:3] and heading in degrees [-1] since an earlier frame.

    Args:
        signals: (18,), absolute.
        before: the earlier frame's, absolute; None gives zero changes.

    Returns:
        (18,) float64; the heading's change is not wrapped.
    """
    relative = np.array(signals, dtype=np.float64)
    changed = [0, 1, 2, -1]
    if before is None:
        relative[changed] = 0
    else:
        relative[changed] -= before[changed]
    return relative
