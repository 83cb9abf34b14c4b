"""What later releases of torch need beside OpenMMLab's code; nothing on the releases that it was made for."""

import pickle
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer


def allow_checkpoints_of_mmengine() -> None:
    """Lets ``torch.load`` read the log buffers in mmengine's checkpoints, without which no training is resumed.

    Since torch 2.6 it takes nothing but tensors and plain data unless it is told what else is safe.
    """
    if not hasattr(torch.serialization, 'add_safe_globals'):
        return
    rebuild = {'_reconstruct': np.empty(0).__reduce__()[0], 'scalar': np.float64().__reduce__()[0]}
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            np.ndarray,
            np.dtype,
            *{type(np.dtype(code)) for code in np.typecodes['AllFloat'] + 'bilq?'},
            *(
                (function, f'numpy.{core}.multiarray.{name}')
                for name, function in rebuild.items()
                for core in ('core', '_core')
            ),
            *((_method_of_buffer, f'{module}.getattr') for module in ('builtins', '__builtin__')),
        ]
    )


def _method_of_buffer(owner: Any, name: str) -> Any:
    """``getattr`` for what mmengine needs it for: the statistics of a log buffer."""
    if owner is not HistoryBuffer or name.startswith('_'):
        raise pickle.UnpicklingError(f'attribute {name} of {owner!r} in a checkpoint')
    return getattr(owner, name)
