"""Image features: decoding, embedders, and the stage that runs them over all images."""

from ..images import BadImage
from ..pool import choose_views
from .baselines import Glance, PixelEmbedder, RandomEmbedder
from .decode import Transform, decode, plain_decode
from .embedder import Embedder, ImageEmbedder, ImageEncoder
from .extract import feature_shards, refuse_bad_images
from .open_clip import OpenCLIPEmbedder
from .timm import OfflineEmbedder, TimmEmbedder

__all__ = [
    'BadImage',
    'Embedder',
    'Glance',
    'ImageEmbedder',
    'ImageEncoder',
    'OfflineEmbedder',
    'OpenCLIPEmbedder',
    'PixelEmbedder',
    'RandomEmbedder',
    'TimmEmbedder',
    'Transform',
    'choose_views',
    'decode',
    'feature_shards',
    'plain_decode',
    'refuse_bad_images',
]
