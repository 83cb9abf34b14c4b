"""What a model says about the objects of a sample: the edge to MMDetection and MMPretrain."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..base.errors import UserError
from ..detectors.isolation import patched
from ..detectors.losses import per_sample_gradient_norms, per_sample_losses
from .numerics import error_norms, last_layer_gradient_norms, per_object

Measure = Literal['error', 'gradient', 'loss']

# From this score on a prediction of a sigmoid counts as a detection, as in MMDetection's demos. A
# softmax has a background class to compare with instead.
_DETECTED = 0.3


def observe(
    model: Any, batch: dict[str, Any], measure: Measure, is_classifier: bool, seed: int = 0
) -> np.ndarray:
    """Measures every object of a batch, or every sample where the measure has no objects.

    ``'loss'`` is the sample's loss. ``'error'`` is the error norm of each object's predictions (of
    the image in a classifier, which counts as one object), and whether the object is right.
    ``'gradient'`` is the norm of the loss's
    gradient: for a classifier in the closed form for its last layer, for a detector the gradient of
        the image's whole
    loss with respect to all parameters after backbone and neck.

    Args:
        model: in evaluation mode.
        batch: B samples as a dataloader yields them; B must be 1 for objects and gradients of a
            detector.
        measure: see above.
        is_classifier: whether the model is one of MMPretrain's classifiers.
        seed: of the random choices inside a detector's loss.

    Returns:
        (m, 3) float64: the sample's position in the batch, the value, and 1 where the object is
        right, else 0.

    Raises:
        UserError: the model does not tell what is asked for.
    """
    if measure == 'loss':
        return _rows(per_sample_losses(model, batch, seed=seed).double().cpu().numpy())
    if is_classifier:
        return _classifier_rows(model, batch, measure)
    if measure == 'gradient':
        return _rows(per_sample_gradient_norms(model, batch, _after_neck(model), seed=seed).numpy())
    return _object_rows(model, batch, seed)


def batch_size(measure: Measure, is_classifier: bool, training_size: int) -> int:
    """How many samples ``observe`` takes at a time; without gradients twice as many as in training fit."""
    return 2 * training_size if measure == 'loss' or is_classifier else 1


def _rows(values: np.ndarray, right: np.ndarray | None = None) -> np.ndarray:
    """One row for each sample of the batch."""
    return np.stack(
        [np.arange(len(values)), values, np.zeros(len(values)) if right is None else right], axis=1
    )


@torch.no_grad()
def _classifier_rows(model: Any, batch: dict[str, Any], measure: Measure) -> np.ndarray:
    data = model.data_preprocessor(batch, training=False)
    name = type(model).__name__
    layers = [module for module in model.head.modules() if isinstance(module, nn.Linear)]
    inputs: list[Tensor] = []
    handle = (
        layers[-1].register_forward_pre_hook(lambda layer, values: inputs.append(values[0]))
        if layers
        else None
    )
    try:
        samples = model.predict(data['inputs'], data['data_samples'])
    finally:
        if handle is not None:
            handle.remove()
    if any('pred_score' not in sample or sample.gt_label.numel() != 1 for sample in samples):
        raise UserError(
            f'{name}: samples with several labels or none have no error norm: use strategy '
            'loss_topk'
        )
    scores = torch.stack([sample.pred_score for sample in samples]).double().cpu().numpy()
    labels = torch.cat([sample.gt_label for sample in samples]).cpu().numpy()
    if measure == 'error':
        return _rows(error_norms(scores, labels), scores.argmax(axis=1) == labels)
    if (
        not inputs
        or inputs[-1].shape[:-1] != (len(samples),)
        or layers[-1].out_features != scores.shape[1]
    ):
        raise UserError(
            f"{name}: strategy 'grand' needs a head that ends in a linear layer, but "
            f'{type(model.head).__name__} does not: use el2n'
        )
    return _rows(last_layer_gradient_norms(scores, labels, inputs[-1].double().cpu().numpy()))


def _after_neck(model: nn.Module) -> list[nn.Parameter]:
    """What a gradient is taken of: without the backbone, whose backward pass would cost more than all the rest."""
    chosen = [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and 'backbone' not in name and 'neck' not in name
    ]
    if not chosen:
        raise UserError(
            f"{type(model).__name__}: strategy 'grand' finds no parameters besides backbone and "
            'neck'
        )
    return chosen


@dataclass
class _Seen:
    """The predictions that a detector has assigned to objects: parts of (n, C) scores, (n,) labels and objects."""

    scores: list[Tensor] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)
    owner: list[Tensor] = field(default_factory=list)
    sigmoid: bool = False


def _object_rows(model: Any, batch: dict[str, Any], seed: int) -> np.ndarray:
    [sample] = batch['data_samples']
    objects = getattr(sample, 'gt_instances', None)
    count = 0 if objects is None else len(objects)
    if not count:
        return np.empty((0, 3))
    with _watching(model) as seen:
        per_sample_losses(model, batch, seed=seed)
    if not seen.scores:
        raise _unknown(model)
    scores, labels, owner = (
        torch.cat(parts).cpu() for parts in (seen.scores, seen.labels, seen.owner)
    )
    probabilities = (
        scores.double().sigmoid() if seen.sigmoid else scores.double().softmax(dim=1)
    ).numpy()
    wanted = labels.numpy()
    right = probabilities.argmax(axis=1) == wanted
    if seen.sigmoid:
        right &= probabilities.max(axis=1, initial=0) >= _DETECTED
    errors, found = per_object(error_norms(probabilities, wanted), right, owner.numpy(), count)
    return np.stack([np.zeros(count), errors, found], axis=1)


def _unknown(model: Any) -> UserError:
    return UserError(
        f'{type(model).__name__} does not tell which predictions belong to which object, which '
        'strategies '
        'el2n and forgetting need: set adadedup.proxy.config to a Faster or Cascade R-CNN or to an '
        'anchor '
        'detector such as RetinaNet or ATSS, or use strategy grand or loss_topk'
    )


@contextlib.contextmanager
def _watching(model: Any) -> Iterator[_Seen]:
    """Inside, the loss of one image leaves its assigned predictions behind."""
    try:
        from mmdet.models import dense_heads, roi_heads
    except ImportError as error:
        raise UserError('the objects of detectors need MMDetection: pip install mmdet') from error
    roi_head, dense = getattr(model, 'roi_head', None), getattr(model, 'bbox_head', None)
    seen = _Seen()
    with contextlib.ExitStack() as patches:
        if (
            isinstance(roi_head, (roi_heads.StandardRoIHead, roi_heads.CascadeRoIHead))
            and roi_head.with_bbox
        ):
            _watch_regions(roi_head, seen, patches)
        elif isinstance(dense, dense_heads.AnchorHead):
            _watch_anchors(dense, seen, patches)
        else:
            raise _unknown(model)
        yield seen


def _watch_regions(roi_head: Any, seen: _Seen, patches: contextlib.ExitStack) -> None:
    """Box heads: every region that overlaps an object enough, and the object's own box, so that each one has some.

    All of them instead of a random sample, and nothing else, which makes the result independent of
    chance. Of a cascade the last stage counts.
    """
    from mmdet.models.task_modules.samplers import RandomSampler

    everything = RandomSampler(num=2**31, pos_fraction=1.0, neg_pos_ub=0, add_gt_as_proposals=True)
    cascade = isinstance(roi_head.bbox_head, nn.ModuleList)
    head: Any = roi_head.bbox_head[-1] if cascade else roi_head.bbox_head
    original = head.loss_and_target
    seen.sigmoid = bool(getattr(head.loss_cls, 'use_sigmoid', False))

    def watch(*args: Any, **kwargs: Any) -> Any:
        [sampled] = kwargs['sampling_results']
        positive = len(sampled.pos_assigned_gt_inds)
        seen.scores.append(kwargs['cls_score'][:positive])
        seen.labels.append(sampled.pos_gt_labels)
        seen.owner.append(sampled.pos_assigned_gt_inds)
        return original(*args, **kwargs)

    samplers = [everything] * len(roi_head.bbox_head) if cascade else everything
    patches.enter_context(patched(roi_head, 'bbox_sampler', samplers))
    patches.enter_context(patched(head, 'loss_and_target', watch))


def _watch_anchors(head: Any, seen: _Seen, patches: contextlib.ExitStack) -> None:
    """Dense heads: the anchors that the head's own assigner gives to an object."""
    from mmdet.models.task_modules.samplers import SamplingResult

    loss_by_feat, get_targets = head.loss_by_feat, head._get_targets_single
    maps: list[Tensor] = []
    seen.sigmoid = bool(head.use_sigmoid_cls)

    def watch_scores(cls_scores: list[Tensor], *args: Any, **kwargs: Any) -> Any:
        maps[:] = cls_scores
        return loss_by_feat(cls_scores, *args, **kwargs)

    def watch_targets(*args: Any, **kwargs: Any) -> Any:
        results = get_targets(*args, **kwargs)
        scores = torch.cat(
            [level.permute(0, 2, 3, 1).reshape(-1, head.cls_out_channels) for level in maps]
        )
        sampled = next((item for item in results if isinstance(item, SamplingResult)), None)
        labels = next(
            (
                item
                for item in results
                if isinstance(item, Tensor)
                and item.shape == (len(scores),)
                and item.dtype == torch.int64
            ),
            None,
        )
        if sampled is not None and labels is not None:
            # Targets are spread over all anchors, in whose order the sampler numbers those that are
            # valid.
            positive = (labels >= 0) & (labels < head.num_classes)
            if int(positive.sum()) == len(sampled.pos_assigned_gt_inds):
                seen.scores.append(scores[positive])
                seen.labels.append(labels[positive])
                seen.owner.append(sampled.pos_assigned_gt_inds)
        return results

    patches.enter_context(patched(head, 'loss_by_feat', watch_scores))
    patches.enter_context(patched(head, '_get_targets_single', watch_targets))
