"""Criteria that are asked for the elements of their losses, beside what is trained on."""

import contextlib
import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..base.errors import UserError
from .isolation import ModuleMemory, keep_random_states


class Criterion:
    """A criterion, and its ``forward`` without what is put in its place during a step."""

    def __init__(self, module: Any, forward: Callable[..., Any]) -> None:
        self.module = module
        self.forward = forward

    def elements(self, *args: Any, **kwargs: Any) -> Tensor:
        """The losses before they are added up, (n, ...)."""
        kind: Any = type(self.module)
        if _takes_override(kind):
            kwargs['reduction_override'] = 'none'
            return self.forward(*args, **kwargs)

        before = self.module.reduction
        self.module.reduction = 'none'
        try:
            return self.forward(*args, **kwargs)
        finally:
            self.module.reduction = before

    @torch.no_grad()
    def aside(self, call: Callable[..., Tensor], args: Any, kwargs: Any) -> Tensor:
        """What a call returns, with no trace in the criterion, its arguments or random states."""
        memory = ModuleMemory(self.module.modules())
        with kept_random_states(args):
            result = call(*copied(args), **copied(kwargs))
        memory.restore()
        return result

    def slopes(self, args: Any, kwargs: Any) -> tuple[Tensor, Tensor] | None:
        """The derivatives of the value, and of sum of elements times value / sum, by the input.

        Returns:
            None where these have none, as where no element has a weight.

        Raises:
            Exception: the criterion yields no elements.
        """
        memory = ModuleMemory(self.module.modules())
        value, value_leaf = _with_leaf(self.forward, args, kwargs)
        memory.restore()
        if len(value_leaf) == 0:
            return None
        elements, elements_leaf = _with_leaf(self.elements, args, kwargs)
        memory.restore()
        # Of shape () or, where it was divided by a tensor, (1,).
        if value.numel() != 1:
            raise ValueError('a criterion that does not reduce its elements')
        if elements.dim() == 0 and not bool(value.any()):
            return None
        if elements.dim() == 0 or len(elements) != len(value_leaf):
            raise ValueError('a criterion without an element for each prediction')
        total = elements.float().sum()
        if not value.requires_grad or not bool(total != 0):
            return None
        whole = _derivative(value.sum(), value_leaf)
        parts = _derivative(total, elements_leaf)
        if whole is None or parts is None:
            return None
        scale = value.detach().float().sum() / total.detach()

        return whole.float(), parts.float() * scale


def _with_leaf(call: Callable[..., Tensor], args: Any, kwargs: Any) -> tuple[Tensor, Tensor]:
    """What a call returns for a first argument that begins a graph, and that argument."""
    prediction, *others = args
    with kept_random_states(args), torch.enable_grad():
        leaf = prediction.detach().clone().requires_grad_()
        # Some criteria write into what they are given.
        value = call(leaf.clone(), *copied(others), **copied(kwargs))
    return value, leaf


def _derivative(value: Tensor, leaf: Tensor) -> Tensor | None:
    gradients: Any = torch.autograd.grad(value, leaf, allow_unused=True)
    derivative: Tensor | None = gradients[0]
    return derivative


@functools.cache
def _takes_override(kind: Any) -> bool:
    """Whether criteria of a class take ``reduction_override``, as OpenMMLab's do."""
    parameters = inspect.signature(kind.forward).parameters
    return 'reduction_override' in parameters


def gives_elements(criterion: Any) -> bool:
    """Whether a criterion can be asked for its elements; what it answers is looked at later."""
    if not isinstance(criterion, nn.Module):
        return False
    kind: Any = type(criterion)
    if _takes_override(kind):
        return True
    reduction = getattr(criterion, 'reduction', None)
    return reduction in ('mean', 'sum')


def kept_random_states(args: Any) -> contextlib.AbstractContextManager[None]:
    """Inside, random numbers leave no trace, on the CPU and where tensors among ``args`` are."""
    devices = set()
    for value in args:
        if isinstance(value, Tensor) and value.is_cuda:
            devices.add(value.device)
    return keep_random_states(devices)


def copied(value: Any) -> Any:
    """A copy of nested lists, tuples and dicts, whose tensors have no gradients.

    Raises:
        UserError: something else in them holds tensors with gradients, such as sparse ones.
    """
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(copied(item) for item in value)
    try:
        return copy.deepcopy(value)
    except RuntimeError:
        raise UserError(
            f'{type(value).__name__} has gradients and cannot be copied; use a batch size of 1'
        ) from None
