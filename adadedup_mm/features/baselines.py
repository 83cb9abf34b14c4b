"""Features without a network, for comparison."""

import zlib
from typing import Any

import numpy as np
from torch import Tensor

from ..base.cpu import default_workers
from ..registry import EMBEDDERS
from .decode import Transform
from .embedder import at_least_one


@EMBEDDERS.register_module()
class PixelEmbedder:
    """The pixels of a small copy of the image, minus their mean.

    Args:
        size: side of the copy in pixels.
        workers: threads that decode; None means one per core.
    """

    near_duplicate = 0.99
    batch_size = 64

    def __init__(self, size: int = 16, workers: int | None = None) -> None:
        self.size = at_least_one('size', size, 16)
        self.workers = at_least_one('workers', workers, default_workers())
        self.transform = Transform(self.size, self.size, squash=True)
        self.dim = 3 * self.size**2
        self.key: dict[str, Any] = dict(
            type='PixelEmbedder',
            size=self.size,
            version=1,
        )

    def encode(self, images: Tensor) -> np.ndarray:
        """(B, 3, size, size) uint8 to (B, dim) float32 unit rows, zero for images of one colour."""
        flat = images.numpy().reshape(len(images), -1)
        pixels = flat.astype(np.float32)
        mean = pixels.mean(axis=1, keepdims=True)
        return _unit(pixels - mean)


@EMBEDDERS.register_module()
class RandomEmbedder:
    """A random direction for every image: features that know only whether two images are equal.

    Args:
        dim: length of a feature.
        seed: of the directions.
        workers: threads that decode; None means one per core.
    """

    near_duplicate = 0.999
    batch_size = 64
    transform = Transform(16, 16, squash=True)

    def __init__(self, dim: int = 64, seed: int = 0, workers: int | None = None) -> None:
        self.dim = at_least_one('dim', dim, 64)
        self.seed = seed
        self.workers = at_least_one('workers', workers, default_workers())
        self.key: dict[str, Any] = dict(
            type='RandomEmbedder',
            dim=dim,
            seed=seed,
            version=1,
        )

    def encode(self, images: Tensor) -> np.ndarray:
        """(B, 3, 16, 16) uint8 to (B, dim) float32, unit rows."""
        directions = [self._direction(image.tobytes()) for image in images.numpy()]
        return _unit(np.stack(directions))

    def _direction(self, pixels: bytes) -> np.ndarray:
        generator = np.random.default_rng([self.seed, zlib.crc32(pixels)])
        return generator.standard_normal(self.dim, np.float32)


class Glance:
    """No features: with it the features stage only finds out which images can be read.

    Args:
        workers: threads that decode; None means one per core.
    """

    batch_size = 64
    task = 'reading images'
    transform = Transform(16, 16, squash=True)

    def __init__(self, workers: int | None = None) -> None:
        self.workers = default_workers() if workers is None else workers

    def encode(self, images: Tensor) -> np.ndarray:
        """(B, 3, 16, 16) uint8 to (B, 1) float32 ones."""
        return np.ones((len(images), 1), np.float32)


def _unit(rows: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.maximum(lengths, 1e-12)
