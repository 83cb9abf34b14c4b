"""What all embedders share: options, the device, and batches in, unit vectors out."""

import contextlib
import dataclasses
import functools
import threading
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..base.checks import choose, whole
from ..base.cpu import accelerate, default_workers, has_fast_bf16
from ..base.errors import UserError
from ..base.files import sha256_file
from .decode import Transform

_DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}
OFFLINE_HINT = (
    'give a local file, or use the offline default: _base_/adadedup_offline.py in place of '
    'adadedup.py'
)


class ImageEncoder(Protocol):
    """What turns images into features.

    One attribute is optional: ``task``, in words for the progress bar.
    """

    @property
    def batch_size(self) -> int:
        """How many images ``encode`` gets at a time."""

    @property
    def workers(self) -> int:
        """How many threads decode images and call ``encode``."""

    @property
    def transform(self) -> Transform:
        """How images become its input."""

    def encode(self, images: Tensor) -> np.ndarray:
        """Computes features; called from several threads at once.

        Args:
            images: (B, 3, S, S) uint8, RGB, as ``decode`` makes them with ``transform``.

        Returns:
            (B, d) float32, unit rows; zero for an image of which nothing can be said.
        """


class ImageEmbedder(ImageEncoder, Protocol):
    """A class registered in ``EMBEDDERS``; its constructor takes the options beside ``type``."""

    @property
    def key(self) -> dict[str, Any]:
        """Everything the features depend on besides the images, as plain values.

        Finished features are used again while it stays the same.
        """

    @property
    def near_duplicate(self) -> float:
        """Similarity from which the report calls two samples near-duplicates, in [-1, 1]."""


class Embedder:
    """Turns images into features by a network, which is loaded when the first image comes.

    Subclasses say which network (``_load``) and how it is identified (``_identity``).

    Args:
        precision: ``'fp32'``, ``'bf16'`` or ``'fp16'`` (GPU only) weights and activations;
            ``'auto'`` is bf16 where the processor multiplies it itself (GPUs of compute capability
            8, CPUs with AVX512_BF16 or AMX) and fp32 elsewhere, so name one if machines of several
            kinds must agree.
        batch_size: images at a time; None takes what is fast: 8 (timm) or 16 (CLIP) on a CPU, 128
            on a GPU. Changes features by rounding errors only.
        workers: threads that decode, and on a CPU also run the network; None means one per core.
        device: such as ``'cpu'`` or ``'cuda:1'``; None takes the current GPU if there is one.
        near_duplicate: similarity from which the report calls two samples near-duplicates.
        median: side of a median filter over the images, 3 or 5; 0 for none. For datasets with noisy
            copies of their images, as augmenting exports have them: single wrong pixels push the
            features of copies apart.

    Attributes:
        key: everything the features depend on besides the images, as plain values.

    Raises:
        UserError: an option is wrong, or a local file is missing.
    """

    _cpu_batch_size = 16

    def __init__(
        self,
        precision: str,
        batch_size: int | None,
        workers: int | None,
        device: str | None,
        near_duplicate: float,
        median: int,
    ) -> None:
        self.device = _device(device)
        on_gpu = self.device.type == 'cuda'
        choose(precision, ('auto', *_DTYPES), 'adadedup.embedder.precision')
        if precision == 'fp16' and not on_gpu:
            raise UserError(
                "adadedup.embedder.precision is 'fp16', which needs a GPU: use 'bf16' or 'fp32' on "
                'a CPU'
            )

        if precision == 'auto':
            precision = 'bf16' if _multiplies_bf16(self.device) else 'fp32'
        self.precision = precision
        usual_batch_size = 128 if on_gpu else self._cpu_batch_size
        self.batch_size = at_least_one('batch_size', batch_size, usual_batch_size)
        self.workers = at_least_one('workers', workers, default_workers())
        self.near_duplicate = near_duplicate
        if not isinstance(median, int) or isinstance(median, bool) or median not in (0, 3, 5):
            raise UserError(f'adadedup.embedder.median is {median!r}, but must be 0, 3 or 5')
        self.median = median
        # Threads share a GPU one after the other: each batch fills it, and two would need twice the
        # memory.
        self._turn: contextlib.AbstractContextManager[Any] = (
            threading.Lock() if on_gpu else contextlib.nullcontext()
        )

    @functools.cached_property
    def key(self) -> dict[str, Any]:
        """See the class."""
        key = dict(
            self._identity(),
            type=type(self).__name__,
            precision=self.precision,
            version=1,
        )
        if self.median:
            key['median'] = self.median
        return key

    @property
    def transform(self) -> Transform:
        """How images become the network's input."""
        return self._network[1]

    @functools.cached_property
    def dim(self) -> int:
        """Length of a feature."""
        size = self.transform.size
        black = torch.zeros(1, 3, size, size, dtype=torch.uint8)
        return self.encode(black).shape[1]

    @torch.inference_mode()
    def encode(self, images: Tensor) -> np.ndarray:
        """Computes features.

        Args:
            images: (B, 3, S, S) uint8, RGB, from ``decode`` with this embedder's transform.

        Returns:
            (B, d) float32, unit rows.
        """
        network, transform = self._network
        with self._turn:
            mean = self._in_levels(transform.mean)
            std = self._in_levels(transform.std)
            dtype = next(network.parameters()).dtype
            inputs = images.to(self.device, torch.float32).sub_(mean).div_(std).to(dtype)
            features = network(inputs.contiguous(memory_format=torch.channels_last))
            unit = functional.normalize(features.float(), dim=1)
            return unit.cpu().numpy()

    def _in_levels(self, shares: tuple[float, ...]) -> Tensor:
        """(3, 1, 1) float32 on the device: shares of the largest value as levels of 0 to 255."""
        levels = torch.tensor(shares, device=self.device).mul_(255)
        return levels.view(3, 1, 1)

    def _identity(self) -> dict[str, Any]:
        raise NotImplementedError

    def _load(self) -> tuple[nn.Module, Transform]:
        """The network, (B, 3, S, S) -> (B, d) float32 on the CPU, and its transform."""
        raise NotImplementedError

    def _narrow(self, network: nn.Module, dtype: torch.dtype) -> None:
        """Converts the network to a precision below float32, in place."""
        network.to(dtype)

    @functools.cached_property
    def _network(self) -> tuple[nn.Module, Transform]:
        network, transform = self._load()
        if self.device.type == 'cpu' and not accelerate(network.eval(), transform.size):
            network, transform = self._load()
        network.eval().requires_grad_(False).to(self.device)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.precision != 'fp32':
            self._narrow(network, _DTYPES[self.precision])
        return network, dataclasses.replace(transform, median=self.median)


