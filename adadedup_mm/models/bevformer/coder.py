"""Boxes: mmdet3d's convention outside, BEVFormer's code inside the head.

Outside: (x, y, z of the bottom, length, width, height, yaw counter-clockwise from +x[, vx, vy]), in
metres, radians and metres per second. The code is that of the official weights, whose boxes follow
mmdet3d 0.x: (cx, cy, log width, log length, cz, log height, sin yaw', cos yaw'[, vx, vy]) with the
gravity centre and yaw' = -yaw - pi / 2.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# Where codes have x, y and z of the centre.
CENTRE = [0, 1, 4]


def encode_boxes(boxes: Tensor) -> Tensor:
    """(N, 7 or 9) boxes to (N, 8 or 10) codes, both float32."""
    x, y, bottom, length, width, height, yaw = boxes[:, :7].unbind(-1)
    turned = -yaw - math.pi / 2
    code = [
        x,
        y,
        width.log(),
        length.log(),
        bottom + height / 2,
        height.log(),
        turned.sin(),
        turned.cos(),
    ]
    velocity = boxes[:, 7:]

    return torch.cat([torch.stack(code, -1), velocity], -1)


def decode_boxes(codes: Tensor) -> Tensor:
    """(..., 8 or 10) codes to (..., 7 or 9) boxes; yaw in [-3 pi / 2, pi / 2]."""
    x, y, log_width, log_length, z, log_height, sine, cosine = codes[..., :8].unbind(-1)
    height = log_height.exp()
    turned = torch.atan2(sine, cosine)
    box = [
        x,
        y,
        z - height / 2,
        log_length.exp(),
        log_width.exp(),
        height,
        -turned - math.pi / 2,
    ]
    velocity = codes[..., 8:]

    return torch.cat([torch.stack(box, -1), velocity], -1)


def scale_centres(codes: Tensor, pc_range: Sequence[float]) -> Tensor:
    """Codes with centres in [0, 1] of ``pc_range`` to codes with centres in metres."""
    lower = codes.new_tensor(pc_range[:3])
    upper = codes.new_tensor(pc_range[3:])
    centre = codes[..., CENTRE] * (upper - lower) + lower
    parts = [
        centre[..., :2],
        codes[..., 2:4],
        centre[..., 2:],
        codes[..., 5:],
    ]

    return torch.cat(parts, -1)


def select_boxes(
    logits: Tensor,
    codes: Tensor,
    post_center_range: Sequence[float],
    max_num: int,
    score_threshold: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """One sample's detections, without non-maximum suppression: the best (query, class) pairs.

    A query may appear under several classes.

    Args:
        logits: (Q, classes).
        codes: (Q, 8 or 10), centres in metres.
        post_center_range: (x_min, y_min, z_min, x_max, y_max, z_max); gravity centres outside are
            dropped.
        max_num: detections before that.
        score_threshold: scores must exceed it. Where none does, it is lowered in steps of 10 %.

    Returns:
        Boxes (D, 7 or 9), scores (D,) in descending order and labels (D,) int64.
    """
    queries, classes = logits.shape
    count = min(max_num, queries * classes)
    probabilities = logits.sigmoid().flatten()
    scores, index = probabilities.topk(count)
    labels = index % classes
    codes = codes[index // classes]
    centres = codes[:, CENTRE]
    keep = _inside(centres, post_center_range)
    if score_threshold is not None:
        keep &= _above(scores, score_threshold)
    boxes = decode_boxes(codes[keep])

    return boxes, scores[keep], labels[keep]


def _inside(centres: Tensor, centre_range: Sequence[float]) -> Tensor:
    """Which of (N, 3) centres lie in (x_min, y_min, z_min, x_max, y_max, z_max), (N,) bool."""
    lower = centres.new_tensor(centre_range[:3])
    upper = centres.new_tensor(centre_range[3:])
    inside = (centres >= lower) & (centres <= upper)
    return inside.all(-1)


def _above(scores: Tensor, threshold: float) -> Tensor:
    keep = scores > threshold
    while not keep.any():
        threshold *= 0.9
        if threshold < 0.01:
            return torch.ones_like(keep)
        keep = scores >= threshold
    return keep
