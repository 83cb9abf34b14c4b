"""A second training inside a process leaves no trace: what mmengine sets globally is put back."""

import contextlib
import copy
import random
import types
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
from mmengine.utils import ManagerMixin
from torch import Tensor, nn

from ..base.cpu import keep_freed_pages

# mmengine's own wrapper asks for the GPU of each process.
WRAPPER_WITHOUT_GPU = dict(
    type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False
)
# What a module keeps for itself by a plain attribute, and may change while it runs.
_VALUES = (bool, int, float, complex, str, tuple, type(None))
_CONTAINERS = (list, dict, set, deque, np.ndarray)
_REMEMBERED = (*_VALUES, *_CONTAINERS)
# PyTorch's own.
_INTERNAL = frozenset(vars(nn.Module()))
_Attributes = dict[str, Any]
# Written while a layer trains, without a new version of the tensor.
_STATISTICS = ('running_mean', 'running_var')


@contextlib.contextmanager
def isolated(log_file: str | Path, hide_group: bool = True) -> Iterator[None]:
    """Inside, an mmengine Runner is alone; afterwards the process is as it was.

    Put back are the random states, the "current" instances (logger, message hub, visualizer,
    default scope), cuDNN's flags, OpenCV's threads and the start method of processes. Standard
    output goes to a file, and freed memory is kept for the next batch (see ``keep_freed_pages``).

    Args:
        log_file: where standard output is appended.
        hide_group: whether a process group is not to be seen, so that one process can train while
            the others do something else.
    """
    Path(log_file).parent.mkdir(parents=True, exist_ok=True)
    cudnn = torch.backends.cudnn
    benchmark, deterministic = cudnn.benchmark, cudnn.deterministic
    strict = torch.are_deterministic_algorithms_enabled()
    threads = cv2.getNumThreads()
    method = torch.multiprocessing.get_start_method(allow_none=True)
    try:
        with (
            keep_random_states(range(torch.cuda.device_count())),
            _current_instances(),
            keep_freed_pages(),
            hidden_group() if hide_group else contextlib.nullcontext(),
            open(log_file, 'a', encoding='utf-8') as log,
            contextlib.redirect_stdout(log),
        ):
            yield
    finally:
        cudnn.benchmark, cudnn.deterministic = benchmark, deterministic
        torch.use_deterministic_algorithms(strict)
        cv2.setNumThreads(threads)
        torch.multiprocessing.set_start_method(method, force=True)


def hidden_group() -> contextlib.AbstractContextManager[None]:
    """Inside, no process group is to be seen."""
    return patched(torch.distributed, 'is_initialized', lambda: False)


