"""Running a second training inside a process without a trace: what mmengine sets globally is put back."""

import contextlib
import copy
import random
import types
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
from mmengine.utils import ManagerMixin
from torch import Tensor, nn

from ..features.cpu import keep_freed_pages

# What a module keeps for itself by a plain attribute, and may change while it runs.
_VALUES = (bool, int, float, complex, str, tuple, type(None))
_CONTAINERS = (list, dict, set, deque, np.ndarray)
_REMEMBERED = (*_VALUES, *_CONTAINERS)
# PyTorch's own.
_INTERNAL = frozenset(vars(nn.Module()))
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
    flags = cudnn.benchmark, cudnn.deterministic
    strict = torch.are_deterministic_algorithms_enabled()
    threads, method = cv2.getNumThreads(), torch.multiprocessing.get_start_method(allow_none=True)
    try:
        with (
            keep_random_states(range(torch.cuda.device_count())),
            _current_instances(),
            keep_freed_pages(),
            patched(torch.distributed, 'is_initialized', lambda: False)
            if hide_group
            else contextlib.nullcontext(),
            open(log_file, 'a', encoding='utf-8') as log,
            contextlib.redirect_stdout(log),
        ):
            yield
    finally:
        cudnn.benchmark, cudnn.deterministic = flags
        torch.use_deterministic_algorithms(strict)
        cv2.setNumThreads(threads)
        torch.multiprocessing.set_start_method(method, force=True)


@contextlib.contextmanager
def keep_random_states(devices: Any = ()) -> Iterator[None]:
    """Random states of Python, NumPy, PyTorch and of CUDA ``devices`` are afterwards what they were before."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def random_states() -> dict[str, Any]:
    """The states of Python, NumPy, PyTorch and CUDA, as tensors and plain numbers, for ``set_random_states``."""
    _, keys, position, has_gauss, gauss = cast(Any, np.random.get_state())
    return dict(
        python=random.getstate(),
        torch=torch.get_rng_state(),
        cuda=torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        numpy=(
            torch.from_numpy(keys.astype(np.int64)),
            int(position),
            int(has_gauss),
            float(gauss),
        ),
    )


def set_random_states(states: dict[str, Any]) -> None:
    """Puts back what ``random_states`` returned."""
    random.setstate(states['python'])
    torch.set_rng_state(states['torch'].cpu())
    if states['cuda'] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([state.cpu() for state in states['cuda']])
    keys, *rest = states['numpy']
    np.random.set_state(('MT19937', keys.cpu().numpy().astype(np.uint32), *rest))


class ModuleMemory:
    """What modules remember between calls (class counts, IoU histories, counters), put back by ``restore``.

    Buffers, and plain attributes: numbers, tensors, and lists, dicts, sets and arrays with the
    items that they hold; also those of assigners and other plain objects that a module has.

    Args:
        modules: each for itself; what their submodules remember is not taken along.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._tensors: list[tuple[dict[str, Any], str, Tensor, Tensor]] = []
        self._containers: list[tuple[dict[str, Any], str, Any, Any]] = []
        self._values: list[tuple[dict[str, Any], str, Any]] = []
        self._names: list[tuple[dict[str, Any], set[str]]] = []
        self._statistics: list[tuple[nn.Module, Tensor, Tensor]] = []
        for module in modules:
            self._take(cast(dict[str, Any], module._buffers))
            self._take(vars(module))
            for helper in filter(_is_helper, list(vars(module).values())):
                self._take(vars(helper))
            for name in _STATISTICS:
                tensor = module._buffers.get(name)
                if tensor is not None:
                    self._statistics.append((module, tensor, tensor.detach().clone()))
        self._versions = [tensor._version for _, _, tensor, _ in self._tensors]

    def _take(self, owner: dict[str, Any]) -> None:
        for name, value in owner.items():
            if name in _INTERNAL:
                continue
            if isinstance(value, Tensor):
                self._tensors.append((owner, name, value, value.detach().clone()))
            elif type(value) in _CONTAINERS:
                self._containers.append((owner, name, value, copy.copy(value)))
            elif type(value) in _VALUES:
                self._values.append((owner, name, value))
        self._names.append((owner, set(owner)))

    @torch.no_grad()
    def restore(self) -> None:
        """May be called again and again; attributes that have come in since are gone afterwards."""
        for owner, names in self._names:
            for name in owner.keys() - names:
                if isinstance(owner[name], (Tensor, *_REMEMBERED)):
                    del owner[name]
        for i, (owner, name, tensor, saved) in enumerate(self._tensors):
            if tensor._version != self._versions[i]:
                tensor.copy_(saved)
                self._versions[i] = tensor._version
            owner[name] = tensor
        for owner, name, container, items in self._containers:
            _refill(container, items)
            owner[name] = container
        for owner, name, value in self._values:
            owner[name] = value
        for module, tensor, saved in self._statistics:
            if module.training:
                # The backward pass of a layer that trains does not look at them.
                tensor.data.copy_(saved)


def _is_helper(value: Any) -> bool:
    """Whether an attribute of a module is an object with plain attributes, such as an assigner."""
    known = isinstance(value, (Tensor, types.ModuleType, *_REMEMBERED))
    return not known and not callable(value) and isinstance(getattr(value, '__dict__', None), dict)


def _refill(container: Any, items: Any) -> None:
    if isinstance(container, np.ndarray):
        container[...] = items
        return
    container.clear()
    add = container.extend if isinstance(container, (list, deque)) else container.update
    add(items)


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
            old = saved.get(kind, {})
            for name in kind._instance_dict.keys() - old.keys():
                for handler in getattr(kind._instance_dict[name], 'handlers', ()):
                    handler.close()
            kind._instance_dict.clear()
            kind._instance_dict.update(old)


def _subclasses(kind: Any) -> Iterator[Any]:
    for child in kind.__subclasses__():
        yield child
        yield from _subclasses(child)
