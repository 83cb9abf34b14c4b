"""A detector's or a head's own loss, image by image, from features of the whole batch."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..base.errors import UserError
from .batches import is_batch, slice_batch, split_batch
from .heads import dense_heads
from .isolation import hidden_group, patched


def forward_losses_per_image(
    model: nn.Module,
    inputs: Any,
    data_samples: Sequence[Any],
    before_image: Callable[[int], None] | None = None,
) -> list[dict[str, Any]]:
    """The detector's loss dict of each image of a preprocessed batch, with gradients.

    ``extract_feat`` of the detector and ``forward`` of its dense head run once on the batch; while
    the detector's own ``loss`` runs image by image, they hand out that image's slices. Batch
    statistics of normalisation layers in these modules are therefore those of the whole batch; in
    RoI and mask heads they are those of one image. Losses are not averaged over processes, because
    an image's loss must not depend on what others see.

    Args:
        model: the bare detector. ``loss`` is its class's method, so this may be called by a
            function that an instance carries in its place.
        inputs: what the data preprocessor returned: a tensor of shape (B, ...), or a dict of such
            tensors. With B = 1 anything that the detector takes.
        data_samples: B data samples.
        before_image: called with the image's position in the batch before its loss is computed.

    Returns:
        B loss dicts.

    Raises:
        UserError: the inputs cannot be split into images.
    """
    size = len(data_samples)
    if size > 1 and not is_batch(inputs, size):
        raise UserError(
            f'{type(model).__name__}: its inputs are no stacked images, so that a batch of {size} '
            'has no per-sample losses in one step; use a batch size of 1'
        )

    loss = cast(Any, type(model)).loss
    results = []
    with _alone() as group, _features_once(model, size, group) as features:
        for i, sample in enumerate(data_samples):
            image = slice_batch(inputs, i) if size > 1 else inputs
            if features is not None:
                features.next_image(i, inputs, image)
            if before_image is not None:
                before_image(i)
            losses = loss(model, image, [sample])
            results.append(losses)

    return results


def head_losses_per_image(
    head: nn.Module,
    size: int,
    args: Sequence[Any],
    kwargs: dict[str, Any],
    before_image: Callable[[int], None] | None = None,
) -> list[dict[str, Any]]:
    """A dense head's loss dict of each image, with gradients, from the features of the batch.

    ``forward`` of the head runs once on the batch. Nothing before the head needs to be split, so
    that voxels and other inputs of 3D detectors will do. Losses are not averaged over processes.

    Args:
        head: ``loss`` is its class's method, so this may be called by a function that an instance
            carries in its place.
        size: B.
        args: of ``loss``: nested tensors with a first dimension of B, or lists of B data samples or
            instances.
        kwargs: likewise.
        before_image: called with the image's position in the batch before its loss is computed.

    Returns:
        B loss dicts.

    Raises:
        UserError: an argument cannot be split.
    """
    loss = cast(Any, type(head)).loss
    parts = [_split_argument(head, value, size) for value in args]
    named_parts = {}
    for name, value in kwargs.items():
        named_parts[name] = _split_argument(head, value, size)
    results = []
    with _alone() as group, _forward_once(head, size, group) as forward:
        for i in range(size):
            image = [part[i] for part in parts]
            named = {name: part[i] for name, part in named_parts.items()}
            forward.next_image(i, args[0], image[0])
            if before_image is not None:
                before_image(i)
            losses = loss(head, *image, **named)
            results.append(losses)

    return results


def _split_argument(head: nn.Module, value: Any, size: int) -> list[Any]:
    """An argument of a head's ``loss`` for each image."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return [value] * size
    if is_batch(value, size):
        return split_batch(value, size)
    if _is_list_of_samples(value, size):
        return [[item] for item in value]
    raise UserError(
        f'{type(head).__name__}: what its loss takes cannot be split into {size} samples, so that '
        'a batch has no per-sample losses in one step; use a batch size of 1'
    )


def _is_list_of_samples(value: Any, size: int) -> bool:
    """Whether a value is a list of B data samples or instances."""
    if not isinstance(value, (list, tuple)):
        return False
    if len(value) != size:
        return False
    nested = (Tensor, list, tuple, dict)
    return not any(isinstance(item, nested) for item in value)


@contextlib.contextmanager
def _alone() -> Iterator[Callable[[], bool]]:
    """Inside, losses see no other process; yields what tells of the process group."""
    group = torch.distributed.is_initialized
    with hidden_group():
        yield group


@contextlib.contextmanager
def _features_once(
    model: nn.Module, size: int, group: Callable[[], bool]
) -> Iterator['_OncePerBatch | None']:
    """Inside, features and dense heads run once on a batch; None where nothing is shared."""
    if size == 1 or not hasattr(model, 'extract_feat'):
        yield None
        return

    with contextlib.ExitStack() as patches:
        heads = [
            patches.enter_context(_forward_once(head, size, group)) for head in dense_heads(model)
        ]
        features = _OncePerBatch(model.extract_feat, size, group, heads)
        patches.enter_context(patched(model, 'extract_feat', features))
        yield features


@contextlib.contextmanager
def _forward_once(
    head: nn.Module, size: int, group: Callable[[], bool]
) -> Iterator['_OncePerBatch']:
    """Inside, ``forward`` of a head runs once on a batch, and its anchors are made once."""
    forward = _OncePerBatch(head.forward, size, group)
    priors: Any = getattr(head, 'prior_generator', None)
    with contextlib.ExitStack() as patches:
        patches.enter_context(patched(head, 'forward', forward))
        if hasattr(priors, 'grid_priors'):
            patches.enter_context(patched(priors, 'grid_priors', _once(priors.grid_priors)))
        yield forward


class _OncePerBatch:
    """Stands in for a method of one argument: runs it on the batch, returns the image's slice.

    A call with anything else than the present image goes to the method itself, as do all calls if
    the method's result has no batch dimension of the right size.

    Args:
        method: what to run.
        size: B.
        group: what ``torch.distributed.is_initialized`` is while the method runs on the batch.
        followers: methods that take this one's result.
    """

    def __init__(
        self,
        method: Callable[..., Any],
        size: int,
        group: Callable[[], bool],
        followers: Sequence['_OncePerBatch'] = (),
    ) -> None:
        self.method = method
        self.size = size
        self.group = group
        self.followers = followers
        self.result: Any = None
        self.parts: list[Any] | None = None
        self.position = 0
        self.batch: Any = None
        self.image: Any = None

    def next_image(self, position: int, batch: Any, image: Any) -> None:
        """From now on ``image`` is the slice of ``batch`` at ``position``."""
        self.position = position
        self.batch = batch
        self.image = image

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs or len(args) != 1 or args[0] is not self.image:
            return self.method(*args, **kwargs)
        if self.result is None:
            self._run_batch()
        if self.parts is None:
            return self.method(self.image)
        part = self.parts[self.position]
        for follower in self.followers:
            follower.next_image(self.position, self.result, part)
        return part

    def _run_batch(self) -> None:
        with patched(torch.distributed, 'is_initialized', self.group):
            result = self.method(self.batch)
        self.result = result
        if is_batch(result, self.size):
            self.parts = split_batch(result, self.size)


def _once(method: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    """Anchors of one shape are made once; in MMDetection too the images of a batch share them."""
    results: dict[str, list[Any]] = {}

    def call(*args: Any, **kwargs: Any) -> list[Any]:
        key = repr((args, kwargs))
        if key not in results:
            results[key] = method(*args, **kwargs)
        return list(results[key])

    return call