def make_transform(
    size: Any, resize: int | None, squash: bool, options: Mapping[str, Any]
) -> Transform:
    """A transform from the preprocessing options of open_clip or timm.

    Raises:
        UserError: the network wants something else than square images.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise UserError(
            f'adadedup.embedder: the model wants images of {height}x{width}: choose one with '
            'square input'
        )

    interpolation = options['interpolation']
    return Transform(
        height,
        resize or height,
        squash,
        interpolation if interpolation == 'bilinear' else 'bicubic',
        tuple(options['mean']),
        tuple(options['std']),
    )


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The weights in a local file, without running code from it.

    Args:
        path: ``.safetensors``, a TorchScript archive, or a PyTorch file with a state dict, maybe
            under ``state_dict`` or ``model``.

    Raises:
        UserError: the file cannot be read, or holds anything but tensors and plain values.
    """
    try:
        if str(path).endswith('.safetensors'):
            from safetensors.torch import load_file

            return load_file(path)

        if is_torchscript(path):
            return dict(torch.jit.load(str(path), map_location='cpu').state_dict())
        with warnings.catch_warnings():
            # torch 2.1 about its own old formats
            warnings.filterwarnings('ignore', 'TypedStorage is deprecated')
            checkpoint = torch.load(path, map_location='cpu', weights_only=True)

        for name in ('state_dict', 'model'):
            checkpoint = checkpoint.get(name, checkpoint)
        weights = {}
        for name, value in checkpoint.items():
            if isinstance(value, Tensor):
                weights[name.removeprefix('module.')] = value

        return weights
    except Exception as error:  # many kinds, for many kinds of damage
        raise UserError(
            f'the weights {path} cannot be read as a plain state dict of tensors '
            f"({type(error).__name__}): save the model's state_dict with torch.save"
        ) from error


def names_that_do_not_fit(
    weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> list[str]:
    """The expected tensors that the weights lack, or have in another shape."""
    wrong = []
    for name, value in expected.items():
        if name not in weights or weights[name].shape != value.shape:
            wrong.append(name)
    return wrong


def is_torchscript(path: str | Path) -> bool:
    """Whether a file is a compiled model, as OpenAI publishes CLIP, and no dict of weights."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return False
    return any(name.endswith('/constants.pkl') for name in names)


def checkpoint_hash(path: str | Path, option: str) -> str:
    """The SHA-256 of a local weights file.

    Raises:
        UserError: there is no such file.
    """
    if not Path(path).is_file():
        raise UserError(f'adadedup.embedder.{option}: there is no file {path}')
    return sha256_file(path)


def at_least_one(name: str, value: int | None, default: int) -> int:
    """The option's value, or its default for None.

    Raises:
        UserError: the value is not a whole number of at least 1.
    """
    if value is None:
        return default
    whole(value, f'adadedup.embedder.{name}', 1)
    return value


def _multiplies_bf16(device: torch.device) -> bool:
    if device.type != 'cuda':
        return has_fast_bf16()
    generation, _ = torch.cuda.get_device_capability(device)
    return generation >= 8


def _device(name: str | None) -> torch.device:
    if name is None:
        name = 'cuda' if torch.cuda.is_available() else 'cpu'
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(
            f"adadedup.embedder.device is {name!r}, but must be 'cpu' or 'cuda', as in 'cuda:0'"
        ) from error

    if device.type != 'cuda':
        return device
    if not torch.cuda.is_available():
        raise UserError(
            f'adadedup.embedder.device is {name!r}, but torch sees no GPU: leave the option out'
        )

    # Threads start on the first GPU, so that the current one has to be named.
    index = torch.cuda.current_device() if device.index is None else device.index
    count = torch.cuda.device_count()
    if index >= count:
        raise UserError(f'adadedup.embedder.device is {name!r}, but torch sees {count} GPUs')
    return torch.device('cuda', index)
