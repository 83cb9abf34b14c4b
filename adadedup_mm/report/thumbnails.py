"""Small pictures for the page, as data URIs."""

import base64
import functools
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from PIL import Image, ImageOps

from ..images import Reader, is_plain_jpeg, read_file, read_pixels

_USUAL = Reader()


def make_thumbnail(
    path: str, reader: Reader = _USUAL, side: int = 240, quality: int = 60
) -> tuple[str, float] | None:
    """Reads an image and makes a WebP data URI of it.

    Args:
        path: an image file.
        reader: how the training reads it: the thumbnail shows what it sees.
        side: pixels of the longer side.
        quality: of the WebP encoder, 0 to 100.

    Returns:
        The URI and the ratio width / height; None if there is no such file or the training cannot
        read it.
    """
    try:
        small = _small_picture(read_file(path), reader, side)
    except Exception:
        # Pillow's readers raise nearly anything on a damaged file, and a picture is never worth the
        # page.
        return None

    target = io.BytesIO()
    small.save(target, 'WEBP', quality=quality)
    data = base64.b64encode(target.getvalue()).decode()

    return f'data:image/webp;base64,{data}', small.width / small.height


def make_thumbnails(
    paths: Sequence[str], reader: Reader = _USUAL, workers: int | None = None
) -> list[tuple[str, float] | None]:
    """``make_thumbnail`` for many files, in order, on several threads."""
    make = functools.partial(make_thumbnail, reader=reader)
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(make, paths))


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
