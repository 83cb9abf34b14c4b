"""Boxes: mmdet3d's convention outside, BEVFormer's code inside the head.

Outside: (x, y, z of the bottom, length, width, height, yaw counter-clockwise from +x[, vx, vy]), in
    metres, radians and
metres per second. The code is that of the official weights, whose boxes follow mmdet3d 0.x: (cx,
cy, log width, log length, cz, log height, sin yaw', cos yaw'[, vx, vy]) with the gravity centre and
yaw' = -yaw - pi / 2.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


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
    return torch.cat([torch.stack(code, -1), boxes[:, 7:]], -1)


def decode_boxes(codes: Tensor) -> Tensor:
    """(..., 8 or 10) codes to (..., 7 or 9) boxes; yaw in [-3 pi / 2, pi / 2]."""
    x, y, log_width, log_length, z, log_height, sine, cosine = codes[..., :8].unbind(-1)
    height = log_height.exp()
    box = [
        x,
        y,
        z - height / 2,
        log_length.exp(),
        log_width.exp(),
        height,
        -torch.atan2(sine, cosine) - math.pi / 2,
    ]
    return torch.cat([torch.stack(box, -1), codes[..., 8:]], -1)


def scale_centres(codes: Tensor, pc_range: Sequence[float]) -> Tensor:
    """Codes with centres in [0, 1] of ``pc_range`` to codes with centres in metres."""
    lower, upper = codes.new_tensor(pc_range[:3]), codes.new_tensor(pc_range[3:])
    centre = codes[..., [0, 1, 4]] * (upper - lower) + lower
    return torch.cat([centre[..., :2], codes[..., 2:4], centre[..., 2:], codes[..., 5:]], -1)


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
    scores, index = logits.sigmoid().flatten().topk(min(max_num, logits.numel()))
    codes, labels = codes[index // logits.shape[1]], index % logits.shape[1]
    centres = codes[:, [0, 1, 4]]
    lower, upper = codes.new_tensor(post_center_range[:3]), codes.new_tensor(post_center_range[3:])
    keep = ((centres >= lower) & (centres <= upper)).all(-1)
    if score_threshold is not None:
        keep &= _above(scores, score_threshold)
    return decode_boxes(codes[keep]), scores[keep], labels[keep]


def _above(scores: Tensor, threshold: float) -> Tensor:
    keep = scores > threshold
    while not keep.any():
        threshold *= 0.9
        if threshold < 0.01:
            return torch.ones_like(keep)
        keep = scores >= threshold
    return keep