@contextlib.contextmanager
def keep_random_states(devices: Any = ()) -> Iterator[None]:
    """Random states of Python, NumPy, PyTorch and of CUDA ``devices`` are put back afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def random_states() -> dict[str, Any]:
    """The states of Python, NumPy, PyTorch and CUDA, as tensors and plain numbers."""
    _, keys, position, has_gauss, gauss = cast(Any, np.random.get_state())
    numpy = (
        torch.from_numpy(keys.astype(np.int64)),
        int(position),
        int(has_gauss),
        float(gauss),
    )
    cuda = []
    if torch.cuda.is_available():
        cuda = torch.cuda.get_rng_state_all()
    return dict(
        python=random.getstate(),
        torch=torch.get_rng_state(),
        cuda=cuda,
        numpy=numpy,
    )


def set_random_states(states: dict[str, Any]) -> None:
    """Puts back what ``random_states`` returned."""
    random.setstate(states['python'])
    torch.set_rng_state(states['torch'].cpu())
    cuda = states['cuda']
    if cuda and torch.cuda.is_available():
        devices = [state.cpu() for state in cuda]
        torch.cuda.set_rng_state_all(devices)

    keys, *others = states['numpy']
    keys = keys.cpu().numpy()
    keys = keys.astype(np.uint32)
    np.random.set_state(('MT19937', keys, *others))


class ModuleMemory:
    """What modules remember between calls, put back by ``restore``.

    Class counts, IoU histories and counters are examples. Taken are buffers, and plain attributes:
    numbers, tensors, and lists, dicts, sets and arrays with the items that they hold; also those of
    assigners and other plain objects that a module has.

    Args:
        modules: each for itself; what their submodules remember is not taken along.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._tensors: list[_SavedTensor] = []
        self._containers: list[tuple[_Attributes, str, Any, Any]] = []
        self._values: list[tuple[_Attributes, str, Any]] = []
        self._names: list[tuple[_Attributes, set[str]]] = []
        self._statistics: list[tuple[nn.Module, Tensor, Tensor]] = []
        for module in modules:
            self._take(module)
        for saved in self._tensors:
            saved.version = saved.tensor._version

    def _take(self, module: nn.Module) -> None:
        attributes = vars(module)
        buffers = cast(_Attributes, module._buffers)
        self._take_attributes(buffers)
        self._take_attributes(attributes)
        for value in list(attributes.values()):
            if _is_helper(value):
                self._take_attributes(vars(value))

        for name in _STATISTICS:
            tensor = buffers.get(name)
            if tensor is not None:
                values = tensor.detach().clone()
                self._statistics.append((module, tensor, values))

    def _take_attributes(self, owner: _Attributes) -> None:
        for name, value in owner.items():
            if name in _INTERNAL:
                continue
            if isinstance(value, Tensor):
                values = value.detach().clone()
                self._tensors.append(_SavedTensor(owner, name, value, values))
            elif type(value) in _CONTAINERS:
                items = copy.copy(value)
                self._containers.append((owner, name, value, items))
            elif type(value) in _VALUES:
                self._values.append((owner, name, value))

        self._names.append((owner, set(owner)))

    def _take_statistics(self, module: nn.Module) -> None:
        for name in _STATISTICS:
            tensor = module._buffers.get(name)
            if tensor is not None:
                self._statistics.append((module, tensor, tensor.detach().clone()))

    @torch.no_grad()
    def restore(self) -> None:
        """May be called again and again; attributes that have come in since are gone afterwards."""
        for owner, names in self._names:
            _remove_others(owner, names)
        for saved in self._tensors:
            saved.restore()
        for owner, name, container, items in self._containers:
            _refill(container, items)
            owner[name] = container

        for owner, name, value in self._values:
            owner[name] = value
        for module, tensor, statistics in self._statistics:
            if module.training:
                # The backward pass of a layer that trains does not look at them.
                tensor.data.copy_(statistics)


@dataclass
class _SavedTensor:
    """A tensor among its owner's attributes, its values, and its version when it had them."""

    owner: _Attributes
    name: str
    tensor: Tensor
    values: Tensor
    version: int = 0

    def restore(self) -> None:
        tensor = self.tensor
        if tensor._version != self.version:
            tensor.copy_(self.values)
            self.version = tensor._version
        self.owner[self.name] = tensor


def _remove_others(owner: _Attributes, names: set[str]) -> None:
    """Removes the attributes that a module keeps for itself, except some."""
    for name in owner.keys() - names:
        if isinstance(owner[name], (Tensor, *_REMEMBERED)):
            del owner[name]


def _is_helper(value: Any) -> bool:
    """Whether an attribute of a module is an object with plain attributes, such as an assigner."""
    if isinstance(value, (Tensor, types.ModuleType, *_REMEMBERED)):
        return False
    if callable(value):
        return False
    attributes = getattr(value, '__dict__', None)
    return isinstance(attributes, dict)


def _refill(container: Any, items: Any) -> None:
    if isinstance(container, np.ndarray):
        container[...] = items
        return
    container.clear()
    if isinstance(container, (list, deque)):
        container.extend(items)
    else:
        container.update(items)


@contextlib.contextmanager
def patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Sets a plain attribute of one object for a while."""
    attributes = vars(owner)
    missing = name not in attributes
    old = attributes.get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if missing:
            delattr(owner, name)
        else:
            setattr(owner, name, old)


@contextlib.contextmanager
def _current_instances() -> Iterator[None]:
    saved = {kind: dict(kind._instance_dict) for kind in _subclasses(ManagerMixin)}
    try:
        yield
    finally:
        for kind in _subclasses(ManagerMixin):
            before = saved.get(kind, {})
            for name, instance in kind._instance_dict.items():
                if name not in before:
                    _close_handlers(instance)

            kind._instance_dict.clear()
            kind._instance_dict.update(before)


def _close_handlers(instance: Any) -> None:
    """Closes the files of a logger."""
    for handler in getattr(instance, 'handlers', ()):
        handler.close()


def _subclasses(kind: Any) -> Iterator[Any]:
    for child in kind.__subclasses__():
        yield child
        yield from _subclasses(child)
