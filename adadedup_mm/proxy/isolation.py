"""Running a second training inside a process without a trace: what mmengine sets globally is put back."""

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.utils import ManagerMixin

from ..features.cpu import keep_freed_pages


@contextlib.contextmanager
def isolated(log_file: str | Path, hide_group: bool = True) -> Iterator[None]:
    """Inside, an mmengine Runner is alone; afterwards the process is as it was.

    Put back are the random states, the "current" instances (logger, message hub, visualizer, default scope), cuDNN's
    flags, OpenCV's threads and the start method of processes. Standard output goes to a file, and freed memory is kept
    for the next batch (see ``keep_freed_pages``).

    Args:
        log_file: where standard output is appended.
        hide_group: whether a process group is not to be seen, so that one process can train while the others do
            something else.
    """
    Path(log_file).parent.mkdir(parents=True, exist_ok=True)
    cudnn = torch.backends.cudnn
    flags = cudnn.benchmark, cudnn.deterministic
    strict = torch.are_deterministic_algorithms_enabled()
    threads, method = cv2.getNumThreads(), torch.multiprocessing.get_start_method(allow_none=True)
    try:
        with (keep_random_states(range(torch.cuda.device_count())), _current_instances(), keep_freed_pages(),
              patched(torch.distributed, 'is_initialized', lambda: False) if hide_group else contextlib.nullcontext(),
              open(log_file, 'a', encoding='utf-8') as log, contextlib.redirect_stdout(log)):
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
