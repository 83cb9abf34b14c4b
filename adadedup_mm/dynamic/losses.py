"""The loss of every sample out of an ordinary training step, and weights on them.

Three ways, from the cheapest to the most general:

- ``element``: a classifier's criterion yields B elements, one per sample.
- ``batch``: the elements of the criteria of anchor-based heads and box heads are attributed to the images that they
  come from. The detector trains on its ordinary batch loss; a sample's loss is B times its share of it, so that the
  mean of the samples' losses is the batch loss.
- ``image``: backbone and dense head run once, the rest of the loss image by image. The detector trains on the mean of
  its images' own losses, which differs from the batch loss where that is normalised by the objects of all images.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from mmengine.model import is_model_wrapper
from torch import Tensor, nn

from ..errors import UserError
from ..options import choose
from ..proxy.losses import forward_losses_per_image

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
        self._locate: Callable[[int], Tensor | None] | None = None
        self._factor = 1.
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

    def _add(self, losses: Tensor) -> None:
        losses = losses.detach().float()
        self._losses = losses if self._losses is None else self._losses + losses

    def _watch_criterion(self) -> None:
        criteria = _criteria(self.model)
        if not criteria:
            raise UserError(f"dynamic.loss='element' needs a model with a criterion of reduction='mean'; "
                            f"{type(self.model).__name__} has none: use policy random, or 'image' for a detector")
        for criterion in criteria:
            self._patch(criterion, 'forward', self._split(criterion))
        self._locate = lambda count: None

    def _watch_heads(self) -> None:
        problem = _not_decomposable(self.model)
        if problem:
            raise UserError(f"dynamic.loss='batch' does not fit {type(self.model).__name__} ({problem}): use 'image'")
        for head, factor in _heads(self.model):
            name, locate = ('loss_by_feat_single', _anchors_owner) if hasattr(head, 'prior_generator') else (
                'loss', _rois_owner)
            self._patch(head, name, self._located(getattr(head, name), partial(locate, head), factor))
            for criterion in (head.loss_cls, head.loss_bbox):
                self._patch(criterion, 'forward', self._split(criterion))

    def _located(self, method: Callable[..., Any], locate: Callable[..., Any], factor: float) -> Callable[..., Any]:
        """Lets the criteria that ``method`` calls know whose elements they see."""
        def call(*args: Any, **kwargs: Any) -> Any:
            self._locate, self._factor = locate(*args, **kwargs), factor
            try:
                return method(*args, **kwargs)
            finally:
                self._locate, self._factor = None, 1.

        return call

    def _split(self, criterion: Any) -> Callable[..., Tensor]:
        """The criterion's ``forward``, which also adds up the elements of each sample."""
        forward = criterion.forward
        own = isinstance(criterion, nn.modules.loss._Loss)

        def call(*args: Any, **kwargs: Any) -> Tensor:
            if self._weights is None or self._locate is None or kwargs.get('reduction_override') is not None:
                return forward(*args, **kwargs)
            if own:
                criterion.reduction = 'none'
                try:
                    elements = forward(*args, **kwargs)
                finally:
                    criterion.reduction = 'mean'
            else:
                elements = forward(*args, **dict(kwargs, reduction_override='none'))
            if elements.dim() == 0:
                # Criteria of boxes return their 0 like that where no element has a weight.
                return elements
            return self._reduce(elements, self._locate(len(elements)), kwargs.get('avg_factor'))

        return call

    def _reduce(self, elements: Tensor, owner: Tensor | None, avg_factor: Any) -> Tensor:
        """The mean that the criterion would have returned, with each sample's weight.

        Args:
            elements: (n, ...) losses.
            owner: (n,) int64 position of the sample that each one is of; None for B equal runs of elements.
            avg_factor: what the sum is divided by, None for the number of elements.
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
            self._add(sums * (size * self._factor / divisor))
        if self._weighted:
            weights = self._weights.repeat_interleave(len(elements) // size) if owner is None else self._weights[owner]
            elements = elements * weights.reshape(-1, *[1] * (elements.dim() - 1))
        return elements.mean() if avg_factor is None else elements.sum() / divisor

    def _watch_loss(self) -> None:
        if not hasattr(self.model, 'loss') or not hasattr(self.model, 'parse_losses'):
            raise UserError(f'dynamic pruning: {type(self.model).__name__} has no per-sample loss, because it has '
                            "neither a criterion of reduction='mean' nor a detector's loss(inputs, data_samples); use "
                            'policy random, which needs none')
        loss = self.model.loss

        def call(inputs: Any, data_samples: Any) -> dict[str, Tensor]:
            if self._weights is None:
                return loss(inputs, data_samples)
            single = len(data_samples) == 1
            images = [loss(inputs, data_samples)] if single else forward_losses_per_image(
                self.model, inputs, data_samples)
            totals, entries = zip(*map(self.model.parse_losses, images), strict=True)
            self._add(torch.stack(totals))
            return dict(self._mean(entries))

        self._patch(self.model, 'loss', call)

    def _mean(self, entries: tuple[dict[str, Tensor], ...]) -> Iterator[tuple[str, Tensor]]:
        """The weighted mean of the images' losses; other values, such as accuracies, are averaged as they are."""
        assert self._weights is not None
        for name in dict.fromkeys(name for entry in entries for name in entry if name != 'loss'):
            is_loss = 'loss' in name
            values = [entry[name] * weight if is_loss else entry[name]
                      for entry, weight in zip(entries, self._weights, strict=True) if name in entry]
            # A part of the loss that an image does not have is 0.
            yield name, torch.stack(values).sum() / (len(entries) if is_loss else len(values))


