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
from collections.abc import Iterator, Sequence
from typing import Any, Literal, overload

import numpy as np
import torch
from mmengine.logging import MessageHub
from mmengine.model import is_model_wrapper
from torch import Tensor, nn

from ..base.errors import UserError
from .batches import pick_samples
from .by_image import forward_losses_per_image
from .isolation import ModuleMemory, keep_random_states

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
    """The loss that each sample of a batch would have alone: without batch mates and dropout.

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
    divisor = getattr(model.data_preprocessor, 'pad_size_divisor', 1)
    seeds = [sample_seed(seed, sample) for sample in samples]
    parts: dict[int, dict[str, Tensor]] = {}
    with torch.no_grad(), _repeatable(model, device) as memory:
        for group in _groups(inputs, len(samples), divisor):
            group_seeds = [seeds[i] for i in group]
            prepare = functools.partial(_prepare, memory, group_seeds, device)
            data = _preprocessed(model, inputs, samples, group)
            losses = forward_losses_per_image(
                model,
                data['inputs'],
                data['data_samples'],
                before_image=prepare,
            )
            for i, image_losses in zip(group, losses, strict=True):
                parts[i] = loss_components(model, image_losses)

    table = _component_table([parts[i] for i in range(len(samples))], device)
    total = sum(table.values(), torch.zeros(len(samples), device=device))
    _check_finite(model, total, samples)
    if components:
        return total, table
    return total


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
    zero = torch.zeros((), device=device)
    norms = []
    with (
        torch.enable_grad(),
        _only_gradients_of(model, parameters),
        _repeatable(model, device) as memory,
    ):
        for i, sample in enumerate(samples):
            raw = dict(
                inputs=pick_samples(inputs, [i]),
                data_samples=[copy.deepcopy(sample)],
            )
            data = model.data_preprocessor(raw, training=True)
            prepare = functools.partial(_prepare, memory, [sample_seed(seed, sample)], device)
            [losses] = forward_losses_per_image(
                model,
                data['inputs'],
                data['data_samples'],
                before_image=prepare,
            )
            components = loss_components(model, losses)
            total = sum(components.values(), zero)
            norms.append(_gradient_norm(model, total, parameters))

    return torch.stack(norms)


def _gradient_norm(model: nn.Module, loss: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
    """The norm of a loss's gradient, () float64 on the CPU."""
    if not loss.requires_grad:
        raise UserError(
            f'{type(model).__name__}: its loss does not depend on the parameters whose gradients '
            'are asked for'
        )

    gradients = torch.autograd.grad(loss, list(parameters), allow_unused=True)
    squares = []
    for gradient in gradients:
        if gradient is not None:
            squares.append(gradient.double().square().sum())

    norm = torch.stack(squares).sum().sqrt()

    return norm.cpu()


@contextlib.contextmanager
def _only_gradients_of(model: nn.Module, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Inside, no other parameter requires gradients, so that no more than needed is kept."""
    wanted = {id(parameter) for parameter in parameters}
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(id(parameter) in wanted)
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def _preprocessed(
    model: nn.Module, inputs: Any, samples: Sequence[Any], positions: list[int]
) -> dict[str, Any]:
    """Some samples of a batch as the data preprocessor hands them to the detector."""
    raw = dict(
        inputs=pick_samples(inputs, positions),
        data_samples=[samples[i] for i in positions],
    )
    preprocessor: Any = model.data_preprocessor
    # It makes new data samples, but batch augmentations write into the boxes of the old ones.
    if getattr(preprocessor, 'batch_augments', None):
        raw = copy.deepcopy(raw)
    data: dict[str, Any] = preprocessor(raw, training=True)

    return data


def loss_components(model: nn.Module, losses: dict[str, Any]) -> dict[str, Tensor]:
    """The scalar entries of a loss dict that the detector's ``parse_losses`` adds up."""
    _, entries = model.parse_losses(losses)
    components = {}
    for name in losses:
        if 'loss' in name:
            components[name] = entries[name]
    return components


def _component_table(parts: Sequence[dict[str, Tensor]], device: torch.device) -> dict[str, Tensor]:
    """The parts of the samples' losses, (B,) float32 each; one that a sample does not have is 0."""
    zero = torch.zeros((), device=device)
    names = dict.fromkeys(name for part in parts for name in part)
    table = {}
    for name in names:
        values = [part.get(name, zero).float() for part in parts]
        table[name] = torch.stack(values)
    return table


def _check_finite(model: nn.Module, losses: Tensor, samples: Sequence[Any]) -> None:
    finite = losses.isfinite()
    if bool(finite.all()):
        return
    first = int(finite.logical_not().nonzero()[0])
    raise UserError(
        f'{type(model).__name__}: the loss of sample {_identity(samples[first])!r} is not finite; '
        'train the detector with a lower learning rate, or look for broken boxes in the '
        'annotations'
    )


def sample_seed(seed: int, data_sample: Any) -> int:
    """The seed of a sample's random choices, below 2^32: a hash of ``seed`` and the sample's id."""
    identity = _identity(data_sample)
    text = f'{seed}:{identity}'
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:4], 'little')


