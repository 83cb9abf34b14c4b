"""Heads over regions of interest: those of Faster and Cascade R-CNN."""

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from .heads import (
    AssignedPredictions,
    HeadFamily,
    LossElements,
    Owners,
    is_object,
    register_family,
)
from .isolation import patched

_ROI_HEADS = ('mmdet.models.roi_heads.StandardRoIHead', 'mmdet.models.roi_heads.CascadeRoIHead')


def _regions(
    head: Any,
    cls_score: Tensor,
    bbox_pred: Tensor,
    rois: Tensor,
    labels: Tensor,
    *args: Any,
    **kwargs: Any,
) -> Owners:
    """Box heads' classification sees all regions, their regression the positive ones."""
    owner = rois[:, 0].long()

    def owners(name: str, count: int, target: Any) -> Tensor:
        if name == 'loss_cls':
            return owner
        return owner[is_object(head, labels)]

    return owners


@contextlib.contextmanager
def _watch_regions(roi_head: Any, assigned: AssignedPredictions) -> Iterator[None]:
    """Every region that overlaps an object enough, and the object's own box: each one has some.

    All of them instead of a random sample, and nothing else, which makes the result independent of
    chance. Of a cascade the last stage counts.
    """
    from mmdet.models.task_modules.samplers import RandomSampler

    everything = RandomSampler(
        num=2**31,
        pos_fraction=1.0,
        neg_pos_ub=0,
        add_gt_as_proposals=True,
    )
    head: Any = roi_head.bbox_head
    sampler: Any = everything
    if isinstance(head, nn.ModuleList):
        sampler = [everything] * len(head)
        head = head[-1]

    loss_and_target = head.loss_and_target
    assigned.sigmoid = bool(getattr(head.loss_cls, 'use_sigmoid', False))

    def watch(*args: Any, **kwargs: Any) -> Any:
        [sampled] = kwargs['sampling_results']
        objects = sampled.pos_assigned_gt_inds
        assigned.add(kwargs['cls_score'][: len(objects)], sampled.pos_gt_labels, objects)
        return loss_and_target(*args, **kwargs)

    with (
        patched(roi_head, 'bbox_sampler', sampler),
        patched(head, 'loss_and_target', watch),
    ):
        yield


register_family(
    HeadFamily(
        kind='mmdet.models.roi_heads.BBoxHead',
        elements=LossElements(methods=('loss',), owners=_regions),
        summed_by=('mmdet.models.detectors.TwoStageDetector', *_ROI_HEADS),
    )
)
for _kind in _ROI_HEADS:
    register_family(HeadFamily(kind=_kind, watch_assigned=_watch_regions))
