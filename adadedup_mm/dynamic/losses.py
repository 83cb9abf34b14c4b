"""The loss of every sample out of an ordinary training step, and weights on them.

Three ways, from the cheapest to the most general:

- ``element``: a classifier's criterion yields B elements, one per sample.
- ``batch``: the elements of the criteria of heads whose code is known are attributed to the images that they come from.
  The detector trains on its ordinary batch loss; a sample's loss is B times its share of it, so that the mean of the
  samples' losses is the batch loss.
- ``image``: networks run once, what comes after the dense head image by image. The detector trains on the mean of
  its images' own losses, which differs from the batch loss where that is normalised by the objects of all images.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from mmengine.model import is_model_wrapper
from torch import Tensor, nn

from ..errors import UserError
from ..options import choose
from ..proxy.losses import forward_losses_per_image, head_losses_per_image

# From a criterion's name, its number of elements n and its target to the sample of each element, (n,) int64; None for B
# equal runs of them.
Locate = Callable[[str, int, Any], Tensor | None]

MODES = ('auto', 'element', 'batch', 'image')


class SampleLosses:
    """Stands between a model and its criteria while it trains.

    Args:
        model: what the Runner trains, or a distributed wrapper of it.
        mode: ``'element'``, ``'batch'``, ``'image'``, or ``'auto'``: the first of them that fits the model.

    Attributes:
        mode: the one in use.

    Raises:
        UserError: the model does not fit the mode.
    """

    def __init__(self, model: nn.Module, mode: str = 'auto') -> None:
        choose(mode, MODES, 'dynamic.loss')
        self.model: Any = model.module if is_model_wrapper(model) else model
        self.mode = _mode(self.model) if mode == 'auto' else mode
        self._patches: list[tuple[Any, str]] = []
        self._weights: Tensor | None = None
        self._losses: Tensor | None = None
        self._locate: Locate | None = None
        self._factor = 1.
        self._divided: dict[str, Tensor] | None = None
        dict(element=self._watch_criterion, batch=self._watch_heads, image=self._watch_loss)[self.mode]()

    def start(self, weights: Tensor) -> None:
        """Begins a training step.

        Args:
            weights: (B,) float32 factors of the samples' losses, on the CPU.
        """
        device = next(self.model.parameters()).device
        self._weights = weights.to(device, non_blocking=True)
        self._weighted = bool((weights != 1).any())
        self._losses = None

    def take(self) -> Tensor:
        """Ends the step and returns the unweighted losses, (B,) float32 on the model's device.

        Raises:
            UserError: the step had none.
        """
        if self._losses is None:
            raise UserError(f'dynamic pruning: no per-sample loss was seen in a training step of '
                            f'{type(self.model).__name__}; use policy random, which needs none, or a model whose '
                            "criterion has reduction='mean'")
        losses, self._losses, self._weights = self._losses, None, None
        return losses

    def detach(self) -> None:
        """Leaves the model as it was."""
        for owner, name in self._patches:
            delattr(owner, name)
        self._patches = []

    def _patch(self, owner: Any, name: str, value: Any) -> None:
        self._patches.append((owner, name))
        object.__setattr__(owner, name, value)

    def _add(self, losses: Tensor, name: str = '') -> None:
        losses = losses.detach().float()
        if self._divided is not None:
            self._divided[name] = self._divided.get(name, 0) + losses
        else:
            self._losses = losses if self._losses is None else self._losses + losses

    def _watch_criterion(self) -> None:
        criteria = _criteria(self.model)
        if not criteria:
            raise UserError(f"dynamic.loss='element' needs a model with a criterion of reduction='mean'; "
                            f"{type(self.model).__name__} has none: use policy random, or 'image' for a detector")
        for criterion in criteria:
            self._patch(criterion, 'forward', self._split(criterion, ''))
        self._locate = lambda name, count, target: None

    def _watch_heads(self) -> None:
        problem = _not_decomposable(self.model)
        if problem:
            raise UserError(f"dynamic.loss='batch' does not fit {type(self.model).__name__} ({problem}): use 'image'")
        for head, factor in _heads(self.model):
            known = _known_head(head)
            assert known is not None
            for method in known.methods:
                locate = self._located(getattr(head, method), partial(known.locate, head), factor)
                self._patch(head, method, locate)
            if known.divides:
                self._patch(head, 'loss_by_feat', self._rescaled(head.loss_by_feat))
            for name in known.criteria:
                self._patch(getattr(head, name), 'forward', self._split(getattr(head, name), name))

    def _rescaled(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """Makes up for heads that divide their losses after the criteria, by a number that is the same for all."""
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._weights is None:
                return method(*args, **kwargs)
            self._divided = {}
            try:
                losses, shares = method(*args, **kwargs), self._divided
            finally:
                self._divided = None
            for name, share in shares.items():
                total = (share * self._weights).mean()
                final = torch.stack([value.detach() for value in losses[name]]).sum()
                self._add(torch.where(total > 0, share * (final / total), share))
            return losses

        return call

    def _located(self, method: Callable[..., Any], locate: Callable[..., Any], factor: float) -> Callable[..., Any]:
        """Lets the criteria that ``method`` calls know whose elements they see."""
        def call(*args: Any, **kwargs: Any) -> Any:
            self._locate, self._factor = locate(*args, **kwargs), factor
            try:
                return method(*args, **kwargs)
            finally:
                self._locate, self._factor = None, 1.

        return call

    def _split(self, criterion: Any, name: str) -> Callable[..., Tensor]:
        """The criterion's ``forward``, which also adds up the elements of each sample."""
        forward = criterion.forward
        own = isinstance(criterion, nn.modules.loss._Loss)

        def call(*args: Any, **kwargs: Any) -> Tensor:
            if self._weights is None or self._locate is None or kwargs.get('reduction_override') is not None:
                return forward(*args, **kwargs)
            # OpenMMLab's criteria multiply their mean by a weight, and so does _reduce: the same order of roundings.
            setting, neutral = ('reduction', 'none') if own else ('loss_weight', 1.)
            before: Any = getattr(criterion, setting, neutral)
            setattr(criterion, setting, neutral)
            try:
                elements = forward(*args, **(kwargs if own else dict(kwargs, reduction_override='none')))
            finally:
                setattr(criterion, setting, before)
            if elements.dim() == 0:
                # Criteria of boxes return their 0 like that where no element has a weight.
                return elements
            owner = self._locate(name, len(elements), args[1] if len(args) > 1 else None)
            return self._reduce(elements, owner, kwargs.get('avg_factor'), name, 1. if own else before)

        return call

    def _reduce(self, elements: Tensor, owner: Tensor | None, avg_factor: Any, name: str, scale: float) -> Tensor:
        """The mean that the criterion would have returned, with each sample's weight.

        Args:
            elements: (n, ...) losses.
            owner: (n,) int64 position of the sample that each one is of; None for B equal runs of elements.
            avg_factor: what the sum is divided by, None for the number of elements.
            name: of the criterion.
            scale: what the mean is multiplied by.
        """
        assert self._weights is not None
        size = len(self._weights)
        if owner is None and len(elements) % size:
            raise UserError(f'dynamic pruning: {len(elements)} loss elements do not belong to {size} samples; use '
                            "dynamic.loss='image', or policy random")
        # As OpenMMLab's criteria do it, so that unweighted losses are equal to the last bit.
        divisor = elements.numel() if avg_factor is None else avg_factor + torch.finfo(torch.float32).eps
        with torch.no_grad():
            if owner is None:
                sums = elements.detach().reshape(size, -1).float().sum(1)
            else:
                rows = elements.detach().reshape(len(elements), -1).float().sum(1)
                sums = rows.new_zeros(size).index_add_(0, owner, rows)
            self._add(sums * (size * scale * self._factor / divisor), name)
        if self._weighted:
            weights = self._weights.repeat_interleave(len(elements) // size) if owner is None else self._weights[owner]
            elements = elements * weights.reshape(-1, *[1] * (elements.dim() - 1))
        return scale * (elements.mean() if avg_factor is None else elements.sum() / divisor)

    def _watch_loss(self) -> None:
        if not hasattr(self.model, 'loss') or not hasattr(self.model, 'parse_losses'):
            raise UserError(f'dynamic pruning: {type(self.model).__name__} has no per-sample loss, because it has '
                            "neither a criterion of reduction='mean' nor a detector's loss(inputs, data_samples); use "
                            'policy random, which needs none')
        head = _only_head(self.model)
        owner = self.model if head is None else head
        loss = owner.loss

        def call(*args: Any, **kwargs: Any) -> dict[str, Tensor]:
            if self._weights is None:
                return loss(*args, **kwargs)
            size = len(self._weights)
            if size == 1:
                images = [loss(*args, **kwargs)]
            elif head is None:
                images = forward_losses_per_image(self.model, *args, **kwargs)
            else:
                images = head_losses_per_image(head, size, args, kwargs)
            totals, entries = zip(*map(self.model.parse_losses, images), strict=True)
            self._add(torch.stack(totals))
            return dict(self._mean(entries))

        self._patch(owner, 'loss', call)

    def _mean(self, entries: tuple[dict[str, Tensor], ...]) -> Iterator[tuple[str, Tensor]]:
        """The weighted mean of the images' losses; other values, such as accuracies, are averaged as they are."""
        assert self._weights is not None
        for name in dict.fromkeys(name for entry in entries for name in entry if name != 'loss'):
            is_loss = 'loss' in name
            values = [entry[name] * weight if is_loss else entry[name]
                      for entry, weight in zip(entries, self._weights, strict=True) if name in entry]
            # A part of the loss that an image does not have is 0.
            yield name, torch.stack(values).sum() / (len(entries) if is_loss else len(values))


def _runs(head: Any, *args: Any, **kwargs: Any) -> Locate:
    """Equally many rows of each image, one image after the other: levels of anchors, layers of queries."""
    return lambda name, count, target: None


def _runs_and_positives(head: Any, *args: Any, **kwargs: Any) -> Locate:
    """Of a level's anchors classification sees all, the rest only the positive ones, some of it four times."""
    labels = inspect.signature(type(head).loss_by_feat_single).bind(head, *args, **kwargs).arguments['labels']
    owner = torch.arange(len(labels), device=labels.device).repeat_interleave(labels.shape[1])
    positive = owner[_is_object(head, labels.reshape(-1))]
    return lambda name, count, target: None if name == 'loss_cls' else positive.repeat_interleave(
        count // len(positive))


def _levels_and_positives(head: Any, cls_scores: Sequence[Tensor], *args: Any, **kwargs: Any) -> Locate:
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


def _rois(head: Any, cls_score: Tensor, bbox_pred: Tensor, rois: Tensor, labels: Tensor, *args: Any,
          **kwargs: Any) -> Locate:
    """Box heads' classification sees all RoIs, their regression the positive ones."""
    owner = rois[:, 0].long()
    return lambda name, count, target: owner if name == 'loss_cls' else owner[_is_object(head, labels)]


def _is_object(head: Any, labels: Tensor) -> Tensor:
    return (labels >= 0) & (labels < head.num_classes)


@dataclass(frozen=True)
class _KnownHead:
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


def _known_head(head: Any) -> _KnownHead | None:
    """How to take the loss of a head apart; None if it has code of its own, in which positions may mean anything."""
    kinds = _detector_kinds()
    if kinds is None:
        return None
    _, dense, roi = kinds
    for kind, known in (
            (dense.AnchorHead, _KnownHead(('loss_by_feat_single',), _runs)),
            (dense.ATSSHead, _KnownHead(('loss_by_feat_single',), _runs_and_positives,
                                        ('loss_cls', 'loss_bbox', 'loss_centerness'), True)),
            (dense.GFLHead, _KnownHead(('loss_by_feat_single',), _runs_and_positives,
                                       ('loss_cls', 'loss_bbox', 'loss_dfl'), True)),
            (dense.FCOSHead, _KnownHead(('loss_by_feat',), _levels_and_positives,
                                        ('loss_cls', 'loss_bbox', 'loss_centerness'))),
            (dense.DINOHead, _KnownHead(('loss_by_feat_single', '_loss_dn_single'), _runs,
                                        ('loss_cls', 'loss_bbox', 'loss_iou'))),
            (dense.DETRHead, _KnownHead(('loss_by_feat_single',), _runs, ('loss_cls', 'loss_bbox', 'loss_iou'))),
            (roi.BBoxHead, _KnownHead(('loss',), _rois))):
        names = {*known.methods, *(('loss_by_feat',) if hasattr(kind, 'loss_by_feat') else ())}
        if isinstance(head, kind) and all(_same_code(type(head), kind, name, dense) for name in names):
            return known
    return None


def _same_code(kind: Any, known: Any, name: str, dense: Any) -> bool:
    """Whether a class's method is that of a known one, or a known variant of it."""
    variants = [known, dense.RPNHead, dense.DeformableDETRHead] if name == 'loss_by_feat' else [known]
    return getattr(kind, name) in [getattr(variant, name) for variant in variants]


def _criteria(model: nn.Module) -> list[Any]:
    """The criteria whose mean may be taken apart."""
    return [module for module in model.modules()
            if getattr(module, 'reduction', None) == 'mean' and getattr(module, 'weight', None) is None
            and 'Loss' in type(module).__name__]


def _detector_kinds() -> Any:
    """MMDetection's detector and head classes, or None without MMDetection."""
    try:
        from mmdet.models import dense_heads, detectors, roi_heads
    except ImportError:
        return None
    return detectors, dense_heads, roi_heads


def _heads(model: Any) -> list[tuple[Any, float]]:
    """Dense and box heads of a detector, and the factors that their losses are multiplied by."""
    dense = [head for head in (getattr(model, 'rpn_head', None), getattr(model, 'bbox_head', None)) if head is not None]
    roi = getattr(model, 'roi_head', None)
    boxes = [] if roi is None else list(roi.bbox_head) if isinstance(roi.bbox_head, nn.ModuleList) else [roi.bbox_head]
    factors = getattr(roi, 'stage_loss_weights', None) or [1.] * len(boxes)
    return [*((head, 1.) for head in dense), *zip(boxes, factors, strict=True)]


def _only_head(model: Any) -> nn.Module | None:
    """The dense head whose ``loss`` is all of the detector's loss, as long as it takes features of the whole batch."""
    others = ('rpn_head', 'roi_head', 'mask_head', 'img_rpn_head', 'img_roi_head', 'img_bbox_head', 'aux_head')
    heads = [head for head in (getattr(model, 'bbox_head', None), getattr(model, 'pts_bbox_head', None))
             if isinstance(head, nn.Module)]
    kinds = _detector_kinds()
    # Those hand their heads one tensor for all layers of the decoder.
    transformer = kinds is not None and isinstance(model, kinds[0].DetectionTransformer)
    alone = len(heads) == 1 and not transformer and not any(getattr(model, name, None) is not None for name in others)
    return heads[0] if alone and hasattr(heads[0], 'loss') else None


def _not_decomposable(model: Any) -> str | None:
    """Why the batch loss of a detector cannot be taken apart, or None.

    Only the heads whose code is known may be: in others an element's position does not say whose it is.
    """
    kinds = _detector_kinds()
    if kinds is None:
        return 'MMDetection is not installed'
    detectors, _, roi = kinds
    if type(model).loss not in (detectors.SingleStageDetector.loss, detectors.TwoStageDetector.loss,
                                detectors.DetectionTransformer.loss):
        return 'its loss is its own'
    roi_head = getattr(model, 'roi_head', None)
    if roi_head is not None and (type(roi_head).loss not in (roi.StandardRoIHead.loss, roi.CascadeRoIHead.loss)
                                 or roi_head.with_mask):
        return f'{type(roi_head).__name__} has other losses than those of boxes'
    for head, _ in _heads(model):
        known = _known_head(head)
        if known is None or getattr(head, 'custom_activation', False):
            return f'{type(head).__name__} computes its loss in its own way'
        if not all(getattr(getattr(head, name), 'reduction', None) == 'mean' for name in known.criteria):
            return f"{type(head).__name__}'s criteria have no reduction='mean'"
    return None


def _mode(model: Any) -> str:
    kinds = _detector_kinds()
    if kinds is not None and isinstance(model, kinds[0].BaseDetector):
        return 'image' if _not_decomposable(model) else 'batch'
    return 'element' if _criteria(model) else 'image'
