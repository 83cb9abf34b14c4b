"""What later releases of torch need beside OpenMMLab's code."""

import pickle
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer


def allow_checkpoints_of_mmengine() -> None:
    """Lets ``torch.load`` read the log buffers in mmengine's checkpoints, as resuming does.

    Since torch 2.6 it takes nothing but tensors and plain data unless it is told what else is safe.
    """
    if not hasattr(torch.serialization, 'add_safe_globals'):
        return

    safe: list[Any] = [HistoryBuffer, np.ndarray, np.dtype]
    safe += {type(np.dtype(code)) for code in np.typecodes['AllFloat'] + 'bilq?'}
    # The modules have moved between versions of numpy and Python.
    for core in ('core', '_core'):
        module = f'numpy.{core}.multiarray'
        safe.append((np.empty(0).__reduce__()[0], f'{module}._reconstruct'))
        safe.append((np.float64().__reduce__()[0], f'{module}.scalar'))

    for module in ('builtins', '__builtin__'):
        safe.append((_method_of_buffer, f'{module}.getattr'))

    torch.serialization.add_safe_globals(safe)


def _method_of_buffer(owner: Any, name: str) -> Any:
    """``getattr`` for what mmengine needs it for: the statistics of a log buffer."""
    is_private = name.startswith('_')
    if owner is not HistoryBuffer or is_private:
        raise pickle.UnpicklingError(f'attribute {name} of {owner!r} in a checkpoint')
    return getattr(owner, name)
