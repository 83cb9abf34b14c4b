"""How families of other people's heads compute their losses, and what is asked of a model.

A family of heads is described once, in one file, by a ``HeadFamily`` that it registers:
``anchor_heads``, ``point_heads``, ``query_heads`` and ``region_heads`` are such files. Heads of
other libraries are added in the same way, by ``register_family`` in a module of the config's
``custom_imports``.
"""

import contextlib
import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from .criteria import gives_elements

# From a criterion's name, its number of elements n and its target to the sample of each element,
# (n,) int64; None for B equal runs of them.
Owners = Callable[[str, int, Any], Tensor | None]

_DETECTOR = 'mmdet.models.detectors.BaseDetector'
# Those hand their heads one tensor for all layers of the decoder.
_TRANSFORMER = 'mmdet.models.detectors.DetectionTransformer'
_DENSE_HEADS = ('rpn_head', 'bbox_head')
# Where the only head of a detector may be, and what else has losses of its own.
_ONLY_HEADS = ('bbox_head', 'pts_bbox_head')
_OTHER_HEADS = (
    'rpn_head',
    'roi_head',
    'mask_head',
    'img_rpn_head',
    'img_roi_head',
    'img_bbox_head',
    'aux_head',
)


@dataclass(frozen=True)
class LossElements:
    """How the elements of a head's losses are attributed to images.

    Attributes:
        methods: what calls the criteria.
        owners: called with the head and the arguments of such a method, says whose the elements
            are.
        criteria: their attributes.
        divided_in: the method that divides losses after the criteria, by a sum over the batch; None
            if there is none.
    """

    methods: tuple[str, ...]
    owners: Callable[..., Owners]
    criteria: tuple[str, ...] = ('loss_cls', 'loss_bbox')
    divided_in: str | None = None


@dataclass
class AssignedPredictions:
    """The predictions that a detector has assigned to objects, in parts to be concatenated.

    Attributes:
        scores: (n, C) logits.
        labels: (n,) int64, the objects' classes.
        objects: (n,) int64, the objects' positions in the image's ground truth.
        sigmoid: whether each class has a probability of its own.
    """

    scores: list[Tensor] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)
    objects: list[Tensor] = field(default_factory=list)
    sigmoid: bool = False

    def add(self, scores: Tensor, labels: Tensor, objects: Tensor) -> None:
        """Takes up n predictions."""
        self.scores.append(scores)
        self.labels.append(labels)
        self.objects.append(objects)


# Inside, the loss of one image leaves a head's assigned predictions behind.
WatchAssigned = Callable[[Any, AssignedPredictions], contextlib.AbstractContextManager[None]]


@dataclass(frozen=True)
class HeadFamily:
    """What is known of the heads of a class and of the classes derived from it.

    Attributes:
        kind: import path of the class.
        elements: whose the elements of their losses are, for heads that compute them by the code of
            this class; None if that is not known.
        variants: import paths of derived classes whose ``loss_by_feat`` is known as well.
        summed_by: import paths of the detectors and RoI heads whose ``loss`` adds up the losses of
            such heads and nothing else.
        watch_assigned: how to see which predictions are assigned to objects, for all derived
            classes; None if these heads do not tell.
    """

    kind: str
    elements: LossElements | None = None
    variants: tuple[str, ...] = ()
    summed_by: tuple[str, ...] = ()
    watch_assigned: WatchAssigned | None = None


_families: list[HeadFamily] = []


def register_family(family: HeadFamily) -> None:
    """Makes a family of heads known; of several that a head belongs to the first one counts."""
    _families.append(family)


def _find_class(path: str) -> Any:
    """The class at an import path; None where its library is not installed."""
    module, _, name = path.rpartition('.')
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError:
        return None


def _is_a(value: Any, path: str) -> bool:
    kind = _find_class(path)
    return kind is not None and isinstance(value, kind)


def mmdet_is_installed() -> bool:
    """Whether there are MMDetection's detectors."""
    return _find_class(_DETECTOR) is not None


def is_detector(model: Any) -> bool:
    """Whether the losses of a model may be normalised by the objects of all images."""
    return _is_a(model, _DETECTOR)


def known_elements(head: Any) -> LossElements | None:
    """How to take a head's loss apart; None if its own code may order elements in any way."""
    for family in _families:
        if family.elements is not None and _has_same_code(head, family):
            return family.elements
    return None


def _has_same_code(head: Any, family: HeadFamily) -> bool:
    """Whether a head computes its losses by its family's methods."""
    if not _is_a(head, family.kind):
        return False
    assert family.elements is not None
    known = _find_class(family.kind)
    own = type(head)
    for name in family.elements.methods:
        if getattr(own, name) != getattr(known, name):
            return False

    if not hasattr(known, 'loss_by_feat'):
        return True
    variants = [known, *map(_find_class, family.variants)]

    return own.loss_by_feat in [variant.loss_by_feat for variant in variants]


