"""Reading checkpoints without running code from them, and detectors that carry their weights."""

import copy
import pickle
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from ..base.errors import UserError

_TENSOR_BUILDERS = {
    ('collections', 'OrderedDict'),
    ('torch._utils', '_rebuild_tensor_v2'),
    ('torch._utils', '_rebuild_parameter'),
    ('torch', 'Size'),
    ('torch', 'device'),
}


class _Inert:
    """Takes the place of every object in a checkpoint that is no tensor: it swallows its state."""

    def __new__(cls, *args: Any, **kwargs: Any) -> '_Inert':
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, value: Any) -> None: ...

    def extend(self, values: Any) -> None: ...


class _TensorUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _TENSOR_BUILDERS:
            return super().find_class(module, name)
        if module == 'torch' and isinstance(getattr(torch, name), torch.dtype):
            return super().find_class(module, name)
        return _Inert


def _load_tensor_pickle(file: Any, **options: Any) -> Any:
    return _TensorUnpickler(file, **options).load()


# What torch.load needs of a pickle module.
_tensor_pickle: Any = SimpleNamespace(
    __name__='tensor_pickle', Unpickler=_TensorUnpickler, load=_load_tensor_pickle
)


def load_tensors(path: str | Path) -> Any:
    """Reads a checkpoint onto the CPU: only its tensors, numbers, texts, lists and dicts."""
    return torch.load(
        path,
        map_location='cpu',
        pickle_module=_tensor_pickle,
        weights_only=False,
    )


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint's ``state_dict``; nothing else in it is imported or run.

    Raises:
        UserError: the file cannot be read or holds no weights.
    """
    try:
        checkpoint = load_tensors(path)
    except FileNotFoundError as error:
        raise UserError(
            f"the proxy's checkpoint {path} does not exist: give the path of a local file"
        ) from error
    except Exception as error:
        raise UserError(
            f"the proxy's checkpoint {path} cannot be read: {type(error).__name__}: {error}"
        ) from error

    entries = checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, dict) else {}
    weights = {}
    for key, value in entries.items():
        if isinstance(value, Tensor):
            weights[key.removeprefix('module.')] = value

    if not weights:
        raise UserError(f"the proxy's checkpoint {path} holds no weights: it needs a 'state_dict'")
    return weights


def load_detector(config: Config, checkpoint: str | Path) -> nn.Module:
    """Builds the detector of a config with the weights of a checkpoint, on the GPU if there is one.

    Args:
        config: from ``proxy_config``.
        checkpoint: a local file.

    Raises:
        UserError: the checkpoint cannot be read or does not fit the detector.
    """
    model = build_detector(config)
    fill_detector(model, checkpoint)
    return model


def build_detector(config: Config) -> nn.Module:
    """The untrained detector of a config, in evaluation mode, on the GPU if there is one."""
    scope = config.get('default_scope', 'mmdet')
    # Models take their configs apart.
    model_config = copy.deepcopy(config.model)
    with DefaultScope.overwrite_default_scope(scope):
        model: nn.Module = MODELS.build(model_config)
    model.to(get_device())
    return model.eval()


def fill_detector(model: nn.Module, checkpoint: str | Path) -> None:
    """Gives a detector the weights of a checkpoint.

    Raises:
        UserError: the checkpoint cannot be read or does not fit the detector.
    """
    weights = load_weights(checkpoint)
    missing = []
    for key, value in model.state_dict().items():
        if key in weights:
            fits = weights[key].shape == value.shape
        else:
            fits = key.endswith('num_batches_tracked')

        if not fits:
            missing.append(f'{key} {tuple(value.shape)}')

    if missing:
        raise UserError(
            f'the checkpoint {checkpoint} does not fit the proxy {type(model).__name__}: '
            f'{len(missing)} weights are missing or have another shape, first {missing[0]}; name '
            'the config that it was trained with, and train it on the same classes'
        )

    model.load_state_dict(OrderedDict(weights), strict=False)
