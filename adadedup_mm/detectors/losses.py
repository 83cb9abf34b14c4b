"""The loss of every single image under a detector.

MMDetection normalises its losses over the batch, pads images to their batch mates and draws RoI
samples at random, so that the loss of one image depends on the others. Here it does not.
"""

import contextlib
import copy
import functools
import hashlib
import math
import random
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, cast, overload

import numpy as np
import torch
from mmengine.logging import MessageHub
from mmengine.model import is_model_wrapper
from torch import Tensor, nn

from ..base.errors import UserError
from .isolation import ModuleMemory, keep_random_states, patched

# Layers whose training mode is random or looks at the whole batch. All others stay in training
# mode, because heads such as FCOS's or DINO's have code for the loss there only.
_STOCHASTIC = re.compile('Norm|Drop|Multi[hH]ead.*Attention|RReLU')
# Batch augmentations that are part of the detector's input format; the others are random.
_FIXED_AUGMENTS = ('BatchFixedSizePad', 'BatchResize')
# Where datasets keep what identifies a sample, in this order.
_ID_KEYS = ('img_id', 'token', 'sample_idx')


@overload
def per_sample_losses(
    model: nn.Module, batch: dict[str, Any], *, seed: int = 0, components: Literal[False] = False
) -> Tensor: ...


@overload
def per_sample_losses(
    model: nn.Module, batch: dict[str, Any], *, seed: int = 0, components: Literal[True]
) -> tuple[Tensor, dict[str, Tensor]]: ...


