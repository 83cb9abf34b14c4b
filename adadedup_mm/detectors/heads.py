"""What is known of models' heads and criteria: whose the elements of their losses are, and which mode a model fits."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .criteria import gives_elements

# From a criterion's name, its number of elements n and its target to the sample of each element,
# (n,) int64; None for B equal runs of them.
Locate = Callable[[str, int, Any], Tensor | None]


def _runs(head: Any, *args: Any, **kwargs: Any) -> Locate:
    """Equally many rows of each image, one image after the other: levels of anchors, layers of queries."""
    return lambda name, count, target: None


def _runs_and_positives(head: Any, *args: Any, **kwargs: Any) -> Locate:
    """Of a level's anchors classification sees all, the rest only the positive ones, some of it four times."""
    labels = (
        inspect.signature(type(head).loss_by_feat_single)
        .bind(head, *args, **kwargs)
        .arguments['labels']
    )
    owner = torch.arange(len(labels), device=labels.device).repeat_interleave(labels.shape[1])
    positive = owner[_is_object(head, labels.reshape(-1))]
    return lambda name, count, target: (
        None if name == 'loss_cls' else positive.repeat_interleave(count // len(positive))
    )


def _levels_and_positives(
    head: Any, cls_scores: Sequence[Tensor], *args: Any, **kwargs: Any
) -> Locate:
    """All levels together, image by image in each: classification comes first, the rest sees the positive points."""
    images = torch.arange(len(cls_scores[0]), device=cls_scores[0].device)
    owner = torch.cat([images.repeat_interleave(level[0, 0].numel()) for level in cls_scores])
    positive = owner

    def locate(name: str, count: int, target: Any) -> Tensor:
        nonlocal positive
        if name != 'loss_cls':
            return positive
        positive = owner[_is_object(head, target)]
        return owner

    return locate


def _rois(
    head: Any,
    cls_score: Tensor,
    bbox_pred: Tensor,
    rois: Tensor,
    labels: Tensor,
    *args: Any,
    **kwargs: Any,
) -> Locate:
    """Box heads' classification sees all RoIs, their regression the positive ones."""
    owner = rois[:, 0].long()
    return lambda name, count, target: (
        owner if name == 'loss_cls' else owner[_is_object(head, labels)]
    )


def _is_object(head: Any, labels: Tensor) -> Tensor:
    return (labels >= 0) & (labels < head.num_classes)


@dataclass(frozen=True)
class KnownHead:
    """A head whose loss elements can be attributed to images.

    Attributes:
        methods: what calls the criteria.
        locate: called like these, says whose the elements are.
        criteria: their attributes.
        divides: whether losses are divided after the criteria, by a sum over the batch.
    """

    methods: tuple[str, ...]
    locate: Callable[..., Locate]
    criteria: tuple[str, ...] = ('loss_cls', 'loss_bbox')
    divides: bool = False


def known_head(head: Any) -> KnownHead | None:
    """How to take the loss of a head apart; None if it has code of its own, in which positions may mean anything."""
    kinds = _detector_kinds()
    if kinds is None:
        return None
    _, dense, roi = kinds
    for kind, known in (
        (dense.AnchorHead, KnownHead(('loss_by_feat_single',), _runs)),
        (
            dense.ATSSHead,
            KnownHead(
                ('loss_by_feat_single',),
                _runs_and_positives,
                ('loss_cls', 'loss_bbox', 'loss_centerness'),
                True,
            ),
        ),
        (
            dense.GFLHead,
            KnownHead(
                ('loss_by_feat_single',),
                _runs_and_positives,
                ('loss_cls', 'loss_bbox', 'loss_dfl'),
                True,
            ),
        ),
        (
            dense.FCOSHead,
            KnownHead(
                ('loss_by_feat',),
                _levels_and_positives,
                ('loss_cls', 'loss_bbox', 'loss_centerness'),
            ),
        ),
        (
            dense.DINOHead,
            KnownHead(
                ('loss_by_feat_single', '_loss_dn_single'),
                _runs,
                ('loss_cls', 'loss_bbox', 'loss_iou'),
            ),
        ),
        (
            dense.DETRHead,
            KnownHead(('loss_by_feat_single',), _runs, ('loss_cls', 'loss_bbox', 'loss_iou')),
        ),
        (roi.BBoxHead, KnownHead(('loss',), _rois)),
    ):
        names = {*known.methods, *(('loss_by_feat',) if hasattr(kind, 'loss_by_feat') else ())}
        if isinstance(head, kind) and all(
            _same_code(type(head), kind, name, dense) for name in names
        ):
            return known
    return None


def _same_code(kind: Any, known: Any, name: str, dense: Any) -> bool:
    """Whether a class's method is that of a known one, or a known variant of it."""
    variants = (
        [known, dense.RPNHead, dense.DeformableDETRHead] if name == 'loss_by_feat' else [known]
    )
    return getattr(kind, name) in [getattr(variant, name) for variant in variants]


def find_criteria(model: nn.Module) -> list[Any]:
    """The criteria that can be asked for their elements."""
    return [module for module in model.modules() if gives_elements(module)]


def no_criteria(model: Any) -> str | None:
    """Why mode 'element' cannot fit a model, or None."""
    return None if find_criteria(model) else 'it has no criterion that reduces elements'


def _detector_kinds() -> Any:
    """MMDetection's detector and head classes, or None without MMDetection."""
    try:
        from mmdet.models import dense_heads, detectors, roi_heads
    except ImportError:
        return None
    return detectors, dense_heads, roi_heads


def find_heads(model: Any) -> list[tuple[Any, float]]:
    """Dense and box heads of a detector, and the factors that their losses are multiplied by."""
    dense = [
        head
        for head in (getattr(model, 'rpn_head', None), getattr(model, 'bbox_head', None))
        if head is not None
    ]
    roi = getattr(model, 'roi_head', None)
    boxes = (
        []
        if roi is None
        else list(roi.bbox_head)
        if isinstance(roi.bbox_head, nn.ModuleList)
        else [roi.bbox_head]
    )
    factors = getattr(roi, 'stage_loss_weights', None) or [1.0] * len(boxes)
    return [*((head, 1.0) for head in dense), *zip(boxes, factors, strict=True)]


def is_detector(model: Any) -> bool:
    """Whether the losses of a model may be normalised by the objects of all images."""
    kinds = _detector_kinds()
    return kinds is not None and isinstance(model, kinds[0].BaseDetector)


def step_name(model: Any) -> str:
    """The method that a training step takes the loss dict from."""
    loss = getattr(model, 'loss', None)
    return 'loss' if callable(loss) and not isinstance(loss, nn.Module) else 'forward'


def not_splittable(model: Any) -> str | None:
    """Why a model has no loss of single images, or None."""
    if step_name(model) == 'forward' or not hasattr(model, 'parse_losses'):
        return 'it has no loss(inputs, data_samples)'
    return None


def no_only_head(model: Any) -> str | None:
    """Why a model's loss is not that of one head, or None."""
    return 'it has not just one head' if only_head(model) is None else not_splittable(model)


def only_head(model: Any) -> nn.Module | None:
    """The dense head whose ``loss`` is all of the detector's loss, as long as it takes features of the whole batch."""
    others = (
        'rpn_head',
        'roi_head',
        'mask_head',
        'img_rpn_head',
        'img_roi_head',
        'img_bbox_head',
        'aux_head',
    )
    heads = [
        head
        for head in (getattr(model, 'bbox_head', None), getattr(model, 'pts_bbox_head', None))
        if isinstance(head, nn.Module)
    ]
    kinds = _detector_kinds()
    # Those hand their heads one tensor for all layers of the decoder.
    transformer = kinds is not None and isinstance(model, kinds[0].DetectionTransformer)
    alone = (
        len(heads) == 1
        and not transformer
        and not any(getattr(model, name, None) is not None for name in others)
    )
    return heads[0] if alone and hasattr(heads[0], 'loss') else None


def not_decomposable(model: Any) -> str | None:
    """Why the batch loss of a detector cannot be taken apart, or None.

    Only the heads whose code is known may be: in others an element's position does not say whose it
    is.
    """
    kinds = _detector_kinds()
    if kinds is None:
        return 'MMDetection is not installed'
    detectors, _, roi = kinds
    if type(model).loss not in (
        detectors.SingleStageDetector.loss,
        detectors.TwoStageDetector.loss,
        detectors.DetectionTransformer.loss,
    ):
        return 'its loss is its own'
    roi_head = getattr(model, 'roi_head', None)
    if roi_head is not None and (
        type(roi_head).loss not in (roi.StandardRoIHead.loss, roi.CascadeRoIHead.loss)
        or roi_head.with_mask
    ):
        return f'{type(roi_head).__name__} has other losses than those of boxes'
    for head, _ in find_heads(model):
        known = known_head(head)
        if known is None:
            return f'{type(head).__name__} computes its loss in its own way'
        for name in known.criteria:
            if not gives_elements(getattr(head, name)):
                return f'{type(getattr(head, name)).__name__} yields no elements'
    return None