def equal_runs(head: Any, *args: Any, **kwargs: Any) -> Owners:
    """Equally many elements of each image, one image after the other."""

    def owners(name: str, count: int, target: Any) -> None:
        return None

    return owners


def is_object(head: Any, labels: Tensor) -> Tensor:
    """Which of (n,) labels are those of objects, (n,) bool; background has the last number."""
    return (labels >= 0) & (labels < head.num_classes)


def _parts(model: Any, names: Iterable[str]) -> list[nn.Module]:
    """The modules of those names that a model has."""
    parts = []
    for name in names:
        part = getattr(model, name, None)
        if isinstance(part, nn.Module):
            parts.append(part)
    return parts


def dense_heads(model: Any) -> list[nn.Module]:
    """The heads of a 2D detector that see whole images."""
    return _parts(model, _DENSE_HEADS)


def find_heads(model: Any) -> list[tuple[Any, float]]:
    """Dense and box heads of a detector, and the factors that their losses are multiplied by."""
    heads: list[tuple[Any, float]] = []
    for head in dense_heads(model):
        heads.append((head, 1.0))
    roi_head = getattr(model, 'roi_head', None)
    if roi_head is None:
        return heads
    stages = [roi_head.bbox_head]
    if isinstance(roi_head.bbox_head, nn.ModuleList):
        stages = list(roi_head.bbox_head)
    factors = getattr(roi_head, 'stage_loss_weights', None)
    if not factors:
        factors = [1.0] * len(stages)
    return [*heads, *zip(stages, factors, strict=True)]


def only_head(model: Any) -> nn.Module | None:
    """The dense head whose ``loss`` is all of the detector's loss, or None.

    Only one that takes features of the whole batch can be asked for the losses of images.
    """
    heads = _parts(model, _ONLY_HEADS)
    if len(heads) != 1 or not hasattr(heads[0], 'loss'):
        return None
    if _is_a(model, _TRANSFORMER):
        return None
    for name in _OTHER_HEADS:
        if getattr(model, name, None) is not None:
            return None
    return heads[0]


def find_criteria(model: nn.Module) -> list[Any]:
    """The criteria that can be asked for their elements."""
    return [module for module in model.modules() if gives_elements(module)]


def step_name(model: Any) -> str:
    """The method that a training step takes the loss dict from."""
    loss = getattr(model, 'loss', None)
    if not callable(loss) or isinstance(loss, nn.Module):
        return 'forward'
    return 'loss'


def no_criteria(model: Any) -> str | None:
    """Why a model has no losses that a criterion tells of each sample, or None."""
    return None if find_criteria(model) else 'it has no criterion that reduces elements'


def not_splittable(model: Any) -> str | None:
    """Why a model has no loss of single images, or None."""
    if step_name(model) == 'forward' or not hasattr(model, 'parse_losses'):
        return 'it has no loss(inputs, data_samples)'
    return None


def no_only_head(model: Any) -> str | None:
    """Why a model's loss is not that of one head, or None."""
    if only_head(model) is None:
        return 'it has not just one head'
    return not_splittable(model)


def not_decomposable(model: Any) -> str | None:
    """Why the batch loss of a detector cannot be taken apart, or None.

    Only the heads whose code is known may be: in others an element's position does not say whose it
    is.
    """
    if not mmdet_is_installed():
        return 'MMDetection is not installed'
    if not _adds_up_heads(model):
        return 'its loss is its own'
    roi_head = getattr(model, 'roi_head', None)
    if roi_head is not None and (not _adds_up_heads(roi_head) or roi_head.with_mask):
        return f'{type(roi_head).__name__} has other losses than those of boxes'
    for head, _ in find_heads(model):
        known = known_elements(head)
        if known is None:
            return f'{type(head).__name__} computes its loss in its own way'
        for name in known.criteria:
            criterion = getattr(head, name)
            if not gives_elements(criterion):
                return f'{type(criterion).__name__} yields no elements'

    return None


def _adds_up_heads(module: Any) -> bool:
    """Whether the loss of a detector or RoI head is known to be the sum of its heads' losses."""
    own = getattr(type(module), 'loss', None)
    for family in _families:
        kinds = map(_find_class, family.summed_by)
        if own in [kind.loss for kind in kinds if kind is not None]:
            return True
    return False


def watch_assigned(
    model: Any, assigned: AssignedPredictions
) -> contextlib.AbstractContextManager[None] | None:
    """Lets the loss of one image leave the predictions behind that are assigned to objects.

    The box heads of regions come before heads that see whole images.

    Args:
        model: a detector.
        assigned: what is filled.

    Returns:
        Inside it ``assigned`` is filled; None if it is not known how.
    """
    for head in _parts(model, ('roi_head', 'bbox_head')):
        # RoI heads of masks alone have no predictions to tell of.
        if not getattr(head, 'with_bbox', True):
            continue
        for family in _families:
            if family.watch_assigned is not None and _is_a(head, family.kind):
                return family.watch_assigned(head, assigned)
    return None
