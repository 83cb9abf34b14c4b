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
    # Pillow's readers raise nearly anything on a damaged file, and a picture is never worth the
    # page.
    except Exception:
        return None
    target = io.BytesIO()
    small.save(target, 'WEBP', quality=quality)
    return (
        f'data:image/webp;base64,{base64.b64encode(target.getvalue()).decode()}',
        small.width / small.height,
    )


def make_thumbnails(
    paths: Sequence[str], reader: Reader = _USUAL, workers: int | None = None
) -> list[tuple[str, float] | None]:
    """``make_thumbnail`` for many files, in order, on several threads."""
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(functools.partial(make_thumbnail, reader=reader), paths))


def _small_picture(data: bytes, reader: Reader, side: int) -> Image.Image:
    """At most ``side`` pixels a side, RGB."""
    if not is_plain_jpeg(data, reader):
        pixels = read_pixels(data, reader)
        height, width = pixels.shape[:2]
        factor = max(height, width) // (4 * side)
        if factor > 1:  # before Pillow copies what may have hundreds of megabytes
            smaller = max(width // factor, 1), max(height // factor, 1)
            pixels = cv2.resize(pixels, smaller, interpolation=cv2.INTER_AREA)
        # Blue, green and red the other way round.
        image = Image.fromarray(np.ascontiguousarray(pixels[..., ::-1]))
        image.thumbnail((side, side), reducing_gap=2)
        return image
    with Image.open(io.BytesIO(data)) as image:
        image.draft('RGB', (2 * side, 2 * side))
        image.thumbnail((side, side), reducing_gap=2)
        small = ImageOps.exif_transpose(image) if reader.turns else image
        return small.convert('RGB')
