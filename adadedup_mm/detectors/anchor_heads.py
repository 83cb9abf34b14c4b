"""Heads over anchors: RPN, RetinaNet, ATSS, GFL and what is derived from them."""

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .heads import (
    AssignedPredictions,
    HeadFamily,
    LossElements,
    Owners,
    equal_runs,
    is_object,
    register_family,
)
from .isolation import patched


def _all_and_positives(head: Any, *args: Any, **kwargs: Any) -> Owners:
    """Classification sees all of a level's anchors, the rest the positive ones, some four times."""
    signature = inspect.signature(type(head).loss_by_feat_single)
    arguments = signature.bind(head, *args, **kwargs).arguments
    labels = arguments['labels']
    images = torch.arange(len(labels), device=labels.device)
    owner = images.repeat_interleave(labels.shape[1])
    positive = owner[is_object(head, labels.reshape(-1))]

    def owners(name: str, count: int, target: Any) -> Tensor | None:
        if name == 'loss_cls':
            return None
        values = count // len(positive)
        return positive.repeat_interleave(values)

    return owners


@contextlib.contextmanager
def _watch_anchors(head: Any, assigned: AssignedPredictions) -> Iterator[None]:
    """The anchors that the head's own assigner gives to an object."""
    loss_by_feat, get_targets = head.loss_by_feat, head._get_targets_single
    maps: list[Tensor] = []
    assigned.sigmoid = bool(head.use_sigmoid_cls)

    def watch_scores(cls_scores: list[Tensor], *args: Any, **kwargs: Any) -> Any:
        maps[:] = cls_scores
        return loss_by_feat(cls_scores, *args, **kwargs)

    def watch_targets(*args: Any, **kwargs: Any) -> Any:
        targets = get_targets(*args, **kwargs)
        scores = _scores_of_anchors(maps, head.cls_out_channels)
        sampled = _sampling_result(targets)
        labels = _labels_of_anchors(targets, len(scores))
        if sampled is None or labels is None:
            return targets
        # Targets are spread over all anchors, in whose order the sampler numbers those that are
        # valid.
        positive = is_object(head, labels)
        objects = sampled.pos_assigned_gt_inds
        if int(positive.sum()) == len(objects):
            assigned.add(scores[positive], labels[positive], objects)
        return targets

    with (
        patched(head, 'loss_by_feat', watch_scores),
        patched(head, '_get_targets_single', watch_targets),
    ):
        yield


def _scores_of_anchors(maps: Sequence[Tensor], channels: int) -> Tensor:
    """(n, channels) scores of all anchors of an image, from one map a level."""
    levels = []
    for level in maps:
        channels_last = level.permute(0, 2, 3, 1)
        levels.append(channels_last.reshape(-1, channels))
    return torch.cat(levels)


def _sampling_result(targets: Sequence[Any]) -> Any:
    """The sampler's result among a head's targets, or None."""
    from mmdet.models.task_modules.samplers import SamplingResult

    for target in targets:
        if isinstance(target, SamplingResult):
            return target
    return None


def _labels_of_anchors(targets: Sequence[Any], count: int) -> Tensor | None:
    """The first int64 tensor with a number for each anchor among a head's targets, or None."""
    for target in targets:
        if not isinstance(target, Tensor) or target.dtype != torch.int64:
            continue
        if target.shape == (count,):
            return target
    return None


register_family(
    HeadFamily(
        kind='mmdet.models.dense_heads.AnchorHead',
        elements=LossElements(methods=('loss_by_feat_single',), owners=equal_runs),
        variants=('mmdet.models.dense_heads.RPNHead',),
        summed_by=(
            'mmdet.models.detectors.SingleStageDetector',
            'mmdet.models.detectors.TwoStageDetector',
        ),
        watch_assigned=_watch_anchors,
    )
)
register_family(
    HeadFamily(
        kind='mmdet.models.dense_heads.ATSSHead',
        elements=LossElements(
            methods=('loss_by_feat_single',),
            owners=_all_and_positives,
            criteria=('loss_cls', 'loss_bbox', 'loss_centerness'),
            divided_in='loss_by_feat',
        ),
    )
)
register_family(
    HeadFamily(
        kind='mmdet.models.dense_heads.GFLHead',
        elements=LossElements(
            methods=('loss_by_feat_single',),
            owners=_all_and_positives,
            criteria=('loss_cls', 'loss_bbox', 'loss_dfl'),
            divided_in='loss_by_feat',
        ),
    )
)
