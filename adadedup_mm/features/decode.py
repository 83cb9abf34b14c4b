"""Image file to network input, several times faster than the usual path and next to equal to it.

The usual path is what open_clip and timm do by default: decode, resize the shorter side with PIL,
crop the centre. The pixels are those that the training reads (see ``adadedup_mm.images``). Only
JPEG has a shortcut. libjpeg can decode it at 1/2, 1/4 or 1/8 of its size in less time; as long as
the decoded image is at least twice as large as the resized one, the features change very little.

EXIF orientation is ignored, as in open_clip's default: features see the pixels as they are stored,
although mmdet's loader turns them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from ..images import Reader, check_shape, check_whole, is_plain_jpeg, read_file, read_pixels

# Longer images would make the resized one, of which only the centre is used, larger than memory.
_MAX_ASPECT = 8
_RESAMPLING = dict(bicubic=Image.Resampling.BICUBIC, bilinear=Image.Resampling.BILINEAR)
# Pictures of more pixels are made smaller before PIL copies them: 64 megapixels.
_HUGE = 2**26
_USUAL = Reader()


@dataclass(frozen=True)
class Transform:
    """How an image becomes a network's input.

    It is resized, cropped to the centre, then (x / 255 - mean) / std per channel.

    Attributes:
        size: side of the square input in pixels.
        resize: length of the image's shorter side before the crop, of both sides with ``squash``;
            at least ``size``.
        squash: whether the aspect ratio is given up.
        interpolation: ``'bicubic'`` or ``'bilinear'``, antialiased.
        mean: of red, green and blue in [0, 1].
        std: likewise.
        median: side in pixels of a median filter over the image as it is stored, 3 or 5; 0 for
            none.
        reader: how the training reads image files.
    """

    size: int
    resize: int
    squash: bool = False
    interpolation: str = 'bicubic'
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    median: int = 0
    reader: Reader = _USUAL

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that an image of this height and width is resized to.

        Rounded as torchvision does.
        """
        if self.squash:
            return self.resize, self.resize
        longer = int(self.resize * max(height, width) / min(height, width))
        if height <= width:
            return self.resize, longer
        return longer, self.resize

    def corner(self, height: int, width: int) -> tuple[int, int]:
        """Top and left of the centre crop of a resized image, rounded as torchvision does."""
        top = (height - self.size) / 2
        left = (width - self.size) / 2
        return round(top), round(left)


def decode(path: str | Path, transform: Transform) -> Tensor:
    """Reads an image as a network's input, before normalisation.

    Args:
        path: a file in any format that the training reads.
        transform: of the network.

    Returns:
        (3, size, size) uint8, RGB.

    Raises:
        BadImage: the file is missing, unreadable or truncated, or of a shape that no network can
            take.
    """
    data = read_file(path)
    if is_plain_jpeg(data, transform.reader):
        image = _decode_jpeg(data, transform)
        if image is not None:
            return image
    return _decode_any(data, transform)


def plain_decode(path: str | Path, transform: Transform) -> Tensor:
    """The usual path, which ``decode`` is measured against: the same without the shortcut."""
    return _decode_any(read_file(path), transform)


def _decode_jpeg(data: bytes, transform: Transform) -> Tensor | None:
    """The shortcut; None where it would not be safe, or where PIL had better judge the damage."""
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        if max(height, width) > _MAX_ASPECT * min(height, width):
            return None
        scale = _jpeg_scale(height, width, transform)
        pixels = simplejpeg.decode_jpeg(
            data, 'RGB', min_height=int(scale * height), min_width=int(scale * width)
        )
    except ValueError:
        return None

    if transform.median:
        pixels = cv2.medianBlur(pixels, transform.median)
    new_height, new_width = transform.resized(height, width)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    options: dict[str, Any] = dict(mode=transform.interpolation, antialias=True)
    if scale == 1:
        image = functional.interpolate(image, (new_height, new_width), **options)
    else:
        # The decoder rounds sizes up, by a fraction of a pixel that a resize given by its size
        # would squeeze in. Given by its factors it does not; only rounding errors must not make it
        # a pixel smaller.
        factor_y = new_height / (scale * height) * (1 + 1e-9)
        factor_x = new_width / (scale * width) * (1 + 1e-9)
        factors = (factor_y, factor_x)
        image = functional.interpolate(image, scale_factor=factors, **options)

    top, left = transform.corner(new_height, new_width)

    return image[0, :, top : top + transform.size, left : left + transform.size]


def _jpeg_scale(height: int, width: int, transform: Transform) -> float:
    """The share of its size that an image is decoded at."""
    if transform.median:
        # In a smaller image, the noise that the filter is for is spread already.
        return 1.0
    new_height, new_width = transform.resized(height, width)
    # libjpeg also offers 3/8, 5/8, 6/8 and 7/8, but these are slower than decoding all pixels.
    for scale in (1 / 8, 1 / 4, 1 / 2):
        if scale * height >= 2 * new_height and scale * width >= 2 * new_width:
            return scale
    return 1.0


def _decode_any(data: bytes, transform: Transform) -> Tensor:
    pixels = read_pixels(data, transform.reader.as_stored())
    check_whole(data)
    height, width = pixels.shape[:2]
    check_shape(height, width, transform.reader)
    if transform.median:
        pixels = cv2.medianBlur(pixels, transform.median)
    pixels = _shrunk(pixels, transform)
    # All channels are treated alike: PIL need not know that they are blue, green and red.
    cropped = np.asarray(_crop(Image.fromarray(pixels), transform))
    rgb = cropped[..., ::-1].transpose(2, 0, 1)

    return torch.from_numpy(rgb.copy())


def _shrunk(pixels: np.ndarray, transform: Transform) -> np.ndarray:
    """A huge picture at a fraction of its size, still twice as large as the resized one or more."""
    height, width = pixels.shape[:2]
    if height * width <= _HUGE:
        return pixels
    new_height, new_width = transform.resized(height, width)
    factor = min(height // (2 * new_height), width // (2 * new_width))
    if factor < 2:
        return pixels
    return cv2.resize(pixels, (width // factor, height // factor), interpolation=cv2.INTER_AREA)


def _crop(image: Image.Image, transform: Transform) -> Image.Image:
    """Resizes and crops, as torchvision does."""
    width, height = image.size
    new_height, new_width = transform.resized(height, width)
    top, left = transform.corner(new_height, new_width)
    right, bottom = left + transform.size, top + transform.size
    resampling = _RESAMPLING[transform.interpolation]
    if max(height, width) <= _MAX_ASPECT * min(height, width):
        resized = image.resize((new_width, new_height), resampling)
        return resized.crop((left, top, right, bottom))

    # A long image is not resized as a whole: only the part that the crop shows.
    x, y = width / new_width, height / new_height
    shown = (left * x, top * y, right * x, bottom * y)

    return image.resize((transform.size, transform.size), resampling, shown)
