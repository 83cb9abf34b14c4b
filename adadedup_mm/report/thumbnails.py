"""Pictures for the page, as data URIs."""

import base64
import functools
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageOps

from ..images import Reader, is_plain_jpeg, read_file, read_pixels

# Pixels of the longer side, and quality of the WebP encoder, 0 to 100. Large pictures are mostly
# seen scaled down, which hides what a low quality does.
SIDE, QUALITY = 240, 60
LARGE_SIDE, LARGE_QUALITY = 480, 40
HARDLY_LARGER = 1.2
_USUAL = Reader()


class Thumbnail(NamedTuple):
    """A small and a large picture of an image.

    Attributes:
        source: the small one as a data URI.
        aspect: width / height.
        large: the large one; the small one again where the image is hardly larger.
    """

    source: str
    aspect: float
    large: str


def make_thumbnail(path: str, reader: Reader = _USUAL) -> Thumbnail | None:
    """Reads an image and makes WebP data URIs of it.

    Args:
        path: an image file.
        reader: how the training reads it: the thumbnail shows what it sees.

    Returns:
        The pictures; None if there is no such file or the training cannot read it.
    """
    try:
        large = _small_picture(read_file(path), reader, LARGE_SIDE)
    except Exception:
        # Pillow's readers raise nearly anything on a damaged file, and a picture is never worth the
        # page.
        return None

    small = large.copy()
    small.thumbnail((SIDE, SIDE), reducing_gap=2)
    source = _data_uri(small, QUALITY)
    is_larger = max(large.size) > HARDLY_LARGER * SIDE
    return Thumbnail(
        source=source,
        aspect=small.width / small.height,
        large=_data_uri(large, LARGE_QUALITY) if is_larger else source,
    )


def make_thumbnails(
    paths: Sequence[str], reader: Reader = _USUAL, workers: int | None = None
) -> list[Thumbnail | None]:
    """``make_thumbnail`` for many files, in order, on several threads."""
    make = functools.partial(make_thumbnail, reader=reader)
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(make, paths))


def _data_uri(image: Image.Image, quality: int) -> str:
    target = io.BytesIO()
    image.save(target, 'WEBP', quality=quality)
    data = base64.b64encode(target.getvalue()).decode()
    return f'data:image/webp;base64,{data}'


def _small_picture(data: bytes, reader: Reader, side: int) -> Image.Image:
    """At most ``side`` pixels a side, RGB."""
    if is_plain_jpeg(data, reader):
        return _small_jpeg(data, reader, side)
    pixels = read_pixels(data, reader)
    height, width = pixels.shape[:2]
    factor = max(height, width) // (4 * side)
    if factor > 1:
        # Before Pillow copies what may have hundreds of megabytes.
        width = max(width // factor, 1)
        height = max(height // factor, 1)
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)

    rgb = np.ascontiguousarray(pixels[..., ::-1])
    image = Image.fromarray(rgb)
    image.thumbnail((side, side), reducing_gap=2)

    return image


def _small_jpeg(data: bytes, reader: Reader, side: int) -> Image.Image:
    """The same, decoded at a fraction of its size."""
    file = io.BytesIO(data)
    with Image.open(file) as image:
        image.draft('RGB', (2 * side, 2 * side))
        image.thumbnail((side, side), reducing_gap=2)
        if reader.turns:
            return ImageOps.exif_transpose(image).convert('RGB')
        return image.convert('RGB')
