"""Heads over points: FCOS."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .heads import HeadFamily, LossElements, Owners, is_object, register_family


def _levels_and_positives(
    head: Any, cls_scores: Sequence[Tensor], *args: Any, **kwargs: Any
) -> Owners:
    """All levels together, image by image in each.

    Classification comes first, the rest sees the positive points.
    """
    first = cls_scores[0]
    images = torch.arange(len(first), device=first.device)
    levels = []
    for level in cls_scores:
        points = level[0, 0].numel()
        levels.append(images.repeat_interleave(points))

    owner = torch.cat(levels)
    positive = owner

    def owners(name: str, count: int, target: Any) -> Tensor:
        nonlocal positive
        if name != 'loss_cls':
            return positive
        positive = owner[is_object(head, target)]
        return owner

    return owners


register_family(
    HeadFamily(
        kind='mmdet.models.dense_heads.FCOSHead',
        elements=LossElements(
            methods=('loss_by_feat',),
            owners=_levels_and_positives,
            criteria=('loss_cls', 'loss_bbox', 'loss_centerness'),
        ),
        summed_by=('mmdet.models.detectors.SingleStageDetector',),
    )
)