def _identity(data_sample: Any) -> Any:
    for key in _ID_KEYS:
        identity = data_sample.get(key)
        if identity is not None:
            return identity
    return None


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
                'or MMDetection3D detector'
            )

    samples = batch.get('data_samples') if isinstance(batch, dict) else None
    if not isinstance(samples, (list, tuple)) or not samples or 'inputs' not in batch:
        raise UserError(
            f"{name}: a batch must be a dict with 'inputs' and a list 'data_samples' as a training "
            'dataloader yields it'
        )

    return batch['inputs'], list(samples)


def _are_images(inputs: Any) -> bool:
    """Whether the inputs are a sequence of image tensors, not a dict as of 3D detectors."""
    if isinstance(inputs, dict):
        return False
    return all(isinstance(image, Tensor) for image in inputs)


def _groups(inputs: Any, size: int, divisor: int) -> list[list[int]]:
    """Positions of the samples that may share a forward pass: images of one padded shape."""
    if not _are_images(inputs):
        return [[i] for i in range(size)]

    groups: dict[tuple[int, ...], list[int]] = {}
    for i, image in enumerate(inputs):
        *others, height, width = image.shape
        rows = math.ceil(height / divisor)
        columns = math.ceil(width / divisor)
        padded = (*others, rows, columns)
        groups.setdefault(padded, []).append(i)

    return list(groups.values())


def _prepare(
    memory: ModuleMemory, seeds: Sequence[int], device: torch.device, position: int
) -> None:
    """Lets every image start from the same memories and from random states of its own."""
    memory.restore()
    seed = seeds[position]
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    if device.type == 'cuda':
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


@contextlib.contextmanager
def _repeatable(model: nn.Module, device: torch.device) -> Iterator[ModuleMemory]:
    """Inside, losses depend on nothing but the sample; afterwards no trace of them is left.

    Yields what the modules that are neither random nor look at the whole batch remember.
    """
    devices = [device] if device.type == 'cuda' else []
    with keep_random_states(devices), _scoring_mode(model) as deterministic:
        memory = ModuleMemory(deterministic)
        yield memory
        memory.restore()


@contextlib.contextmanager
def _scoring_mode(model: nn.Module) -> Iterator[list[nn.Module]]:
    """Makes the losses repeatable.

    No batch statistics, dropout or random batch augmentation; exact convolutions; and heads that
    ask mmengine how far the training has come (TOOD, BoxInst) hear that it is over. Yields the
    modules that are neither random nor look at the whole batch.
    """
    modes = [(module, module.training) for module in model.modules()]
    deterministic = [module for module, _ in modes if not _is_stochastic(module)]
    cudnn = torch.backends.cudnn
    hub = MessageHub.get_instance('per_sample_losses')
    hub.update_info_dict(dict(epoch=10**9, iter=10**9))
    try:
        for module, _ in modes:
            module.training = False
        for module in deterministic:
            module.training = True
        with (
            _fixed_augments(model.data_preprocessor),
            cudnn.flags(
                enabled=cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=False
            ),
        ):
            yield deterministic
    finally:
        MessageHub._instance_dict.pop('per_sample_losses')
        for module, mode in modes:
            module.training = mode


def _is_stochastic(layer: nn.Module) -> bool:
    """Whether a layer is random in training mode, or looks at the whole batch."""
    names = [base.__name__ for base in type(layer).__mro__]
    return any(_STOCHASTIC.search(name) for name in names)


@contextlib.contextmanager
def _fixed_augments(preprocessor: Any) -> Iterator[None]:
    """Inside, a data preprocessor augments nothing at random."""
    augments = getattr(preprocessor, 'batch_augments', None)
    if augments is None:
        yield
        return

    fixed = [augment for augment in augments if type(augment).__name__ in _FIXED_AUGMENTS]
    preprocessor.batch_augments = nn.ModuleList(fixed)
    try:
        yield
    finally:
        preprocessor.batch_augments = augments