def _anchors_owner(head: Any, *args: Any, **kwargs: Any) -> Callable[[int], Tensor | None]:
    """Levels of anchor heads hold equally many anchors of each image, one image after the other."""
    return lambda count: None


def _rois_owner(head: Any, cls_score: Tensor, bbox_pred: Tensor, rois: Tensor, labels: Tensor, *args: Any,
                **kwargs: Any) -> Callable[[int], Tensor | None]:
    """Box heads' classification sees all RoIs, their regression the positive ones."""
    owner = rois[:, 0].long()

    def locate(count: int) -> Tensor:
        return owner if count == len(owner) else owner[(labels >= 0) & (labels < head.num_classes)]

    return locate


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


def _not_decomposable(model: Any) -> str | None:
    """Why the batch loss of a detector cannot be taken apart, or None.

    Only the heads whose code is known may be: in others an element's position does not say whose it is.
    """
    kinds = _detector_kinds()
    if kinds is None:
        return 'MMDetection is not installed'
    detectors, dense, roi = kinds
    if type(model).loss not in (detectors.SingleStageDetector.loss, detectors.TwoStageDetector.loss):
        return 'its loss is its own'
    roi_head = getattr(model, 'roi_head', None)
    if roi_head is not None and (type(roi_head).loss not in (roi.StandardRoIHead.loss, roi.CascadeRoIHead.loss)
                                 or roi_head.with_mask):
        return f'{type(roi_head).__name__} has other losses than those of boxes'
    for head, _ in _heads(model):
        kind = type(head)
        anchors = isinstance(head, dense.AnchorHead) and (
            kind.loss_by_feat_single is dense.AnchorHead.loss_by_feat_single
            and kind.loss_by_feat in (dense.AnchorHead.loss_by_feat, dense.RPNHead.loss_by_feat))
        boxes = isinstance(head, roi.BBoxHead) and kind.loss is roi.BBoxHead.loss and not head.custom_activation
        if not anchors and not boxes:
            return f'{kind.__name__} computes its loss in its own way'
        if not all(getattr(criterion, 'reduction', None) == 'mean' for criterion in (head.loss_cls, head.loss_bbox)):
            return f"{kind.__name__}'s criteria have no reduction='mean'"
    return None


def _mode(model: Any) -> str:
    kinds = _detector_kinds()
    if kinds is not None and isinstance(model, kinds[0].BaseDetector):
        return 'image' if _not_decomposable(model) else 'batch'
    return 'element' if _criteria(model) else 'image'
