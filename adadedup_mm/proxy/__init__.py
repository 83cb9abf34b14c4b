"""The proxy detector: its training and its per-sample losses."""

from ..detectors.by_image import forward_losses_per_image
from ..detectors.config import proxy_config
from ..detectors.losses import per_sample_losses
from .score import loss_shards
from .train import train_proxy

__all__ = [
    'forward_losses_per_image',
    'loss_shards',
    'per_sample_losses',
    'proxy_config',
    'train_proxy',
]
