"""What a model says about the objects of a sample: the edge to MMDetection and MMPretrain."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..base.errors import UserError
from ..detectors.heads import AssignedPredictions, mmdet_is_installed, watch_assigned
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
    ``'gradient'`` is the norm of the loss's gradient: for a classifier in the closed form for its
    last layer, for a detector the gradient of the image's whole loss with respect to all parameters
    after backbone and neck.

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
        losses = per_sample_losses(model, batch, seed=seed)
        return _sample_rows(losses.double().cpu().numpy())
    if is_classifier:
        return _classifier_rows(model, batch, measure)
    if measure == 'gradient':
        norms = per_sample_gradient_norms(model, batch, _after_neck(model), seed=seed)
        return _sample_rows(norms.numpy())
    return _object_rows(model, batch, seed)


def batch_size(measure: Measure, is_classifier: bool, training_size: int) -> int:
    """How many samples ``observe`` takes at a time; twice a training's if it has no gradients."""
    if measure == 'loss' or is_classifier:
        return 2 * training_size
    return 1


def _sample_rows(values: np.ndarray, right: np.ndarray | None = None) -> np.ndarray:
    """One row for each sample of the batch."""
    positions = np.arange(len(values))
    if right is None:
        right = np.zeros(len(values))
    return np.stack([positions, values, right], axis=1)


@torch.no_grad()
def _classifier_rows(model: Any, batch: dict[str, Any], measure: Measure) -> np.ndarray:
    data = model.data_preprocessor(batch, training=False)
    inputs: list[Tensor] = []
    layer = _last_linear_layer(model.head)
    handle = None
    if layer is not None:
        handle = layer.register_forward_pre_hook(_note_input(inputs))
    try:
        samples = model.predict(data['inputs'], data['data_samples'])
    finally:
        if handle is not None:
            handle.remove()

    scores, labels = _scores_and_labels(model, samples)
    if measure == 'error':
        right = scores.argmax(axis=1) == labels
        errors = error_norms(scores, labels)
        return _sample_rows(errors, right)

    if layer is None or not inputs or not _is_output(layer, inputs[-1], scores.shape):
        raise UserError(
            f'{type(model).__name__}: a strategy that goes by gradients needs a head that ends in '
            f'a linear layer, but {type(model.head).__name__} does not: use one that goes by errors'
        )

    features = inputs[-1].double().cpu().numpy()
    norms = last_layer_gradient_norms(scores, labels, features)

    return _sample_rows(norms)


def _is_output(layer: nn.Linear, features: Tensor, shape: tuple[int, ...]) -> bool:
    """Whether a layer makes scores of a shape (B, C) from features."""
    size, classes = shape
    return features.shape[:-1] == (size,) and layer.out_features == classes


def _last_linear_layer(head: nn.Module) -> nn.Linear | None:
    last = None
    for module in head.modules():
        if isinstance(module, nn.Linear):
            last = module
    return last


def _note_input(inputs: list[Tensor]) -> Callable[[nn.Module, Any], None]:
    """A hook that notes what a layer is called with."""

    def note(layer: nn.Module, values: Any) -> None:
        inputs.append(values[0])

    return note


def _scores_and_labels(model: Any, samples: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """A classifier's (B, C) float64 probabilities and the (B,) int64 labels of its samples.

    Raises:
        UserError: a sample has several labels or none.
    """
    if any('pred_score' not in sample or sample.gt_label.numel() != 1 for sample in samples):
        raise UserError(
            f'{type(model).__name__}: samples with several labels or none have no error norm: use '
            'a strategy that goes by losses'
        )
    scores = torch.stack([sample.pred_score for sample in samples])
    labels = torch.cat([sample.gt_label for sample in samples])
    return scores.double().cpu().numpy(), labels.cpu().numpy()


def _after_neck(model: nn.Module) -> list[nn.Parameter]:
    """What a gradient is taken of: not the backbone, whose backward pass costs most."""
    chosen = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and 'backbone' not in name and 'neck' not in name:
            chosen.append(parameter)

    if not chosen:
        raise UserError(
            f'{type(model).__name__}: a strategy that goes by gradients finds no parameters '
            'besides backbone and neck'
        )

    return chosen


def _object_rows(model: Any, batch: dict[str, Any], seed: int) -> np.ndarray:
    [sample] = batch['data_samples']
    truth = getattr(sample, 'gt_instances', None)
    count = 0 if truth is None else len(truth)
    if not count:
        return np.empty((0, 3))
    assigned = _assigned_predictions(model, batch, seed)
    labels = torch.cat(assigned.labels).cpu().numpy()
    objects = torch.cat(assigned.objects).cpu().numpy()
    probabilities = _probabilities(assigned)
    right = _are_right(probabilities, labels, assigned.sigmoid)
    errors = error_norms(probabilities, labels)
    errors, found = per_object(errors, right, objects, count)
    positions = np.zeros(count)

    return np.stack([positions, errors, found], axis=1)


def _are_right(probabilities: np.ndarray, labels: np.ndarray, sigmoid: bool) -> np.ndarray:
    """Whether each of (n, C) predictions detects its (n,) label, (n,) bool."""
    right = probabilities.argmax(axis=1) == labels
    if sigmoid:
        highest = probabilities.max(axis=1, initial=0)
        right &= highest >= _DETECTED
    return right


def _probabilities(assigned: AssignedPredictions) -> np.ndarray:
    """(n, C) float64 from the scores of n predictions."""
    scores = torch.cat(assigned.scores)
    scores = scores.cpu().double()
    if assigned.sigmoid:
        return scores.sigmoid().numpy()
    return scores.softmax(dim=1).numpy()


def _assigned_predictions(model: Any, batch: dict[str, Any], seed: int) -> AssignedPredictions:
    """What a detector's loss of one image assigns to its objects.

    Raises:
        UserError: the detector does not tell.
    """
    if not mmdet_is_installed():
        raise UserError('the objects of detectors need MMDetection: pip install mmdet')
    assigned = AssignedPredictions()
    watched = watch_assigned(model, assigned)
    if watched is not None:
        with watched:
            per_sample_losses(model, batch, seed=seed)

    if not assigned.scores:
        raise UserError(
            f'{type(model).__name__} does not tell which predictions belong to which object, which '
            'strategies that go by errors need: set adadedup.proxy.config to a Faster or Cascade '
            'R-CNN or to an anchor detector such as RetinaNet or ATSS, or use a strategy that goes '
            'by gradients or losses'
        )

    return assigned