def per_sample_losses(
    model: nn.Module, batch: dict[str, Any], *, seed: int = 0, components: bool = False
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    """The loss that each sample of a batch would have alone: no batch mates, no dropout, no random augmentation.

    Works with every detector of MMDetection and MMDetection3D that has a ``loss``. Images of one
    padded shape go through backbone, neck and dense head together, and through the rest of the
    detector's own ``loss`` one by one. Where a detector's ``loss`` does not call ``extract_feat``
    on just the images (3D detectors, TridentNet), its samples are run one by one, with the same
    result. Normalisation layers use their running statistics; random choices such as RoI sampling
    are seeded per sample, so that neither position nor batch mates matter. Nothing is left behind:
    training flags, buffers, the batch and all random states are as before.

    Args:
        model: the detector, or a distributed wrapper of it.
        batch: B samples as an MMDetection dataloader yields them, before the data preprocessor.
        seed: of the random choices inside the loss, together with the sample's ``img_id``.
        components: whether to return the parts of the loss as well.

    Returns:
        (B,) float32 on the model's device: the sum of all entries of the loss dict whose name
        contains ``'loss'``. With ``components`` also a dict from these names to (B,) float32;
        entries that a sample does not have are 0.

    Raises:
        UserError: the model has no loss, the batch is none of a detector, or a loss is not finite.

    Example:
        >>> for batch in Runner.build_dataloader(config.train_dataloader):
        ...     losses = per_sample_losses(model, batch)
    """
    model = model.module if is_model_wrapper(model) else model
    inputs, samples = _check(model, batch)
    device = next(model.parameters()).device
    parts: list[dict[str, Tensor]] = [{} for _ in samples]
    with (
        torch.no_grad(),
        keep_random_states([device] if device.type == 'cuda' else []),
        _scoring_mode(model) as repeatable,
    ):
        state = ModuleMemory(repeatable)
        for group in _groups(
            inputs, len(samples), getattr(model.data_preprocessor, 'pad_size_divisor', 1)
        ):
            raw = dict(inputs=_pick(inputs, group), data_samples=[samples[i] for i in group])
            # The preprocessor makes new data samples, but batch augmentations write into the boxes
            # of the old ones.
            augments = getattr(model.data_preprocessor, 'batch_augments', None)
            data = model.data_preprocessor(copy.deepcopy(raw) if augments else raw, training=True)
            seeds = [sample_seed(seed, samples[i]) for i in group]
            losses = forward_losses_per_image(
                model,
                data['inputs'],
                data['data_samples'],
                functools.partial(_prepare, state, seeds, device),
            )
            for i, image_losses in zip(group, losses, strict=True):
                parts[i] = loss_components(model, image_losses)
        state.restore()
    zero = torch.zeros((), device=device)
    names = dict.fromkeys(name for part in parts for name in part)
    table = {name: torch.stack([part.get(name, zero).float() for part in parts]) for name in names}
    total = sum(table.values(), torch.zeros(len(samples), device=device))
    if not bool(total.isfinite().all()):
        bad = samples[int(total.isfinite().logical_not().nonzero()[0])]
        raise UserError(
            f'{type(model).__name__}: the loss of sample {_identity(bad)!r} is not finite; train '
            'the '
            'detector with a lower learning rate, or look for broken boxes in the annotations'
        )
    return (total, table) if components else total


def per_sample_gradient_norms(
    model: nn.Module, batch: dict[str, Any], parameters: Sequence[nn.Parameter], *, seed: int = 0
) -> Tensor:
    """The norm of the gradient of each sample's loss, the loss being that of ``per_sample_losses``.

    Args:
        model: as for ``per_sample_losses``.
        batch: as for ``per_sample_losses``; its samples are run one by one.
        parameters: what the gradients are taken of; nothing else gets any.
        seed: as for ``per_sample_losses``.

    Returns:
        (B,) float64 on the CPU.

    Raises:
        UserError: see ``per_sample_losses``; or no loss depends on the parameters.
    """
    model = model.module if is_model_wrapper(model) else model
    inputs, samples = _check(model, batch)
    device = next(model.parameters()).device
    norms = []
    with (
        torch.enable_grad(),
        keep_random_states([device] if device.type == 'cuda' else []),
        _only_gradients_of(model, parameters),
        _scoring_mode(model) as repeatable,
    ):
        state = ModuleMemory(repeatable)
        for i, sample in enumerate(samples):
            raw = dict(inputs=_pick(inputs, [i]), data_samples=[copy.deepcopy(sample)])
            data = model.data_preprocessor(raw, training=True)
            prepare = functools.partial(_prepare, state, [sample_seed(seed, sample)], device)
            [losses] = forward_losses_per_image(
                model, data['inputs'], data['data_samples'], prepare
            )
            total = sum(loss_components(model, losses).values(), torch.zeros((), device=device))
            if not total.requires_grad:
                raise UserError(
                    f'{type(model).__name__}: its loss does not depend on the parameters whose '
                    'gradients '
                    'are asked for'
                )
            gradients = torch.autograd.grad(total, list(parameters), allow_unused=True)
            squares = [
                gradient.double().square().sum() for gradient in gradients if gradient is not None
            ]
            norms.append(torch.stack(squares).sum().sqrt().cpu())
        state.restore()
    return torch.stack(norms)


@contextlib.contextmanager
def _only_gradients_of(model: nn.Module, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Inside, no other parameter of the model requires gradients, so that nothing is kept for a backward pass."""
    wanted = {id(parameter) for parameter in parameters}
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(id(parameter) in wanted)
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def forward_losses_per_image(
    model: nn.Module,
    inputs: Any,
    data_samples: Sequence[Any],
    before_image: Callable[[int], None] | None = None,
) -> list[dict[str, Any]]:
    """The detector's loss dict of each image of a preprocessed batch, in the model's present mode and with gradients.

    ``extract_feat`` of the detector and ``forward`` of its dense head (``rpn_head`` or
    ``bbox_head``) run once on the batch; while the detector's own ``loss`` runs image by image,
    they hand out that image's slices. Batch statistics of normalisation layers in these modules are
    therefore those of the whole batch; in RoI and mask heads they are those of one image. Losses
    are not averaged over processes, because an image's loss must not depend on what others see.

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
    if size > 1 and not _is_batch(inputs, size):
        raise UserError(
            f'{type(model).__name__}: its inputs are no stacked images, so that a batch of {size} '
            'has no '
            'per-sample losses in one step; use a batch size of 1'
        )
    loss = cast(Any, type(model)).loss
    heads = [
        head
        for head in (getattr(model, 'rpn_head', None), getattr(model, 'bbox_head', None))
        if isinstance(head, nn.Module)
    ]
    group = torch.distributed.is_initialized
    with contextlib.ExitStack() as patches:
        patches.enter_context(patched(torch.distributed, 'is_initialized', lambda: False))
        features = None
        if size > 1 and hasattr(model, 'extract_feat'):
            dense = [patches.enter_context(_forward_once(head, size, group)) for head in heads]
            features = _OncePerBatch(model.extract_feat, size, group, dense)
            patches.enter_context(patched(model, 'extract_feat', features))
        results = []
        for i, sample in enumerate(data_samples):
            image = _slice(inputs, i) if size > 1 else inputs
            if features is not None:
                features.next_image(i, inputs, image)
            if before_image is not None:
                before_image(i)
            results.append(loss(model, image, [sample]))
    return results


def head_losses_per_image(
    head: nn.Module,
    size: int,
    args: Sequence[Any],
    kwargs: dict[str, Any],
    before_image: Callable[[int], None] | None = None,
) -> list[dict[str, Any]]:
    """A dense head's loss dict of each image, from the features of the whole batch and with gradients.

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
    named = {name: _split_argument(head, value, size) for name, value in kwargs.items()}
    group = torch.distributed.is_initialized
    with (
        patched(torch.distributed, 'is_initialized', lambda: False),
        _forward_once(head, size, group) as forward,
    ):
        results = []
        for i in range(size):
            image = [part[i] for part in parts]
            forward.next_image(i, args[0], image[0])
            if before_image is not None:
                before_image(i)
            results.append(loss(head, *image, **{name: part[i] for name, part in named.items()}))
    return results


def _split_argument(head: nn.Module, value: Any, size: int) -> list[Any]:
    """An argument of a head's ``loss`` for each image."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return [value] * size
    if _is_batch(value, size):
        return _split(value, size)
    if (
        isinstance(value, (list, tuple))
        and len(value) == size
        and not any(isinstance(item, (Tensor, list, tuple, dict)) for item in value)
    ):
        return [[item] for item in value]
    raise UserError(
        f'{type(head).__name__}: what its loss takes cannot be split into {size} samples, so that '
        'a batch '
        'has no per-sample losses in one step; use a batch size of 1'
    )


@contextlib.contextmanager
def _forward_once(
    head: nn.Module, size: int, group: Callable[[], bool]
) -> Iterator['_OncePerBatch']:
    """Inside, ``forward`` of a head runs once on a batch, and its anchors are made once."""
    forward = _OncePerBatch(head.forward, size, group)
    with contextlib.ExitStack() as patches:
        patches.enter_context(patched(head, 'forward', forward))
        priors: Any = getattr(head, 'prior_generator', None)
        if hasattr(priors, 'grid_priors'):
            patches.enter_context(patched(priors, 'grid_priors', _once(priors.grid_priors)))
        yield forward


class _OncePerBatch:
    """Stands in for a method of one argument: runs it on the whole batch, returns the present image's slice.

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
        self.position, self.batch, self.image = position, batch, image

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs or len(args) != 1 or args[0] is not self.image:
            return self.method(*args, **kwargs)
        if self.result is None:
            with patched(torch.distributed, 'is_initialized', self.group):
                self.result = self.method(self.batch)
        if not _is_batch(self.result, self.size):
            return self.method(self.image)
        if self.parts is None:
            self.parts = _split(self.result, self.size)
        part = self.parts[self.position]
        for follower in self.followers:
            follower.next_image(self.position, self.result, part)
        return part


def _once(method: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    """Anchors of one shape are made once; in MMDetection too the images of a batch share them."""
    results: dict[str, list[Any]] = {}

    def call(*args: Any, **kwargs: Any) -> list[Any]:
        key = repr((args, kwargs))
        if key not in results:
            results[key] = method(*args, **kwargs)
        return list(results[key])

    return call


def _is_batch(value: Any, size: int) -> bool:
    """Whether all tensors in nested lists, tuples and dicts have a first dimension of ``size``."""
    if isinstance(value, Tensor):
        return value.dim() > 0 and len(value) == size
    if isinstance(value, (list, tuple, dict)):
        items = value.values() if isinstance(value, dict) else value
        return len(value) > 0 and all(_is_batch(item, size) for item in items)
    return value is None


def _slice(value: Any, position: int) -> Any:
    """The same structure with the slice ``[position:position + 1]`` of each tensor."""
    if isinstance(value, Tensor):
        return value[position : position + 1]
    if isinstance(value, dict):
        return {key: _slice(item, position) for key, item in value.items()}
    if value is None:
        return None
    return type(value)(_slice(item, position) for item in value)


def _split(value: Any, size: int) -> list[Any]:
    """All slices of ``_slice``, by one operation a tensor, whose gradient is one concatenation."""
    if isinstance(value, Tensor):
        # Heads may work in place on what they have predicted, which views of one operation do not
        # allow.
        return list(torch.unsafe_split(value, 1))
    if value is None:
        return [None] * size
    if isinstance(value, dict):
        named = {key: _split(item, size) for key, item in value.items()}
        return [{key: parts[i] for key, parts in named.items()} for i in range(size)]
    listed = [_split(item, size) for item in value]
    return [type(value)(parts[i] for parts in listed) for i in range(size)]


def loss_components(model: nn.Module, losses: dict[str, Any]) -> dict[str, Tensor]:
    """The scalar entries of a loss dict that the detector's ``parse_losses`` adds up to its total."""
    _, entries = model.parse_losses(losses)
    return {name: entries[name] for name in losses if 'loss' in name}


def sample_seed(seed: int, data_sample: Any) -> int:
    """The seed of a sample's random choices, below 2^32: a hash of ``seed`` and the sample's id."""
    digest = hashlib.sha256(f'{seed}:{_identity(data_sample)}'.encode()).digest()
    return int.from_bytes(digest[:4], 'little')


def _identity(data_sample: Any) -> Any:
    return next(
        (data_sample.get(key) for key in _ID_KEYS if data_sample.get(key) is not None), None
    )


def _check(model: nn.Module, batch: Any) -> tuple[Any, list[Any]]:
    """The inputs and the data samples of a batch.

    Raises:
        UserError: see ``per_sample_losses``.
    """
    name = type(model).__name__
    for method in ('loss', 'data_preprocessor', 'parse_losses'):
        if not hasattr(model, method):
            raise UserError(
                f"{name} has no '{method}', so there are no per-sample losses; use an MMDetection "
                'or '
                'MMDetection3D detector'
            )
    samples = batch.get('data_samples') if isinstance(batch, dict) else None
    if not isinstance(samples, (list, tuple)) or not samples or 'inputs' not in batch:
        raise UserError(
            f"{name}: a batch must be a dict with 'inputs' and a list 'data_samples' as a training "
            'dataloader yields it'
        )
    return batch['inputs'], list(samples)


def _groups(inputs: Any, size: int, divisor: int) -> list[list[int]]:
    """Positions of the samples that may share a forward pass: images of one padded shape; anything else stays alone."""
    if isinstance(inputs, dict) or not all(isinstance(image, Tensor) for image in inputs):
        return [[i] for i in range(size)]
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, image in enumerate(inputs):
        height, width = (math.ceil(length / divisor) for length in image.shape[-2:])
        groups.setdefault((*image.shape[:-2], height, width), []).append(i)
    return list(groups.values())


def _pick(value: Any, positions: list[int]) -> Any:
    """The samples at ``positions`` of collated inputs."""
    if isinstance(value, Tensor):
        return value[positions]
    if isinstance(value, dict):
        return {key: _pick(item, positions) for key, item in value.items()}
    return [value[i] for i in positions]


def _prepare(
    state: ModuleMemory, seeds: Sequence[int], device: torch.device, position: int
) -> None:
    """Lets every image start from the same memories and from random states of its own."""
    state.restore()
    seed = seeds[position]
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    if device.type == 'cuda':
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


@contextlib.contextmanager
def _scoring_mode(model: nn.Module) -> Iterator[list[nn.Module]]:
    """Makes the losses repeatable.

    No batch statistics, dropout or random batch augmentation; exact convolutions; and heads that
    ask mmengine how far the training has come (TOOD, BoxInst) hear that it is over. Yields the
    modules that are neither random nor look at the whole batch.
    """
    modes = [(module, module.training) for module in model.modules()]
    stochastic = {
        kind
        for kind in {type(module) for module, _ in modes}
        if any(_STOCHASTIC.search(base.__name__) for base in kind.__mro__)
    }
    repeatable = [module for module, _ in modes if type(module) not in stochastic]
    preprocessor = model.data_preprocessor
    augments = getattr(preprocessor, 'batch_augments', None)
    cudnn = torch.backends.cudnn
    hub = MessageHub.get_instance('per_sample_losses')
    hub.update_info_dict(dict(epoch=10**9, iter=10**9))
    try:
        for module, _ in modes:
            module.training = type(module) not in stochastic
        if augments is not None:
            preprocessor.batch_augments = nn.ModuleList(
                augment for augment in augments if type(augment).__name__ in _FIXED_AUGMENTS
            )
        with cudnn.flags(
            enabled=cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=False
        ):
            yield repeatable
    finally:
        MessageHub._instance_dict.pop('per_sample_losses')
        if augments is not None:
            preprocessor.batch_augments = augments
        for module, mode in modes:
            module.training = mode
